"""Evaluations and registrations that wait for the store: a file each in runs/pending.

The results themselves stay where the stage has left them; `heartseg sync` sends them.
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
STAGES = ("evaluate", "register")  # in the order in which they are sent


@dataclass(frozen=True)
class Pending:
    """What a stage could not send.

    Attributes:
        stage: that made the results.
        name: of the recipe, or of the sweep's trial.
        dataset: the dataset's name.
        results: folder of the results, relative to the repository.
        weights_md5: of the model that the results belong to.
        store: `heartseg.tracking.client.portable_uri` of the store.
        git: `heartseg.tracking.provenance.git_tags` when the stage ran.
    """

    stage: Literal["evaluate", "register"]
    name: str
    dataset: str
    results: str
    weights_md5: str
    store: str
    git: dict[str, str]

    def path(self, root: Path) -> Path:
        """Where it is kept; a later one of the same stage and results takes its place."""
        label = self.results.replace("/", "-")
        return root / RUNS / FOLDER / f"{self.stage}-{label}.json"


def connect_or_buffer(tracking: Tracking, what: str) -> MlflowClient | None:
    """A client of the store; None if it cannot be used and `what` is to wait for it.

    Args:
        tracking: the section of params.yaml.
        what: the results, for the message.

    Raises:
        InputError: the store cannot be used, and tracking.offline is "fail".
    """
    try:
        return connect(tracking_uri(Path.cwd()))
    except InputError as error:
        if tracking.offline == "fail":
            raise
        told = f"{error}; {what} waits for `heartseg sync` (tracking.offline: buffer)"
        print(told, file=sys.stderr)
        return None


def add_pending(
    stage: Literal["evaluate", "register"], name: str, dataset: str, results: Path, weights_md5: str
) -> None:
    """Keep for `heartseg sync` what the attributes of `Pending` say."""
    root = Path.cwd()
    store = portable_uri(tracking_uri(root), root)
    pending = Pending(stage, name, dataset, results.as_posix(), weights_md5, store, git_tags(root))
    write_text(pending.path(repository_root(root)), json.dumps(asdict(pending), indent=1))


def remove_pending(root: Path, pending: Pending) -> None:
    """Forget what was sent."""
    pending.path(root).unlink(missing_ok=True)


def read_pending(root: Path) -> list[Pending]:
    """All that waits, evaluations first."""
    paths = sorted((root / RUNS / FOLDER).glob("*.json"))
    found = [Pending(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    return sorted(found, key=lambda one: STAGES.index(one.stage))
