"""Tests that malicious folders of pulled models are rejected with bounded memory and time."""

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
from heartseg.models.package import CHECKSUMS, MODEL_INFO, WEIGHTS, read_package
from heartseg.tracking.pulled import pull
from tests.registered import threshold_recipe, threshold_weights

METADATA = {"dataset": "camus", "recipe": threshold_recipe(), "postprocess": "none"}
UNET = {"name": "unet", "in_channels": 1, "dropout": 0.0}


def tensors(header: bytes | dict[str, Any], body: bytes = b"") -> bytes:
    """Return a safetensors file with the given header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def changed(**values: object) -> bytes:
    """Return model.json with changed values; "a__b" is the key b in the dict a."""
    metadata: dict[str, Any] = copy.deepcopy(METADATA)
    for key, value in values.items():
        section = metadata
        *parents, last = key.split("__")
        for name in parents:
            section = section[name]
        section[last] = value
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
    "deep JSON": (MODEL_INFO, lambda: b'{"metadata":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    "a list": (MODEL_INFO, lambda: b"[1, 2]"),
    "a long number": (MODEL_INFO, lambda: b'{"metadata": ' + b"9" * 10**4 + b"}"),
    "a recipe of another type": (MODEL_INFO, lambda: changed(recipe=[1])),
    "a million filters": (MODEL_INFO, lambda: changed(recipe__model__filters=10**6)),
    "3000 filters": (MODEL_INFO, lambda: changed(recipe__model__filters=3000)),
    "a million channels": (MODEL_INFO, lambda: changed(recipe__model__in_channels=10**6)),
    "a huge input": (MODEL_INFO, lambda: changed(recipe__input_size=2**30)),
    "thousands of levels": (
        MODEL_INFO,
        lambda: changed(recipe__model=UNET | {"channels": [1] * 3000, "residual_units": 2}),
    ),
    "millions of units": (
        MODEL_INFO,
        lambda: changed(recipe__model=UNET | {"channels": [1, 2], "residual_units": 10**7}),
    ),
    "no dataset": (MODEL_INFO, lambda: changed(dataset=[])),
    "another dataset": (MODEL_INFO, lambda: changed(dataset="mmode")),
    "an unknown choice": (MODEL_INFO, lambda: changed(tta="both")),
    "a choice of another type": (MODEL_INFO, lambda: changed(postprocess={"a": 1})),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / WEIGHTS).write_bytes(save(threshold_weights()))
    (tmp_path / MODEL_INFO).write_bytes(changed())
    sign(tmp_path)
    return tmp_path


def sign(folder: Path) -> None:
    sums = (
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in (WEIGHTS, MODEL_INFO)
    )
    (folder / CHECKSUMS).write_text("".join(sums))


def test_the_unchanged_folder_is_built(folder: Path) -> None:
    assert read_package(folder).build().network is not None


@pytest.mark.parametrize("fault", FILES)
def test_a_malicious_file_is_rejected(folder: Path, fault: str) -> None:
    name, make = FILES[fault]
    (folder / name).write_bytes(make())
    sign(folder)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=folder.name):
            read_package(folder).build()
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [WEIGHTS, MODEL_INFO, CHECKSUMS])
@pytest.mark.parametrize("kind", ["device", "fifo", "sparse"])
def test_special_and_huge_files_are_not_read(folder: Path, name: str, kind: str) -> None:
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
        read_package(folder)


def test_every_command_accepts_a_pulled_folder(folder: Path) -> None:
    """`recording` and `test` read it by `pull`; `predict` and `serve` by `read_model`."""
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 32), dtype=np.uint8)
    pulled = pull("sqlite:///absent.db", str(folder))
    assert (pulled.predict(image)[0] == (image[0, 0] > image.mean())).mean() > 0.9
    with pytest.raises(InputError, match="absent"):
        pull("sqlite:///absent.db", str(folder / "absent"))
