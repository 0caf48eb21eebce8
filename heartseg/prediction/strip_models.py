"""Registered models of M-mode windows, applied to strips of any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from heartseg.config.params import Params
from heartseg.data.species import SPECIES
from heartseg.data.strips.cut_windows import window_size
from heartseg.data.strips.quality import BAD, GOOD, QualityLabels, find_spans
from heartseg.data.strips.recordings import Strip
from heartseg.errors import InputError
from heartseg.models.sliding_window import bad_columns
from heartseg.tracking.client import tracking_uri

Predict = Callable[[np.ndarray], np.ndarray]
"""Function from gray windows, uint8 (N, 1, H, W), to label maps, uint8 (N, H, W)."""


def pull_predictor(model: str, dataset: str) -> Predict:
    """Return the prediction function of a registered model.

    Args:
        model: URI of the model.
        dataset: Dataset on which it must have been trained, "mmode" or "mmode-quality".

    Raises:
        InputError: There is no such model, or it was trained on another dataset.
    """
    from heartseg.tracking.pulled import pull

    pulled = pull(tracking_uri(Path.cwd()), model)
    if pulled.metadata["dataset"] != dataset:
        raise InputError(
            f"{model} was trained on {pulled.metadata['dataset']}; use a model of M-mode, "
            f"for example models:/heartseg-{dataset}@champion"
        )
    channels = pulled.metadata["recipe"]["model"]["in_channels"]
    return lambda windows: pulled.predict(np.repeat(windows, channels, axis=1))


def window_layout(strip: Strip, params: Params, rates: tuple[float, float]) -> tuple[int, float]:
    """Return the width of a strip's windows in columns, as in training, and their overlap."""
    width, _ = window_size(strip, params.windows, rates)
    return width, params.recording.overlap


def find_bad_columns(
    classify: Predict, strip: Strip, params: Params, rates: tuple[float, float]
) -> np.ndarray:
    """Return the columns of a strip that a model of quality finds bad, bool (W,)."""
    return bad_columns(classify, strip.image, *window_layout(strip, params, rates))


def label_strips(
    strips: Sequence[Strip], labels: QualityLabels, model: str, params: Params, notes: list[str]
) -> None:
    """Add the spans that a model of quality finds to the labels, for strips without labels.

    Args:
        strips: Strips to label.
        labels: Labels from files, to which spans are added.
        model: URI of the model.
        params: Content of params.yaml.
        notes: List to which notes on labelled strips are added.
    """
    classify = pull_predictor(model, "mmode-quality")
    rates = SPECIES[params.datasets.mmode.species].rates
    for strip in strips:
        if strip.name in labels.spans or labels.labels_window_of(strip.name):
            notes.append(f"{strip.name}: its quality labels are used instead of {model}")
            continue
        bad = find_bad_columns(classify, strip, params, rates)
        labels.spans[strip.name] = [
            (start, end, label)
            for label, columns in ((GOOD, ~bad), (BAD, bad))
            for start, end in find_spans(columns, strip.spacing[1])
        ]
