"""Results of two models on the same held-out patients, recorded or measured again."""

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
from heartseg.models.inputs import frame_count
from heartseg.tracking.ancestors import cached_cases, recorded_cases
from heartseg.tracking.artifacts import split_cases
from heartseg.tracking.descendants import has_hashed_names
from heartseg.tracking.evaluations import EvaluatedModel, check_comparable
from heartseg.tracking.pulled import fetch_package

if TYPE_CHECKING:
    from heartseg.evaluation.cases import Predict
    from heartseg.models.package import Package

DisplayName = Callable[[str], str]
"""Function from the name of a patient or case to the name that may be shown."""


@dataclass(frozen=True)
class HeldOut:
    """Results of models A and B on the same cases.

    Attributes:
        cases: Tables cases.csv of A and B.
        clinical: Tables clinical.csv of A and B.
        about: Sentence about the cases.
        rows: Rows of the prepared dataset, with the images; empty if it is not available.
        predictors: Prediction functions of A and B; empty if they are not available.
        no_pictures: Reason why rows or predictors are empty, or "".
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
    """Load the evaluations in the MLflow runs of both models.

    Args:
        first: Model A.
        second: Model B.
        prepared: Parquet file of the prepared dataset, for pictures.
        uri: URI of the store.

    Raises:
        InputError: If a model was not evaluated or they were evaluated on different data.
    """
    check_comparable(first, second)
    digest, split = first.metrics["data_digest"], first.metrics["evaluated_on"]
    rows, predictors, no_pictures = pd.DataFrame(), [], ""
    if not prepared.exists() or file_digest(prepared) != digest:
        no_pictures = f"{prepared} does not exist with the recorded MD5 {digest}."
    elif unregistered := [model.title for model in (first, second) if model.model_uri is None]:
        no_pictures = f"not registered: {', '.join(unregistered)}."
    else:
        rows = read_prepared(prepared, split)
        predictors = [load_predictor(uri, model) for model in (first, second)]
    return HeldOut(
        cases=(first.cases, second.cases),
        clinical=(first.clinical, second.clinical),
        about=_about(first.cases, split, digest, "as recorded in their runs"),
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
    """Measure both models on the held-out patients of the local prepared dataset.

    Training patients of either model are left out.

    Args:
        models: Models A and B.
        prepared: Parquet file of the prepared dataset.
        client: Client of the store.
        params: Content of params.yaml.
        shown: Conversion of names into the names that may be shown.

    Raises:
        InputError: If the dataset does not exist, a model is not registered, or no patient is left.
    """
    from heartseg.evaluation.cases import measure_cases
    from heartseg.evaluation.evaluate import held_out_rows
    from heartseg.metrics.plausibility import area_ranges

    dataset = models[0].dataset
    split, rows = held_out_rows(prepared, params.evaluate.split)
    trained = [_training_patients(client, model, prepared, shown) for model in models]
    notes = [
        f"the training patients of {model.title} are not known"
        for model, patients in zip(models, trained, strict=True)
        if not patients
    ]
    unseen = unseen_rows(rows, trained, shown)
    if unseen.empty:
        raise InputError(
            f"every {split} patient of {prepared} is a training patient of one of the models, so "
            "they cannot be compared. Prepare a dataset with patients that are new to both"
        )
    if left_out := rows["patient"].nunique() - unseen["patient"].nunique():
        notes.append(f"{left_out} patients left out, because one of the two was trained on them")
    predictors = [load_predictor(client.tracking_uri, model) for model in models]
    ranges = area_ranges(read_prepared(prepared, "train")) if DATASETS[dataset].apical else {}
    one, other = (measure_cases(unseen, dataset, predict, ranges) for predict in predictors)
    how = "; ".join(["measured again", *notes])
    return HeldOut(
        cases=(one.cases, other.cases),
        clinical=(one.clinical, other.clinical),
        about=_about(one.cases, split, file_digest(prepared), how),
        rows=unseen,
        predictors=predictors,
        no_pictures="",
    )


def _training_patients(
    client: Any, model: EvaluatedModel, prepared: Path, shown: DisplayName
) -> set[str]:
    """Return the training patients of a model; empty if they are not known.

    The names are the real ones, or the names that may be shown.
    """
    run = model.tracked.run
    md5 = run.data.tags["dvc.prepared_md5"]
    if md5 == file_digest(prepared):
        cases = split_cases(prepared)
    elif (cached := next(cached_cases(Path.cwd(), md5), None)) is not None:
        cases = cached
    else:
        cases = next(recorded_cases(client, [run]), {})
        names = {name for patients in cases.values() for name in patients}
        here = {shown(patient) for _, patient, _, _ in read_names(prepared)}
        if has_hashed_names(cases) and names.isdisjoint(here):  # probably hashed with another key
            return set()
    splits = {"train"}
    if "heartseg.crossval" in run.data.tags:  # its folds train on all patients not held out
        splits = set(cases) - {model.metrics.get("evaluated_on", "test")}
    return {patient for split in splits for patient in cases.get(split, ())}


def unseen_rows(
    rows: pd.DataFrame, trained: Sequence[set[str]], shown: DisplayName
) -> pd.DataFrame:
    """Return the rows of patients that no model was trained on.

    Args:
        rows: Rows of the prepared dataset.
        trained: Training patients of each model, by real names or names that may be shown.
        shown: Conversion of names into the names that may be shown.
    """
    seen: set[str] = set().union(*trained)
    is_seen = [name in seen or shown(name) in seen for name in rows["patient"]]
    return rows[~np.array(is_seen, bool)]


def load_predictor(uri: str, model: EvaluatedModel) -> Predict:
    """Load a registered model as a prediction function.

    Args:
        uri: URI of the store.
        model: Model.

    Returns:
        Function from a uint8 image (C, H, W) to its label map and class probabilities.

    Raises:
        InputError: If the model was not registered.
    """
    if model.model_uri is None:
        raise InputError(f"{model.title} was not registered, so it cannot be measured again")
    return package_predictor(fetch_package(uri, model.model_uri)[0])


def package_predictor(package: Package) -> Predict:
    """Load a package as a prediction function, as in `load_predictor`.

    A model of one frame gets the first frame of the image, which is the one to segment. The
    function raises InputError if the image has fewer frames than a model of sequences needs.
    """
    run = package.load_with_probabilities()
    channels = package.metadata["recipe"]["model"]["in_channels"]
    wanted = frame_count(channels)

    def predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(image) != wanted and wanted > 1:
            raise InputError(
                f"{package.name} needs sequences of {wanted} frames and the prepared images have "
                f"{len(image)}; prepare images of {wanted} (datasets.camus.frames)"
            )
        batch = np.repeat(image[:wanted], channels // wanted, axis=0)[None]
        labels, probabilities = run(batch)
        return labels[0], probabilities[0]

    return predict


def changed_cases(
    changed: pd.DataFrame, held_out: HeldOut, dataset: str, shown: DisplayName
) -> list[ChangedCase]:
    """Return images and label maps of the cases that changed most.

    Args:
        changed: Table from `heartseg.evaluation.paired.most_changed`, with real names or names that
            may be shown.
        held_out: Results of both models.
        dataset: "camus" or "mmode".
        shown: Conversion of names into the names that may be shown.

    Returns:
        The cases; empty if images or models are not available.
    """
    frames: dict[str, dict[Any, Any]] = {}
    for row in held_out.rows.to_dict("records"):
        frames |= {row["case_id"]: row, shown(row["case_id"]): row}
    found = []
    for case in changed.to_dict("records"):
        frame = frames.get(case["case_id"])
        if frame is None:  # no images, or the names were hashed with another key
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
