"""The present version of a model, how it is replaced, and the way of one file through it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

import numpy as np
from fastapi import HTTPException

from heartseg.data.images import Images
from heartseg.errors import InputError
from heartseg.models.inputs import frame_count, input_stacks, segmented_frames
from heartseg.models.package import Package
from heartseg.serving.counters import Counters
from heartseg.serving.limits import Limits, PixelBudget
from heartseg.serving.source import Source, Version
from heartseg.tracking.faults import store_errors

_log = logging.getLogger("heartseg.serve")

MEASURED_FRAMES = 8
"""Frames of a request from which on it tells the network's speed; fewer do not fill a batch."""
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
        self.budget = PixelBudget(limits.pixels_in_memory)
        self.counters = Counters()
        self.problem: str | None = None
        self._take(first)

    def _take(self, found: Version) -> None:
        loaded = self.network.load(found.name, found.package)
        self.present = Present(found.name, found.package.metadata, loaded)
        self.frames_per_s: float | None = None  # the fastest that was seen
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
        self,
        files: Sequence[Images],
        names: Sequence[str],
        present: Present,
        take: Callable[[int], None],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Numbers (K,) of the frames segmented, from 0, and label maps (K, H, W) of each file.

        Args:
            files: of one request.
            names: of the files, for messages.
            present: the version that answers.
            take: takes so many pixels of `heartseg.serving.limits.PixelBudget`.

        Raises:
            HTTPException: 422 the model takes sequences and a file is none; 413 too much to do in
                time or to hold in memory; 503 no answer.
        """
        channels = present.metadata["recipe"]["model"]["in_channels"]
        numbers = []
        for file, name in zip(files, names, strict=True):
            try:
                numbers.append(segmented_frames(len(file.frames), channels))
            except InputError as error:
                raise HTTPException(422, f"{name}: {error}") from None
            if frame_count(channels) > 1:  # a sequence is brought to this length, and reversed
                take(2 * channels * file.frames[0].size)
        count = sum(len(own) for own in numbers)
        self._check_time(count)
        waiting = [
            self.network.segment(
                np.broadcast_to(stack, (channels, *stack.shape[1:])), present.loaded
            )
            for file in files
            for stack in input_stacks(file.frames, channels)
        ]
        start, done = monotonic(), 0

        async def counted(one: Awaitable[tuple[np.ndarray, int]]) -> tuple[np.ndarray, int]:
            nonlocal done
            result = await one
            done += 1
            return result

        try:
            async with asyncio.timeout(self.limits.answer_s):
                found = await asyncio.gather(*map(counted, waiting))
        except (TimeoutError, Unavailable):
            raise BUSY from None
        finally:
            if done >= MEASURED_FRAMES:
                speed = done / (monotonic() - start)
                self.frames_per_s = max(self.frames_per_s or 0.0, speed)
        for _, together in found:
            self.counters.batch.observe(together)
        maps = iter(labels for labels, _ in found)
        return [(own, np.stack([next(maps) for _ in own])) for own in numbers]

    def _check_time(self, frames: int) -> None:
        """Refuse what takes too long even at the greatest speed that this version has shown."""
        if self.frames_per_s is None:
            return
        seconds = frames / self.frames_per_s
        if seconds > self.limits.answer_s:
            raise HTTPException(
                413,
                f"{frames} frames take {seconds:.0f} s or more here, and {self.limits.answer_s:g} "
                f"s are allowed; send {int(self.frames_per_s * self.limits.answer_s)} or fewer",
            )
