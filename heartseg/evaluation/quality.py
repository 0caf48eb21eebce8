"""Evaluation of a quality model, which gives every M-mode window a probability of bad quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from heartseg.config.params import Evaluate
from heartseg.data.prepared import decode_image
from heartseg.metrics.bootstrap import FRACTION, named_interval, widened_interval
from heartseg.metrics.quality import THRESHOLD, area_under_roc, bad_scores
from heartseg.models.inference import PackagedModel


def measure_windows(
    frames: pd.DataFrame, model: PackagedModel, channels: int, device: torch.device
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every window.

    Args:
        frames: Rows of the prepared dataset.
        model: Model on the device.
        channels: Number of input channels of its network.
        device: Device of the model.

    Returns:
        A table with a row per window, and a table with the counts per animal.
    """
    rows = []
    for frame in frames.to_dict("records"):
        image = torch.from_numpy(decode_image(frame["image"], frame["height"]))
        with torch.inference_mode():
            logits = model.logits(image[None].expand(-1, channels, -1, -1).to(device))
        about = {column: frame[column] for column in ("case_id", "patient", "quality")}
        rows.append(about | {"score": round(bad_scores(logits).item(), 6)})
    windows = pd.DataFrame(rows)
    bad, predicted_bad = windows["quality"] == "bad", windows["score"] > THRESHOLD
    counts = {"windows": bad | ~bad, "bad": bad, "bad_found": bad & predicted_bad}
    counts["false_alarms"] = ~bad & predicted_bad
    animals = pd.DataFrame(counts).groupby(windows["patient"]).sum().reset_index()
    return windows, animals


def summarise_quality(windows: pd.DataFrame, evaluate: Evaluate) -> dict[str, Any]:
    """Compute the part of report.json about a quality model.

    Args:
        windows: A row per window with patient, quality ("good" or "bad") and score (0 to 1).
        evaluate: Section of params.yaml.

    Returns:
        Counts, and with bootstrap intervals over animals: auc; sensitivity, the fraction of bad
        windows above the threshold; specificity, the fraction of good windows below it. The mean
        of the latter two is balanced_accuracy. Values are NaN or None if a label is absent.
    """
    bad = windows["quality"].eq("bad").to_numpy()
    predicted_bad = windows["score"].gt(THRESHOLD).to_numpy()
    confusion = {
        "bad_called_bad": int((bad & predicted_bad).sum()),
        "bad_called_good": int((bad & ~predicted_bad).sum()),
        "good_called_good": int((~bad & ~predicted_bad).sum()),
        "good_called_bad": int((~bad & predicted_bad).sum()),
    }
    summary: dict[str, Any] = {
        "n_patients": int(windows["patient"].nunique()),
        "n_cases": len(windows),
        "n_bad": int(bad.sum()),
        "threshold": THRESHOLD,
        "confusion": confusion,
        **_auc_interval(windows, evaluate),
    }
    for name, label, correct in (
        ("sensitivity", bad, predicted_bad),
        ("specificity", ~bad, ~predicted_bad),
    ):
        summary[name] = None
        if label.any():
            animals = windows["patient"][label]
            summary |= named_interval(name, correct[label], animals, evaluate, FRACTION)
    if bad.any() and not bad.all():
        summary["balanced_accuracy"] = (summary["sensitivity"] + summary["specificity"]) / 2
    return summary


def _auc_interval(windows: pd.DataFrame, evaluate: Evaluate) -> dict[str, float]:
    """Bootstrap the AUC over animals. Samples in which a label is absent are left out."""
    animals = [
        (rows["quality"].eq("bad").to_numpy(), rows["score"].to_numpy())
        for _, rows in windows.groupby("patient")
    ]
    rng = np.random.default_rng(evaluate.bootstrap_seed)
    drawn = rng.integers(len(animals), size=(evaluate.bootstrap_samples, len(animals)))
    areas = [
        area_under_roc(*(np.concatenate([animals[i][k] for i in sample]) for k in (0, 1)))
        for sample in drawn
    ]
    known = np.array([area for area in areas if np.isfinite(area)])
    whole = area_under_roc(windows["quality"].eq("bad").to_numpy(), windows["score"].to_numpy())
    low, high = np.nan, np.nan
    if len(known):
        low, high = widened_interval(whole, known, len(animals), evaluate.confidence, FRACTION)
    return {"auc": whole, "auc_low": low, "auc_high": high}
