"""A pulled model's folder that somebody made to harm: refused, with bounded memory and time."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save

from heartseg.errors import InputError
from heartseg.models.package import FACTS, SUMS, WEIGHTS, read_folder
from heartseg.tracking.pulled import pull
from tests.registered import threshold_recipe, threshold_weights

METADATA = {"dataset": "camus", "recipe": threshold_recipe(), "postprocess": "none"}
UNET = {"name": "unet", "in_channels": 1, "dropout": 0.0}


def tensors(header: bytes | dict[str, Any], body: bytes = b"") -> bytes:
    """A safetensors file of this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def changed(**values: object) -> bytes:
    """model.json with other values; "a__b" is a key of a dict in a dict."""
    metadata: dict[str, Any] = copy.deepcopy(METADATA)
    for key, value in values.items():
        place = metadata
        *above, last = key.split("__")
        for name in above:
            place = place[name]
        place[last] = value
    return json.dumps({"metadata": metadata}).encode()


def one(dtype: str, shape: list[int], size: int) -> bytes:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    return tensors({"a": entry}, bytes(min(size, 8)))


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a header of 2^63 bytes": (WEIGHTS, lambda: struct.pack("<Q", 2**63 - 1) + b"{}"),
    "a tensor of 2^60 values": (WEIGHTS, lambda: one("F32", [2**60], 2**62)),
    "a type that torch does not have": (WEIGHTS, lambda: one("F8_E8M0", [4], 4)),
    "a deep header": (WEIGHTS, lambda: tensors(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}")),
    "an ensemble of thousands": (
        WEIGHTS, lambda: tensors({f"networks.{n}.x": EMPTY for n in range(3000)})
    ),
    "a pickle": (WEIGHTS, lambda: pickle.dumps(Path("x"))),
    "deep JSON": (FACTS, lambda: b'{"metadata":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    "a list": (FACTS, lambda: b"[1, 2]"),
    "a long number": (FACTS, lambda: b'{"metadata": ' + b"9" * 10**4 + b"}"),
    "a recipe of another type": (FACTS, lambda: changed(recipe=[1])),
    "a million filters": (FACTS, lambda: changed(recipe__model__filters=10**6)),
    "3000 filters": (FACTS, lambda: changed(recipe__model__filters=3000)),
    "a million channels": (FACTS, lambda: changed(recipe__model__in_channels=10**6)),
    "a huge input": (FACTS, lambda: changed(recipe__input_size=2**30)),
    "thousands of levels": (
        FACTS, lambda: changed(recipe__model=UNET | {"channels": [1] * 3000, "residual_units": 2})
    ),
    "millions of units": (
        FACTS, lambda: changed(recipe__model=UNET | {"channels": [1, 2], "residual_units": 10**7})
    ),
    "no dataset": (FACTS, lambda: changed(dataset=[])),
    "another dataset": (FACTS, lambda: changed(dataset="mmode")),
    "an unknown choice": (FACTS, lambda: changed(tta="both")),
    "a choice of another type": (FACTS, lambda: changed(postprocess={"a": 1})),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / WEIGHTS).write_bytes(save(threshold_weights()))
    (tmp_path / FACTS).write_bytes(changed())
    sign(tmp_path)
    return tmp_path


def sign(folder: Path) -> None:
    sums = (
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in (WEIGHTS, FACTS)
    )
    (folder / SUMS).write_text("".join(sums))


def test_the_unharmed_folder_is_built(folder: Path) -> None:
    assert read_folder(folder).build().network is not None


@pytest.mark.parametrize("fault", FILES)
def test_a_crafted_file_is_refused(folder: Path, fault: str) -> None:
    name, make = FILES[fault]
    (folder / name).write_bytes(make())
    sign(folder)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=folder.name):
            read_folder(folder).build()
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [WEIGHTS, FACTS, SUMS])
@pytest.mark.parametrize("kind", ["device", "fifo", "sparse"])
def test_what_is_no_file_is_not_read(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink()
    if kind == "device":
        os.symlink("/dev/zero", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with path.open("wb") as stream:
            stream.truncate(1 << 40)
    with pytest.raises(InputError, match=folder.name):
        read_folder(folder)


def test_a_pulled_folder_is_a_model_of_every_command(folder: Path) -> None:
    """`recording` and `test` take a model by `pull`, as `predict` and `serve` by `read_model`."""
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 32), dtype=np.uint8)
    pulled = pull("sqlite:///absent.db", str(folder))
    assert (pulled.predict(image)[0] == (image[0, 0] > image.mean())).mean() > 0.9
    with pytest.raises(InputError, match="neither a folder"):
        pull("sqlite:///absent.db", str(folder / "absent"))
