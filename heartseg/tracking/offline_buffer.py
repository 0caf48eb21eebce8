"""Evaluations and registrations that the store has not received: a file each in runs/pending.

The results stay in the folder in which the stage wrote them. `heartseg sync` sends them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heartseg.config.params import Tracking
from heartseg.errors import InputError
from heartseg.paths import write_text
from heartseg.tracking.client import connect, portable_uri, repository_root, tracking_uri
from heartseg.tracking.provenance import git_tags
from heartseg.training.run_dir import RUNS

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "pending"
STAGES = ("evaluate", "register")  # in the order of sending


@dataclass(frozen=True)
class Pending:
    """Results of a stage that could not be sent.

    Attributes:
        stage: Stage that has written the results.
        name: Name of the recipe, or of the sweep's trial.
        dataset: Name of the dataset.
        results: Folder of the results, relative to the repository.
        weights_md5: MD5 of the weights of the model that the results belong to.
        store: URI of the store, from `heartseg.tracking.client.portable_uri`.
        git: Tags of `heartseg.tracking.provenance.git_tags` at the time of the stage.
    """

    stage: Literal["evaluate", "register"]
    name: str
    dataset: str
    results: str
    weights_md5: str
    store: str
    git: dict[str, str]

    def path(self, root: Path) -> Path:
        """Return the file of these results. It is the same for later results of the stage."""
        label = self.results.replace("/", "-")
        return root / RUNS / FOLDER / f"{self.stage}-{label}.json"


def connect_or_buffer(tracking: Tracking, what: str) -> MlflowClient | None:
    """Connect to the store, or report that the results will be sent later.

    Args:
        tracking: Section of params.yaml.
        what: Name of the results, for the message.

    Returns:
        A client, or None if the store cannot be used and tracking.offline is "buffer".

    Raises:
        InputError: If the store cannot be used and tracking.offline is "fail".
    """
    try:
        return connect(tracking_uri(Path.cwd()))
    except InputError as error:
        if tracking.offline == "fail":
            raise
        message = f"{error}; {what} waits for `heartseg sync` (tracking.offline: buffer)"
        print(message, file=sys.stderr)
        return None


def add_pending(
    stage: Literal["evaluate", "register"], name: str, dataset: str, results: Path, weights_md5: str
) -> None:
    """Record results for `heartseg sync`. The arguments are the attributes of `Pending`."""
    root = Path.cwd()
    store = portable_uri(tracking_uri(root), root)
    pending = Pending(stage, name, dataset, results.as_posix(), weights_md5, store, git_tags(root))
    write_text(pending.path(repository_root(root)), json.dumps(asdict(pending), indent=1))


def remove_pending(root: Path, pending: Pending) -> None:
    """Delete the record of results that were sent."""
    pending.path(root).unlink(missing_ok=True)


def read_pending(root: Path) -> list[Pending]:
    """Return all pending results, evaluations first."""
    paths = sorted((root / RUNS / FOLDER).glob("*.json"))
    found = [Pending(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    return sorted(found, key=lambda one: STAGES.index(one.stage))
