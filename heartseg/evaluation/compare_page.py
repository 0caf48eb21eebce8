"""The comparison of two models as one HTML page with embedded pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from heartseg.config.nested import leaves
from heartseg.datasets import DATASETS
from heartseg.evaluation.paired import HIGHER_IS_BETTER
from heartseg.report.card import GROUPS, SURFACE
from heartseg.report.colours import COLOURS
from heartseg.report.figures import bland_altman, picture
from heartseg.report.markdown import interval, number
from heartseg.report.overlay import draw

TEMPLATE = Path(__file__).with_name("compare_page.html")
SIDE = 320  # pixels, of a case's picture
ABSENT = "absent"
Diff = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        title: Title of the model.
        about: Properties of the model by name, such as run and commit. Both sides have the same
            names.
        recipe: Recipe of the training.
    """

    title: str
    about: dict[str, str]
    recipe: dict[str, Any]


@dataclass(frozen=True)
class ChangedCase:
    """A case of which the page shows pictures.

    Attributes:
        title: Name of the case as it may be shown, and the change of its Dice.
        image: uint8 (H, W).
        labels: Label maps (H, W) of A, B and the reference.
        spacing: (row, column) in mm; None draws square pixels.
    """

    title: str
    image: np.ndarray
    labels: tuple[np.ndarray, np.ndarray, np.ndarray]
    spacing: tuple[float, float] | None


def comparison_page(
    sides: tuple[Side, Side],
    dataset: str,
    data: str,
    differences: pd.DataFrame,
    agreement: dict[str, dict[str, Any]],
    ef: Sequence[pd.DataFrame],
    cases: Sequence[ChangedCase],
    no_pictures: str,
    confidence: float,
) -> str:
    """Return the HTML page that compares two models.

    Args:
        sides: Models A and B.
        dataset: "camus" or "mmode".
        data: Sentence about the evaluation data.
        differences: Table from `heartseg.evaluation.paired.compare_cases`.
        agreement: Result of `heartseg.evaluation.paired.compare_agreement`; empty if no clinical
            values were measured.
        ef: For A and B, the columns reference and measured of the first quantity of `agreement`.
        cases: Cases whose Dice changed most.
        no_pictures: Reason why there are no pictures of cases, or "".
        confidence: Confidence level of the intervals, for example 0.95.
    """
    first, second = sides
    recipe, same = recipe_difference(first.recipe, second.recipe)
    name = next(iter(clinical_names(agreement, dataset).values()), "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        a=first,
        b=second,
        verdict=verdict(differences),
        data=data,
        about=[(key, first.about[key], second.about[key]) for key in first.about],
        confidence=f"{100 * confidence:g}",
        people=DATASETS[dataset].subjects,
        n_tests=len(differences) + len(agreement),
        forest=figure_uri(forest_plot(differences)),
        metrics=[
            {"name": SURFACE[str(metric)], "rows": _rows(rows)}
            for metric, rows in differences.groupby("metric", sort=False)
        ],
        clinical=_clinical(agreement, dataset),
        charts=[
            (f"{letter}: {name}", figure_uri(bland_altman(p.reference, p.measured, *_unit(name))))
            for letter, p in zip("AB", ef, strict=False)
        ],
        recipe=recipe,
        n_same=same,
        cases=[{"title": case.title, "pictures": _pictures(case, dataset)} for case in cases],
        no_pictures=no_pictures,
    )


def verdict(differences: pd.DataFrame) -> str:
    """Describe the difference in Dice over all cases in a sentence."""
    row = overall(differences)
    bounds = interval(row["difference_low"], row["difference_high"], 4)
    if row["difference_low"] > 0:
        word = "B is better"
    elif row["difference_high"] < 0:
        word = "A is better"
    elif math.isnan(row["difference_low"]):
        word = f"Too few patients ({row['n_patients']}) for an interval"
    else:
        word = "No difference is shown"
    return (
        f"{word}: mean Dice {row['a']:.4f} (A), {row['b']:.4f} (B), B − A "
        f"{_signed(row['difference'], 4)} [{bounds}], p {p_value(row['p'])}. B is better in "
        f"{row['rises']} and worse in {row['falls']} of {row['n']} images."
    )


def overall(differences: pd.DataFrame) -> dict[Hashable, Any]:
    """Return the row of Dice over all cases, for the mean of structures or the only structure."""
    rows = differences[(differences["metric"] == "dice") & (differences["group"] == "all")]
    return {str(key): value for key, value in rows.iloc[-1].items()}  # "mean" is the last row


def recipe_difference(first: dict[str, Any], second: dict[str, Any]) -> tuple[Diff, int]:
    """Return the differing values of two recipes (key, A, B), and the number of equal values."""
    one, other = ({".".join(key): str(v) for key, v in leaves(r)} for r in (first, second))
    keys = list(one | other)
    pairs = [(key, one.get(key, ABSENT), other.get(key, ABSENT)) for key in keys]
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    return differing, len(keys) - len(differing)


def forest_plot(differences: pd.DataFrame) -> Figure:
    """Draw the differences of Dice with intervals: a row per group, a colour per structure."""
    rows = differences[differences["metric"] == "dice"]
    groups = list(dict.fromkeys(_group(row) for _, row in rows.iterrows()))
    structures = list(dict.fromkeys(rows["structure"]))
    figure = Figure(figsize=(8.5, 0.9 + 0.42 * len(groups)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, structure in enumerate(structures):
        part = rows[rows["structure"] == structure]
        offset = (place - (len(structures) - 1) / 2) * 0.7 / len(structures)
        y = [groups.index(_group(row)) + offset for _, row in part.iterrows()]
        middle, low, high = (part[f"difference{end}"] for end in ("", "_low", "_high"))
        colour = COLOURS.get(structure, "black")
        axes.hlines(y, low, high, color=colour, linewidth=1.5)
        axes.plot(middle, y, "o", color=colour, markersize=4, label=structure)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set_xlabel("Dice, B − A (right of 0: B is better)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def clinical_names(agreement: dict[str, Any], dataset: str) -> dict[str, str]:
    """Return names with units of the quantities in `agreement`, in the order of the model card."""
    names = {key.removeprefix("ef."): text for key, text in DATASETS[dataset].clinical.items()}
    return {key: text for key, text in names.items() if key in agreement}


def p_value(p: float) -> str:
    """Format a p-value with three decimals."""
    return "< 0.001" if p < 0.001 else number(p, 3)


def figure_uri(figure: Figure) -> str:
    """Encode a figure as a data URI with a PNG image."""
    buffer = io.BytesIO()
    picture(figure).save(buffer, format="PNG", optimize=True)
    return _uri("png", buffer)


def image_uri(image: Image.Image) -> str:
    """Encode an image as a data URI with a JPEG image."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88, subsampling=0)
    return _uri("jpeg", buffer)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pictures(case: ChangedCase, dataset: str) -> list[tuple[str, str]]:
    drawn = [draw(case.image, labels, dataset, case.spacing, SIDE) for labels in case.labels]
    plain = Image.fromarray(case.image).resize(drawn[0].size, Image.Resampling.BILINEAR)
    names = ("image", "A", "B", "reference")
    return list(zip(names, map(image_uri, (plain, *drawn)), strict=True))


def _rows(rows: pd.DataFrame) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for record in rows.to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        better = HIGHER_IS_BETTER[row["metric"]]
        digits = 4 if row["metric"] == "dice" else 2
        group = _group(row)
        counts = (row["rises"], row["falls"]) if better else (row["falls"], row["rises"])
        start = "" if found and found[-1]["of"] == group else "start"
        found.append(
            {
                "of": group,
                "group": group if start else "",
                "start": start,
                "structure": row["structure"],
                "n": str(row["n"]),
                "a": number(row["a"], digits),
                "b": number(row["b"], digits),
                "difference": _bounded(row, digits),
                "side": _side(row, better),
                "p": p_value(row["p"]),
                "better": str(counts[0]),
                "worse": str(counts[1]),
            }
        )
    return found


def _clinical(agreement: dict[str, dict[str, Any]], dataset: str) -> list[dict[str, Any]]:
    rows = []
    for key, name in clinical_names(agreement, dataset).items():
        error = agreement[key]["error"]
        sides = {letter: _agreement(agreement[key][letter]) for letter in "ab"}
        rows.append(
            {"name": name, "p": p_value(error["p"]), "side": _side(error, False)}
            | {"difference": f"{_bounded(error, 2)}, n {error['n']}"}
            | sides
        )
    return rows


def _agreement(found: dict[str, float]) -> list[str]:
    return [
        f"{number(found['bias'], 2)} [{interval(found['bias_low'], found['bias_high'], 2)}]",
        interval(found["loa_low"], found["loa_high"], 2),
        f"{number(found['mae'], 2)} [{interval(found['mae_low'], found['mae_high'], 2)}]",
        number(found["r"], 2),
        number(found["icc"], 2),
        str(found["n"]),
        str(found["missing"]),
    ]


def _bounded(found: Mapping[Any, Any], digits: int) -> str:
    low, high = found["difference_low"], found["difference_high"]
    return f"{_signed(found['difference'], digits)} [{interval(low, high, digits)}]"


def _side(found: Mapping[Any, Any], higher_is_better: bool) -> str:
    """Return the CSS class of B: "better", "worse", or "" if the interval contains zero."""
    if found["difference_low"] > 0:
        return "better" if higher_is_better else "worse"
    if found["difference_high"] < 0:
        return "worse" if higher_is_better else "better"
    return ""


def _group(row: Any) -> str:
    return "all" if row["group"] == "all" else f"{GROUPS['by_' + row['group']]} {row['value']}"


def _signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return f"+{text}" if value > 0 else text


def _unit(name: str) -> tuple[str, str]:
    """Split a name such as "EF against the recorded one (points)" into quantity and unit."""
    quantity, _, unit = name.removesuffix(")").partition(" (")
    return quantity.split(" against")[0], unit
