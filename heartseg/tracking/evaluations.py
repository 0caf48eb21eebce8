"""The evaluation that a run keeps, read back; and what two of them are compared by."""

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
from heartseg.tracking.faults import writing_to_store
from heartseg.tracking.lineage import TrackedModel, find_model, read_recipe
from heartseg.tracking.registry import POSTPROCESS_TAG, TTA_TAG, WEIGHTS_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "compare"
TEXT = ("case_id", "patient", "view", "phase", "quality", "structure")
AGAIN = "Add --evaluate to measure both models now, on the prepared dataset here."


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and what is known of how good it is.

    Attributes:
        name: "heartseg-camus version 2", "run camus-4acfbd9bb9".
        aliases: of the version, "champion" for example.
        tracked: the run and the version.
        model_uri: of the registered version; None for a run that was not registered.
        dataset: that it segments.
        recipe: that was trained, whole; empty where the run has lost it.
        metrics: report.json; empty for a run that was not evaluated.
        cases: cases.csv, a row per case and structure.
        clinical: clinical.csv, a row per patient or M-mode window.
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
        """For people: name and aliases."""
        return self.name + (f" ({', '.join(self.aliases)})" if self.aliases else "")


def read_evaluated_model(client: MlflowClient, uri: str) -> EvaluatedModel:
    """A model with the evaluation that its run keeps.

    Args:
        client: from `connect`.
        uri: "models:/NAME@ALIAS", "models:/NAME/VERSION" or "runs:/ID".

    Raises:
        InputError: there is no such model.
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
    """Refuse two models of which one has no evaluation, or whose evaluations saw other data.

    Raises:
        InputError: says what differs.
    """
    for own in (first, second):
        if not own.metrics or own.cases.empty:
            raise InputError(f"{own.title} has no evaluation in its MLflow run. {AGAIN}")
        version = own.tracked.version
        if version is not None and any(
            version.tags.get(tag, "none") != value for tag, value in _package(own.metrics).items()
        ):
            raise InputError(f"the run of {own.title} keeps another model's evaluation. {AGAIN}")
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
    """Add the page to the run of the second model.

    Returns:
        The run's id, and the artifact's path.

    Raises:
        InputError: the store cannot be written.
    """
    run_id = second.tracked.run_id
    names = [re.sub(r"[^A-Za-z0-9.-]+", "-", own.name) for own in (second, first)]
    path = f"{FOLDER}/{'_against_'.join(names)}.html"
    with writing_to_store(client, "the comparison"):
        client.log_text(run_id, page, path)
    return run_id, path


def describe_model(own: EvaluatedModel) -> dict[str, str]:
    """What a model is, by name, for people."""
    tags, info = own.tracked.tags, own.tracked.run.info
    dirty = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    choices = {key: (own.metrics.get(key) or {}).get("chosen") for key in ("postprocess", "tta")}
    optimistic = own.metrics.get("selected_on_it")
    selected = "unknown" if optimistic is None else "yes: optimistic" if optimistic else "no"
    found = {
        "Registered as": own.model_uri or "nothing",
        "Run": f"{info.run_name} ({info.run_id})",
        "Recipe": tags.get("heartseg.recipe", "unknown"),
        "Code": f"{tags.get('git.commit', 'unknown')}{dirty}",
        "Trained on": f"prepared dataset with MD5 {tags['dvc.prepared_md5']}",
        "Weights": f"MD5 {own.tracked.weights_md5 or 'unknown'}",
        "Post-processing": str(choices["postprocess"] or "unknown").replace("_", " "),
        "Test-time augmentation": str(choices["tta"] or "none"),
        "Evaluation data had a say in training": selected,
    }
    return printable(found)


def _package(metrics: dict[str, Any]) -> dict[str, str]:
    """Tags that the version has whose package was evaluated."""
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
    """A CSV file of an evaluation; a patient called NA stays one."""
    if text is None:
        return pd.DataFrame()
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    table = table.map(unescape_formula)
    labels = [column for column in table if column in TEXT and column not in ID_COLUMNS]
    table[labels] = table[labels].map(
        printable
    )  # names stay keys; compare shows those of the images
    numbers = [str(column) for column in table if column not in TEXT]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    return table
