"""How well bad acquisitions are told from good ones: a decision per window, scores 0 to 1."""

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
    """Score every window: a row per window, and counts per animal.

    Args:
        frames: rows of the prepared dataset.
        model: on the device.
        channels: that its network takes.
        device: of the model.
    """
    rows = []
    for frame in frames.to_dict("records"):
        image = torch.from_numpy(decode_image(frame["image"], frame["height"]))
        with torch.inference_mode():
            logits = model.logits(image[None].expand(-1, channels, -1, -1).to(device))
        about = {column: frame[column] for column in ("case_id", "patient", "quality")}
        rows.append(about | {"score": round(bad_scores(logits).item(), 6)})
    windows = pd.DataFrame(rows)
    bad, called = windows["quality"] == "bad", windows["score"] > THRESHOLD
    counts = {"windows": bad | ~bad, "bad": bad, "bad_found": bad & called}
    counts["false_alarms"] = ~bad & called
    animals = pd.DataFrame(counts).groupby(windows["patient"]).sum().reset_index()
    return windows, animals


def summarise_quality(windows: pd.DataFrame, evaluate: Evaluate) -> dict[str, Any]:
    """The part of report.json about a quality model.

    Args:
        windows: a row per window: patient, quality ("good" or "bad"), score (0..1).
        evaluate: the section of params.yaml.

    Returns:
        Counts; auc, sensitivity (the part of the bad windows that is found), specificity (of the
        good ones that is let pass) and their mean, balanced_accuracy; with bootstrap intervals
        over animals, null where one of the labels is absent.
    """
    bad = windows["quality"].eq("bad").to_numpy()
    called = windows["score"].gt(THRESHOLD).to_numpy()
    confusion = {
        "bad_called_bad": int((bad & called).sum()),
        "bad_called_good": int((bad & ~called).sum()),
        "good_called_good": int((~bad & ~called).sum()),
        "good_called_bad": int((~bad & called).sum()),
    }
    summary: dict[str, Any] = {
        "n_patients": int(windows["patient"].nunique()),
        "n_cases": len(windows),
        "n_bad": int(bad.sum()),
        "threshold": THRESHOLD,
        "confusion": confusion,
        **_auc_interval(windows, evaluate),
    }
    for name, of, right in (("sensitivity", bad, called), ("specificity", ~bad, ~called)):
        summary[name] = None
        if of.any():
            animals = windows["patient"][of]
            summary |= named_interval(name, right[of], animals, evaluate, FRACTION)
    if bad.any() and not bad.all():
        summary["balanced_accuracy"] = (summary["sensitivity"] + summary["specificity"]) / 2
    return summary


def _auc_interval(windows: pd.DataFrame, evaluate: Evaluate) -> dict[str, float]:
    """Bootstrap over animals; a sample without one of the labels has no area and is left out."""
    own = [
        (rows["quality"].eq("bad").to_numpy(), rows["score"].to_numpy())
        for _, rows in windows.groupby("patient")
    ]
    rng = np.random.default_rng(evaluate.bootstrap_seed)
    drawn = rng.integers(len(own), size=(evaluate.bootstrap_samples, len(own)))
    areas = [
        area_under_roc(*(np.concatenate([own[i][k] for i in sample]) for k in (0, 1)))
        for sample in drawn
    ]
    known = np.array([area for area in areas if np.isfinite(area)])
    whole = area_under_roc(windows["quality"].eq("bad").to_numpy(), windows["score"].to_numpy())
    low, high = np.nan, np.nan
    if len(known):
        low, high = widened_interval(whole, known, len(own), evaluate.confidence, FRACTION)
    return {"auc": whole, "auc_low": low, "auc_high": high}
