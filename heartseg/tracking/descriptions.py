"""Descriptions on MLflow's pages, and the tags that select MLflow's layout of these pages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from heartseg.config.nested import get
from heartseg.paths import CARD
from heartseg.report.markdown import number, table, with_interval

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE = "mlflow.note.content"
DESCRIPTION_LENGTH = 5000
"""Maximum number of characters of a model version's description in MLflow's database."""
RUN_TAGS = {"mlflow.source.name": "heartseg", "mlflow.source.type": "LOCAL"}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # runs first, not traces of agents
    NOTE: "A run is a training of one recipe. Worth showing (*Columns*): the metrics `test/…` "
    "(held-out patients) and `dice/mean` (validation, by epoch), the tags `heartseg.recipe`, "
    "`git.commit`, `git.dirty` and `eval.split`, and *Registered Models*. Below *Artifacts* a run "
    "has its recipe, the evaluation's report, tables and figures, overlays by epoch, and "
    "comparisons made by `heartseg compare`.",
}


def run_note(metrics: dict[str, Any]) -> str:
    """Summarise an evaluation in a few lines of Markdown; "" if it has none of the metrics.

    Args:
        metrics: Content of report.json.
    """
    if "evaluated_on" not in metrics:
        return ""
    lines = [
        f"Evaluated on {number(metrics.get('n_cases'))} images of "
        f"{number(metrics.get('n_patients'))} patients or animals ({metrics['evaluated_on']}). "
        "In brackets: 95 % intervals."
    ]
    if overall := metrics.get("overall"):
        rows = [(name, with_interval(found, "dice")) for name, found in overall.items()]
        lines.append(table(("structure", "Dice (0 to 1)"), rows))
    for name, text in (
        ("ef_vs_reference", "EF against masks"),
        ("ef_vs_recorded", "EF against the recorded one"),
    ):
        if found := get(metrics, "ef", name):
            lines.append(f"{text}: mean absolute error {with_interval(found, 'mae')} points")
    if "auc" in metrics:
        lines.append(f"Area under the ROC curve: {with_interval(metrics, 'auc')}")
    return "\n\n".join(lines)


def first_page(card: str) -> str:
    """Return the sections of a model card that fit into the description of a model version.

    If the card is too long, the page ends with a sentence that names the missing sections and the
    artifact with the whole card.
    """
    if len(card) <= DESCRIPTION_LENGTH:
        return card
    start, *sections = re.split(r"\n\n(?=## )", card.strip())
    chosen = [start]

    def page(chosen: list[str]) -> str:
        others = [section for section in sections if section not in chosen]
        names = ", ".join(section.partition("\n")[0].removeprefix("## ") for section in others)
        where = f"`{CARD}` among the artifacts of the source model"
        return "\n\n".join([*chosen, f"*The whole card is {where}. It also has: {names}.*\n"])

    for section in sections:
        if len(page([*chosen, section])) <= DESCRIPTION_LENGTH:
            chosen.append(section)
    return page(chosen)


def describe(client: MlflowClient, name: str, version: str, model_uri: str, dataset: str) -> None:
    """Describe a registered model when it gets a version, and link the logged model to it.

    Args:
        client: Client from `connect`.
        name: Name of the registered model.
        version: Version that was added.
        model_uri: URI of the logged model, "models:/<model id>".
        dataset: Name of the dataset.
    """
    if version == "1":  # later on a person may have written something better
        client.update_registered_model(name, registered_note(name, dataset))
    held = json.dumps([{"name": name, "version": version}])
    # as mlflow.register_model does it: the page of the logged model leads to its version
    note = f"What version {version} of {name} loads; the version's description is the model card."
    tags = {"mlflow.modelVersions": held, NOTE: note}
    client.set_logged_model_tags(model_uri.removeprefix("models:/"), tags)


def registered_note(name: str, dataset: str) -> str:
    """Return the description of a registered model, which applies to all its versions."""
    return (
        f"Models for the dataset {dataset}. `models:/{name}@champion` is the best so far on the "
        "same held-out patients, `@challenger` the latest that was not better. "
        "Each version's description is its model card; its source run has the evaluation's "
        "figures and tables, its source model what pulls and predicts."
    )
