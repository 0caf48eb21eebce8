"""Parts of the page that compares two models."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heartseg.evaluation.compare_page import (
    ChangedCase,
    Side,
    comparison_page,
    image_uri,
    recipe_difference,
)


def test_recipes_differ_by_values_and_by_keys() -> None:
    first = {"epochs": 3, "model": {"name": "unet", "channels": [4, 8]}, "seed": 0}
    second = {"epochs": 3, "model": {"name": "quicknat", "filters": 16}, "seed": 1}
    differing, same = recipe_difference(first, second)
    assert differing == [
        ("model.name", "unet", "quicknat"),
        ("model.channels", "[4, 8]", "absent"),
        ("seed", "0", "1"),
        ("model.filters", "absent", "16"),
    ]
    assert same == 1


def test_a_picture_is_within_the_page() -> None:
    pixels = np.full((20, 30, 3), 200, np.uint8)
    head, _, data = image_uri(Image.fromarray(pixels)).partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (30, 20)


def row(metric: str, structure: str, low: float, high: float) -> dict:
    middle = (low + high) / 2
    found = {"difference": middle, "difference_low": low, "difference_high": high, "p": 0.0004}
    counts = {"n": 9, "n_patients": 3, "rises": 7, "falls": 2}
    about = {"metric": metric, "group": "all", "value": "", "structure": structure}
    return about | {"a": 1.0, "b": 1.0 + middle} | found | counts


def page(rows: list[dict]) -> str:
    side = Side("<b>camus</b>", {"Run": "run"}, {})
    differences = pd.DataFrame(rows)
    return comparison_page(
        (side, side), "camus", "data", differences, {}, [], [], "none here", 0.95
    )


def test_a_longer_distance_is_worse() -> None:
    found = page([row("dice", "LV", 0.01, 0.03), row("hd95_mm", "LV", 0.5, 1.5)])
    assert '<td class="better">+0.0200 [0.0100 to 0.0300]</td>' in found
    assert '<td class="worse">+1.00 [0.50 to 1.50]</td>' in found
    assert "<td>&lt; 0.001</td><td>7</td><td>2</td>" in found  # Dice: 7 rise
    assert "<td>&lt; 0.001</td><td>2</td><td>7</td>" in found  # distance: 7 rise


def test_an_interval_about_zero_shows_nothing() -> None:
    found = page([row("dice", "LV", -0.01, 0.03)])
    assert "No difference is shown" in found
    assert '<td class="">+0.0100' in found


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_names_are_text(name: str) -> None:
    side = Side(name, {name: name}, {name: name})
    rows = pd.DataFrame([row("dice", name, 0.01, 0.03)]).assign(group="view", value=name)
    total = pd.DataFrame([row("dice", "LV", 0.01, 0.03)])
    blank = np.zeros((4, 4), np.uint8)
    case = ChangedCase(name, blank, (blank, blank, blank), None)
    other = Side(name, {name: name}, {name: "other"})
    found = comparison_page(
        (side, other), "camus", name, pd.concat([rows, total]), {}, [], [case], name, 0.95
    )
    assert "<script" not in found
    assert "<img src=x" not in found
    assert found.count(escape(name).replace("&quot;", "&#34;")) >= 10
