"""Reading of recordings with tables, masks and names as users write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heartseg.data.species import HUMAN, MOUSE
from heartseg.data.strips.folder import find_recordings
from heartseg.data.strips.recordings import Defaults, Strip, read_recording
from heartseg.errors import InputError

MM, S = 0.06, 0.0012
TABLE = f"recording,animal,mm_per_row,s_per_column\nstrip,m1,{MM},{S}\n"
ROWS, COLUMNS = 160, 400
LV = slice(40, 110)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A strip, its mask and its table."""
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "strip.png")
    Image.fromarray(mask()).save(tmp_path / "strip_mask.png")
    (tmp_path / "recordings.csv").write_text(TABLE)
    return tmp_path


def mask() -> np.ndarray:
    drawn = np.zeros((ROWS, COLUMNS), np.uint8)
    drawn[LV] = 255
    return drawn


def read(folder: Path, notes: list[str] | None = None, species=MOUSE) -> Strip:
    notes = [] if notes is None else notes
    (found,) = find_recordings([folder], notes)
    (strip,) = read_recording(found, Defaults(species, (9.0, 9.0)), notes)
    notes += found.folder.unmatched_files()
    return strip


def test_names_match_with_suffix_and_in_any_case(folder: Path) -> None:
    expected = read(folder)
    assert expected.spacing == (MM, S)
    assert expected.animal == "m1"
    assert np.array_equal(expected.mask, mask() > 0)
    (folder / "recordings.csv").write_text(TABLE.replace("strip,", "strip.png,"))
    (folder / "strip_mask.png").rename(folder / "strip_Mask.PNG")
    (folder / "._strip.png").write_bytes(b"\0\5\x16\7")
    notes: list[str] = []
    found = read(folder, notes)
    assert notes == []
    assert (found.name, found.animal, found.spacing) == ("strip", "m1", (MM, S))
    assert np.array_equal(found.mask, expected.mask)


def test_row_without_recording_is_refused(folder: Path) -> None:
    (folder / "recordings.csv").write_text(TABLE.replace("strip,", "stripe,"))
    with pytest.raises(InputError, match=r"recordings\.csv: .*'stripe'"):
        read(folder)


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_16_bits_of_which_some_are_in_use(folder: Path, bits: int) -> None:
    expected = read(folder).image
    deep = expected.astype(np.uint16) << (bits - 8)
    Image.fromarray(deep).save(folder / "strip.png")
    notes: list[str] = []
    assert np.array_equal(read(folder, notes).image, expected)
    assert any("strip.png" in note and "16 bits" in note for note in notes)


def test_a_mask_of_three_levels_is_noted(folder: Path) -> None:
    three = mask() // 255
    three[120:140] = 2
    Image.fromarray(three).save(folder / "strip_mask.png")
    notes: list[str] = []
    assert np.array_equal(read(folder, notes).mask, three == 2)  # so a note is needed
    (note,) = notes
    assert "strip_mask.png" in note
    assert "3 gray levels" in note
    assert "above 1," in note


@pytest.mark.parametrize(
    ("mm", "s", "column", "reason"),
    [
        (MM, 1000 * S, "s_per_column", "milliseconds"),
        (MM / 10, S, "mm_per_row", "centimetres"),
        (1000 * MM, S, "mm_per_row", "micrometres"),
        (10 * MM, 5 * S, "mm_per_row", "human"),
    ],
)
def test_impossible_scale_is_refused_with_its_column(
    folder: Path, mm: float, s: float, column: str, reason: str
) -> None:
    text = TABLE.replace(f"{MM},{S}", f"{mm},{s}")
    (folder / "recordings.csv").write_text(text)
    with pytest.raises(InputError, match=rf"recordings\.csv: {column} .*{reason}"):
        read(folder)
    if reason == "human":
        assert read(folder, species=HUMAN).spacing == (mm, s)


def test_file_or_folder_without_recording_has_its_own_remedy(folder: Path) -> None:
    (folder / "notes.txt").touch()
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"notes\.txt: .*Export it"):
        find_recordings([folder / "notes.txt"], [])
    with pytest.raises(InputError, match=r"empty: .*folder"):
        find_recordings([folder / "empty"], [])
