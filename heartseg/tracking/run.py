"""The MLflow run of a run folder: opened or continued, extended by epochs, and closed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.tracking.client import delete_runs, open_run
from heartseg.tracking.sender import JournalSender
from heartseg.training.machine import machine_tags
from heartseg.training.run_dir import read_state, update_state

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Run:
    """The MLflow run of a training, trial, fold, sweep or cross-validation.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        folder: Run folder, with the journal if there is a training in it.
    """

    def __init__(self, client: MlflowClient, run_id: str, folder: Path):
        self.client = client
        self.run_id = run_id
        self.folder = folder
        self.journal = JournalSender(client, run_id, folder)

    @classmethod
    def open(
        cls, client: MlflowClient, folder: Path, identity: dict[str, str], **opening: Any
    ) -> Run:
        """Start the run of a folder, or continue the run whose id is in the folder's state.

        Args:
            client: Client of the store.
            folder: Run folder. The id of a new run is added to its state.
            identity: Tags, among those in `opening`, that no run of another folder has.
            opening: Arguments of `heartseg.tracking.client.open_run` other than `run_id`.
        """
        known = read_state(folder).get("mlflow_run_id")
        if known is None:  # a killed driver may have opened a run without recording its id
            delete_runs(client, opening["experiment"], identity)
        run_id = open_run(client, **opening, run_id=known)
        update_state(folder, mlflow_run_id=run_id)
        return cls(client, run_id, folder)

    def send_epochs(self) -> None:
        """Send the epochs of the journal that were not sent yet.

        Errors of the store and of the network are raised as they are.
        """
        self.journal.send()

    def close(self, status: str) -> None:
        """Log the machines of the training and end the run.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        for key, value in machine_tags(self.folder).items():
            self.client.set_tag(self.run_id, key, value)
        self.client.set_terminated(self.run_id, status)
