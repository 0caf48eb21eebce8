"""All that was made of some data, or of a patient's: what the runs in MLflow tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.paths import prepared_path
from heartseg.tracking.chain import STARTED_TAG, about_run, is_cached, read_cases
from heartseg.tracking.lineage import NONE
from heartseg.tracking.registry import WEIGHTS_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


def find_users(
    client: MlflowClient, root: Path, concerns: Callable[[Run], dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """The datasets of the runs that `concerns` picks, each with its runs and their models.

    Runs that were deleted are among them, because their artifacts may still be there, and so are
    trainings that started from the weights of one of the runs.

    Args:
        client: from `connect`.
        root: the repository.
        concerns: what is to be told of the run's dataset, or None where the run is not meant.
    """
    runs, versions, aliases = _all_runs(client), _versions_by_run(client), _aliases(client)
    picked = {run.info.run_id: about for run in runs if (about := concerns(run)) is not None}
    through = _descendants(runs, versions, set(picked))
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
            about_run(run)
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
    return list(groups.values())


def on_data(root: Path, reference: str) -> Callable[[Run], dict[str, Any] | None]:
    """For `find_users`: runs on a source, a prepared dataset (their paths) or a DVC hash."""
    path = Path(reference)
    inside = (path if path.is_absolute() else root / path).resolve()

    def concerns(run: Run) -> dict[str, Any] | None:
        tags = run.data.tags
        hashes = [tags["dvc.prepared_md5"], tags.get("dvc.source_md5", NONE)]
        if len(reference) >= 6 and any(md5.startswith(reference) for md5 in hashes):
            return {}
        places = [prepared_path(tags.get("heartseg.dataset", NONE))]
        if tags.get("dvc.source", NONE) != NONE:
            places.append(Path(tags["dvc.source"]))
        return {} if any(inside.is_relative_to((root / p).resolve()) for p in places) else None

    return concerns


def on_patient(
    client: MlflowClient, root: Path, names: set[str]
) -> Callable[[Run], dict[str, Any] | None]:
    """For `find_users`: runs that saw a patient, or of which nobody knows any more.

    Args:
        names: the patient's own name and, as runs keep it, the one that may be shown.
    """
    known: dict[str, dict[str, Any] | None] = {}

    def concerns(run: Run) -> dict[str, Any] | None:
        md5 = run.data.tags["dvc.prepared_md5"]
        if known.get(md5) is None:  # another run on the same data may have kept the list
            known[md5] = read_cases(client, root, run)
        cases = known[md5]
        if cases is None:
            return {"split": None, "cases": []}
        for split, patients in cases.items():
            for name in names & patients.keys():
                return {"split": split, "cases": patients[name]}
        return None

    return concerns


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
            for md5 in run.data.tags.get(STARTED_TAG, "").split():
                origin = maker.get(md5)
                if origin in seen | found.keys() and run.info.run_id not in seen:
                    found[run.info.run_id] = str(origin)
    return found
