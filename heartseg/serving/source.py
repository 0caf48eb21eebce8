"""The model to serve: the version that its name refers to, and its package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heartseg.models.package import Package
from heartseg.prediction.source import read_model, store_uri


@dataclass(frozen=True)
class Version:
    """A version of a model that is not loaded yet.

    Attributes:
        name: For example "3" for a registered model. For a folder, the first 12 digits of the
            SHA-256 of the weights.
        package: Package of the model.
    """

    name: str
    package: Package


class Source:
    """A registered model, whose alias may move to another version, or a folder of a pulled model.

    Args:
        model: Name, URI or folder of the model.
    """

    def __init__(self, model: str):
        self.model = model

    def fetch_newer(self, current: str | None) -> Version | None:
        """Fetch the version that the name refers to.

        Args:
            current: Name of the version that is being served, or None.

        Returns:
            The version, or None if it is the current one.

        Raises:
            InputError: If the store does not answer, or if the model does not exist.
        """
        if Path(self.model).is_dir():
            if current is not None:
                return None
            package = read_model(self.model)
            return Version(package.weights_sha256[:12], package)
        uri, number = self.model, ""
        if ":/" in self.model:
            from heartseg.tracking.pulled import resolve_alias

            uri, number = resolve_alias(store_uri(), self.model)
        return None if number == current else Version(number, read_model(uri))
