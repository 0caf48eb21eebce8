"""The network on Ray Serve: replicas that segment simultaneous images in batches.

Ray's HTTP proxy is not used, because it reads a body of any size into memory before a handler can
refuse it. `heartseg.serving.app` receives the requests and calls the replicas through a handle.
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
from heartseg.prediction.segmenter import BATCH_PIXELS
from heartseg.serving.service import Unavailable

# A replica that uses all cores may take this long to report the length of its queue. With Ray's
# default of 0.1 s, the router asks again and again. Ray reads this when ray.serve is imported.
os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "1")
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")

import ray  # isort: skip
from ray import serve  # isort: skip
from ray.exceptions import RayError, RayTaskError  # isort: skip
from ray.serve.exceptions import RayServeException  # isort: skip

Predict = Callable[[np.ndarray], np.ndarray]
Reference = list[Any]  # one ray.ObjectRef; outside a list, Ray would replace it by its object
Loaded = tuple[str, Reference]

VERSIONS = 2  # the current one, and the previous one for requests in progress
READY_S = 300.0


class Replica:
    """A process that holds the network."""

    def __init__(self, batch_size: int, batch_wait_s: float):
        self._models: dict[str, Predict] = {}
        self._loading = asyncio.Lock()
        self._segment_batch.set_max_batch_size(batch_size)
        self._segment_batch.set_batch_wait_timeout_s(batch_wait_s)

    async def load(self, version: str, package: Reference) -> None:
        """Load a version and drop those that are no longer in use."""
        async with self._loading:
            if version not in self._models:
                self._models[version] = await asyncio.to_thread(_load, package)
                while len(self._models) > VERSIONS:
                    del self._models[next(iter(self._models))]

    async def segment(
        self, stack: np.ndarray, version: str, package: Reference
    ) -> tuple[np.ndarray, int]:
        """See `heartseg.serving.service.Network`."""
        if version not in self._models:  # `load` was called on another replica
            await self.load(version, package)
        return await self._segment_batch(stack, self._models[version])

    @serve.batch
    async def _segment_batch(
        self, stacks: list[np.ndarray], models: list[Predict]
    ) -> list[tuple[np.ndarray, int]]:
        """Segment images of the same size and version together.

        This blocks the event loop, so that images that arrive meanwhile form the next batch.
        """
        groups: dict[Any, list[int]] = defaultdict(list)
        for number, (stack, model) in enumerate(zip(stacks, models, strict=True)):
            groups[id(model), stack.shape].append(number)
        results: dict[int, tuple[np.ndarray, int]] = {}
        for numbers in groups.values():
            predict, (_, height, width) = models[numbers[0]], stacks[numbers[0]].shape
            step = max(BATCH_PIXELS // (height * width), 1)  # limits the memory
            for start in range(0, len(numbers), step):
                own = numbers[start : start + step]
                labels = predict(np.stack([stacks[number] for number in own]))
                results |= {n: (mask, len(own)) for n, mask in zip(own, labels, strict=True)}
        return [results[number] for number in range(len(stacks))]


def _load(package: Reference) -> Predict:
    loaded: Package = ray.get(package[0])
    return loaded.load()


class RayNetwork:
    """A `heartseg.serving.service.Network` on Ray Serve.

    Entering the context starts the replicas on the cluster at RAY_ADDRESS or on a local one.
    Leaving it stops them.

    Args:
        replicas: Number of processes that hold the network. Each takes one GPU if there are any.
        batch_size: Largest number of images that are segmented together.
        batch_wait_s: Time that the first image of a batch waits for others.
        log: File for Ray's messages.
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
            raise InputError(
                f"--replicas {self._replicas}: the cluster has {gpus} GPU(s); lower --replicas"
            )
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
        if os.environ.get("RAY_ADDRESS"):  # a local cluster is shut down as a whole
            serve.delete(self._name)
        ray_train.shutdown()

    def load(self, version: str, package: Package) -> Loaded:
        """Send a version to the cluster and load it on one replica; others load it on demand."""
        reference = [ray.put(package)]
        try:
            self._handle.load.remote(version, reference).result(timeout_s=READY_S)
        except RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise
        return version, reference

    async def segment(self, stack: np.ndarray, loaded: Loaded) -> tuple[np.ndarray, int]:
        """Segment an image on the least busy replica."""
        try:
            return await self._handle.segment.remote(stack, *loaded)
        except (RayError, RayServeException) as error:
            if isinstance(error, RayTaskError):  # raised by the network itself
                raise
            raise Unavailable from None

    def ready(self) -> bool:
        """Return whether a replica is running."""
        application = serve.status().applications.get(self._name)
        if application is None:
            return False
        return application.deployments["network"].replica_states.get("RUNNING", 0) > 0
