"""`heartseg serve` as a command, with Ray Serve and the page in a browser."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests

from heartseg import serve
from heartseg.errors import InputError
from heartseg.serving.limits import TOKEN_VARIABLE
from heartseg.serving.listen import open_socket
from tests.browser import chromium
from tests.clones import BIN
from tests.examples import ROOT
from tests.registered import MODEL, register_threshold
from tests.serving.running import png
from tests.tracking.stores import _cold_store, _own_environment, free_port

__all__ = ["_cold_store", "_own_environment"]

SPACING = (0.5, 0.8)


def test_other_machines_are_not_served_without_a_token(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(InputError, match="a token is needed"):
        serve.main(["models:/any@champion", "--host", "0.0.0.0"])


def test_a_port_in_use_is_reported():
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port}: Address already in use"):
            open_socket("127.0.0.1", port)


# --- the running command ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory, _cold_store):
    path = tmp_path_factory.mktemp("serve") / "mlflow.db"
    shutil.copy(_cold_store, path)
    register_threshold(f"sqlite:///{path}")
    return f"sqlite:///{path}"


@contextmanager
def process(command, store, log, wait_for):
    """Start a server in its own process group, and wait until `wait_for` is true."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY", "MLFLOW"))}
    environment |= {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(ROOT)}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"  # MLflow runs `uvicorn`
    with log.open("wb") as stream:
        started = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=log.parent,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 400
        while not wait_for(log):
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@pytest.fixture(scope="module")
def served(store, tmp_path_factory):
    port = free_port()
    command = ["heartseg.serve", MODEL, "--port", str(port), "--poll-s", "0.5"]
    log = tmp_path_factory.mktemp("served") / "log.txt"
    with process(command, store, log, lambda log: "http://" in log.read_text()) as started:
        yield f"http://127.0.0.1:{port}", started, log


def heart(height, width):
    """A bright ventricle, (H, W)."""
    pixels = np.full((128, 96), 20, np.uint8)
    pixels[20 : 20 + height, 30 : 30 + width] = 220
    return pixels


def save(path, pixels):
    nib.save(nib.Nifti1Image(pixels.T, np.diag([-SPACING[1], -SPACING[0], 1, 1])), path)


@pytest.mark.slow
def test_the_page_shows_contours_and_numbers(served, tmp_path):
    url = served[0]
    views = []
    for view in ("2CH", "4CH"):
        for phase, size in (("ED", (80, 40)), ("ES", (70, 28))):
            views.append(tmp_path / f"patient0001_{view}_{phase}.nii.gz")
            save(views[-1], heart(*size))
    save(tmp_path / "sequence.nii.gz", np.stack([heart(80, 40), heart(75, 34), heart(70, 28)]))
    (tmp_path / "letter.txt").write_text("no picture" * 50)
    with chromium() as (browser, expect):
        page = browser.new_page()
        asked, faults = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        expect(page.locator("#model")).to_contain_text("version 1")

        page.set_input_files("#files", views)
        expect(page.locator(".card")).to_have_count(4)
        expect(page.locator("#ef_percent b")).to_have_text(f"{expected_ef(url, views):.1f}")
        drawn = page.evaluate(
            "async () => { const shown = document.querySelector('.card svg image');"
            " const picture = new Image(); picture.src = shown.getAttribute('href');"
            " await picture.decode(); return [picture.naturalWidth, picture.naturalHeight,"
            " shown.getBoundingClientRect().width > 100,"
            " document.querySelectorAll('.card')[0].querySelectorAll('path[stroke]').length]; }"
        )
        assert drawn == [96, 128, True, 2]  # LV and LVepi
        expect(page.locator(".card").first).to_contain_text("LV area (mm²)")

        page.locator(".card select.phase").first.select_option("ES")
        expect(page.locator("#clinical")).to_contain_text("no single image of 2CH ED")

        with page.expect_download() as caught:
            page.locator(".download").last.click()
        assert caught.value.suggested_filename == "patient0001_4CH_ES_seg.nii.gz"
        labels = np.asarray(
            nib.load(shutil.move(caught.value.path(), tmp_path / "l.nii.gz")).dataobj
        )
        assert set(np.unique(labels)) == {0, 1}

        page.set_input_files("#files", tmp_path / "sequence.nii.gz")
        page.locator("input[type=range]").fill("2")
        expect(page.locator(".card")).to_contain_text("frame 3 of 3")
        expect(page.locator(".card")).to_contain_text("EDV (mL)")

        page.set_input_files("#files", tmp_path / "letter.txt")
        expect(page.locator("#message")).to_contain_text("letter.txt: is not a NIfTI")
    assert faults == []
    assert all(one.startswith((url, "data:", "blob:")) for one in asked), asked


def expected_ef(url, views):
    files = [("files", (path.name, path.read_bytes())) for path in views]
    clinical = requests.post(f"{url}/predict", files=files, timeout=60).json()["clinical"]
    assert 0 < clinical["ef_percent"] < 100
    return clinical["ef_percent"]


def ask(url, content):
    answer = requests.post(f"{url}/labels", files={"file": ("x.png", content)}, timeout=60)
    return answer.status_code, answer.headers.get("X-Model-Version")


@pytest.mark.slow
def test_a_new_champion_answers_without_a_restart_and_images_go_in_batches(served, store):
    url, _, log = served
    content = png(heart(80, 40))
    with ThreadPoolExecutor(6) as pool:
        answers = []
        for begin in (True, False):
            if not begin:
                register_threshold(store, shift=0.5)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                answers += pool.map(lambda _: ask(url, content), range(12))
                if begin or answers[-1] == (200, "2"):
                    break
    counted = Counter(answers)
    assert set(counted) == {(200, "1"), (200, "2")}, (counted, log.read_text())
    assert requests.get(f"{url}/healthz", timeout=60).json() == {
        "status": "ok",
        "version": "2",
        "last_update_failed": False,
    }
    lines = requests.get(f"{url}/metrics", timeout=60).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    single, all_images = (
        float(values[f'heartseg_batch_size_bucket{{le="{n}"}}']) for n in ("1.0", "+Inf")
    )
    assert single < all_images


@pytest.mark.slow
def test_silent_connections_do_not_block_others(served):
    address = ("127.0.0.1", int(served[0].rsplit(":", 1)[1]))
    silent = [socket.create_connection(address, 20) for _ in range(300)]
    try:
        assert ask(served[0], png(heart(80, 40)))[0] == 200
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.slow
def test_it_ends_cleanly(served):
    """The last test of this server."""
    url, started, log = served
    family = psutil.Process(started.pid).children(recursive=True)
    assert len(family) > 2  # Ray's processes
    started.send_signal(signal.SIGTERM)
    assert started.wait(60) == 0, log.read_text()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    said = log.read_text().splitlines()
    assert len(said) == 2, said  # where it listens, and the new version
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/healthz", timeout=5)


@pytest.mark.slow
def test_mlflow_serves_the_same_model(store, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def up(_):
        try:
            return requests.get(f"{url}/ping", timeout=2).ok
        except requests.ConnectionError:
            return False

    command = ["mlflow", "models", "serve", "-m", "models:/heartseg-camus/1"]
    command += ["--env-manager", "local", "--port", str(port)]
    pixels = heart(80, 40)[::2, ::2]
    with process(command, store, tmp_path / "log.txt", up):
        body = {"inputs": pixels[None, None].tolist()}
        answer = requests.post(f"{url}/invocations", json=body, timeout=60)
    labels = np.array(answer.json()["predictions"])
    assert labels.shape == (1, 64, 48)
    overlap = np.sum((labels[0] == 1) & (pixels > 100))
    assert 2 * overlap / (np.sum(labels == 1) + np.sum(pixels > 100)) > 0.9
