"""Descriptions that MLflow's pages show, and the tags by which it chooses these pages."""

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
"""Characters that MLflow's database keeps of a model version's description."""
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
    """What an evaluation says of a model, in a few lines of Markdown; "" for other metrics.

    Args:
        metrics: report.json.
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
    """The sections of a model card that fit into a version's description, in their order.

    A card that is too long ends with a sentence that names the other sections and their place.
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
    """Describe a registered model with its first version, and link the version's source model.

    Args:
        client: from `connect`.
        name: the registered model.
        version: that was just added.
        model_uri: of the logged model, "models:/<model id>".
        dataset: that it segments.
    """
    if version == "1":  # later on a person may have written something better
        client.update_registered_model(name, registered_note(name, dataset))
    held = json.dumps([{"name": name, "version": version}])
    # as mlflow.register_model does it: the page of the logged model leads to its version
    note = f"What version {version} of {name} loads; the version's description is the model card."
    tags = {"mlflow.modelVersions": held, NOTE: note}
    client.set_logged_model_tags(model_uri.removeprefix("models:/"), tags)


def registered_note(name: str, dataset: str) -> str:
    """What a registered model is, for all its versions."""
    return (
        f"Models for the dataset {dataset}. `models:/{name}@champion` is the best so far on the "
        "same held-out patients, `@challenger` the latest that was not better. "
        "Each version's description is its model card; its source run has the evaluation's "
        "figures and tables, its source model what pulls and predicts."
    )
