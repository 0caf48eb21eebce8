"""A sweep file with the data and the MLflow run that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from heartseg.config.params import PARAMS_FILE, Params, Train
from heartseg.config.recipe import WEIGHTS_FIELDS
from heartseg.config.sweep_file import RECIPE, SweepFile
from heartseg.data.prepared import file_digest, read_metadata
from heartseg.data.privacy import case_names
from heartseg.datasets import DATASETS
from heartseg.errors import InputError
from heartseg.paths import prepared_path, sweep_results_dir
from heartseg.training.run_dir import code_digest, code_files

if TYPE_CHECKING:
    from heartseg.tracking.client import MlflowClient
    from heartseg.tracking.sweep_tracker import SweepRun


@dataclass(frozen=True)
class Job:
    """A sweep file and the settings that it refers to.

    Attributes:
        path: Path of the sweep file.
        sweep: Content of the sweep file.
        params: Content of params.yaml.
    """

    path: Path
    sweep: SweepFile
    params: Params

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def dataset(self) -> str:
        return self.params.recipe(self.sweep.recipe).dataset

    @property
    def prepared(self) -> Path:
        return prepared_path(self.dataset)

    @property
    def results(self) -> Path:
        return sweep_results_dir(self.name)

    @property
    def train(self) -> Train:
        """The section `train` for trials.

        It includes the clinical metric if the sweep uses it. Overlays are disabled, because drawing
        them takes as long as a short trial. The evaluation of the winner draws its own.
        """
        clinical = self.params.train.clinical_metrics
        if self.sweep.metric in DATASETS[self.dataset].errors:
            clinical = True
        changes = {"clinical_metrics": clinical, "overlay_every": 0}
        return self.params.train.model_copy(update=changes)

    def values_of(self, field: str) -> list[int]:
        """Return all values that an integer field of the recipe may have in a trial."""
        own = {getattr(self.params.recipe(name), field) for name in self.sweep.recipes()}
        searched: Any = self.sweep.space.get(field)
        return sorted(own | set(searched.values() if searched else ()))

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that determines the results of the trials."""
        return {
            "file": self.sweep.model_dump(mode="json", by_alias=True),
            PARAMS_FILE: {name: self._fixed(name) for name in self.sweep.recipes()},
            "contents": {
                str(path): file_digest(path) for path in (self.prepared, *self.weight_files())
            },
            "code": code_files(),
        }

    def weight_files(self) -> list[Path]:
        """Return the files of trained weights from which trials may start."""
        recipes = [self.params.recipe(name) for name in self.sweep.recipes()]
        files = {file for recipe in recipes for file in recipe.weight_files()}
        for field in WEIGHTS_FIELDS:
            searched: Any = self.sweep.space.get(f"model.{field}")
            values = searched.values() if searched else []
            files |= {Path(value) for value in values if value and Path(value).is_file()}
        return sorted(files)

    def _fixed(self, recipe: str) -> dict[str, Any]:
        """Return the fields of a recipe that are the same in every trial.

        Searched fields are left out, so that a sweep can continue after `heartseg sweep apply` has
        changed them.
        """
        content = self.params.recipe(recipe).model_dump(mode="json")
        for field, searched in self.sweep.space.items():
            if not searched.when and field != RECIPE:
                *sections, last = field.split(".")
                section = content
                for name in sections:
                    section = section[name]
                del section[last]
        return content


def check_data(job: Job) -> None:
    """Check that the prepared dataset suits the sweep, without decoding images.

    Raises:
        InputError: If the dataset does not exist, a split is empty, a batch is larger than the
            training split, or no validation patient has the images that the metric needs.
    """
    if not job.prepared.exists():
        raise InputError(f"{job.prepared} does not exist; run `heartseg prepare {job.dataset}`")
    frames = pd.read_parquet(job.prepared, columns=["split", "patient", "view", "phase"])
    for split in ("train", "val"):
        if not (frames["split"] == split).any():
            raise InputError(
                f"{job.prepared} has no {split} images; change datasets.{job.dataset}.split"
            )
    largest, count = job.values_of("batch_size")[-1], int((frames["split"] == "train").sum())
    if largest > count:
        raise InputError(
            f"{job.path}: batch_size {largest} is larger than the number of training images "
            f"({count}); lower it"
        )
    val = frames[frames["split"] == "val"]
    complete = val.groupby("patient")[["view", "phase"]].agg(set).map(len).eq(2).all(axis=1)
    if job.sweep.metric == "ef_mae" and not complete.any():
        raise InputError(
            f"{job.path}: metric ef_mae: no validation patient of {job.prepared} has both views at "
            "both phases; use another metric"
        )


def open_sweep_run(client: MlflowClient, job: Job, folder: Path, identity: str) -> SweepRun:
    """Open the sweep's parent run in MLflow, or continue it."""
    from heartseg.tracking.artifacts import collect_lineage_files, log_lineage_files
    from heartseg.tracking.provenance import lineage_tags, started_from
    from heartseg.tracking.run import Run
    from heartseg.tracking.sweep_tracker import SweepRun

    tags = lineage_tags(Path.cwd(), job.dataset, job.prepared)
    tags |= {"heartseg.sweep": identity, "heartseg.code_md5": code_digest()}
    tags |= started_from(job.weight_files())
    experiment = job.params.tracking.experiment_prefix + job.dataset
    content = job.sweep.model_dump(mode="json", by_alias=True)
    source, digest = read_metadata(job.prepared)["source"], file_digest(job.prepared)
    run_id = Run.open(
        client,
        folder,
        {"heartseg.sweep": identity},
        experiment=experiment,
        name=identity,
        params={key: content[key] for key in ("recipe", "metric", "mode", "sampler", "pruner")},
        texts={},
        dataset=job.dataset,
        data_source=source,
        data_digest=digest,
        tags=tags,
    ).run_id
    # Also for a continued run, because the numbers of trials and hours may have been raised.
    client.log_text(run_id, yaml.safe_dump(content, sort_keys=False), "sweep.yaml")
    records = collect_lineage_files(Path.cwd())
    names = case_names(job.params.privacy, job.prepared)
    log_lineage_files(client, run_id, records, job.prepared, names)
    return SweepRun(run_id, experiment, job.dataset, source, digest, tags, records)
