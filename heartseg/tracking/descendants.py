"""All that was made of some data, or of a patient's: what the runs in MLflow tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.data.privacy import HASHED, WITHHELD
from heartseg.paths import prepared_path
from heartseg.text import printable
from heartseg.tracking.faults import find_run
from heartseg.tracking.lineage import (
    STARTED_FROM_TAG,
    Cases,
    cached_cases,
    describe_run,
    is_cached,
    recorded_cases,
)
from heartseg.tracking.provenance import NONE
from heartseg.tracking.registry import WEIGHTS_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

RunFilter = Callable[["Run", Sequence["Run"]], dict[str, Any] | None]
"""A run and all runs on the same data, itself among them, to what is to be told of these data; None
where the run is not meant."""


def find_descendants(client: MlflowClient, root: Path, concerns: RunFilter) -> list[dict[str, Any]]:
    """The datasets of the runs that `concerns` picks, each with its runs and their models.

    Runs that were deleted are among them, because their artifacts may still be there, and so are
    trainings that started from the weights of one of the runs.

    Args:
        client: from `connect`.
        root: the repository.
        concerns: picks.
    """
    runs, versions, aliases = _all_runs(client), _versions_by_run(client), _aliases(client)
    on_same: dict[str, list[Run]] = {}
    for run in runs:
        on_same.setdefault(run.data.tags["dvc.prepared_md5"], []).append(run)
    picked = {
        run.info.run_id: about
        for same in on_same.values()
        for run in same
        if (about := concerns(run, same)) is not None
    }
    certain = {run_id for run_id, about in picked.items() if not about.get("hashed")}
    through = _descendants(runs, versions, certain)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for run in runs:
        run_id, tags = run.info.run_id, run.data.tags
        if run_id not in picked and run_id not in through:
            continue
        md5 = tags["dvc.prepared_md5"]
        group = groups.setdefault(
            (md5, run_id in picked),
            {
                "dataset": tags.get("heartseg.dataset"),
                "source": tags.get("dvc.source"),
                "source_md5": tags.get("dvc.source_md5"),
                "prepared_md5": md5,
                "prepared_in_cache": is_cached(root, md5),
                **picked.get(run_id, {"indirect": True}),
                "runs": [],
            },
        )
        group["runs"].append(
            describe_run(run)
            | {
                "sweep": tags.get("heartseg.sweep"),
                "trial": tags.get("heartseg.trial"),
                "started_from": through.get(run_id),
                "models": [
                    {
                        "name": v.name,
                        "version": str(v.version),
                        "aliases": aliases.get((v.name, str(v.version)), []),
                    }
                    for v in versions.get(run_id, [])
                ],
            }
        )
    return printable(list(groups.values()))


def versions_without_run(client: MlflowClient) -> list[dict[str, Any]]:
    """Model versions whose run the store does not have any more: nobody can tell their data.

    Returns:
        Of each: name, version, aliases, run_id.
    """
    aliases = _aliases(client)
    lost = [
        {
            "name": version.name,
            "version": str(version.version),
            "aliases": aliases.get((version.name, str(version.version)), []),
            "run_id": run_id,
        }
        for run_id, versions in _versions_by_run(client).items()
        if find_run(client, run_id) is None
        for version in versions
    ]
    return printable(lost)


def filter_by_data(root: Path, reference: str) -> RunFilter:
    """For `find_descendants`: runs on a source, a prepared dataset (their paths) or a DVC hash."""
    path = Path(reference)
    inside = (path if path.is_absolute() else root / path).resolve()

    def concerns(run: Run, _: Sequence[Run]) -> dict[str, Any] | None:
        tags = run.data.tags
        hashes = [tags["dvc.prepared_md5"], tags.get("dvc.source_md5", NONE)]
        if len(reference) >= 6 and any(md5.startswith(reference) for md5 in hashes):
            return {}
        places = [prepared_path(tags.get("heartseg.dataset", NONE))]
        if tags.get("dvc.source", NONE) != NONE:
            places.append(Path(tags["dvc.source"]))
        return {} if any(inside.is_relative_to((root / p).resolve()) for p in places) else None

    return concerns


def filter_by_patient(
    client: MlflowClient, root: Path, name: str, shown: Callable[[str], str]
) -> RunFilter:
    """For `find_descendants`: runs that saw a patient, or of which that cannot be told.

    What is told has the keys split and cases, which are None and [] where it cannot be told; then
    `hashed` says whether that is for want of a key: lists have hashed names alone, none of which
    is known here, and the data are not in DVC's cache.

    Args:
        client: from `connect`.
        root: the repository.
        name: the patient's own name, or one that runs show.
        shown: a patient's name as it is shown here.
    """
    known: dict[str, dict[str, Any] | None] = {}

    def concerns(run: Run, same: Sequence[Run]) -> dict[str, Any] | None:
        md5 = run.data.tags["dvc.prepared_md5"]
        if md5 not in known:
            kept = recorded_cases(client, same)
            # The first list shows the patient as others see it; that of the cache leaves no doubt.
            lists = chain(islice(kept, 1), cached_cases(root, md5), kept)
            known[md5] = _membership(lists, name, shown)
        return known[md5]

    return concerns


def _membership(
    lists: Iterator[Cases], name: str, shown: Callable[[str], str]
) -> dict[str, Any] | None:
    """What `filter_by_patient` tells, by lists of the same patients under different names."""
    names = {name, shown(name)} - {WITHHELD}
    empty, real = True, False
    for cases in lists:
        empty = False
        hashed = has_hashed_names(cases)
        for split, patients in cases.items():
            for patient, own in patients.items():
                if patient in names or (not hashed and shown(patient) in names):
                    return {"split": split, "cases": own}
        real = real or not hashed
        if real and not HASHED.fullmatch(name):
            break
    return None if real else {"split": None, "cases": [], "hashed": not empty}


def has_hashed_names(cases: Cases) -> bool:
    """Whether a list shows patients by their hashes."""
    return any(HASHED.fullmatch(name) for patients in cases.values() for name in patients)


def _all_runs(client: MlflowClient) -> list[Run]:
    """All of heartseg's runs, deleted ones too, oldest first."""
    from mlflow.entities import ViewType

    experiments = _pages(lambda token: client.search_experiments(ViewType.ALL, page_token=token))
    ids = [experiment.experiment_id for experiment in experiments]
    runs = _pages(
        lambda token: client.search_runs(
            ids,
            "tags.`dvc.prepared_md5` LIKE '%'",
            ViewType.ALL,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
    )
    return runs


def _versions_by_run(client: MlflowClient) -> dict[str, list[ModelVersion]]:
    found: dict[str, list[ModelVersion]] = {}
    for version in _pages(lambda token: client.search_model_versions(page_token=token)):
        found.setdefault(str(version.run_id), []).append(version)
    return found


def _aliases(client: MlflowClient) -> dict[tuple[str, str], list[str]]:
    """By a version's name and number; a search for versions does not give them."""
    found: dict[tuple[str, str], list[str]] = {}
    for model in _pages(lambda token: client.search_registered_models(page_token=token)):
        for alias, version in model.aliases.items():
            found.setdefault((model.name, str(version)), []).append(alias)
    return found


def _pages(search: Callable[[str | None], Any]) -> list[Any]:
    found, token = [], None
    while True:
        page = search(token)
        found += list(page)
        token = page.token
        if not token:
            return found


def _descendants(
    runs: list[Run], versions: dict[str, list[ModelVersion]], seen: set[str]
) -> dict[str, str]:
    """Runs that started, directly or not, from the weights of the runs `seen`: by their id, the id
    of the run that they started from."""
    maker: dict[str, str] = {}
    for run in runs:
        made = [run.data.tags.get("eval.weights_md5")]
        made += [version.tags.get(WEIGHTS_TAG) for version in versions.get(run.info.run_id, [])]
        maker |= {md5: run.info.run_id for md5 in made if md5}
    found: dict[str, str] = {}
    reached = 0
    while reached != len(seen) + len(found):
        reached = len(seen) + len(found)
        for run in runs:
            for md5 in run.data.tags.get(STARTED_FROM_TAG, "").split():
                origin = maker.get(md5)
                if origin in seen | found.keys() and run.info.run_id not in seen:
                    found[run.info.run_id] = str(origin)
    return found
