"""Evaluations in MLflow runs: read them, check that two are comparable, log a comparison."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from heartseg.data.privacy import ID_COLUMNS
from heartseg.errors import InputError
from heartseg.text import printable, unescape_formula
from heartseg.tracking import artifacts
from heartseg.tracking.ancestors import TrackedModel, find_model, read_recipe
from heartseg.tracking.faults import writing_to_store
from heartseg.tracking.registry import POSTPROCESS_TAG, TTA_TAG, WEIGHTS_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "compare"
TEXT = ("case_id", "patient", "view", "phase", "quality", "structure")
AGAIN = "Add --evaluate to measure both models now on the local prepared dataset."


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and its evaluation.

    Attributes:
        name: For example "heartseg-camus version 2" or "run camus-4acfbd9bb9".
        aliases: Aliases of the version, for example ["champion"].
        tracked: The run and the version.
        model_uri: URI of the registered version; None for a run without one.
        dataset: Name of the dataset.
        recipe: The complete recipe; empty if the run does not have it.
        metrics: Content of report.json; empty for a run that was not evaluated.
        cases: Content of cases.csv, a row per case and structure.
        clinical: Content of clinical.csv, a row per patient or M-mode window.
    """

    name: str
    aliases: list[str]
    tracked: TrackedModel
    model_uri: str | None
    dataset: str
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    cases: pd.DataFrame
    clinical: pd.DataFrame

    @property
    def title(self) -> str:
        """Name and aliases."""
        return self.name + (f" ({', '.join(self.aliases)})" if self.aliases else "")


def read_evaluated_model(client: MlflowClient, uri: str) -> EvaluatedModel:
    """Read a model and its evaluation from its MLflow run.

    Args:
        client: Client from `connect`.
        uri: "models:/NAME@ALIAS", "models:/NAME/VERSION" or "runs:/ID".

    Raises:
        InputError: If there is no such model.
    """
    tracked = find_model(client, uri)
    version = tracked.version
    if version is None:
        found = client.search_model_versions(f"run_id = '{tracked.run_id}'")
        version = max(found, key=lambda one: int(one.version)) if found else None
    files = {
        name: artifacts.read_artifact(client, tracked.run_id, f"evaluation/{name}")
        for name in ("report.json", "cases.csv", "clinical.csv")
    }
    return EvaluatedModel(
        name=_name(tracked),
        aliases=[] if tracked.version is None else printable(list(tracked.version.aliases)),
        tracked=tracked,
        model_uri=None if version is None else f"models:/{version.name}/{version.version}",
        dataset=tracked.tags["heartseg.dataset"],
        recipe=printable(read_recipe(client, tracked) or {}),
        metrics=printable(artifacts.read_json(files["report.json"]) or {}),
        cases=_table(files["cases.csv"]),
        clinical=_table(files["clinical.csv"]),
    )


def check_comparable(first: EvaluatedModel, second: EvaluatedModel) -> None:
    """Check that both models were evaluated on the same data.

    Raises:
        InputError: If a model has no evaluation, its run has the evaluation of another model, or
            the evaluations used different data.
    """
    for model in (first, second):
        if not model.metrics or model.cases.empty:
            raise InputError(f"{model.title} has no evaluation in its MLflow run. {AGAIN}")
        version = model.tracked.version
        if version is not None and any(
            version.tags.get(tag, "none") != value for tag, value in _package(model.metrics).items()
        ):
            raise InputError(f"the run of {model.title} has another model's evaluation. {AGAIN}")
    for key, name in (("data_digest", "prepared dataset"), ("evaluated_on", "split")):
        one, other = first.metrics[key], second.metrics[key]
        if one != other:
            raise InputError(
                f"{first.title} and {second.title} were evaluated on different data: {name} {one} "
                f"and {other}. Their numbers cannot be compared. {AGAIN}"
            )


def log_comparison(
    client: MlflowClient, first: EvaluatedModel, second: EvaluatedModel, page: str
) -> tuple[str, str]:
    """Log a page that compares two models to the run of the second model.

    Returns:
        The run's id, and the artifact's path.

    Raises:
        InputError: If the store cannot be written.
    """
    run_id = second.tracked.run_id
    names = [re.sub(r"[^A-Za-z0-9.-]+", "-", model.name) for model in (second, first)]
    path = f"{FOLDER}/{'_against_'.join(names)}.html"
    with writing_to_store(client, "the comparison"):
        client.log_text(run_id, page, path)
    return run_id, path


def describe_model(model: EvaluatedModel) -> dict[str, str]:
    """Return the origin and settings of a model as texts for people, by name."""
    tags, info = model.tracked.tags, model.tracked.run.info
    dirty = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    choices = {key: (model.metrics.get(key) or {}).get("chosen") for key in ("postprocess", "tta")}
    optimistic = model.metrics.get("selected_on_it")
    selected = "unknown" if optimistic is None else "yes: optimistic" if optimistic else "no"
    found = {
        "Registered as": model.model_uri or "nothing",
        "Run": f"{info.run_name} ({info.run_id})",
        "Recipe": tags.get("heartseg.recipe", "unknown"),
        "Code": f"{tags.get('git.commit', 'unknown')}{dirty}",
        "Trained on": f"prepared dataset with MD5 {tags['dvc.prepared_md5']}",
        "Weights": f"MD5 {model.tracked.weights_md5 or 'unknown'}",
        "Post-processing": str(choices["postprocess"] or "unknown").replace("_", " "),
        "Test-time augmentation": str(choices["tta"] or "none"),
        "Evaluation data had a say in training": selected,
    }
    return printable(found)


def _package(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the tags of a version whose package is the one that was evaluated."""
    chosen = {key: (metrics.get(key) or {}).get("chosen") for key in ("postprocess", "tta")}
    return {
        WEIGHTS_TAG: metrics["weights_md5"],
        POSTPROCESS_TAG: chosen["postprocess"] or "none",
        TTA_TAG: chosen["tta"] or "none",
    }


def _name(tracked: TrackedModel) -> str:
    if tracked.version is None:
        return f"run {printable(tracked.run.info.run_name)}"
    return f"{printable(tracked.version.name)} version {tracked.version.version}"


def _table(text: str | None) -> pd.DataFrame:
    """Parse a CSV file of an evaluation. A patient with the name NA is not a missing value."""
    if text is None:
        return pd.DataFrame()
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    table = table.map(unescape_formula)
    # Names of cases and patients are keys: they stay unchanged, and are not shown as they are.
    labels = [column for column in table if column in TEXT and column not in ID_COLUMNS]
    table[labels] = table[labels].map(printable)
    numbers = [str(column) for column in table if column not in TEXT]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    return table
