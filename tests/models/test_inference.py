"""Tests of packaged models: resizing, export, and loading by MLflow."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from heartseg.models import build_network
from heartseg.models.inference import (
    PackagedModel,
    export_model,
    log_packaged,
    normalise,
    resize_images,
)
from heartseg.models.outputs import Ensemble
from heartseg.models.tta import views_of


def varied(config, classes, size=48):
    """Return a packaged model with random weights that predicts several labels."""
    network = build_network(config, classes)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network(normalise(torch.randint(0, 256, (4, 1, size, size))))
        network.eval()
        logits = network(normalise(torch.randint(0, 256, (4, 1, size, size))))
    return PackagedModel(Shifted(network, logits.mean((0, 2, 3))), size).eval()


class Shifted(nn.Module):
    def __init__(self, network, shift):
        super().__init__()
        self.network = network
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, images):
        return self.network(images) - self.shift


def random_images(batch, height, width):
    return torch.randint(0, 256, (batch, 1, height, width), dtype=torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(100, 75), (40, 30), (32, 90)])
def test_resize_equals_pillow(height, width):
    image = random_images(1, height, width)
    expected = np.asarray(Image.fromarray(image[0, 0].numpy()).resize((32, 32), Image.BILINEAR))
    resized = resize_images(image, 32)[0, 0].numpy()
    assert resized.dtype == np.uint8
    assert np.abs(resized.astype(int) - expected).max() <= 1


def test_resize_to_the_same_size_changes_nothing():
    images = random_images(2, 32, 32)
    assert torch.equal(resize_images(images, 32), images)


def test_normalise_accepts_uint8_and_float():
    levels = torch.tensor([0, 114, 255], dtype=torch.uint8)
    expected = torch.tensor([(0 - 0.449) / 0.226, (114 / 255 - 0.449) / 0.226, 0.551 / 0.226])
    torch.testing.assert_close(normalise(levels), expected)
    torch.testing.assert_close(normalise(levels.double()), expected)


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (50, 45), (201, 153)])
def test_label_map_is_aligned_with_the_image(size):
    """A square that is segmented by a threshold stays in place at any size of the network."""
    height, width = size
    images = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    top, left = height // 4, width // 2
    images[..., top : top + height // 3, left : left + width // 3] = 229  # twice the mean
    model = PackagedModel(nn.Identity(), 64)  # logit > 0 where the image is brighter than MEAN
    labels = model(images)
    assert labels.shape == (1, height, width)
    assert labels.dtype == torch.uint8
    wrong = labels != (images[:, 0] > 0)
    assert wrong.sum() <= 0.03 * labels.numel()
    rows, columns = labels[0].nonzero(as_tuple=True)
    assert abs(rows.float().mean() - (top + (height // 3 - 1) / 2)) < 0.5
    assert abs(columns.float().mean() - (left + (width // 3 - 1) / 2)) < 0.5


@pytest.mark.slow
def test_export_equals_the_model_at_any_size(any_config):
    model = varied(any_config, 4).train()
    program = export_model(model, 1).module()
    assert model.training  # the given model is not changed
    model.eval()
    seen = set()
    for shape in [(1, 61, 93), (3, 48, 48), (5, 130, 77), (1, 21, 200), (0, 30, 40), (1, 1, 1)]:
        if any_config.name == "dynunet" and shape[0] == 0:
            continue  # MONAI reads the first image
        images = random_images(*shape)
        with torch.no_grad():
            expected = model(images)
        assert torch.equal(program(images), expected)
        seen |= set(expected.unique().tolist())
    assert len(seen) > 1


@pytest.mark.slow
def test_exported_graph_needs_no_heartseg(configure):
    program = export_model(varied(configure("quicknat"), 1), 1)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert all(target.startswith(("aten.", "<built-in", "_operator", "sym_")) for target in targets)


PULL = """
import sys
for blocked in ("heartseg", "monai", "torchvision", "ray"):
    sys.modules[blocked] = None  # importing it fails from here on
import torch
torch.cuda.is_available = lambda: True  # as on a machine with a GPU
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
for number, uri in enumerate(sys.argv[2:]):
    labels = mlflow.pyfunc.load_model(uri).predict(np.load("images.npy"))
    np.save(f"labels{number}.npy", labels)
"""


@pytest.mark.slow
def test_mlflow_loads_a_model_without_heartseg_and_pickle(configure, tmp_path):
    """The U-Nets are an ensemble with test-time augmentation."""
    import mlflow

    pair = [varied(configure("unet"), 4).network for _ in range(2)]
    ensemble = PackagedModel(Ensemble(pair, False), 48, largest_component=True).eval()
    ensemble.set_tta(views_of("camus", "views"))
    models = [varied(configure("deeplabv3"), 4), varied(configure("quicknat"), 1), ensemble]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    try:
        client = mlflow.MlflowClient()
        experiment = client.create_experiment("packaged", artifact_location=str(tmp_path / "store"))
        run = client.create_run(experiment)
        logged = [
            log_packaged(
                model, 1, name="model", run_id=run.info.run_id, metadata={"dataset": "camus"}
            )
            for model in models
        ]
        found = {client.get_logged_model(info.model_id).experiment_id for info in logged}
    finally:
        mlflow.set_tracking_uri(None)
    assert found == {experiment}
    assert [info.metadata for info in logged] == [{"dataset": "camus"}] * 3
    assert not list((tmp_path / "store").rglob("*.pth"))

    images = random_images(1, 101, 83)
    np.save(tmp_path / "images.npy", images.numpy())
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-c", PULL, uri, *(info.model_uri for info in logged)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    for number, model in enumerate(models):
        labels = np.load(tmp_path / f"labels{number}.npy")
        assert labels.dtype == np.uint8
        with torch.no_grad():
            assert np.array_equal(labels, model(images).numpy())
