"""The model that the service answers with: which version its name means now, and its package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heartseg.models.package import Package
from heartseg.prediction.source import read_model, store_uri


@dataclass(frozen=True)
class Version:
    """A version of a model, not loaded yet.

    Attributes:
        name: "3" of a registered model; of a folder, the beginning of its weights' SHA-256.
        package: its package.
    """

    name: str
    package: Package


class Source:
    """A registered model (an alias may move to another version) or the folder of a pulled one."""

    def __init__(self, model: str):
        self.model = model

    def look(self, present: str | None) -> Version | None:
        """The version that the name means now; None if it is the present one.

        Raises:
            InputError: the store does not answer, or there is no such model.
        """
        if Path(self.model).is_dir():
            if present is not None:
                return None
            package = read_model(self.model)
            return Version(package.weights_sha256[:12], package)
        uri, number = self.model, ""
        if ":/" in self.model:
            from heartseg.tracking.pulled import resolve_alias

            uri, number = resolve_alias(store_uri(), self.model)
        return None if number == present else Version(number, read_model(uri))
