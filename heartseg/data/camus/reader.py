"""Read CAMUS data: the official release (Leclerc et al., IEEE TMI 38(9), 2019) and its variants.

Images and label maps are found by their names in any folder below the source (see
`heartseg.data.camus.names`). This covers the release, the 2019 challenge with training/ and
testing/, and nnU-Net's imagesTr/ and labelsTr/. Info_VIEW.cfg must be beside the images. The split
lists subgroup_{training,validation,testing}.txt and truth.csv (patient, edv_ml, esv_ml, ef_percent:
true volumes, if known) may be in any folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heartseg.data.camus.files import (
    FrameFiles,
    explain_no_frames,
    explain_no_masks,
    find_duplicates,
    find_unpaired,
    group_by_frame,
    list_files,
    notes_on_labels,
    notes_on_testing,
)
from heartseg.data.camus.names import HALF_SEQUENCE
from heartseg.data.camus.tables import (
    FRAME_LINES,
    INFO_FILE,
    LIST_FILE,
    Info,
    read_info,
    read_split_lists,
    read_truth,
)
from heartseg.data.geometry import Spacing
from heartseg.data.images import Images, read_images, read_labels
from heartseg.data.prepared import Sample
from heartseg.data.source import Survey
from heartseg.datasets.camus import PHASES, VIEWS, Camus
from heartseg.errors import BadFilesError, InputError

SPACING_KEY = "datasets.camus.spacing"


@dataclass(frozen=True)
class CamusCase:
    """End-diastolic or end-systolic frame of one view of one patient.

    Attributes:
        patient: Patient as written in the file name.
        view: "2CH" or "4CH".
        phase: "ED" or "ES".
        image, mask: Paths of the files; None if they do not exist.
        sequence: Path of the half sequence; None if it does not exist.
        info: Contents of Info_VIEW.cfg; None if it does not exist.
        spacing: (row, column) in mm per pixel, used if the image has no plausible scale.
        reference: Known clinical values (see `Sample`).
        problems: Problems found before the images are opened.
    """

    patient: str
    view: str
    phase: str
    image: Path | None
    mask: Path | None
    sequence: Path | None = None
    info: Info | None = None
    spacing: Spacing | None = None
    reference: dict[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def case_id(self) -> str:
        return f"{self.patient}_{self.view}_{self.phase}"

    def read(self) -> Sample:
        """Read image and mask as uint8 (H, W), with the spacing (row, column) in mm per pixel.

        Raises:
            BadFilesError: Files are invalid. It lists every problem of the case.
        """
        problems = list(self.problems)
        image = mask = None
        try:
            image = read_images(self.image) if self.image else None
        except InputError as error:
            problems.append(str(error))
        try:
            mask = read_labels(self.mask, Camus) if self.mask else None
        except InputError as error:
            problems.append(str(error))
        spacing = (image and image.spacing) or self.spacing
        if image and image.spacing is None and self.spacing is None:
            problems.append(
                f"{self.image}: {image.geometry.scale_problem}. If you know its pixel size, set "
                f"{SPACING_KEY}: [row_mm, column_mm] in params.yaml."
            )
        sequences = [
            f"{path}: contains {len(one.frames)} frames. Export only the {self.phase} frame."
            for path, one in ((self.image, image), (self.mask, mask))
            if one and len(one.frames) > 1
        ]
        if image and mask and not sequences:
            problems += self._disagreements(image, mask)
        problems += sequences
        if problems or image is None or mask is None or spacing is None:
            raise BadFilesError("camus", problems)
        notes = [f"{self.case_id}: {note}" for note in dict.fromkeys(image.notes + mask.notes)]
        if image.spacing is None:
            notes.append(
                f"{self.case_id}: {image.geometry.scale_problem}; the {spacing[0]:g} x "
                f"{spacing[1]:g} mm per pixel (row x column) of {SPACING_KEY} are used"
            )
        return Sample(
            case_id=self.case_id,
            patient=self.patient,
            view=self.view,
            phase=self.phase,
            frame=self.info.frames[self.phase] if self.info else 0,
            image=image.frames[0],
            mask=mask.frames[0],
            spacing=spacing,
            quality=self.info.quality if self.info else "",
            reference=self.reference,
            notes=tuple(notes),
        )

    def _disagreements(self, image: Images, mask: Images) -> list[str]:
        """Return problems if the mask does not fit the image."""
        if image.frames.shape != mask.frames.shape:
            sizes = [" x ".join(map(str, one.frames.shape[1:])) for one in (mask, image)]
            return [
                f"{self.mask}: has {sizes[0]} pixels (rows x columns), but its image has "
                f"{sizes[1]}. Export the mask on the grid of the image."
            ]
        own, other = image.geometry.affine, mask.geometry.affine
        if own is None and other is None:
            return []
        if own is None or other is None:
            stated, not_stated = ("mask", "image") if own is None else ("image", "mask")
            return [
                f"{self.mask}: the {stated} states an orientation, but the {not_stated} does not, "
                "so one of them may be flipped. Export the mask with the affine of the image."
            ]
        if not np.allclose(own, other, atol=1e-3):
            return [
                f"{self.mask}: has a different affine than its image. Export the mask on the grid "
                "of the image."
            ]
        return []


# --- contents of the source ---------------------------------------------------------------


def survey(source: Path, use_lists: bool, spacing: Spacing | None = None) -> Survey:
    """Find the patients, frames, reference values and split lists of a source.

    Args:
        source: Folder of the source.
        use_lists: Whether the official split lists are read.
        spacing: (row, column) in mm per pixel for images without a plausible scale.

    Raises:
        InputError: The source does not exist, or contains no frame with a reference mask.
    """
    problems: list[str] = []
    notes: list[str] = []
    files = list_files(source, problems)
    frames = group_by_frame(source, files, notes)
    named = {patient for patient, _, what, _ in frames if what in PHASES}
    patients = {patient for patient, _, what, is_mask in frames if what in PHASES and is_mask}
    if not patients:
        reason = explain_no_masks(source, frames) if named else explain_no_frames(source, files)
        raise InputError("\n  - ".join([reason, *problems]))
    notes += notes_on_testing(source, frames, named - patients)
    volumes: dict[str, dict[str, float]] = {}
    for path in files:
        if path.name.lower() == "truth.csv":
            volumes |= read_truth(path, problems)
        elif path.name.lower() == "dataset.json":
            notes += notes_on_labels(path)
    official = None
    unlisted: dict[str, str] = {}
    if use_lists:
        lists = [path for path in files if LIST_FILE.fullmatch(path.name)]
        if not lists and source.name == "database_nifti":
            lists = sorted((source.parent / "database_split").glob("subgroup_*.txt"))
        official, unlisted = read_split_lists(lists, patients, problems, notes)
    infos = {
        (path.parent, match[1].upper()): path
        for path in files
        if (match := INFO_FILE.fullmatch(path.name))
    }
    if not infos:
        notes.append(
            "no Info_2CH.cfg and Info_4CH.cfg found, so EF, image quality and frame numbers are "
            "unknown"
        )
    filled = {path.parent for paths in frames.values() for path in paths}
    notes += [
        f"{folder.relative_to(source)}: has Info_{view}.cfg, but no images"
        for folder, view in infos
        if folder not in filled
    ]
    cases: list[CamusCase] = []
    for patient in sorted(patients):
        known = (unlisted[patient],) if patient in unlisted else ()
        own = _cases_of(patient, frames, infos, volumes.get(patient, {}), known, spacing)
        found = {(case.view, case.phase) for case in own}
        if missing := [f"{v} {p}" for v in VIEWS for p in PHASES if (v, p) not in found]:
            notes.append(f"{patient}: no {', '.join(missing)}")
        cases += own
    return Survey(sorted(cases, key=lambda case: case.case_id), problems, notes, official)


def _cases_of(
    patient: str,
    frames: FrameFiles,
    infos: dict[tuple[Path, str], Path],
    volumes: dict[str, float],
    known: tuple[str, ...],
    spacing: Spacing | None,
) -> list[CamusCase]:
    """Return the cases of a patient that have an image or a mask.

    Args:
        patient: Patient as written in the file names.
        frames: Images and label maps of the source.
        infos: Paths of Info_VIEW.cfg by folder and view.
        volumes: True volumes of the patient.
        known: Problems of the patient that are already known.
        spacing: (row, column) in mm per pixel for images without a plausible scale.
    """
    cases = []
    for view in VIEWS:
        files = {
            (phase, is_mask): frames.get((patient, view, phase, is_mask), [])
            for phase in PHASES
            for is_mask in (False, True)
        }
        if not any(files.values()):
            continue
        sequences = frames.get((patient, view, HALF_SEQUENCE, False), [])
        problems = [*known, *find_duplicates(sequences)]
        folders = [path.parent for paths in files.values() for path in paths]
        folder = next((one for one in folders if (one, view) in infos), folders[0])
        info = None
        try:
            if (folder, view) in infos:
                info = read_info(infos[folder, view])
            elif infos:
                problems.append(
                    f"{folder / f'Info_{view}.cfg'}: is missing, but other views have this file. "
                    "Copy it from the original data, or write it with the "
                    f"{FRAME_LINES}."
                )
        except InputError as error:
            problems.append(str(error))
        for phase in PHASES:
            images, masks = files[phase, False], files[phase, True]
            if images or masks:
                cases.append(
                    CamusCase(
                        patient=patient,
                        view=view,
                        phase=phase,
                        image=images[0] if images else None,
                        mask=masks[0] if masks else None,
                        sequence=sequences[0] if sequences else None,
                        info=info,
                        spacing=spacing,
                        reference=(info.reference if info else {}) | volumes,
                        problems=(
                            *problems,
                            *find_duplicates(images),
                            *find_duplicates(masks),
                            *find_unpaired(images, masks),
                        ),
                    )
                )
    return cases
