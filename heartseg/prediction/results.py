"""The output folder as a whole: which model filled it, its tables, what is told of it."""

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


def start(out: Path, package: Package, overwrite: bool) -> float:
    """Note in the output folder which model fills it, so that two are never mixed.

    Returns:
        The time before which its label maps are out of date, seconds since the epoch: that of the
        last --overwrite, which may have been interrupted.

    Raises:
        InputError: another model's results are there, or the folder cannot be written.
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
                f"{out}: holds results of another model ({earlier.get('model')}). Name another "
                "folder, or add --overwrite."
            )
        return float(earlier["made_since"])
    since = time.time() if overwrite else 0.0
    facts = {"model": package.name, **mine, "made_since": since}
    text = json.dumps(facts, indent=1) + "\n"
    with catch_write_errors(path):
        write_text(path, text)
    return since


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Remove it.") from None


def finish(total: Outcome, out: Path) -> None:
    """Write the tables of all files, also of those that were there, and say what was done."""
    kept = f", {total.skipped} there already" if total.skipped else ""
    print(f"{total.done} file(s) segmented into {out}{kept}")
    tables = {
        "images.csv": (total.images, ("image", "frame"), "frame(s) measured"),
        "clinical.csv": (total.patients, ("folder", "patient"), "patient(s) with all four views"),
        "sequences.csv": (total.sequences, ("sequence",), "sequence(s), LV volumes by area-length"),
    }
    for name, (rows, keys, what) in tables.items():
        rows.sort(key=itemgetter(*keys))
        write_table(rows, out / name)
        if rows:
            print(f"{out / name}: {len(rows)} {what}")
    for row in total.sequences:
        volumes = (
            f"EDV {row['edv_ml']:.1f} mL, ESV {row['esv_ml']:.1f} mL, " if "edv_ml" in row else ""
        )
        print(f"  {row['sequence']}: {volumes}EF {row['ef_percent']:.1f} %")
    for note in told_once(total.notes):
        print(f"note: {note}")


def told_once(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Lines for notes on files; the same note on many files is one line.

    Args:
        notes: (path, note as a clause about the file).
    """
    files: dict[str, list[str]] = {}
    for path, note in notes:
        files.setdefault(note, []).append(path)
    return [
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {note}"
        for note, paths in sorted(files.items())
    ]
