"""Reader for the official CAMUS release (Leclerc et al., IEEE TMI 38(9), 2019).

Layout: database_nifti/PATIENT/PATIENT_VIEW_PHASE[_gt].nii[.gz] and Info_VIEW.cfg beside them,
optionally database_split/subgroup_{training,validation,testing}.txt, and truth.csv
(patient,edv_ml,esv_ml,ef_percent) where the true volumes are known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heartseg.data.camus_tables import PHASES, VIEWS, read_info, read_split_lists, read_truth
from heartseg.data.labels import Camus
from heartseg.data.nifti import RESTORE, Frame, read_frame, to_uint8
from heartseg.data.prepared import Sample
from heartseg.data.source import Survey
from heartseg.errors import BadFilesError, InputError, one_line

NIFTI = (".nii.gz", ".nii")
OTHER = {"ED": "ES", "ES": "ED"}


@dataclass(frozen=True)
class CamusCase:
    """The end-diastolic or end-systolic frame of one view of one patient.

    Attributes:
        image, mask: NIfTI files.
        frame, other_frame: 0-based numbers of this and of the other phase's frame in the half
            sequence.
        problems: known before the images are opened.
    """

    patient: str
    view: str
    phase: str
    image: Path
    mask: Path
    frame: int = 0
    other_frame: int = 0
    quality: str = ""
    reference: dict[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def case_id(self) -> str:
        return f"{self.patient}_{self.view}_{self.phase}"

    def read(self) -> Sample:
        """Image and mask as uint8 (H, W), spacing (row, column) in mm.

        Raises:
            BadFilesError: with every problem of the case.
        """
        problems = list(self.problems)
        loaded = []
        for path in (self.image, self.mask):
            try:
                loaded.append(read_frame(path))
            except InputError as error:
                problems.append(str(error))
        if len(loaded) == 2:
            problems += _disagreements(self, *loaded)
        if problems:
            raise BadFilesError("camus", problems)
        image, mask = loaded
        return Sample(
            case_id=self.case_id,
            patient=self.patient,
            view=self.view,
            phase=self.phase,
            frame=self.frame,
            image=to_uint8(image.pixels),
            mask=mask.pixels.astype(np.uint8),
            spacing=image.spacing,
            quality=self.quality,
            reference=self.reference,
        )


def _disagreements(case: CamusCase, image: Frame, mask: Frame) -> list[str]:
    """Problems of a mask that can be read but does not fit."""
    problems = []
    if image.pixels.shape != mask.pixels.shape:
        problems.append(
            f"{case.mask}: has {mask.pixels.shape} pixels where the image has "
            f"{image.pixels.shape}. Export it on the image's grid."
        )
    elif not np.allclose(image.affine, mask.affine, atol=1e-3):
        problems.append(
            f"{case.mask}: has another affine than the image. Export it on the image's grid."
        )
    known = np.isin(mask.pixels, [label.value for label in Camus])
    if not known.all():
        values = ", ".join(f"{value:g}" for value in np.unique(mask.pixels[~known])[:5])
        problems.append(f"{case.mask}: has label values outside 0-3 ({values}). {RESTORE}")
    return problems


# --- what the source holds ----------------------------------------------------------------


def survey(source: Path, use_lists: bool) -> Survey:
    """Find the patients, frames, reference values and split lists of a release.

    Args:
        source: folder of the release.
        use_lists: whether the official split lists matter.

    Raises:
        InputError: the source does not exist or is no CAMUS release.
    """
    database = source / "database_nifti"
    if not os.path.isdir(source):
        raise InputError(
            f"{source} is no folder; set datasets.camus.source in params.yaml "
            "(or let `dvc repro` make the phantoms)"
        )
    if not os.path.isdir(database):
        raise InputError(
            f"{source} has no folder database_nifti; "
            "point datasets.camus.source at the folder of the CAMUS release"
        )
    folders = [name for name in _listing(database) if os.path.isdir(database / name)]
    if not folders:
        raise InputError(f"{database} holds no patient folder; unpack the CAMUS release there")

    problems: list[str] = []
    notes: list[str] = []
    files_of: dict[str, list[str]] = {}
    for folder in folders:
        try:
            files_of[folder] = _listing(database / folder)
        except InputError as error:
            problems.append(str(error))
    volumes = read_truth(source / "truth.csv", problems)
    official = None
    unlisted: dict[str, str] = {}
    if use_lists:
        # A stray or an emptied folder is no patient whom the lists would have to name.
        patients = {name for name, files in files_of.items() if any(map(_is_nifti, files))}
        official, unlisted = read_split_lists(source / "database_split", patients, problems, notes)
    cases: list[CamusCase] = []
    for patient, files in files_of.items():
        known = (unlisted[patient],) if patient in unlisted else ()
        found = _cases_of(database / patient, files, volumes.get(patient, {}), known)
        cases += found
        notes += _gaps(patient, files, found)
    return Survey(sorted(cases, key=lambda case: case.case_id), problems, notes, official)


def _listing(folder: Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({one_line(error)}). Mend its permissions."
        ) from None


def _is_nifti(name: str) -> bool:
    return name.endswith(NIFTI)


def _gaps(patient: str, files: list[str], cases: list[CamusCase]) -> list[str]:
    """Notes on what a patient lacks, and on images that no case takes."""
    notes = []
    there = {(case.view, case.phase) for case in cases}
    if gaps := [f"{v} {p}" for v in VIEWS for p in PHASES if (v, p) not in there]:
        notes.append(f"{patient}: no {', '.join(gaps)}")
    taken = {path.name for case in cases for path in (case.image, case.mask)}
    other = [
        name
        for name in files
        if _is_nifti(name) and name not in taken and "_half_sequence" not in name
    ]
    if other:
        notes.append(f"{patient}: not used: {', '.join(other)}")
    return notes


def _cases_of(
    folder: Path, files: list[str], volumes: dict[str, float], known: tuple[str, ...]
) -> list[CamusCase]:
    cases = []
    for view in VIEWS:
        pairs = {phase: _pair(folder, files, f"{folder.name}_{view}_{phase}") for phase in PHASES}
        if not any(pairs.values()):
            continue
        problems = list(known)
        info: dict[str, str] = {}
        reference = dict(volumes)
        try:
            info = read_info(folder / f"Info_{view}.cfg")
        except InputError as error:
            problems.append(str(error))
        if "EF" in info:
            reference["reference_ef"] = float(info["EF"])
        for phase, pair in pairs.items():
            if pair:
                cases.append(
                    CamusCase(
                        patient=folder.name,
                        view=view,
                        phase=phase,
                        image=pair[0],
                        mask=pair[1],
                        frame=int(info.get(phase, 1)) - 1,
                        other_frame=int(info.get(OTHER[phase], 1)) - 1,
                        quality=info.get("ImageQuality", ""),
                        reference=reference,
                        problems=tuple(problems),
                    )
                )
    return cases


def _pair(folder: Path, files: list[str], stem: str) -> tuple[Path, Path] | None:
    """Image and mask of a frame, None where the folder has neither."""
    images = [stem + ending for ending in NIFTI if stem + ending in files]
    masks = [f"{stem}_gt{ending}" for ending in NIFTI if f"{stem}_gt{ending}" in files]
    if not images and not masks:
        return None
    image, mask = [*images, f"{stem}.nii.gz"][0], [*masks, f"{stem}_gt.nii.gz"][0]
    return folder / image, folder / mask
