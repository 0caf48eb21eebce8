"""Selection of test-time augmentation and post-processing on patients outside of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from heartseg.config.params import Evaluate
from heartseg.datasets import DATASETS, structure_mask
from heartseg.metrics.overlap import mask_dice
from heartseg.models.connected_components import keep_largest_components
from heartseg.models.tta import Tta

PredictionPairs = Callable[[Tta], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Function from a kind of test-time augmentation to pairs of a predicted label map (H, W), without
post-processing, and its reference (H, W)."""


def select_postprocessing(
    evaluate: Evaluate, dataset: str, pairs: PredictionPairs, of: str = "val"
) -> dict[str, dict[str, Any]]:
    """Select test-time augmentation, then post-processing, by mean Dice.

    Augmented views are selected if they are better by `evaluate.tta_gain` or more, because each
    view costs a forward pass. Post-processing is selected if it is better by any amount.

    Args:
        evaluate: Section of params.yaml.
        dataset: Name of the dataset.
        pairs: Predictions for the patients. It is called only if a setting is "auto".
        of: Name of these patients, for the report.

    Returns:
        The keys tta and postprocess, each with chosen, and with chosen_on: `of` or "params.yaml".
        After an automatic selection they also have val_dice, the mean Dice of both alternatives.
        Without patients, "auto" selects "none".
    """
    spec = DATASETS[dataset]
    processes = spec.postprocesses
    wanted = evaluate.postprocess if len(processes) > 1 else "none"
    wanted_tta = evaluate.tta if len(spec.views) > 1 else "none"
    ttas: tuple[Tta, ...] = ("none", "views") if wanted_tta == "auto" else (wanted_tta,)
    if wanted != "auto":
        processes = ("none",)
    dice: dict[Tta, dict[str, float]] = {}
    if len(ttas) > 1 or len(processes) > 1:
        dice = {tta: _mean_dice(pairs(tta), dataset, processes) for tta in ttas}
    known = any(dice.values())

    tta = _given(wanted_tta)
    if wanted_tta == "auto" and known:
        found = {name: values["none"] for name, values in dice.items()}
        better = found["views"] - found["none"] >= evaluate.tta_gain
        tta = {"chosen": "views" if better else "none", "chosen_on": of, "val_dice": found}
    postprocess = _given(wanted)
    if wanted == "auto" and known:
        by_process = dice[tta["chosen"]]
        better = by_process["largest_component"] > by_process["none"]
        chosen = "largest_component" if better else "none"
        postprocess = {"chosen": chosen, "chosen_on": of, "val_dice": by_process}
    return {"tta": tta, "postprocess": postprocess}


def _given(wanted: str) -> dict[str, Any]:
    return {"chosen": "none" if wanted == "auto" else wanted, "chosen_on": "params.yaml"}


def _mean_dice(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], dataset: str, processes: tuple[str, ...]
) -> dict[str, float]:
    """Return the mean Dice by post-processing; empty without pairs."""
    scores: dict[str, list[float]] = {}
    for labels, reference in pairs:
        for process in processes:
            processed = labels
            if process == "largest_component":
                count = len(DATASETS[dataset].labels)
                batch = torch.from_numpy(labels)[None]
                processed = keep_largest_components(batch, count)[0].numpy()
            scores.setdefault(process, []).append(_dice(processed, reference, dataset))
    return {process: float(np.mean(values)) for process, values in scores.items()}


def _dice(labels: np.ndarray, reference: np.ndarray, dataset: str) -> float:
    masks = [
        [structure_mask(labelled, dataset, name) for labelled in (labels, reference)]
        for name in DATASETS[dataset].mean_of
    ]
    return float(np.mean([mask_dice(found, real) for found, real in masks]))
