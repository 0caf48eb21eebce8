"""Segmenting an archive on a Ray cluster: Ray Data gives files to workers with one model each."""

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
    """A process of the cluster: loads the model once, then segments the files it is given."""

    def __init__(self, package: ray.ObjectRef, settings: dict[str, Any]):
        self.segmenter = Segmenter.of(ray.get(package), settings)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Outcomes, as JSON, of pieces of the archive."""
        outcomes = [vars(self._one(text)) for text in batch["jobs"]]
        # numpy's numbers as Python's own
        return {"outcome": [json.dumps(values, default=lambda v: v.item()) for values in outcomes]}

    def _one(self, text: str) -> Outcome:
        return self.segmenter([Job(Path(file), Path(place)) for file, place in json.loads(text)])


def segment_on_cluster(
    package: Package, jobs: Sequence[Job], settings: dict[str, Any]
) -> Iterator[Outcome]:
    """Outcomes in the order in which they come; a worker per GPU, or per CPU where there is none.

    The caller has started Ray. All nodes need the files and the output folder at the same paths.

    Args:
        package: sent to the nodes once each.
        jobs: with absolute paths.
        settings: further arguments of `Segmenter`.
    """
    chunks = [
        json.dumps([(str(job.file), str(job.place)) for job in chunk]) for chunk in in_chunks(jobs)
    ]
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    workers = min(gpus or int(resources["CPU"]), len(chunks))
    with watched():
        wait_for_one({"GPU": 1} if gpus else {"CPU": 1})  # Ray Data would wait without a word
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
