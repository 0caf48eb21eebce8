"""The present version of a model, how it is replaced, and the way of one file through it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from fastapi import HTTPException

from heartseg.data.images import Images
from heartseg.errors import InputError
from heartseg.models.exported import Package
from heartseg.models.inputs import input_stacks, segmented_frames
from heartseg.serving.counters import Counters
from heartseg.serving.limits import Limits
from heartseg.serving.source import Source, Version
from heartseg.tracking.faults import store_errors

_log = logging.getLogger("heartseg.serve")

BUSY = HTTPException(503, "the network does not answer; try again", {"Retry-After": "5"})


class Unavailable(Exception):
    """The network cannot answer now: its process has just died, or is not there yet."""


class Network(Protocol):
    """What segments: processes that hold one or two versions of a model."""

    def load(self, version: str, package: Package) -> Any:
        """Have a version ready, and give what `segment` knows it by; blocks.

        Raises:
            InputError: or another one; it cannot be loaded.
        """
        ...

    def segment(self, stack: np.ndarray, loaded: Any) -> Awaitable[tuple[np.ndarray, int]]:
        """Label map uint8 (H, W) of uint8 (C, H, W), and how many were segmented together."""
        ...

    def ready(self) -> bool:
        """Whether a process is there to answer; blocks for a moment."""
        ...


@dataclass(frozen=True)
class Present:
    """The version that requests which come now are answered with."""

    version: str
    metadata: dict[str, Any]
    loaded: Any


class Service:
    """A model that is served.

    A request keeps the version that it began with, so nothing is mixed when a new one comes.

    Args:
        source: of the versions.
        network: that segments.
        limits: of the requests.

    Raises:
        InputError: there is no such model, or it cannot be loaded.
    """

    def __init__(self, source: Source, first: Version, network: Network, limits: Limits):
        self.source = source
        self.network = network
        self.limits = limits
        self.counters = Counters()
        self.problem: str | None = None
        self._take(first)

    def _take(self, found: Version) -> None:
        loaded = self.network.load(found.name, found.package)
        self.present = Present(found.name, found.package.metadata, loaded)
        self.counters.model.clear()
        self.counters.model.labels(self.source.model, found.name).set(1)

    def update(self) -> None:
        """Take a newer version, if there is one; whatever goes wrong, the present one stays."""
        try:
            found = self.source.look(self.present.version)
            if found is not None:
                self._take(found)
                _log.warning("%s is version %s now", self.source.model, found.name)
            self.problem = None
        except Exception as error:  # the service outlives its store
            self.counters.failed_updates.inc()
            reason = str(error) if isinstance(error, InputError) else type(error).__name__
            if reason != self.problem:
                bug = not isinstance(error, store_errors(InputError))
                _log.warning("version %s stays: %s", self.present.version, reason, exc_info=bug)
            self.problem = reason

    async def follow(self, every_s: float) -> None:
        """Look for a newer version again and again."""
        while True:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(self.update)

    async def segment(
        self, files: Sequence[Images], names: Sequence[str], present: Present
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Numbers (K,) of the frames segmented, from 0, and label maps (K, H, W) of each file.

        Raises:
            HTTPException: 422 the model takes sequences and a file is none; 503 no answer.
        """
        channels = present.metadata["recipe"]["model"]["in_channels"]
        numbers = []
        for file, name in zip(files, names, strict=True):
            try:
                numbers.append(segmented_frames(len(file.frames), channels))
            except InputError as error:
                raise HTTPException(422, f"{name}: {error}") from None
        waiting = [
            self.network.segment(
                np.broadcast_to(stack, (channels, *stack.shape[1:])), present.loaded
            )
            for file in files
            for stack in input_stacks(file.frames, channels)
        ]
        try:
            async with asyncio.timeout(self.limits.answer_s):
                found = await asyncio.gather(*waiting)
        except (TimeoutError, Unavailable):
            raise BUSY from None
        for _, together in found:
            self.counters.batch.observe(together)
        maps = iter(labels for labels, _ in found)
        return [(own, np.stack([next(maps) for _ in own])) for own in numbers]
