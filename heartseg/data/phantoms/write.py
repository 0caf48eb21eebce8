"""Write the phantoms of a dataset to its folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from heartseg.config.params import Phantoms
from heartseg.data.phantoms.camus import write_camus
from heartseg.data.phantoms.mmode import write_mmode
from heartseg.data.phantoms.mmode_quality import write_quality
from heartseg.data.phantoms.recording import write_recordings
from heartseg.errors import InputError, unwritable


def write_phantoms(dataset: str, phantoms: Phantoms, folder: Path) -> Path:
    """Write the phantoms of a dataset, replacing those in the folder, completely or not at all.

    Args:
        dataset: "camus", "mmode", "mmode-quality" or "recordings".
        phantoms: Section of params.yaml.
        folder: Folder to write.

    Returns:
        The folder.

    Raises:
        InputError: `folder` is not a folder, or cannot be written.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(
            f"{folder}: is not a folder. Move it, because the phantoms are written there."
        )
    workers = os.cpu_count() or 1
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        if dataset == "camus":
            write_camus(temporary, phantoms.camus, workers)
        elif dataset == "mmode":
            write_mmode(temporary, phantoms.mmode, workers)
        elif dataset == "mmode-quality":
            write_quality(temporary, phantoms.mmode_quality, workers)
        else:
            write_recordings(temporary, phantoms.mmode.seed)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return folder
