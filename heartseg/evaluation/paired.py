"""Two models on the same cases: what differs, by how much, and whether it may be chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import wilcoxon

from heartseg.config.params import Evaluate
from heartseg.datasets import DATASETS
from heartseg.evaluation.clinical import comparisons
from heartseg.evaluation.summary import CLINICAL
from heartseg.metrics.agreement import agreement_over_patients
from heartseg.metrics.bootstrap import named_interval

KEY = ["case_id", "structure"]
GROUPS = ("view", "phase", "quality")
HIGHER_IS_BETTER = {"dice": True, "hd95_mm": False, "msd_mm": False}


def wilcoxon_p(difference: ArrayLike, patients: ArrayLike) -> float:
    """Two-sided p-value of the signed-rank test (Wilcoxon, Biometrics Bulletin 1(6), 1945).

    The test wants independent pairs, and images of one patient are not: so it is made on the
    patients' mean differences. Zeros are left out, as Wilcoxon did; with nothing but zeros p is 1.

    Args:
        difference: (n,) finite values.
        patients: (n,) the patient of each.
    """
    values = pd.Series(np.asarray(difference, float))
    means = values.groupby(np.asarray(patients)).mean()
    return float(wilcoxon(means).pvalue) if (means != 0).any() else 1.0


def paired_difference(
    difference: pd.Series, patients: pd.Series, evaluate: Evaluate
) -> dict[str, float]:
    """Mean difference with its bootstrap interval over patients, and the Wilcoxon p-value.

    Args:
        difference: second minus first, one per case; pairs that are not finite are left out.
        patients: of the same index.
        evaluate: the section of params.yaml.

    Returns:
        difference, difference_low, difference_high (in the unit of the input), p, n (pairs),
        n_patients, rises and falls (numbers of pairs); all but the numbers NaN without pairs.
    """
    usable = np.isfinite(difference)
    difference, patients = difference[usable], patients[usable]
    found = {
        "n": len(difference),
        "n_patients": int(patients.nunique()),
        "rises": int((difference > 0).sum()),
        "falls": int((difference < 0).sum()),
    }
    if not len(difference):
        undefined = ("difference", "difference_low", "difference_high", "p")
        return found | dict.fromkeys(undefined, np.nan)
    return (
        found
        | named_interval("difference", difference, patients, evaluate)
        | {"p": wilcoxon_p(difference, patients)}
    )


# --- cases --------------------------------------------------------------------------------


def pair_cases(first: pd.DataFrame, second: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Both models' rows side by side, and for Dice the mean of the structures that count.

    Args:
        first: rows of `case_metrics` with patient, view, phase and quality.
        second: those of the other model on the same cases, in any order.
        dataset: "camus" or "mmode".

    Returns:
        case_id, structure (or "mean"), patient, view, phase, quality, and each metric with the
        endings _a and _b.

    Raises:
        ValueError: a name stands for several cases, or the two have not the same cases.
    """
    metrics = list(DATASETS[dataset].case_metrics)
    for table in (first, second):
        if table.duplicated(KEY).any():
            raise ValueError("several cases have the same name")
    if set(first["case_id"]) != set(second["case_id"]):
        raise ValueError("the cases have not the same names")
    pairs = first[[*KEY, "patient", *GROUPS, *metrics]].merge(
        second[[*KEY, *metrics]], on=KEY, suffixes=("_a", "_b"), validate="one_to_one"
    )
    if len(DATASETS[dataset].mean_of) == 1:
        return pairs
    counted = pairs[pairs["structure"].isin(DATASETS[dataset].mean_of)]
    mean = counted.groupby(["case_id", "patient", *GROUPS], as_index=False)[["dice_a", "dice_b"]]
    return pd.concat([pairs, mean.mean().assign(structure="mean")], ignore_index=True)


def compare_cases(pairs: pd.DataFrame, dataset: str, evaluate: Evaluate) -> pd.DataFrame:
    """A row per metric, group and structure.

    Args:
        pairs: of `pair_cases`.
        dataset: "camus" or "mmode".
        evaluate: the section of params.yaml.

    Returns:
        metric, group ("all", "view", "phase", "quality"), value of the group, structure, a and b
        (means), and what `paired_difference` gives, b minus a.
    """
    rows = []
    for group, value, cases in _groups(pairs):
        for structure, own in cases.groupby("structure", sort=False):
            for metric in DATASETS[dataset].case_metrics:
                a, b = own[f"{metric}_a"], own[f"{metric}_b"]
                if metric != "dice" and structure == "mean":
                    continue  # a mean of distances of different structures says nothing
                found = paired_difference(b - a, own["patient"], evaluate)
                about = {"metric": metric, "group": group, "value": value, "structure": structure}
                rows.append(about | {"a": a.mean(), "b": b.mean()} | found)
    return pd.DataFrame(rows)


def most_changed(pairs: pd.DataFrame, dataset: str, count: int) -> pd.DataFrame:
    """The cases whose mean Dice differs most, the greatest loss first.

    Returns:
        case_id, patient, view, phase, quality, dice_a, dice_b and difference (b minus a).
    """
    name = "mean" if len(DATASETS[dataset].mean_of) > 1 else DATASETS[dataset].mean_of[0]
    rows = pairs[pairs["structure"] == name]
    rows = rows.assign(difference=rows["dice_b"] - rows["dice_a"])
    most = rows["difference"].abs().sort_values(ascending=False, kind="stable").index[:count]
    columns = ["case_id", "patient", *GROUPS, "dice_a", "dice_b", "difference"]
    return rows.loc[most, columns].sort_values("difference", kind="stable", ignore_index=True)


def _groups(pairs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """All cases, then those of each view, phase and quality; cases without one are left out."""
    yield "all", "", pairs
    for column in GROUPS:
        for value, group in pairs[pairs[column] != ""].groupby(column):
            yield column, str(value), group


# --- clinical values ----------------------------------------------------------------------


def compare_agreement(
    first: pd.DataFrame, second: pd.DataFrame, dataset: str, evaluate: Evaluate
) -> dict[str, dict[str, Any]]:
    """How well each model agrees with the reference, and whose errors are smaller.

    Args:
        first: clinical.csv of one model.
        second: that of the other, on the same cases in any order.
        dataset: "camus" or "mmode".
        evaluate: the section of params.yaml.

    Returns:
        By quantity (those of report.json): a and b, as `agreement_over_patients` gives them, and
        error, the paired difference of the absolute errors, b minus a, of the cases that both
        models could be measured on.
    """
    key = "case_id" if "case_id" in first else "patient"
    tables = [table.set_index(key, drop=False).sort_index() for table in (first, second)]
    if not tables[0].index.equals(tables[1].index):
        raise ValueError("the cases have not the same names")
    patients = tables[0]["patient"]
    pairs = [clinical_pairs(table, dataset) for table in tables]
    found: dict[str, dict[str, Any]] = {}
    for quantity, one in pairs[0].items():
        other, own = pairs[1][quantity], patients[one.index]
        errors = [(pair["measured"] - pair["reference"]).abs() for pair in (one, other)]
        found[quantity] = {
            "a": agreement_over_patients(one["reference"], one["measured"], own, evaluate),
            "b": agreement_over_patients(other["reference"], other["measured"], own, evaluate),
            "error": paired_difference(errors[1] - errors[0], own, evaluate),
        }
    return found


def clinical_pairs(rows: pd.DataFrame, dataset: str) -> dict[str, pd.DataFrame]:
    """Columns reference and measured by quantity, a row per patient or M-mode window."""
    if DATASETS[dataset].apical:
        return comparisons(rows)
    pairs = {}
    for quantity in CLINICAL:
        columns = {f"{quantity}_reference": "reference", f"{quantity}_predicted": "measured"}
        pairs[quantity] = rows[list(columns)].rename(columns=columns).astype(float)
    return pairs
