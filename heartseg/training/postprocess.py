"""Whether a model's label maps get post-processed, decided on validation patients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from heartseg.data.labels import Camus
from heartseg.data.prepared import decode_png
from heartseg.metrics.overlap import mask_dice
from heartseg.models.components import keep_largest

STRUCTURES = (Camus.LV, Camus.MYO, Camus.LA)


def decide(
    wanted: str, frames: pd.DataFrame, predict: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """The post-processing of a CAMUS model.

    Args:
        wanted: "none", "largest_component" or "auto", as in params.yaml.
        frames: the validation patients' rows of the prepared dataset.
        predict: uint8 image (H, W) to label map, without post-processing.

    Returns:
        chosen: "none" or "largest_component"; chosen_on: "val" or "params.yaml"; where auto
        chose, val_dice: the mean Dice of either. Without validation patients auto chooses none.
    """
    if wanted != "auto" or frames.empty:
        return {"chosen": "none" if wanted == "auto" else wanted, "chosen_on": "params.yaml"}
    scores: dict[str, list[float]] = {"none": [], "largest_component": []}
    for frame in frames.to_dict("records"):
        reference, labels = decode_png(frame["mask"]), predict(decode_png(frame["image"]))
        largest = keep_largest(torch.from_numpy(labels)[None], len(Camus))[0].numpy()
        scores["none"].append(_mean_dice(labels, reference))
        scores["largest_component"].append(_mean_dice(largest, reference))
    dice = {name: float(np.mean(values)) for name, values in scores.items()}
    better = dice["largest_component"] > dice["none"]
    chosen = "largest_component" if better else "none"
    return {"chosen": chosen, "chosen_on": "val", "val_dice": dice}


def _mean_dice(labels: np.ndarray, reference: np.ndarray) -> float:
    return float(np.mean([mask_dice(labels == name, reference == name) for name in STRUCTURES]))
