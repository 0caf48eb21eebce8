"""The served version of a model, its replacement by newer ones, and segmentation with it."""

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
"""Number of frames from which a request is used to measure the speed. Fewer fill no batch."""
BUSY = HTTPException(503, "the network does not answer; try again", {"Retry-After": "5"})


class Unavailable(Exception):
    """The network cannot answer now, because its process has died or is still starting."""


class Network(Protocol):
    """The processes that segment. They hold one or two versions of a model."""

    def load(self, version: str, package: Package) -> Any:
        """Load a version and return a handle for `segment`. This blocks.

        Raises:
            Exception: If the version cannot be loaded, for example an InputError.
        """
        ...

    def segment(self, stack: np.ndarray, loaded: Any) -> Awaitable[tuple[np.ndarray, int]]:
        """Segment one image.

        Args:
            stack: Gray values, uint8 (C, H, W).
            loaded: Handle returned by `load`.

        Returns:
            Label map, uint8 (H, W), and the size of the batch in which it was segmented.
        """
        ...

    def ready(self) -> bool:
        """Return whether a process is ready. This may block for a moment."""
        ...


@dataclass(frozen=True)
class LoadedVersion:
    """A version that is ready for requests.

    Attributes:
        version: Name of the version.
        metadata: Metadata of its package.
        loaded: Handle returned by `Network.load`.
    """

    version: str
    metadata: dict[str, Any]
    loaded: Any


class Service:
    """A served model.

    A request keeps its version if a newer one replaces it meanwhile.

    Args:
        source: Source of the versions.
        first: Version to start with.
        network: Processes that segment.
        limits: Limits of the requests.

    Attributes:
        current: Version for new requests.
        problem: Reason why the last check for a newer version has failed, or None.

    Raises:
        InputError: If the first version cannot be loaded.
    """

    def __init__(self, source: Source, first: Version, network: Network, limits: Limits):
        self.source = source
        self.network = network
        self.limits = limits
        self.budget = PixelBudget(limits.pixels_in_memory)
        self.counters = Counters()
        self.problem: str | None = None
        self._switch_to(first)

    def _switch_to(self, version: Version) -> None:
        loaded = self.network.load(version.name, version.package)
        self.current = LoadedVersion(version.name, version.package.metadata, loaded)
        self.frames_per_s: float | None = None  # highest measured speed
        self.counters.model.clear()
        self.counters.model.labels(self.source.model, version.name).set(1)

    def update(self) -> None:
        """Switch to a newer version if there is one. On any error, keep the current version."""
        try:
            newer = self.source.fetch_newer(self.current.version)
            if newer is not None:
                self._switch_to(newer)
                _log.warning("%s is now version %s", self.source.model, newer.name)
            self.problem = None
        except Exception as error:  # the service keeps running without its store
            self.counters.failed_updates.inc()
            reason = str(error) if isinstance(error, InputError) else type(error).__name__
            if reason != self.problem:
                bug = not isinstance(error, store_errors(InputError))
                _log.warning(
                    "no newer version, keeping %s: %s", self.current.version, reason, exc_info=bug
                )
            self.problem = reason

    async def follow(self, poll_s: float) -> None:
        """Check for a newer version every `poll_s` seconds."""
        while True:
            await asyncio.sleep(poll_s)
            await asyncio.to_thread(self.update)

    async def segment(
        self,
        files: Sequence[Images],
        names: Sequence[str],
        version: LoadedVersion,
        reserve: Callable[[int], None],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Segment the files of a request.

        Args:
            files: Decoded files.
            names: Names of the files, for messages.
            version: Version to segment with.
            reserve: Function that reserves pixels, see `PixelBudget`.

        Returns:
            For each file the indices of the segmented frames, (K,), from 0, and their label maps,
            uint8 (K, H, W).

        Raises:
            HTTPException: 422 if the model takes sequences and a file is none, 413 if there is too
                much to segment in time or to hold in memory, 503 if the network does not answer.
        """
        channels = version.metadata["recipe"]["model"]["in_channels"]
        numbers = []
        for file, name in zip(files, names, strict=True):
            try:
                numbers.append(segmented_frames(len(file.frames), channels))
            except InputError as error:
                raise HTTPException(422, f"{name}: {error}") from None
            if frame_count(channels) > 1:  # a sequence is resampled to this length, and reversed
                reserve(2 * channels * file.frames[0].size)
        count = sum(len(own) for own in numbers)
        self._check_time(count)
        waiting = [
            self.network.segment(
                np.broadcast_to(stack, (channels, *stack.shape[1:])), version.loaded
            )
            for file in files
            for stack in input_stacks(file.frames, channels)
        ]
        start, done = monotonic(), 0

        async def counted(result_of: Awaitable[tuple[np.ndarray, int]]) -> tuple[np.ndarray, int]:
            nonlocal done
            result = await result_of
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
        for _, batch_size in found:
            self.counters.batch.observe(batch_size)
        maps = iter(labels for labels, _ in found)
        return [(own, np.stack([next(maps) for _ in own])) for own in numbers]

    def _check_time(self, frames: int) -> None:
        """Refuse requests that would take too long even at the highest measured speed."""
        if self.frames_per_s is None:
            return
        seconds = frames / self.frames_per_s
        if seconds > self.limits.answer_s:
            raise HTTPException(
                413,
                f"{frames} frames take {seconds:.0f} s or more, and {self.limits.answer_s:g} s are "
                f"allowed; send at most {int(self.frames_per_s * self.limits.answer_s)} frames",
            )
