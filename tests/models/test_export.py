"""Tests of the files of a pulled model: ONNX and exported program against the model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save

from heartseg.errors import InputError
from heartseg.models import export as exported
from heartseg.models import package
from heartseg.models.export import compare_onnx, write_onnx
from heartseg.models.inference import PackagedModel, copy_weights, export_model
from heartseg.models.package import Package
from tests.models.test_inference import random_images
from tests.registered import threshold_recipe, threshold_weights

pytestmark = pytest.mark.slow  # importing torch.export takes seconds


class Small(torch.nn.Module):
    """A 3 x 3 convolution with two labels."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = torch.nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return export_model(PackagedModel(Small(0), 32).eval(), 1)


def test_an_onnx_file_of_another_network_is_rejected(program, tmp_path):
    write_onnx(program, tmp_path / "model.onnx")
    assert compare_onnx(program, tmp_path / "model.onnx", 1) <= exported.TOLERANCE
    other = export_model(PackagedModel(Small(1), 32).eval(), 1)

    with pytest.raises(InputError, match=r"differ in [0-9.]+ %"):
        compare_onnx(other, tmp_path / "model.onnx", 1)


@pytest.mark.parametrize("members", [1, 2])
def test_all_files_of_a_model_agree(tmp_path, members):
    """The folder, the program and ONNX Runtime agree on sizes other than the compared ones."""
    recipe = threshold_recipe()
    states = [threshold_weights(0.2 * number) for number in range(members)]
    if members > 1:
        states = [
            {f"networks.{n}.{key}": value for n, s in enumerate(states) for key, value in s.items()}
        ]
    metadata = {"dataset": "camus", "recipe": recipe, "postprocess": "largest_component"}
    metadata["tta"] = "views" if members > 1 else "none"
    made = Package("x", save(copy_weights(states[0])), metadata)

    exported.write_package(tmp_path, made, {"version": "1"}, "# card\n")

    (tmp_path / "model.pt2").rename(tmp_path / "elsewhere.pt2")  # heartseg does not read it
    again = package.read_package(tmp_path)
    assert (again.metadata, again.weights_sha256) == (made.metadata, made.weights_sha256)
    assert len(getattr(again.build().network, "networks", [None])) == members
    predict = again.load()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for shape in ((1, 61, 93), (4, 48, 48), (0, 48, 48), (1, 1, 1)):
        images = random_images(*shape)
        expected = predict(images.numpy())
        labels, probabilities = again.load_with_probabilities()(images.numpy())
        assert np.array_equal(labels, expected)
        assert probabilities.shape == (shape[0], 4, *shape[1:])
        (found,) = session.run(None, {"images": images.numpy()})
        assert found.shape == expected.shape
        assert np.sum(found != expected) <= exported.TOLERANCE * found.size
        np.save(tmp_path / f"images{shape[0]}{shape[1]}.npy", images.numpy())
        np.save(tmp_path / f"labels{shape[0]}{shape[1]}.npy", expected)
    assert b"pkl" not in (tmp_path / "elsewhere.pt2").read_bytes()
    subprocess.run([sys.executable, "-c", WITHOUT_HEARTSEG], cwd=tmp_path, check=True)


WITHOUT_HEARTSEG = """
import sys
sys.modules["heartseg"] = None  # importing it fails from here on
import numpy as np, torch
program = torch.export.load("elsewhere.pt2").module()
for size in ("161", "448", "048", "11"):
    labels = program(torch.from_numpy(np.load(f"images{size}.npy"))).numpy()
    assert np.array_equal(labels, np.load(f"labels{size}.npy")), size
"""


def test_the_program_is_never_opened(tmp_path, monkeypatch):
    """heartseg ignores model.pt2, which could run code or be damaged."""
    facts = {"dataset": "camus", "recipe": threshold_recipe()}
    made = Package("x", save(threshold_weights()), facts)
    exported.write_package(tmp_path, made, {"version": "1"}, "# card\n")
    (tmp_path / "model.pt2").write_bytes(b"not a program")
    opened = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)

    predict = package.read_package(tmp_path).load()

    assert predict(random_images(1, 40, 40).numpy()).shape == (1, 40, 40)
    assert any(path.endswith("weights.safetensors") for path in opened)
    assert not [path for path in opened if path.endswith((".pt2", ".onnx"))]


def test_damaged_models_are_rejected(tmp_path):
    recipe, weights = threshold_recipe(), threshold_weights()
    facts = {"dataset": "camus", "recipe": recipe}
    wrong = [
        Package("x", b"no tensors", facts),
        Package("x", save(weights), facts | {"recipe": {"epochs": 3}}),
        Package("x", save({"a": torch.zeros(2)}), facts),
    ]
    for one in wrong:
        with pytest.raises(InputError, match=r"^x: "):
            one.build()
