"""Phantoms in the layout of the CAMUS release (Leclerc et al., IEEE TMI 38(9), 2019).

The left ventricle of a patient is a stack of elliptical disks. The views 2CH and 4CH show their two
diameters, so volumes and EF are known. Tissue is a map of scatterers in end-diastolic coordinates.
Every frame samples it at the material position of each pixel, so speckle moves with the walls.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from heartseg.config.data import CamusPhantoms
from heartseg.data.phantoms import map_processes, mark_as_phantom, write_table
from heartseg.data.phantoms.apical import QUALITY, ApicalView
from heartseg.data.phantoms.ultrasound import Sector
from heartseg.data.phantoms.ventricle import Ventricle, random_bulge, random_profile, volume_ml
from heartseg.datasets.camus import VIEWS


@dataclass(frozen=True)
class Patient:
    """True values of a patient.

    Attributes:
        seed, number: Seed of the patient. Numbers start at 1.
        heart: (ED, ES) ventricle by view.
        edv, esv: Volumes in mL.
        frames: Number of frames from ED to ES.
        quality: "Good", "Medium" or "Poor".
        sector: Field of view of both views.
        info: Lines of Info_*.cfg, by key.
    """

    seed: int
    number: int
    heart: dict[str, tuple[Ventricle, Ventricle]]
    edv: float
    esv: float
    frames: int
    quality: str
    sector: Sector
    info: dict[str, str]

    @property
    def name(self) -> str:
        return f"patient{self.number:04d}"

    @property
    def ef(self) -> float:
        """Ejection fraction in percent."""
        return 100 * (1 - self.esv / self.edv)


def write_camus(folder: Path, config: CamusPhantoms, workers: int) -> None:
    """Write the phantoms.

    The first `config.half_sequences` patients also have half sequences. truth.csv contains patient,
    edv_ml, esv_ml and ef_percent, not rounded. The bytes do not depend on `workers`.

    Args:
        folder: Existing folder.
        config: Section of params.yaml.
        workers: Number of processes.
    """
    mark_as_phantom(folder, "apical views", config.seed)
    write = partial(_write_patient, folder, config)
    truth = map_processes(write, range(1, config.patients + 1), workers)
    _write_split(folder / "database_split", [row[0] for row in truth], config.seed)
    write_table(folder / "truth.csv", ["patient", "edv_ml", "esv_ml", "ef_percent"], truth)


def _write_split(folder: Path, names: list[str], seed: int) -> None:
    """Write the three split lists, about 70/10/20 %. None is empty if there are 3 patients."""
    folder.mkdir()
    n = len(names)
    testing = min(max(1, round(0.2 * n)), n - 1)
    validation = min(max(1, round(0.1 * n)), n - 1 - testing)
    shuffled = [names[i] for i in np.random.default_rng([seed, 0]).permutation(n)]
    subsets = {
        "testing": shuffled[:testing],
        "validation": shuffled[testing : testing + validation],
        "training": shuffled[testing + validation :],
    }
    for subset, members in subsets.items():
        lines = "".join(f"{name}\n" for name in sorted(members))
        (folder / f"subgroup_{subset}.txt").write_text(lines, encoding="utf-8")


def _write_patient(
    folder: Path, config: CamusPhantoms, number: int
) -> tuple[str, float, float, float]:
    """Write the files of a patient, and return its row of truth.csv."""
    patient = make_patient(config.seed, number)
    place = folder / "database_nifti" / patient.name
    place.mkdir(parents=True)
    info = "".join(f"{key}: {value}\n" for key, value in patient.info.items())
    last = patient.frames - 1
    for name in VIEWS:
        (place / f"Info_{name}.cfg").write_text(info, encoding="utf-8")
        view = make_view(patient, name)
        wanted = range(patient.frames) if number <= config.half_sequences else (0, last)
        pairs = [view.frame(k, contraction(k / last)) for k in wanted]
        _write_pair(place, f"{patient.name}_{name}_ED", pairs[0], patient.sector)
        _write_pair(place, f"{patient.name}_{name}_ES", pairs[-1], patient.sector)
        if number <= config.half_sequences:
            sequence = tuple(np.stack(frames, axis=-1) for frames in zip(*pairs, strict=True))
            _write_pair(place, f"{patient.name}_{name}_half_sequence", sequence, patient.sector)
    return patient.name, patient.edv, patient.esv, patient.ef


def _write_pair(
    place: Path, stem: str, image_and_mask: tuple[np.ndarray, ...], sector: Sector
) -> None:
    for name, pixels in zip((stem, f"{stem}_gt"), image_and_mask, strict=True):
        (place / f"{name}.nii.gz").write_bytes(_nifti_gz(pixels, sector.spacing))


def _nifti_gz(pixels: np.ndarray, spacing: tuple[float, float]) -> bytes:
    """Return the bytes of a .nii.gz file, which do not depend on time or place."""
    affine = np.diag([-spacing[0], -spacing[1], 1.0, 1.0])
    image = nib.Nifti1Image(pixels, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as stream:
        stream.write(image.to_bytes())
    return buffer.getvalue()


def contraction(time: float) -> float:
    """Return the fraction of the contraction at a time from 0 (ED) to 1 (ES)."""
    return (1 - np.cos(np.pi * time)) / 2


def make_patient(seed: int, number: int) -> Patient:
    """Draw a patient, which is determined by the seed and the number."""
    rng = np.random.default_rng([seed, number])
    ef = rng.uniform(20, 75)
    edv = np.clip((150 - ef) * 1.2 * rng.lognormal(0, 0.25), 55, 260)
    ed = _draw_ventricles(rng, edv)
    es = {view: _contract(rng, ventricle, ef) for view, ventricle in ed.items()}
    es = _scale_to(es, edv * (1 - ef / 100))
    quality = str(rng.choice(["Good", "Medium", "Poor"], p=[0.45, 0.4, 0.15]))
    frames = int(rng.integers(10, 21))
    esv = volume_ml(es["2CH"], es["4CH"])
    edv = volume_ml(ed["2CH"], ed["4CH"])
    info = {
        "ED": "1",
        "ES": str(frames),
        "NbFrame": str(frames),
        "Sex": str(rng.choice(["F", "M"])),
        "Age": str(rng.integers(20, 90)),
        "ImageQuality": quality,
        "EF": f"{100 * (1 - esv / edv):.1f}",
        "FrameRate": f"{rng.uniform(40, 70):.1f}",
    }
    heart = {view: (ed[view], es[view]) for view in VIEWS}
    sector = _draw_sector(rng, ed["4CH"])
    return Patient(seed, number, heart, edv, esv, frames, quality, sector, info)


def _draw_ventricles(rng: np.random.Generator, edv: float) -> dict[str, Ventricle]:
    """Draw both views at end-diastole with the volume `edv` in mL."""
    length = 86 * (edv / 120) ** (1 / 3) * rng.uniform(0.92, 1.1)
    wall, atrium, width = rng.uniform(6.5, 11), rng.uniform(32, 50), rng.uniform(34, 46)
    ventricles = {}
    for view in VIEWS:
        profile = random_profile(rng) * rng.uniform(0.92, 1.08)
        ventricles[view] = Ventricle(
            length=length,
            left=profile * random_bulge(rng, 0.06),
            right=profile * random_bulge(rng, 0.06),
            wall=wall,
            atrium_length=atrium * rng.uniform(0.9, 1.1),
            atrium_width=width * rng.uniform(0.9, 1.1),
            atrium_lean=rng.normal(0, 4),
        )
    return _scale_to(ventricles, edv)


def _contract(rng: np.random.Generator, ed: Ventricle, ef: float) -> Ventricle:
    """Return the ventricle at end-systole, except for its radial scale.

    It is shorter, has a thicker wall and a larger atrium, and contracts unevenly.
    """
    shortened = ed.length * ef / 100 * rng.uniform(0.18, 0.28)
    thickened = ed.wall * ef / 100 * rng.uniform(0.5, 0.9)
    uneven = 0.12 * ef / 100
    return Ventricle(
        length=ed.length - shortened,
        left=ed.left * random_bulge(rng, uneven),
        right=ed.right * random_bulge(rng, uneven),
        wall=ed.wall + thickened,
        atrium_length=ed.atrium_length + shortened - thickened,  # its floor does not move
        atrium_width=ed.atrium_width * rng.uniform(1.03, 1.12),
        atrium_lean=ed.atrium_lean,
    )


def _scale_to(ventricles: dict[str, Ventricle], volume: float) -> dict[str, Ventricle]:
    """Scale the widths of the ventricles so that their volume is `volume` mL."""
    lengths = {v.length for v in ventricles.values()}
    length = sum(lengths) / len(lengths)
    ventricles = {view: replace(v, length=length) for view, v in ventricles.items()}
    scale = np.sqrt(volume / volume_ml(ventricles["2CH"], ventricles["4CH"]))
    return {
        view: replace(v, left=v.left * scale, right=v.right * scale)
        for view, v in ventricles.items()
    }


def _draw_sector(rng: np.random.Generator, ventricle: Ventricle) -> Sector:
    """Draw a field of view that contains the ventricle and a part of the atrium."""
    heart = ventricle.wall + ventricle.length + ventricle.atrium_length * rng.uniform(0.75, 1.25)
    depth = np.clip(heart + rng.uniform(12, 22), 115, 175)
    half_angle = np.radians(rng.uniform(36, 44))
    spacing = (0.308, 0.308)
    if rng.random() < 0.3:
        spacing = (round(rng.uniform(0.33, 0.4), 4), round(rng.uniform(0.28, 0.33), 4))
    width = 2 * round(depth * np.sin(half_angle) / spacing[0])
    return Sector(int(width), int(depth / spacing[1]), spacing, half_angle, 176, int(depth / 0.4))


def make_view(patient: Patient, view: str) -> ApicalView:
    """Return a view ("2CH" or "4CH") of a patient."""
    seed = [patient.seed, patient.number, 1 + VIEWS.index(view)]
    ed, es = patient.heart[view]
    quality = QUALITY[patient.quality]
    return ApicalView(ed, es, view == "4CH", patient.sector, quality, seed)
