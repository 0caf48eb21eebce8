"""The prepared dataset is lossless, and is written atomically."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from heartseg.data.prepared import (
    ROW_GROUP,
    Sample,
    decode_image,
    decode_png,
    encode_png,
    file_digest,
    map_in_order,
    read_metadata,
    read_prepared,
    write_prepared,
)
from heartseg.errors import InputError


def samples(count: int) -> list[Sample]:
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        shape = (20 + number % 3, 30)
        made.append(
            Sample(
                case_id=f"case{number:03d}",
                patient=f"p{number // 2}",
                view="4CH",
                phase="ED",
                frame=number,
                image=rng.integers(0, 256, shape, dtype=np.uint8),
                mask=rng.integers(0, 4, shape, dtype=np.uint8),
                spacing=(0.25, 0.5),
                quality="Poor",
                reference={"reference_ef": 50.5},
            )
        )
    return made


def split_of(made: list[Sample]) -> dict[str, str]:
    return {sample.patient: "val" if sample.patient == "p1" else "train" for sample in made}


def test_round_trip(tmp_path: Path) -> None:
    path, made = tmp_path / "new" / "d.parquet", samples(2 * ROW_GROUP + 3)
    assert write_prepared(path, made, split_of(made), {"dataset": "camus"}) == len(made)
    table = read_prepared(path)
    assert list(table["case_id"]) == [sample.case_id for sample in made]
    for sample, row in zip(made, table.itertuples(), strict=True):
        image, mask = decode_png(row.image), decode_png(row.mask)
        assert (image == sample.image).all()
        assert (mask == sample.mask).all()
        assert (row.height, row.width) == image.shape == mask.shape
        assert (row.spacing_row, row.spacing_col) == sample.spacing
    assert set(table["reference_ef"]) == {50.5}
    assert table["reference_hr"].isna().all()
    assert read_metadata(path) == {"dataset": "camus"}
    assert pq.ParquetFile(path).num_row_groups == 3


@pytest.mark.parametrize(("mm_per_row", "species"), [(0.02, "mouse"), (0.3, "human")])
def test_species_of_old_file_is_guessed_from_heart_size(
    tmp_path: Path, mm_per_row: float, species: str
) -> None:
    (sample,) = samples(1)
    lv = np.zeros((200, 30), np.uint8)
    lv[20:180] = 1
    sample = replace(sample, image=lv, mask=lv, spacing=(mm_per_row, 0.001))
    write_prepared(tmp_path / "d", [sample], {sample.patient: "train"}, {"dataset": "mmode"})
    assert list(read_prepared(tmp_path / "d")["species"]) == [species]


def test_stacked_frames_come_back_in_their_order(tmp_path: Path) -> None:
    (sample,) = samples(1)
    stack = np.random.default_rng(0).integers(0, 256, (7, 20, 30), dtype=np.uint8)
    write_prepared(tmp_path / "d.parquet", [replace(sample, image=stack)], {"p0": "train"}, {})
    (row,) = read_prepared(tmp_path / "d.parquet").itertuples()
    assert (row.height, row.width) == (20, 30)
    assert (decode_image(row.image, row.height) == stack).all()
    assert (decode_image(row.mask, row.height) == sample.mask[None]).all()


def test_one_split_is_read(tmp_path: Path) -> None:
    made = samples(6)
    write_prepared(tmp_path / "d.parquet", made, split_of(made), {})
    assert list(read_prepared(tmp_path / "d.parquet", "val")["case_id"]) == ["case002", "case003"]
    assert len(read_prepared(tmp_path / "d.parquet", "test")) == 0


def test_other_parquet_readers_open_it(tmp_path: Path) -> None:
    made = samples(3)
    write_prepared(tmp_path / "d.parquet", made, split_of(made), {})
    table = pd.read_parquet(tmp_path / "d.parquet")
    assert table["image"][0].startswith(b"\x89PNG")


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    made = samples(ROW_GROUP + 5)
    for name in ("a", "b"):
        write_prepared(tmp_path / name, made, split_of(made), {"x": 1, "y": [2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_prepared(tmp_path / "c", made[1:], split_of(made), {"x": 1, "y": [2]})
    assert file_digest(tmp_path / "c") != file_digest(tmp_path / "a")


@pytest.mark.parametrize("before", [None, b"an older file"])
def test_failure_while_writing_keeps_the_old_file(tmp_path: Path, before: bytes | None) -> None:
    path, made = tmp_path / "d.parquet", samples(2 * ROW_GROUP)
    if before:
        path.write_bytes(before)

    def failing() -> Iterator[Sample]:
        yield from made[: ROW_GROUP + 30]
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_prepared(path, failing(), split_of(made), {})
    assert [entry.name for entry in tmp_path.iterdir()] == (["d.parquet"] if before else [])
    assert before is None or path.read_bytes() == before


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    def refuse(reason: str) -> None:
        for read in (read_prepared, read_metadata):
            with pytest.raises(InputError, match=reason):
                read(tmp_path / "d.parquet")

    refuse("does not exist")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no more")
    refuse("cannot be read as Parquet")
    pd.DataFrame({"image": [b""]}).to_parquet(tmp_path / "d.parquet")
    refuse("not written by heartseg")


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_png_keeps_every_pixel(pixels: np.ndarray) -> None:
    decoded = decode_png(encode_png(pixels))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels)


def test_digest_is_the_md5_that_dvc_records(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"heart" * 1000)
    assert file_digest(tmp_path / "f") == hashlib.md5(b"heart" * 1000).hexdigest()


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4))
def test_map_in_order_equals_map(items: list[int], threads: int) -> None:
    assert list(map_in_order(lambda x: x + 1, items, threads)) == [x + 1 for x in items]


def test_map_in_order_runs_only_a_few_items_ahead() -> None:
    taken, lock, ahead = 0, threading.Lock(), []

    def source() -> Iterator[int]:
        nonlocal taken
        for number in range(50):
            with lock:
                taken += 1
            yield number

    for done, _ in enumerate(map_in_order(lambda x: x, source(), 3), start=1):
        time.sleep(0.001)
        ahead.append(taken - done)
    assert done == 50
    assert max(ahead) <= 2 * 3 + 1
