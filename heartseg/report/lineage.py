"""Trees for the terminal: lineage of a model, and descendants of some data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.tree import Tree

MAIN = ("input_size", "batch_size", "optimizer", "learning_rate", "epochs", "loss", "seed")
UNKNOWN = "[yellow]not recorded[/]"


def lineage_tree(lineage: dict[str, Any], title: str) -> Tree:
    """Return the lineage of a model as a tree.

    Args:
        lineage: Lineage from `heartseg.tracking.ancestors.read_lineage`.
        title: Title of the tree.
    """
    tree = Tree(f"[bold]{escape(title)}[/]")
    run, data = lineage["run"], lineage["data"]
    if (model := lineage["model"]) is not None:
        aliases = escape("".join(f" @{alias}" for alias in model["aliases"]))
        branch = tree.add(f"model version {escape(model['name'])}/{model['version']}{aliases}")
        branch.add(f"weights {_text(model['weights_md5'])}")
        branch.add(f"post-processing {_text(model['postprocess'])}")
        evaluation = model["evaluation"]
        if "metric" in evaluation:
            value = f"{float(evaluation['value']):.4f} on {escape(evaluation['split'])}"
            branch.add(f"{escape(evaluation['metric'])} {value}: {_text(model['reason'])}")
    branch = tree.add(f"run {escape(run['name'])} {_state(run)}")
    branch.add(f"{run['id']} in {escape(run['experiment'])}, {_when(run)} by {_text(run['user'])}")
    if (sweep := lineage["sweep"]) is not None:
        branch = tree.add(f"sweep {_text(sweep['name'])}, trial {_text(sweep['trial'])}")
        branch.add(_pairs(sweep["values"]))
    _add_recipe(tree, lineage["recipe"], lineage["started_from"])
    _add_code(tree, lineage["code"])
    branch = tree.add(f"data {_text(data['dataset'])}")
    source = f"source {_text(data['source'])} {_text(data['source_md5'])}"
    branch.add(source + _cached(data["source_in_cache"]))
    prepared = branch.add(
        f"prepared {_text(data['prepared_md5'])}" + _cached(data["prepared_in_cache"])
    )
    counts = data["patients"]
    prepared.add(
        "[yellow]patients not recorded, and the data are not in DVC's cache[/]"
        if counts is None
        else escape("patients: " + ", ".join(f"{n} {split}" for split, n in counts.items()))
    )
    environment = lineage["environment"]
    branch = tree.add(f"environment: requirements.lock {_text(environment['lock_md5'])}")
    branch.add(_pairs({k: v for k, v in environment.items() if k != "lock_md5"}))
    machine = lineage["machine"]
    tree.add(f"machine: {_pairs(machine)}" if machine else f"machine {UNKNOWN}")
    return tree


def descendants_tree(groups: Sequence[dict[str, Any]], title: str) -> Tree:
    """Return the runs and models that were made from some data as a tree.

    Args:
        groups: Groups from `heartseg.tracking.descendants.find_descendants`.
        title: Title of the tree.
    """
    tree = Tree(f"[bold]{escape(title)}[/]")
    for group in groups:
        words = f"{_text(group['dataset'])} from {_text(group['source'])}"
        words += f" {_text(group['source_md5'])}"
        if group.get("indirect"):
            words += ", by starting from trained weights"
        branch = tree.add(words)
        branch.add(f"prepared {_text(group['prepared_md5'])}" + _cached(group["prepared_in_cache"]))
        if "split" in group:
            branch.add(_membership(group))
        trials = {run["sweep"] for run in group["runs"] if run["trial"] is not None}
        for run in group["runs"]:
            if run["trial"] is None or run["models"] or run["started_from"]:
                _add_user(branch, run, group["runs"] if run["sweep"] in trials else [])
    return tree


def _add_user(branch: Tree, run: dict[str, Any], others: Sequence[dict[str, Any]]) -> None:
    words = f"run {escape(run['name'])} {_state(run)}, {_when(run)}"
    if run["trial"] is None and (
        trials := [o for o in others if o["sweep"] == run["sweep"] and o["trial"] is not None]
    ):
        words += f", sweep of {len(trials)} trials"
    leaf = branch.add(words)
    leaf.add(f"{run['id']}")
    if run["started_from"]:
        leaf.add(f"started from the weights of run {run['started_from']}")
    for model in run["models"]:
        aliases = escape("".join(f" @{alias}" for alias in model["aliases"]))
        leaf.add(f"[bold]models:/{escape(model['name'])}/{model['version']}[/]{aliases}")


def _membership(group: dict[str, Any]) -> str:
    if group["split"] is None:
        return (
            "[yellow]patients unknown: its runs have no list of patients, and DVC's cache does not "
            f"have {_text(group['prepared_md5'])}[/]"
        )
    return f"[bold]{escape(group['split'])}[/]: " + escape(", ".join(group["cases"]))


def _add_recipe(tree: Tree, recipe: dict[str, Any], started_from: Sequence[dict[str, Any]]) -> None:
    values = recipe["values"]
    branch = tree.add(f"recipe {_text(recipe['name'])}")
    if values is None:
        branch.add(UNKNOWN)
    else:
        shown = {"model": values["model"]["name"]}
        branch.add(_pairs(shown | {key: values[key] for key in MAIN if key in values}))
    for weights in started_from:
        known = ", ".join(weights["models"]) or "no registered model"
        branch.add(escape(f"started from weights {weights['weights_md5']}: {known}"))


def _add_code(tree: Tree, code: dict[str, Any]) -> None:
    here = "" if code["here"] or code["commit"] is None else ", [yellow]not in this repository[/]"
    branch = tree.add(f"code: commit {_text(code['commit'])} on {_text(code['branch'])}{here}")
    if code["dirty"] == "true":
        patch = code["patch_md5"]
        branch.add(f"uncommitted changes: {f'patch.diff {escape(patch)}' if patch else UNKNOWN}")
    else:
        branch.add("no uncommitted changes" if code["dirty"] else f"changes {UNKNOWN}")
    if code["dvc_experiment"]:
        branch.add(f"DVC experiment {escape(code['dvc_experiment'])}")


def _text(value: Any) -> str:
    return UNKNOWN if value is None else escape(str(value))


def _pairs(values: dict[str, Any]) -> str:
    return escape(", ".join(f"{key} {value}" for key, value in values.items() if value is not None))


def _cached(cached: bool | None) -> str:
    return {None: "", True: " in DVC's cache", False: " [yellow]not in DVC's cache[/]"}[cached]


def _state(run: dict[str, Any]) -> str:
    return f"{run['status']}, [yellow]deleted in MLflow[/]" if run["deleted"] else run["status"]


def _when(run: dict[str, Any]) -> str:
    return f"{datetime.fromtimestamp(run['started'] / 1000, UTC):%Y-%m-%d %H:%M} UTC"
