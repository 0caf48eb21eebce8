"""A cross-validation and its MLflow runs: a parent run, and a child run for each fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.config.params import Params
from heartseg.config.recipe import Recipe
from heartseg.data.prepared import file_digest, read_metadata
from heartseg.paths import crossval_results_dir, prepared_path
from heartseg.training.run_dir import code_digest, read_state

if TYPE_CHECKING:
    from heartseg.tracking.client import MlflowClient

PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Job:
    """A cross-validation.

    Attributes:
        name: Name of the recipe.
        params: Content of params.yaml.
        assigned: Fold by patient.
        folds: Number of folds.
        digest: MD5 of the prepared dataset.
        folder: Folder of the runs.
        client: Client of the MLflow store at `uri`.
        uri: URI of the MLflow store.
        tags: Lineage. The tag "heartseg.crossval" is unique to this cross-validation.
    """

    name: str
    params: Params
    assigned: dict[str, int]
    folds: int
    digest: str
    folder: Path
    client: MlflowClient
    uri: str
    tags: dict[str, str]

    @property
    def recipe(self) -> Recipe:
        return self.params.recipe(self.name)

    @property
    def dataset(self) -> str:
        return self.recipe.dataset

    @property
    def results(self) -> Path:
        return crossval_results_dir(self.name)

    def fold_dir(self, fold: int) -> Path:
        return self.folder / f"fold{fold}"

    def patients(self, fold: int) -> set[str]:
        """Return the validation patients of a fold."""
        return {patient for patient, own in self.assigned.items() if own == fold}

    @property
    def run_id(self) -> str:
        """Id of the parent run."""
        return str(read_state(self.folder)["mlflow_run_id"])

    @property
    def experiment(self) -> str:
        return self.params.tracking.experiment_prefix + self.dataset

    def open_run(self, folder: Path, title: str, own: dict[str, str]) -> str:
        """Open the MLflow run of a folder: a new one, or that of an interrupted training.

        Args:
            folder: Folder of the cross-validation or of a fold.
            title: Name of the run.
            own: Tags that identify the run within the cross-validation.

        Returns:
            Id of the run.
        """
        from heartseg.tracking.run import Run

        recipe = self.recipe.model_dump(mode="json")
        return Run.open(
            self.client,
            folder,
            {"heartseg.crossval": self.tags["heartseg.crossval"]} | own,
            experiment=self.experiment,
            name=title,
            params=recipe,
            texts={"recipe.yaml": recipe},
            dataset=self.dataset,
            data_source=read_metadata(prepared_path(self.dataset))["source"],
            data_digest=self.digest,
            tags=self.tags | own | ({} if folder == self.folder else {PARENT: self.run_id}),
        ).run_id


def open_job(name: str, params: Params, assigned: dict[str, int], folder: Path) -> Job:
    """Open a cross-validation and its parent run.

    Args:
        name: Name of the recipe.
        params: Content of params.yaml.
        assigned: Fold by patient.
        folder: Folder of the runs.

    Raises:
        InputError: If the store does not answer.
    """
    from heartseg.tracking.client import connect, tracking_uri
    from heartseg.tracking.provenance import lineage_tags, started_from

    dataset = params.recipe(name).dataset
    uri = tracking_uri(Path.cwd())
    client = connect(uri)
    tags = lineage_tags(Path.cwd(), dataset, prepared_path(dataset)) | {
        "heartseg.recipe": name,
        "heartseg.code_md5": code_digest(),
        "heartseg.crossval": folder.name,
    }
    tags |= started_from(params.recipe(name).weight_files())
    digest = file_digest(prepared_path(dataset))
    folds = max(assigned.values()) + 1
    job = Job(name, params, assigned, folds, digest, folder, client, uri, tags)
    job.open_run(folder, folder.name, {"heartseg.folds": str(folds)})
    return job
