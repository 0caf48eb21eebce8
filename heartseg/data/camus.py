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
from heartseg.data.geometry import Spacing
from heartseg.data.images import Images, read_images, read_labels
from heartseg.data.labels import Camus
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
        spacing: (row, column) in mm, given by the user; None takes that of the files.
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
    spacing: Spacing | None = None

    @property
    def case_id(self) -> str:
        return f"{self.patient}_{self.view}_{self.phase}"

    def read(self) -> Sample:
        """Image and mask as uint8 (H, W), spacing (row, column) in mm.

        Raises:
            BadFilesError: with every problem of the case.
        """
        problems = list(self.problems)
        image = mask = None
        try:
            image = read_images(self.image, spacing=self.spacing)
            problems += _unfit(self.image, image)
        except InputError as error:
            problems.append(str(error))
        try:
            mask = read_labels(self.mask, Camus)
        except InputError as error:
            problems.append(str(error))
        if image and mask:
            problems += _disagreements(self, image, mask)
        if problems or image is None or mask is None or image.spacing is None:
            raise BadFilesError("camus", problems)
        return Sample(
            case_id=self.case_id,
            patient=self.patient,
            view=self.view,
            phase=self.phase,
            frame=self.frame,
            image=image.frames[0],
            mask=mask.frames[0],
            spacing=image.spacing,
            quality=self.quality,
            reference=self.reference,
        )


def _unfit(path: Path, image: Images) -> list[str]:
    """Why an image that can be read is no training image."""
    problems = []
    if len(image.frames) > 1:
        problems.append(f"{path}: holds {len(image.frames)} frames. Give one frame per file.")
    if image.spacing is None:
        problems.append(
            f"{path}: {image.geometry.doubt}. Mend its header, or give the scale of all files in "
            "mm as datasets.camus.spacing: [row, column] in params.yaml."
        )
    return problems


def _disagreements(case: CamusCase, image: Images, mask: Images) -> list[str]:
    """Problems of a mask that can be read but does not fit."""
    remedy = "Export the mask on the image's grid."
    if len(mask.frames) > 1:
        return [f"{case.mask}: holds {len(mask.frames)} frames. Give one frame per file."]
    own, other = image.frames.shape[1:], mask.frames.shape[1:]
    if own != other:
        return [f"{case.mask}: has {other} pixels where the image has {own}. {remedy}"]
    affines = image.geometry.affine, mask.geometry.affine
    if all(affines) and not np.allclose(*affines, atol=1e-3):
        return [f"{case.mask}: has another affine than the image. {remedy}"]
    return []


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
