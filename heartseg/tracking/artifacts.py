"""Lineage files among a run's artifacts: patch of the code, packages, and cases of each split.

The runs of a sweep's trials have none of these files, because the sweep's parent run has them.
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
    """Return the lineage files, by name, of the present code and packages.

    Args:
        root: Root of the repository.
    """
    patch = working_patch(root)
    packages = json.dumps(environment(), indent=1)
    return {ENVIRONMENT: packages} | ({PATCH: patch} if patch else {})


def log_lineage_files(
    client: MlflowClient, run_id: str, records: dict[str, str], prepared: Path, names: CaseNames
) -> None:
    """Log lineage files to a run.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        records: Text of each file by name, from `collect_lineage_files`.
        prepared: Parquet file of the prepared dataset, whose cases are logged too.
        names: Conversion of names of cases and patients into the names that may be shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_lineage_files(Path(folder), records, prepared, names)
        client.log_artifacts(run_id, folder)


def write_lineage_files(
    folder: Path, records: dict[str, str], prepared: Path, names: CaseNames
) -> None:
    """Write the files that `log_lineage_files` logs into a folder, in the layout of the artifacts.

    Args:
        folder: Folder that corresponds to the root of the run's artifacts.
        records: As in `log_lineage_files`.
        prepared: As in `log_lineage_files`.
        names: As in `log_lineage_files`.
    """
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    for name, text in records.items():
        (place / name).write_bytes(text.encode(errors="surrogateescape"))
    _write_cases(place / CASES, prepared, names)


def _write_cases(path: Path, prepared: Path, names: CaseNames) -> None:
    """Write {split: {patient: [case]}}, the only lineage file with names of patients."""
    shown = {
        split: {
            names.shown(patient): sorted(map(names.shown, cases))
            for patient, cases in sorted(patients.items(), key=lambda item: names.shown(item[0]))
        }
        for split, patients in split_cases(prepared).items()
    }
    path.write_text(json.dumps(shown, indent=1), encoding="utf-8")


def split_cases(prepared: Path) -> dict[str, dict[str, list[str]]]:
    """Return the cases of a prepared dataset by split and patient (or animal)."""
    rows = pd.read_parquet(prepared, columns=["split", "patient", "case_id"])
    found: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for split, patient, case in rows.itertuples(index=False):
        found.setdefault(split, {}).setdefault(patient, []).append(case)
    return found


def read_lineage_file(client: MlflowClient, run: Run, name: str) -> str | None:
    """Read a lineage file of a run or of its parent run; None if neither has it."""
    for run_id in filter(None, (run.info.run_id, run.data.tags.get("mlflow.parentRunId"))):
        text = read_artifact(client, run_id, f"{FOLDER}/{name}")
        if text is not None:
            return text
    return None


def read_artifact(client: MlflowClient, run_id: str, path: str) -> str | None:
    """Read a text file among a run's artifacts; None if it does not exist.

    Raises:
        InputError: If the server does not know the user or does not permit the access.
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
    """Parse the text of a JSON file; None for None."""
    return None if text is None else json.loads(text)
