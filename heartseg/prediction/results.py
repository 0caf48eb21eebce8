"""The output folder: the model that fills it, its tables, and the printed summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any

from heartseg.errors import InputError, catch_write_errors
from heartseg.models.package import Package
from heartseg.paths import write_text
from heartseg.prediction.segmenter import Outcome
from heartseg.prediction.tables import write_table

MARKER = "predictions.json"


def mark_folder(out: Path, package: Package, overwrite: bool) -> float:
    """Record the model in the output folder, so that results of two models are never mixed.

    Returns:
        Time of the last --overwrite, in seconds since the epoch. Older results are out of date,
        even if that run was interrupted.

    Raises:
        InputError: If the folder contains results of another model, or cannot be written.
    """
    path = out / MARKER
    mine = {
        "weights_sha256": package.weights_sha256,
        "postprocess": package.metadata.get("postprocess"),
    }
    earlier = _read(path)
    if earlier and not overwrite:
        if any(earlier.get(key) != value for key, value in mine.items()):
            raise InputError(
                f"{out}: contains results of another model ({earlier.get('model')}). Use another "
                "folder, or add --overwrite."
            )
        return float(earlier["made_since"])
    since = time.time() if overwrite else 0.0
    content = {"model": package.name, **mine, "made_since": since}
    text = json.dumps(content, indent=1) + "\n"
    with catch_write_errors(path):
        write_text(path, text)
    return since


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Delete it.") from None


def write_summary(total: Outcome, out: Path) -> None:
    """Write the tables of all files, including those segmented earlier, and print a summary."""
    skipped = f", {total.skipped} segmented earlier" if total.skipped else ""
    print(f"{total.done} file(s) segmented into {out}{skipped}")
    tables = {
        "images.csv": (total.images, ("image", "frame"), "frame(s) measured"),
        "clinical.csv": (total.patients, ("folder", "patient"), "patient(s) with all four views"),
        "sequences.csv": (
            total.sequences,
            ("sequence",),
            "sequence(s), volumes by area-length",
        ),
    }
    for name, (rows, keys, description) in tables.items():
        rows.sort(key=itemgetter(*keys))
        write_table(rows, out / name)
        if rows:
            print(f"{out / name}: {len(rows)} {description}")
    for row in total.sequences:
        volumes = (
            f"EDV {row['edv_ml']:.1f} mL, ESV {row['esv_ml']:.1f} mL, " if "edv_ml" in row else ""
        )
        print(f"  {row['sequence']}: {volumes}EF {row['ef_percent']:.1f} %")
    for note in merge_notes(total.notes):
        print(f"note: {note}")


def merge_notes(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Return one line for each distinct note.

    Args:
        notes: (path, note). A note is a clause about the file.
    """
    files: dict[str, list[str]] = {}
    for path, note in notes:
        files.setdefault(note, []).append(path)
    return [
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {note}"
        for note, paths in sorted(files.items())
    ]
