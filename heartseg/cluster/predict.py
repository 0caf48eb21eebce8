"""Segmentation of many files on a Ray cluster: Ray Data passes files to workers with a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from heartseg.cluster.watch import wait_for_one, watched
from heartseg.models.package import Package
from heartseg.prediction.files import Job, in_chunks
from heartseg.prediction.segmenter import Outcome, Segmenter


class Worker:
    """A process of the cluster that loads the model once and segments chunks of files."""

    def __init__(self, package: ray.ObjectRef, settings: dict[str, Any]):
        self.segmenter = Segmenter.of(ray.get(package), settings)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Segment chunks of jobs and return an `Outcome` as JSON for each chunk."""
        outcomes = [vars(self._segment(chunk)) for chunk in batch["jobs"]]
        # `default` converts NumPy scalars
        return {"outcome": [json.dumps(values, default=lambda v: v.item()) for values in outcomes]}

    def _segment(self, chunk: str) -> Outcome:
        return self.segmenter([Job(Path(file), Path(output)) for file, output in json.loads(chunk)])


def segment_on_cluster(
    package: Package, jobs: Sequence[Job], settings: dict[str, Any]
) -> Iterator[Outcome]:
    """Segment files with one worker per GPU, or one per CPU if the cluster has no GPU.

    Ray must have been started. All nodes need the files and the output folder at the same paths.

    Args:
        package: Model, which is sent to each node once.
        jobs: Files to segment, with absolute paths.
        settings: Keyword arguments of `Segmenter`.

    Yields:
        The outcome of each chunk of files, in the order of completion.
    """
    chunks = [
        json.dumps([(str(job.file), str(job.output)) for job in chunk]) for chunk in in_chunks(jobs)
    ]
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    workers = min(gpus or int(resources["CPU"]), len(chunks))
    with watched():
        wait_for_one({"GPU": 1} if gpus else {"CPU": 1})  # Ray Data itself waits silently
        ray.data.DataContext.get_current().enable_progress_bars = False
        outcomes = ray.data.from_items(
            [{"jobs": chunk} for chunk in chunks], override_num_blocks=len(chunks)
        ).map_batches(
            Worker,
            fn_constructor_args=(ray.put(package), settings),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=0 if gpus else 1,
            num_gpus=1 if gpus else 0,
        )
        for row in outcomes.iter_rows():
            yield Outcome(**json.loads(row["outcome"]))
