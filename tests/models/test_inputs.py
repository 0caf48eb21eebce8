"""Tests of the number of frames that a network takes."""

from __future__ import annotations

import pytest

from heartseg.errors import InputError
from heartseg.models.inputs import check_frames
from tests.examples import small_recipe


def test_frames_must_fit_the_input_channels(params):
    def recipe(channels: int):
        values = small_recipe(params).model.model_dump() | {"in_channels": channels}
        return small_recipe(params, model=values)

    for channels, frames in ((1, 1), (3, 1), (20, 20)):
        check_frames(recipe(channels), frames)
    for channels, frames in ((1, 20), (3, 3), (20, 1), (20, 19)):
        with pytest.raises(InputError, match=r"datasets\.camus\.frames"):
            check_frames(recipe(channels), frames)
