"""Paired comparison of two models on the same cases: differences, intervals and p-values."""

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
    """Compute the two-sided p-value of the signed-rank test (Wilcoxon, Biometrics Bulletin 1(6),
    1945).

    The test assumes independent pairs. Images of one patient are not independent, so the test is
    applied to the mean differences of patients. Zeros are left out as in Wilcoxon's paper. If all
    values are zero, p is 1.

    Args:
        difference: Finite values (n,).
        patients: Patient of each value (n,).
    """
    values = pd.Series(np.asarray(difference, float))
    means = values.groupby(np.asarray(patients)).mean()
    return float(wilcoxon(means).pvalue) if (means != 0).any() else 1.0


def paired_difference(
    difference: pd.Series, patients: pd.Series, evaluate: Evaluate
) -> dict[str, float]:
    """Compute the mean difference with its bootstrap interval over patients, and a p-value.

    Args:
        difference: Second minus first value of each case. Values that are not finite are left out.
        patients: Patient of each case, with the same index.
        evaluate: Section of params.yaml.

    Returns:
        difference, difference_low, difference_high (in the unit of the input) and p of
        `wilcoxon_p`, which are NaN without pairs; and the counts n (pairs), n_patients, rises and
        falls (pairs).
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
    """Join the rows of both models, and add the mean Dice of the dataset's `mean_of` structures.

    Args:
        first: Rows of `heartseg.evaluation.summary.case_metrics` with patient, view, phase and
            quality.
        second: Rows of the other model on the same cases, in any order.
        dataset: "camus" or "mmode".

    Returns:
        case_id, structure (or "mean"), patient, view, phase, quality, and each metric with the
        suffixes _a and _b.

    Raises:
        ValueError: If several cases have the same name, or the two tables have different cases.
    """
    metrics = list(DATASETS[dataset].case_metrics)
    for table in (first, second):
        if table.duplicated(KEY).any():
            raise ValueError("several cases have the same name")
    if set(first["case_id"]) != set(second["case_id"]):
        raise ValueError("the names of the cases differ")
    pairs = first[[*KEY, "patient", *GROUPS, *metrics]].merge(
        second[[*KEY, *metrics]], on=KEY, suffixes=("_a", "_b"), validate="one_to_one"
    )
    if len(DATASETS[dataset].mean_of) == 1:
        return pairs
    counted = pairs[pairs["structure"].isin(DATASETS[dataset].mean_of)]
    mean = counted.groupby(["case_id", "patient", *GROUPS], as_index=False)[["dice_a", "dice_b"]]
    return pd.concat([pairs, mean.mean().assign(structure="mean")], ignore_index=True)


def compare_cases(pairs: pd.DataFrame, dataset: str, evaluate: Evaluate) -> pd.DataFrame:
    """Compare both models by metric, group and structure.

    Args:
        pairs: Rows from `pair_cases`.
        dataset: "camus" or "mmode".
        evaluate: Section of params.yaml.

    Returns:
        A row per metric, group and structure with metric, group ("all", "view", "phase",
        "quality"), value of the group, structure, the means a and b, and the values of
        `paired_difference` for b minus a.
    """
    rows = []
    for group, value, cases in _groups(pairs):
        for structure, part in cases.groupby("structure", sort=False):
            for metric in DATASETS[dataset].case_metrics:
                a, b = part[f"{metric}_a"], part[f"{metric}_b"]
                if metric != "dice" and structure == "mean":
                    continue  # a mean of distances over structures has no meaning
                found = paired_difference(b - a, part["patient"], evaluate)
                about = {"metric": metric, "group": group, "value": value, "structure": structure}
                rows.append(about | {"a": a.mean(), "b": b.mean()} | found)
    return pd.DataFrame(rows)


def most_changed(pairs: pd.DataFrame, dataset: str, count: int) -> pd.DataFrame:
    """Return the `count` cases whose mean Dice differs most, the greatest loss first.

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
    """Yield all cases, then those of each view, phase and quality other than ""."""
    yield "all", "", pairs
    for column in GROUPS:
        for value, group in pairs[pairs[column] != ""].groupby(column):
            yield column, str(value), group


# --- clinical values ----------------------------------------------------------------------


def compare_agreement(
    first: pd.DataFrame, second: pd.DataFrame, dataset: str, evaluate: Evaluate
) -> dict[str, dict[str, Any]]:
    """Compare the agreement of both models with the reference.

    Args:
        first: Table clinical.csv of one model.
        second: Table of the other model on the same cases, in any order.
        dataset: "camus" or "mmode".
        evaluate: Section of params.yaml.

    Returns:
        By quantity, as in report.json: a and b, the agreement of each model from
        `agreement_over_patients`; and error, the `paired_difference` of the absolute errors, b
        minus a, of the cases that were measured with both models.

    Raises:
        ValueError: If the two tables have different cases.
    """
    key = "case_id" if "case_id" in first else "patient"
    tables = [table.set_index(key, drop=False).sort_index() for table in (first, second)]
    if not tables[0].index.equals(tables[1].index):
        raise ValueError("the names of the cases differ")
    patients = tables[0]["patient"]
    pairs = [clinical_pairs(table, dataset) for table in tables]
    found: dict[str, dict[str, Any]] = {}
    for quantity, one in pairs[0].items():
        other, ids = pairs[1][quantity], patients[one.index]
        errors = [(pair["measured"] - pair["reference"]).abs() for pair in (one, other)]
        found[quantity] = {
            "a": agreement_over_patients(one["reference"], one["measured"], ids, evaluate),
            "b": agreement_over_patients(other["reference"], other["measured"], ids, evaluate),
            "error": paired_difference(errors[1] - errors[0], ids, evaluate),
        }
    return found


def clinical_pairs(rows: pd.DataFrame, dataset: str) -> dict[str, pd.DataFrame]:
    """Return tables with the columns reference and measured by quantity.

    A row is a patient, or for M-mode a window.
    """
    if DATASETS[dataset].apical:
        return comparisons(rows)
    pairs = {}
    for quantity in CLINICAL:
        columns = {f"{quantity}_reference": "reference", f"{quantity}_predicted": "measured"}
        pairs[quantity] = rows[list(columns)].rename(columns=columns).astype(float)
    return pairs
