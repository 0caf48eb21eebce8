"""Copy a registered model to a folder that needs no server, no MLflow and no pickle.

The folder contains the model as a PyTorch program (model.pt2), as ONNX with its pre- and
post-processing, and as safetensors weights with the recipe, together with its card, signature and
checksums. `heartseg predict` accepts the folder in place of a model. The folder appears complete or
not at all.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from heartseg.cli import ModelUri, make_app, paragraphs, run_app, run_command
from heartseg.errors import InputError, catch_write_errors

app = make_app()


@app.command(help=paragraphs(__doc__))
def pull(
    model: ModelUri,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to create.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model pulled earlier.")
    ] = False,
) -> None:
    _check_target(to, overwrite)

    from heartseg.models.export import ONNX, write_package
    from heartseg.prediction.source import store_uri
    from heartseg.tracking import pulled

    uri = store_uri()
    package, origin = pulled.fetch_package(uri, model)
    title, card = pulled.read_card(uri, origin)
    with catch_write_errors(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=".pull-") as temporary:
            ready = Path(temporary) / "model"
            ready.mkdir()
            write_package(ready, package, {"version": title} | origin, card)
            _move(ready, to, Path(temporary) / "earlier")
    size = sum(path.stat().st_size for path in to.iterdir()) / 2**20
    print(f"{title} is in {to} ({size:.1f} MiB); {ONNX} gives the same results as PyTorch")
    print(f"use it with `heartseg predict {to} IMAGES --out DIR`")


def _check_target(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that contains anything but a pulled model that may be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "SHA256SUMS").is_file():
        raise InputError(f"{folder}: exists and contains other files. Name a new folder.")
    if not overwrite:
        raise InputError(
            f"{folder}: already contains a model. Name a new folder or add --overwrite."
        )


def _move(ready: Path, folder: Path, earlier: Path) -> None:
    """Move a finished folder to its place; if that fails, restore the earlier one."""
    if folder.exists():
        folder.rename(earlier)
    try:
        ready.rename(folder)
    except OSError:
        if earlier.exists():
            earlier.rename(folder)
        raise


main = partial(run_app, app, "heartseg pull")

if __name__ == "__main__":
    run_command(main)
