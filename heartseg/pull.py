"""Copy a registered model into a folder that needs no server, no MLflow and no pickle.

The folder holds the model as PyTorch program (model.pt2), as ONNX with its pre- and
post-processing, as safetensors weights with the recipe, and its card, signature and checksums.
`heartseg predict` takes it in place of a model's name. It appears whole or not at all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from heartseg.cli import run_command
from heartseg.errors import InputError, catch_write_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg pull", description=__doc__)
    parser.add_argument("model", help="for example models:/heartseg-camus@champion")
    parser.add_argument("--to", required=True, type=Path, metavar="DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier pulled model")
    options = parser.parse_args(argv)
    _check_target(options.to, options.overwrite)

    from heartseg.models.export import ONNX, write_folder
    from heartseg.prediction.source import store_uri
    from heartseg.tracking import pulled

    uri = store_uri()
    package, origin = pulled.fetch_package(uri, options.model)
    title, card = pulled.read_card(uri, origin)
    with catch_write_errors(options.to):
        options.to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.to.parent, prefix=".pull-") as temporary:
            ready = Path(temporary) / "model"
            ready.mkdir()
            write_folder(ready, package, {"version": title} | origin, card)
            _put(ready, options.to, Path(temporary) / "earlier")
    size = sum(path.stat().st_size for path in options.to.iterdir()) / 2**20
    print(f"{title} is in {options.to} ({size:.1f} MiB), {ONNX} checked against torch")
    print(f"use it with `heartseg predict {options.to} IMAGES --out DIR`")


def _check_target(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything but a pulled model that may be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "SHA256SUMS").is_file():
        raise InputError(f"{folder}: exists and holds other files. Name a new folder.")
    if not overwrite:
        raise InputError(f"{folder}: holds a model already. Name a new folder or add --overwrite.")


def _put(ready: Path, folder: Path, earlier: Path) -> None:
    """Move a finished folder to its place; what was there stays where that fails."""
    if folder.exists():
        folder.rename(earlier)
    try:
        ready.rename(folder)
    except OSError:
        if earlier.exists():
            earlier.rename(folder)
        raise


if __name__ == "__main__":
    run_command(main)
