"""What a run keeps as files, so that its provenance is complete: facts, patch, packages, cases.

The runs of a sweep's trials and of a cross-validation's folds keep only the facts about their
machine; their parent run keeps the rest.
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
from heartseg.tracking.faults import explain, refusal, store_errors
from heartseg.tracking.provenance import environment, working_patch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FOLDER = "lineage"
PATCH = "patch.diff"
ENVIRONMENT = "environment.json"
CASES = "cases.json"
FACTS = "provenance.json"
MACHINE = "machine.json"


def collect_records(root: Path, facts: dict[str, str]) -> dict[str, str]:
    """The files of a run that starts now, by name: of the code and the packages.

    Args:
        root: the repository.
        facts: of `heartseg.tracking.provenance.lineage_tags`, and what the caller adds to them.
    """
    patch = working_patch(root)
    packages = json.dumps(environment(), indent=1)
    own = {ENVIRONMENT: packages, FACTS: facts_text(facts)}
    return own | ({PATCH: patch} if patch else {})


def facts_text(facts: dict[str, str]) -> str:
    """Facts as JSON, without the tags that MLflow needs for itself."""
    own = {key: facts[key] for key in sorted(facts) if not key.startswith("mlflow.")}
    return json.dumps(own, indent=1)


def log_records(
    client: MlflowClient, run_id: str, records: dict[str, str], prepared: Path, names: CaseNames
) -> None:
    """Add `records` to a run, and the cases of the prepared dataset that it sees."""
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder), records, prepared, names)
        client.log_artifacts(run_id, folder)


def write_records(folder: Path, records: dict[str, str], prepared: Path, names: CaseNames) -> None:
    """Write what `log_records` logs into a folder, as it is to lie among a run's artifacts."""
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


def read_facts(client: MlflowClient, run: Run) -> dict[str, str]:
    """All facts about a run's provenance: those of its files and its tags.

    Tags prevail, and they are all that a run has that was made before there were such files.
    """
    found: dict[str, str] = {}
    for name in (FACTS, MACHINE):
        kept = read_json(read_record(client, run, name))
        if isinstance(kept, dict):
            found |= {key: str(value) for key, value in kept.items()}
    return found | run.data.tags


def read_record(client: MlflowClient, run: Run, name: str) -> str | None:
    """A file of `log_records`, of the run or of its sweep; None where neither keeps it."""
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
            if refusal(error):
                raise InputError(explain(error, client.tracking_uri)) from None
            return None
        return Path(local).read_bytes().decode(errors="surrogateescape")


def read_json(text: str | None) -> Any:
    """What a JSON file holds; None where there is none."""
    return None if text is None else json.loads(text)
