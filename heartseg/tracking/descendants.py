"""Search for the runs and models that were made from some data or from a patient's images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.data.privacy import HASHED, WITHHELD
from heartseg.paths import prepared_path
from heartseg.text import printable
from heartseg.tracking.ancestors import (
    STARTED_FROM_TAG,
    Cases,
    cached_cases,
    describe_run,
    is_cached,
    recorded_cases,
)
from heartseg.tracking.faults import find_run
from heartseg.tracking.provenance import NONE
from heartseg.tracking.registry import WEIGHTS_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

RunFilter = Callable[["Run", Sequence["Run"]], dict[str, Any] | None]
"""Function of a run and of all runs on the same data (including the run). It returns None to leave
the run out, or a dict of facts to report about these data."""


def find_descendants(
    client: MlflowClient, root: Path, run_filter: RunFilter
) -> list[dict[str, Any]]:
    """Return the datasets of the runs that pass a filter, with their runs and models.

    Deleted runs are included, because their artifacts may still exist. Trainings that started
    from the weights of one of the runs are included too, in groups with the key "indirect".

    Args:
        client: Client from `connect`.
        root: Root of the repository.
        run_filter: From `filter_by_data` or `filter_by_patient`.

    Returns:
        JSON-serialisable groups, one per prepared dataset: dataset, source, source_md5,
        prepared_md5, prepared_in_cache, the facts from `run_filter`, and runs.
    """
    runs, versions, aliases = _all_runs(client), _versions_by_run(client), _aliases(client)
    on_same: dict[str, list[Run]] = {}
    for run in runs:
        on_same.setdefault(run.data.tags["dvc.prepared_md5"], []).append(run)
    picked = {
        run.info.run_id: facts
        for same in on_same.values()
        for run in same
        if (facts := run_filter(run, same)) is not None
    }
    certain = {run_id for run_id, facts in picked.items() if not facts.get("hashed")}
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
    """Return the model versions whose run is gone from the store, so that their data are unknown.

    Returns:
        Dicts with the keys name, version, aliases and run_id.
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
    """Return a filter for the runs on some data.

    Args:
        root: Root of the repository.
        reference: Path of a source or of a prepared dataset, or the first 6 or more characters of
            a DVC hash.
    """
    path = Path(reference)
    inside = (path if path.is_absolute() else root / path).resolve()

    def matches(run: Run, _: Sequence[Run]) -> dict[str, Any] | None:
        tags = run.data.tags
        hashes = [tags["dvc.prepared_md5"], tags.get("dvc.source_md5", NONE)]
        if len(reference) >= 6 and any(md5.startswith(reference) for md5 in hashes):
            return {}
        places = [prepared_path(tags.get("heartseg.dataset", NONE))]
        if tags.get("dvc.source", NONE) != NONE:
            places.append(Path(tags["dvc.source"]))
        return {} if any(inside.is_relative_to((root / p).resolve()) for p in places) else None

    return matches


def filter_by_patient(
    client: MlflowClient, root: Path, name: str, shown: Callable[[str], str]
) -> RunFilter:
    """Return a filter for the runs whose data contain, or may contain, a patient.

    The facts have the keys split and cases. If it is unknown whether the data contain the patient,
    split is None, cases is [], and the key hashed is true if a hash key is missing here: the lists
    have only hashed names, none of which matches, and DVC's cache does not have the data.

    Args:
        client: Client from `connect`.
        root: Root of the repository.
        name: The patient's real name, or the name that runs show.
        shown: Function from a real name to the name that may be shown.
    """
    known: dict[str, dict[str, Any] | None] = {}

    def matches(run: Run, same: Sequence[Run]) -> dict[str, Any] | None:
        md5 = run.data.tags["dvc.prepared_md5"]
        if md5 not in known:
            recorded = recorded_cases(client, same)
            # The first list has the names that may be shown; the cached data have the real names.
            lists = chain(islice(recorded, 1), cached_cases(root, md5), recorded)
            known[md5] = _membership(lists, name, shown)
        return known[md5]

    return matches


def _membership(
    lists: Iterator[Cases], name: str, shown: Callable[[str], str]
) -> dict[str, Any] | None:
    """Return the facts of `filter_by_patient` from lists of the same patients by other names."""
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
    """Return whether a list has hashed names of patients."""
    return any(HASHED.fullmatch(name) for patients in cases.values() for name in patients)


def _all_runs(client: MlflowClient) -> list[Run]:
    """Return all of heartseg's runs including deleted ones, oldest first."""
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
    """Return the aliases by name and number of a version, which searches for versions lack."""
    found: dict[tuple[str, str], list[str]] = {}
    for model in _pages(lambda token: client.search_registered_models(page_token=token)):
        for alias, version in model.aliases.items():
            found.setdefault((model.name, str(version)), []).append(alias)
    return found


def _pages(search: Callable[[str | None], Any]) -> list[Any]:
    """Collect the results of a paged search, which takes the token of a page."""
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
    """Find the runs that started, directly or indirectly, from the weights of the runs `seen`.

    Returns:
        The id of the run that each of them started from, by its own id.
    """
    run_of_weights: dict[str, str] = {}
    for run in runs:
        md5s = [run.data.tags.get("eval.weights_md5")]
        md5s += [version.tags.get(WEIGHTS_TAG) for version in versions.get(run.info.run_id, [])]
        run_of_weights |= {md5: run.info.run_id for md5 in md5s if md5}
    found: dict[str, str] = {}
    reached = 0
    while reached != len(seen) + len(found):
        reached = len(seen) + len(found)
        for run in runs:
            for md5 in run.data.tags.get(STARTED_FROM_TAG, "").split():
                origin = run_of_weights.get(md5)
                if origin in seen | found.keys() and run.info.run_id not in seen:
                    found[run.info.run_id] = str(origin)
    return found
