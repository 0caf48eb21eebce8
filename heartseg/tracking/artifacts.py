"""What a run keeps as files, so that its chain is whole: patch, packages, cases of each split.

Runs of a sweep's trials keep nothing of this: their sweep's own run does.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from heartseg.data.prepared import SPLITS
from heartseg.data.privacy import CaseNames
from heartseg.errors import InputError
from heartseg.tracking.faults import explain, refusal_status, store_errors
from heartseg.tracking.provenance import environment, working_patch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FOLDER = "lineage"
PATCH = "patch.diff"
ENVIRONMENT = "environment.json"
CASES = "cases.json"


def collect_lineage_files(root: Path) -> dict[str, str]:
    """The files of a run that starts now, by name: of the code and the packages."""
    patch = working_patch(root)
    packages = json.dumps(environment(), indent=1)
    return {ENVIRONMENT: packages} | ({PATCH: patch} if patch else {})


def log_lineage_files(
    client: MlflowClient, run_id: str, records: dict[str, str], prepared: Path, names: CaseNames
) -> None:
    """Add `records` to a run, and the cases of the prepared dataset that it sees."""
    with tempfile.TemporaryDirectory() as folder:
        write_lineage_files(Path(folder), records, prepared, names)
        client.log_artifacts(run_id, folder)


def write_lineage_files(
    folder: Path, records: dict[str, str], prepared: Path, names: CaseNames
) -> None:
    """Write the files that `log_lineage_files` logs into a folder, in the layout of the artifacts.

    Args:
        folder: Folder that stands for the root of the run's artifacts.
        records: Text of each file by name, from `collect_lineage_files`.
        prepared: Parquet file of the prepared dataset.
        names: Conversion of names of cases and patients into the names that may be shown.
    """
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    for name, text in records.items():
        (place / name).write_bytes(text.encode(errors="surrogateescape"))
    _write_cases(place / CASES, prepared, names)


def _write_cases(path: Path, prepared: Path, names: CaseNames) -> None:
    """The one place where patients' names go to a run's lineage: {split: {patient: [case]}}."""
    shown = {
        split: {
            names.shown(patient): sorted(map(names.shown, cases))
            for patient, cases in sorted(patients.items(), key=lambda item: names.shown(item[0]))
        }
        for split, patients in split_cases(prepared).items()
    }
    path.write_text(json.dumps(shown, indent=1), encoding="utf-8")


def split_cases(prepared: Path) -> dict[str, dict[str, list[str]]]:
    """Cases by split and patient (or animal) of a prepared dataset."""
    rows = pd.read_parquet(prepared, columns=["split", "patient", "case_id"])
    found: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for split, patient, case in rows.itertuples(index=False):
        found.setdefault(split, {}).setdefault(patient, []).append(case)
    return found


def read_lineage_file(client: MlflowClient, run: Run, name: str) -> str | None:
    """A file of `log_lineage_files`, of the run or of its sweep; None where neither keeps it."""
    for place in filter(None, (run.info.run_id, run.data.tags.get("mlflow.parentRunId"))):
        text = read_artifact(client, place, f"{FOLDER}/{name}")
        if text is not None:
            return text
    return None


def read_artifact(client: MlflowClient, run_id: str, path: str) -> str | None:
    """A text file among a run's artifacts; None where it is not there.

    Raises:
        InputError: the server does not know the user, or does not permit it.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            local = client.download_artifacts(run_id, path, folder)
        except store_errors() as error:
            if refusal_status(error):
                raise InputError(explain(error, client.tracking_uri)) from None
            return None
        return Path(local).read_bytes().decode(errors="surrogateescape")


def read_json(text: str | None) -> Any:
    """What a JSON file holds; None where there is none."""
    return None if text is None else json.loads(text)
