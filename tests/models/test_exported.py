"""The files of a model: read without pickle, ONNX held against torch."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile

import numpy as np
import onnxruntime
import pytest
import torch

from heartseg.errors import InputError
from heartseg.models import build_network, exported
from heartseg.models.exported import Package, compare_onnx, load_program, write_onnx
from heartseg.models.packaged import PackagedModel, export_model
from tests.models.test_packaged import random_images, varied

pytestmark = pytest.mark.slow  # torch.export takes seconds to be imported


class Small(torch.nn.Module):
    """Two labels by a 3 x 3 convolution."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = torch.nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return export_model(PackagedModel(Small(0), 32).eval(), 1)


@pytest.fixture(scope="module")
def archive(program) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def changed(content: bytes, change) -> bytes:
    """An archive with another content for the records for which `change` gives one."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)) or old.read(name))
    return made.getvalue()


def test_the_archive_that_mlflow_makes_is_read(archive, program):
    images = random_images(2, 40, 50)
    predict = Package("x", archive, {}).load()
    assert (predict(images.numpy()) == program.module()(images).numpy()).all()


def test_pickled_objects_are_refused_unread(archive, tmp_path):
    example = io.BytesIO()
    torch.save(Bomb(tmp_path / "example"), example)
    poisoned = {
        "sample_inputs/model.pt": lambda old: example.getvalue(),
        "model_weights_config.json": lambda old: old.replace(
            b'"use_pickle": false', b'"use_pickle": true'
        ),
        "weights/weight_0": lambda old: pickle.dumps(Bomb(tmp_path / "weight")),
    }
    for names in (list(poisoned)[:1], list(poisoned)[1:]):

        def change(record: str, old: bytes, names=names) -> bytes | None:
            return next((poisoned[n](old) for n in names if record.endswith(n)), None)

        content = changed(archive, change)
        assert content != archive
        with pytest.raises(InputError, match=r"x: its model\.pt2 is no model without pickle"):
            load_program(content, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_archive_is_told(archive):
    for content in (b"", archive[: len(archive) // 2], b"PK" + bytes(200)):
        with pytest.raises(InputError, match="Pull it again"):
            load_program(content, "x")


def test_the_weights_digest_tells_models_apart(archive):
    other = io.BytesIO()
    torch.export.save(export_model(PackagedModel(Small(1), 32).eval(), 1), other)

    digest = Package("x", archive, {}).weights_sha256
    assert digest == Package("y", archive, {"a": 1}).weights_sha256
    assert digest != Package("x", other.getvalue(), {}).weights_sha256
    assert digest != hashlib.sha256().hexdigest()


def test_an_onnx_file_of_another_network_is_refused(program, tmp_path):
    write_onnx(program, tmp_path / "model.onnx")
    assert compare_onnx(program, tmp_path / "model.onnx", 1) <= exported.TOLERANCE
    other = export_model(PackagedModel(Small(1), 32).eval(), 1)

    with pytest.raises(InputError, match=r"differ in [0-9.]+ % of an image's pixels"):
        compare_onnx(other, tmp_path / "model.onnx", 1)


def test_all_files_of_a_network_say_the_same(configure, tmp_path):
    """The program, ONNX Runtime on sizes that were not compared, and the weights in a network."""
    config = configure("unet")
    model = varied(config, 4)
    model.largest_component = True
    content = io.BytesIO()
    torch.export.save(export_model(model, 1), content)
    recipe = {"dataset": "camus", "model": config.model_dump(mode="json")}
    package = Package("x", content.getvalue(), {"dataset": "camus", "recipe": recipe})

    exported.write_folder(tmp_path, package, {"version": "1"}, "# card\n")

    again = exported.read_folder(tmp_path)
    assert again.metadata == package.metadata
    assert again.weights_sha256 == package.weights_sha256
    predict = again.load()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    seen = set()
    for shape in ((1, 61, 93), (4, 48, 48), (2, 130, 77)):
        images = random_images(*shape)
        with torch.no_grad():
            expected = model(images).numpy()
        assert (predict(images.numpy()) == expected).all()
        (labels,) = session.run(None, {"images": images.numpy()})
        assert np.mean(labels != expected) <= exported.TOLERANCE
        seen |= set(np.unique(labels))
    assert len(seen) > 1
    assert b"pkl" not in (tmp_path / "model.pt2").read_bytes()

    network = build_network(config, 4).eval()
    state = exported.load_program(package.program, "x").state_dict
    own = {k.removeprefix("network.network."): v for k, v in state.items() if "shift" not in k}
    network.load_state_dict(own)
