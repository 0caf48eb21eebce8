"""Two models on the same held-out patients: as their runs keep it, or measured anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartseg.config.params import Params
from heartseg.data.prepared import decode_image, decode_png, file_digest, read_names, read_prepared
from heartseg.datasets import DATASETS
from heartseg.errors import InputError
from heartseg.evaluation.compare_page import ChangedCase
from heartseg.models.inputs import frames_of
from heartseg.tracking.artifacts import split_cases
from heartseg.tracking.descendants import has_hashed_names
from heartseg.tracking.evaluations import EvaluatedModel, check_comparable
from heartseg.tracking.lineage import cached_cases, recorded_cases
from heartseg.tracking.pulled import fetch_package

if TYPE_CHECKING:
    from heartseg.evaluation.cases import Predict
    from heartseg.models.package import Package

DisplayName = Callable[[str], str]
"""A patient's or a case's name as others may see it."""


@dataclass(frozen=True)
class HeldOut:
    """What both models did on the same cases.

    Attributes:
        cases: cases.csv of A and of B.
        clinical: clinical.csv of both.
        about: what the cases are, in a sentence.
        rows: of the prepared dataset, with the images; empty where it is not here.
        predictors: the models; empty where they are not needed or not to be had.
        no_pictures: why rows or predictors are empty.
    """

    cases: tuple[pd.DataFrame, pd.DataFrame]
    clinical: tuple[pd.DataFrame, pd.DataFrame]
    about: str
    rows: pd.DataFrame
    predictors: list[Predict]
    no_pictures: str


def load_recorded(
    first: EvaluatedModel, second: EvaluatedModel, prepared: Path, uri: str
) -> HeldOut:
    """What the runs of both keep, if they were evaluated on the same data.

    Raises:
        InputError: they were not, or one of them was not evaluated.
    """
    check_comparable(first, second)
    digest, split = first.metrics["data_digest"], first.metrics["evaluated_on"]
    rows, predictors, no_pictures = pd.DataFrame(), [], ""
    if not prepared.exists() or file_digest(prepared) != digest:
        no_pictures = f"{prepared} is not here as it was then (MD5 {digest})."
    elif strangers := [own.title for own in (first, second) if own.model_uri is None]:
        no_pictures = f"not registered: {', '.join(strangers)}."
    else:
        rows = read_prepared(prepared, split)
        predictors = [load_predictor(uri, own) for own in (first, second)]
    return HeldOut(
        cases=(first.cases, second.cases),
        clinical=(first.clinical, second.clinical),
        about=_about(first.cases, split, digest, "as their runs keep it"),
        rows=rows,
        predictors=predictors,
        no_pictures=no_pictures,
    )


def measure_again(
    models: tuple[EvaluatedModel, EvaluatedModel],
    prepared: Path,
    client: Any,
    params: Params,
    shown: DisplayName,
) -> HeldOut:
    """Both models measured on the held-out patients of the prepared dataset here.

    Patients that one of them was trained on are left out.

    Raises:
        InputError: no dataset, a model that is not registered, or nobody is left.
    """
    from heartseg.evaluation.cases import measure_cases
    from heartseg.evaluation.evaluate import held_out_rows
    from heartseg.metrics.plausibility import area_ranges

    dataset = models[0].dataset
    split, rows = held_out_rows(prepared, params.evaluate.split)
    trained = [_learnt_from(client, own, prepared, shown) for own in models]
    notes = [
        f"which patients {own.title} was trained on is not known"
        for own, patients in zip(models, trained, strict=True)
        if not patients
    ]
    unseen = unseen_rows(rows, trained, shown)
    if unseen.empty:
        raise InputError(
            f"one of the models was trained on every {split} patient of {prepared}: nothing that "
            "it says about them counts. Prepare a dataset with patients that neither has seen"
        )
    if left_out := rows["patient"].nunique() - unseen["patient"].nunique():
        notes.append(f"{left_out} patients left out, on whom one of the two was trained")
    predictors = [load_predictor(client.tracking_uri, own) for own in models]
    ranges = area_ranges(read_prepared(prepared, "train")) if DATASETS[dataset].apical else {}
    one, other = (measure_cases(unseen, dataset, predict, ranges) for predict in predictors)
    how = "; ".join(["measured anew", *notes])
    return HeldOut(
        cases=(one.cases, other.cases),
        clinical=(one.clinical, other.clinical),
        about=_about(one.cases, split, file_digest(prepared), how),
        rows=unseen,
        predictors=predictors,
        no_pictures="",
    )


def _learnt_from(client: Any, own: EvaluatedModel, prepared: Path, shown: DisplayName) -> set[str]:
    """The patients that a model was trained on, by their real names or as they are shown here;
    none where that cannot be told."""
    run = own.tracked.run
    md5 = run.data.tags["dvc.prepared_md5"]
    if md5 == file_digest(prepared):
        cases = split_cases(prepared)
    elif (cached := next(cached_cases(Path.cwd(), md5), None)) is not None:
        cases = cached
    else:
        cases = next(recorded_cases(client, [run]), {})
        names = {name for patients in cases.values() for name in patients}
        here = {shown(patient) for _, patient, _, _ in read_names(prepared)}
        if has_hashed_names(cases) and names.isdisjoint(
            here
        ):  # by another key, as far as can be told
            return set()
    splits = {"train"}
    if "heartseg.crossval" in run.data.tags:  # its folds train on all who are not held out
        splits = set(cases) - {own.metrics.get("evaluated_on", "test")}
    return {patient for split in splits for patient in cases.get(split, ())}


def unseen_rows(
    rows: pd.DataFrame, trained: Sequence[set[str]], shown: DisplayName
) -> pd.DataFrame:
    """The rows of patients that no model was trained on.

    Args:
        rows: of the prepared dataset.
        trained: each model's training patients, by their real names or as they are shown.
        shown: how names are shown.
    """
    seen: set[str] = set().union(*trained)
    own = [name in seen or shown(name) in seen for name in rows["patient"]]
    return rows[~np.array(own, bool)]


def load_predictor(uri: str, model: EvaluatedModel) -> Predict:
    """A registered model, from a uint8 image (C, H, W) to label map and class probabilities.

    Raises:
        InputError: it was not registered.
    """
    if model.model_uri is None:
        raise InputError(f"{model.title} was not registered, so it cannot be measured again")
    return package_predictor(fetch_package(uri, model.model_uri)[0])


def package_predictor(package: Package) -> Predict:
    """As `load_predictor`. A model of one frame takes the first one, which is the one segmented.

    The predictor refuses images of fewer frames than the model takes by an InputError.
    """
    run = package.load_with_probabilities()
    channels = package.metadata["recipe"]["model"]["in_channels"]
    wanted = frames_of(channels)

    def predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(image) != wanted and wanted > 1:
            raise InputError(
                f"{package.name} takes sequences of {wanted} frames and the prepared images have "
                f"{len(image)}; prepare images of {wanted} (datasets.camus.frames)"
            )
        batch = np.repeat(image[:wanted], channels // wanted, axis=0)[None]
        labels, probabilities = run(batch)
        return labels[0], probabilities[0]

    return predict


def changed_cases(
    changed: pd.DataFrame, held_out: HeldOut, dataset: str, shown: DisplayName
) -> list[ChangedCase]:
    """Images and label maps of the cases that changed most; none without images and models.

    Args:
        changed: of `heartseg.evaluation.paired.most_changed`, by real names or as they are shown.
        held_out: the cases.
        dataset: "camus" or "mmode".
        shown: how names are shown.
    """
    frames: dict[str, dict[Any, Any]] = {}
    for row in held_out.rows.to_dict("records"):
        frames |= {row["case_id"]: row, shown(row["case_id"]): row}
    found = []
    for case in changed.to_dict("records"):
        frame = frames.get(case["case_id"])
        if frame is None:  # no images here, or the names were shown by another key
            continue
        image = decode_image(frame["image"], frame["height"])
        one, other = (predict(image)[0] for predict in held_out.predictors)
        quality = f", image quality {case['quality']}" if case["quality"] else ""
        dice = f"Dice {case['dice_a']:.3f} (A), {case['dice_b']:.3f} (B)"
        found.append(
            ChangedCase(
                title=f"{shown(frame['case_id'])}{quality}: {dice}, {case['difference']:+.3f}",
                image=image[0],
                labels=(one, other, decode_png(frame["mask"])),
                spacing=(frame["spacing_row"], frame["spacing_col"])
                if DATASETS[dataset].apical
                else None,
            )
        )
    return found


def _about(cases: pd.DataFrame, split: str, digest: str, how: str) -> str:
    return (
        f"{cases['case_id'].nunique()} images of {cases['patient'].nunique()} patients (animals), "
        f"the {split} split of the prepared dataset with MD5 {digest}; {how}."
    )
