"""Selection of views and post-processing by mean Dice on patients outside of the training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from heartseg.config.params import Evaluate, Params
from heartseg.datasets.camus import Camus
from heartseg.evaluation.postprocessing import PredictionPairs, select_postprocessing
from heartseg.models.tta import Tta
from tests.metrics.shapes import heart

MASK = heart(60, 18)


def always(labels: np.ndarray) -> PredictionPairs:
    return lambda tta: [(labels, MASK)]


@pytest.fixture
def settings(params: Params) -> Evaluate:
    return params.evaluate


def changed(settings: Evaluate, **values: Any) -> Evaluate:
    return settings.model_copy(update=values)


def with_island() -> np.ndarray:
    seen = MASK.copy()
    seen[5:25, 5:25] = Camus.LV
    return seen


def test_islands_make_auto_choose_the_largest_component(settings: Evaluate) -> None:
    found = select_postprocessing(settings, "camus", always(with_island()))["postprocess"]
    assert (found["chosen"], found["chosen_on"]) == ("largest_component", "val")
    cavity, extra = (MASK == Camus.LV).sum(), 400
    expected = (2 + 2 * cavity / (2 * cavity + extra)) / 3
    assert found["val_dice"] == {"none": pytest.approx(expected), "largest_component": 1.0}


def test_parts_that_belong_there_make_auto_choose_none(settings: Evaluate) -> None:
    seen = MASK.copy()
    middle = int(np.median(np.flatnonzero((MASK == Camus.LV).any(1))))
    seen[middle : middle + 2] = Camus.BACKGROUND  # halves the ventricle
    found = select_postprocessing(settings, "camus", always(seen))["postprocess"]
    assert found["chosen"] == "none"
    assert found["val_dice"]["none"] > found["val_dice"]["largest_component"]
    same = select_postprocessing(settings, "camus", always(MASK))["postprocess"]
    assert same["chosen"] == "none"  # no better: left out


@pytest.mark.parametrize(("gain", "chosen"), [(0.001, "views"), (0.9, "none")])
def test_views_must_be_worth_their_passes(settings: Evaluate, gain: float, chosen: str) -> None:
    def pairs(tta: Tta) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield (MASK if tta == "views" else with_island()), MASK

    found = select_postprocessing(
        changed(settings, tta_gain=gain), "camus", pairs, of="out-of-fold"
    )
    assert (found["tta"]["chosen"], found["tta"]["chosen_on"]) == (chosen, "out-of-fold")
    assert found["tta"]["val_dice"]["views"] == 1.0
    # Post-processing is decided for what is then predicted.
    process = "none" if chosen == "views" else "largest_component"
    assert found["postprocess"]["chosen"] == process


@pytest.mark.parametrize("tta", ["none", "views"])
@pytest.mark.parametrize("wanted", ["none", "largest_component"])
def test_what_params_yaml_says_is_taken(settings: Evaluate, wanted: str, tta: str) -> None:
    def never(tta: Tta) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        raise AssertionError("nothing needs to be predicted")

    found = select_postprocessing(changed(settings, postprocess=wanted, tta=tta), "camus", never)
    assert found == {
        "tta": {"chosen": tta, "chosen_on": "params.yaml"},
        "postprocess": {"chosen": wanted, "chosen_on": "params.yaml"},
    }


def test_without_patients_auto_chooses_none(settings: Evaluate) -> None:
    found = select_postprocessing(settings, "camus", lambda tta: [])
    assert [choice["chosen"] for choice in found.values()] == ["none", "none"]
    assert [choice["chosen_on"] for choice in found.values()] == ["params.yaml"] * 2


def test_mmode_is_not_post_processed(settings: Evaluate) -> None:
    mask = (MASK > 0).astype(np.uint8)
    wanted = changed(settings, postprocess="largest_component")
    found = select_postprocessing(wanted, "mmode", lambda tta: [(mask, mask)])
    assert found["postprocess"] == {"chosen": "none", "chosen_on": "params.yaml"}
    assert found["tta"]["val_dice"] == {"none": 1.0, "views": 1.0}
