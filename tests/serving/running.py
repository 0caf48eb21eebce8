"""A service on a real port with a network that thresholds, and a client for it."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nibabel as nib
import numpy as np
import requests
from PIL import Image

from heartseg.errors import InputError
from heartseg.models.package import Package
from heartseg.serving.app import make_app
from heartseg.serving.limits import Limits
from heartseg.serving.listen import make_server, open_socket
from heartseg.serving.service import Service
from heartseg.serving.source import Source, Version

LIMITS = Limits(upload_bytes=1 << 20, upload_s=20.0)
GRAYS = {1: 200, 2: 140, 3: 90}
"""Gray value by label for `Grays`."""


class Grays:
    """A `Network` that recognises each label by its gray value.

    Attributes:
        hold: Version whose requests wait for `go`.
        fault: Exception that each request raises.
        seconds: Duration of a frame. Frames are segmented one after another.
    """

    def __init__(self) -> None:
        self.hold = ""
        self.waiting = threading.Event()
        self.go = threading.Event()
        self.fault: Exception | None = None
        self.seconds = 0.0
        self._one_by_one = asyncio.Lock()

    def load(self, version: str, package: Package) -> str:
        if package.weights == b"broken":
            raise InputError("the weights are broken")
        return version

    async def segment(self, stack: np.ndarray, version: str) -> tuple[np.ndarray, int]:
        if self.fault:
            raise self.fault
        while version == self.hold and not self.go.is_set():
            self.waiting.set()
            await asyncio.sleep(0.005)
        if self.seconds:
            async with self._one_by_one:
                await asyncio.sleep(self.seconds)
        labels = np.zeros(stack.shape[1:], np.uint8)
        for label, gray in GRAYS.items():
            labels[stack[0] == gray] = label
        return labels, 2

    def ready(self) -> bool:
        return self.fault is None


class Versions(Source):
    """A source whose newest version is set by the test. An exception is raised."""

    def __init__(self, dataset: str, channels: int):
        super().__init__("models:/test@champion")
        self.metadata = {"dataset": dataset, "recipe": {"model": {"in_channels": channels}}}
        self.newest: Version | Exception = self.version("1")

    def version(self, name: str, weights: bytes = b"") -> Version:
        return Version(name, Package("test", weights, self.metadata))

    def fetch_newer(self, current: str | None) -> Version | None:
        if isinstance(self.newest, Exception):
            raise self.newest
        return None if self.newest.name == current else self.newest


class Client:
    """Requests to the service at a URL."""

    def __init__(self, url: str, service: Any, network: Any, source: Any, port: int):
        self.url, self.service, self.network, self.source = url, service, network, source
        self.port = port

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=20, **options)

    def predict(self, files: dict[str, bytes], **fields: Any) -> requests.Response:
        parts = [("files", (name, content)) for name, content in files.items()]
        return requests.post(f"{self.url}/predict", files=parts, data=fields, timeout=20)

    def labels(self, name: str, content: bytes, **options: Any) -> requests.Response:
        parts = {"file": (name, content)}
        return requests.post(f"{self.url}/labels", files=parts, timeout=20, **options)


@contextmanager
def running(
    limits: Limits = LIMITS,
    dataset: str = "camus",
    channels: int = 1,
    token: str | None = None,
    host: str = "127.0.0.1",
    network: Any = None,
) -> Iterator[Client]:
    """Run a service in a thread until the end of the block. Its network is `Grays` by default."""
    network, source = network or Grays(), Versions(dataset, channels)
    first = source.fetch_newer(None)
    assert first is not None
    service = Service(source, first, network, limits)
    opened = open_socket(host, 0)
    server = make_server(make_app(service, host, token, 3600))
    thread = threading.Thread(target=server.run, args=([opened],))
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = opened.getsockname()[1]
    try:
        shown = f"[{host}]" if ":" in host else host
        yield Client(f"http://{shown}:{port}", service, network, source, port)
    finally:
        if isinstance(network, Grays):
            network.go.set()
        server.should_exit = True
        thread.join()
        opened.close()


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def nifti(frames: np.ndarray, affine: np.ndarray, ending: str = ".nii") -> bytes:
    """A file of frames (H, W) or (T, H, W)."""
    content = nib.Nifti1Image(frames.T, affine).to_bytes()
    if ending == ".nii":
        return content
    import gzip

    return gzip.compress(content)
