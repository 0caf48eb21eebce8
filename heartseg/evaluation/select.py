"""Test-time augmentation and post-processing of a model, decided on patients it has not learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from heartseg.config.params import Evaluate
from heartseg.datasets import DATASETS, structure_mask
from heartseg.metrics.overlap import mask_dice
from heartseg.models.connected_components import keep_largest
from heartseg.models.tta import Tta

PredictionPairs = Callable[[Tta], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Given how to look at images: label maps (H, W), without post-processing, and references."""


def select_postprocessing(
    evaluate: Evaluate, dataset: str, pairs: PredictionPairs, of: str = "val"
) -> dict[str, dict[str, Any]]:
    """Test-time augmentation, then post-processing, by mean Dice.

    Views are taken where they are better by `evaluate.tta_gain` or more, since each costs a
    forward pass; post-processing where it is better at all.

    Args:
        evaluate: the section of params.yaml.
        dataset: the dataset's name.
        pairs: predictions for the patients to decide by; asked only where something is "auto".
        of: who these patients are.

    Returns:
        tta and postprocess, each with chosen, and chosen_on: `of` or "params.yaml"; where auto
        chose, val_dice: the mean Dice of either. Without patients auto chooses none.
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
        of_it = dice[tta["chosen"]]
        better = of_it["largest_component"] > of_it["none"]
        chosen = "largest_component" if better else "none"
        postprocess = {"chosen": chosen, "chosen_on": of, "val_dice": of_it}
    return {"tta": tta, "postprocess": postprocess}


def _given(wanted: str) -> dict[str, Any]:
    return {"chosen": "none" if wanted == "auto" else wanted, "chosen_on": "params.yaml"}


def _mean_dice(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], dataset: str, processes: tuple[str, ...]
) -> dict[str, float]:
    """Mean Dice by post-processing; nothing where there are no pairs."""
    scores: dict[str, list[float]] = {}
    for labels, reference in pairs:
        for process in processes:
            seen = labels
            if process == "largest_component":
                count = len(DATASETS[dataset].labels)
                seen = keep_largest(torch.from_numpy(labels)[None], count)[0].numpy()
            scores.setdefault(process, []).append(_dice(seen, reference, dataset))
    return {process: float(np.mean(values)) for process, values in scores.items()}


def _dice(labels: np.ndarray, reference: np.ndarray, dataset: str) -> float:
    masks = [
        [structure_mask(labelled, dataset, name) for labelled in (labels, reference)]
        for name in DATASETS[dataset].mean_of
    ]
    return float(np.mean([mask_dice(found, real) for found, real in masks]))
