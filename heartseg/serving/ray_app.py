"""The network on Ray Serve: replicas that gather images which come at a time into batches.

Requests do not come through Ray's own HTTP proxy, which takes a body of any size into memory
before anybody can refuse it; `heartseg.serving.app` does, and calls the replicas by their handle.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from heartseg.cluster import train as ray_train
from heartseg.errors import InputError
from heartseg.models.package import Package
from heartseg.prediction.segmenter import PIXELS_AT_ONCE
from heartseg.serving.service import Unavailable

# Read when ray.serve is imported. A replica that computes on all cores answers no sooner than this
# how much it has to do; Ray's own 0.1 s make it ask again and again.
os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "1")
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")

import ray  # isort: skip
from ray import serve  # isort: skip
from ray.exceptions import RayError, RayTaskError  # isort: skip
from ray.serve.exceptions import RayServeException  # isort: skip

Predict = Callable[[np.ndarray], np.ndarray]
Reference = list[Any]  # of one ray.ObjectRef: Ray would replace it by its object outside a list
Loaded = tuple[str, Reference]

VERSIONS = 2  # the present one, and the one before, which requests may still be answered with
READY_S = 300.0


class Replica:
    """A process with the network."""

    def __init__(self, batch_size: int, batch_wait_s: float):
        self._models: dict[str, Predict] = {}
        self._loading = asyncio.Lock()
        self._together.set_max_batch_size(batch_size)
        self._together.set_batch_wait_timeout_s(batch_wait_s)

    async def load(self, version: str, package: Reference) -> None:
        """Have a version ready, and forget those that are no longer in use."""
        async with self._loading:
            if version not in self._models:
                self._models[version] = await asyncio.to_thread(_load, package)
                while len(self._models) > VERSIONS:
                    del self._models[next(iter(self._models))]

    async def segment(
        self, stack: np.ndarray, version: str, package: Reference
    ) -> tuple[np.ndarray, int]:
        """See `heartseg.serving.service.Network`."""
        if version not in self._models:  # this replica is new, or has not heard of it
            await self.load(version, package)
        return await self._together(stack, self._models[version])

    @serve.batch
    async def _together(
        self, stacks: list[np.ndarray], models: list[Predict]
    ) -> list[tuple[np.ndarray, int]]:
        """Images of one size and version go through the network at once.

        Nothing is awaited: what comes meanwhile makes up the next batch.
        """
        groups: dict[Any, list[int]] = defaultdict(list)
        for number, (stack, model) in enumerate(zip(stacks, models, strict=True)):
            groups[id(model), stack.shape].append(number)
        results: dict[int, tuple[np.ndarray, int]] = {}
        for numbers in groups.values():
            predict, (_, height, width) = models[numbers[0]], stacks[numbers[0]].shape
            step = max(PIXELS_AT_ONCE // (height * width), 1)  # bounds the memory
            for start in range(0, len(numbers), step):
                own = numbers[start : start + step]
                labels = predict(np.stack([stacks[number] for number in own]))
                results |= {n: (one, len(own)) for n, one in zip(own, labels, strict=True)}
        return [results[number] for number in range(len(stacks))]


def _load(package: Reference) -> Predict:
    loaded: Package = ray.get(package[0])
    return loaded.load()


class RayNetwork:
    """Replicas on the cluster at RAY_ADDRESS, or on a local one that ends with this; a
    `heartseg.serving.service.Network`, and a context manager that starts and stops it.

    Args:
        replicas: processes with the network; each has a GPU, where there are GPUs.
        batch_size: images that go through the network at once, at most.
        batch_wait_s: how long the first image of a batch waits for others.
        log: file for Ray's messages.
    """

    def __init__(self, replicas: int, batch_size: int, batch_wait_s: float, log: Path):
        self._settings = (batch_size, batch_wait_s)
        self._replicas = replicas
        self._log = log
        self._name = f"heartseg-{os.getpid()}"

    def __enter__(self) -> RayNetwork:
        ray_train.start_ray(self._log)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if 0 < gpus < self._replicas:
            raise InputError(f"--replicas {self._replicas}: the cluster has {gpus} GPU(s)")
        share = ray_train.share_of_node(self._replicas)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled")
        batch_size = self._settings[0]
        deployment = serve.deployment(
            Replica,
            name="network",
            num_replicas=self._replicas,
            max_ongoing_requests=4 * batch_size,
            ray_actor_options={"num_cpus": share["CPU"], "num_gpus": share.get("GPU", 0)},
        )
        self._handle = serve.run(
            deployment.bind(*self._settings), name=self._name, route_prefix=None
        )

    def __exit__(self, *_: object) -> None:
        if os.environ.get("RAY_ADDRESS"):  # a local cluster ends as a whole
            serve.delete(self._name)
        ray_train.shutdown()

    def load(self, version: str, package: Package) -> Loaded:
        """Send a version to the cluster and load it on a replica; the others load it in time."""
        reference = [ray.put(package)]
        try:
            self._handle.load.remote(version, reference).result(timeout_s=READY_S)
        except RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise
        return version, reference

    async def segment(self, stack: np.ndarray, loaded: Loaded) -> tuple[np.ndarray, int]:
        """By the replica that has least to do."""
        try:
            return await self._handle.segment.remote(stack, *loaded)
        except (RayError, RayServeException) as error:
            if isinstance(error, RayTaskError):  # the network's own fault
                raise
            raise Unavailable from None

    def ready(self) -> bool:
        """Whether a replica runs."""
        application = serve.status().applications.get(self._name)
        if application is None:
            return False
        return application.deployments["network"].replica_states.get("RUNNING", 0) > 0
