"""Post-processing is decided on validation patients by their mean Dice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from heartseg.data.labels import Camus
from heartseg.data.prepared import encode_png
from heartseg.training.postprocess import decide
from tests.metrics.shapes import heart


def frames(image: np.ndarray, mask: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame([{"image": encode_png(image), "mask": encode_png(mask)}])


def test_islands_make_auto_choose_the_largest_component() -> None:
    mask = heart(60, 18)
    seen = mask.copy()
    seen[5:25, 5:25] = Camus.LV
    found = decide("auto", frames(seen, mask), lambda image: image)
    assert (found["chosen"], found["chosen_on"]) == ("largest_component", "val")
    cavity, extra = (mask == Camus.LV).sum(), 400
    expected = (2 + 2 * cavity / (2 * cavity + extra)) / 3
    assert found["val_dice"] == {"none": pytest.approx(expected), "largest_component": 1.0}


def test_parts_that_belong_there_make_auto_choose_none() -> None:
    mask = heart(60, 18)
    seen = mask.copy()
    middle = int(np.median(np.flatnonzero((mask == Camus.LV).any(1))))
    seen[middle : middle + 2] = Camus.BACKGROUND  # halves the ventricle
    found = decide("auto", frames(seen, mask), lambda image: image)
    assert found["chosen"] == "none"
    assert found["val_dice"]["none"] > found["val_dice"]["largest_component"]
    same = decide("auto", frames(mask, mask), lambda image: image)
    assert same["chosen"] == "none"  # no better: left out


@pytest.mark.parametrize("wanted", ["none", "largest_component"])
def test_what_params_yaml_says_is_taken(wanted: str) -> None:
    def never(image: np.ndarray) -> np.ndarray:
        raise AssertionError("nothing needs to be predicted")

    mask = heart(60, 18)
    assert decide(wanted, frames(mask, mask), never) == {
        "chosen": wanted,
        "chosen_on": "params.yaml",
    }
    assert decide("auto", pd.DataFrame(), never)["chosen"] == "none"
