"""Synthetic datasets in the layouts of the real ones, which need no download. All are seeded."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from heartseg.data.source import PHANTOM_MARKER

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> list[Result]:
    """Apply a function to items in several processes, and return the results in order.

    Args:
        function: Function of an item, which can be pickled.
        items: The items.
        workers: Number of processes; 1 for the current process.
    """
    if workers == 1:
        return [function(item) for item in items]
    # "spawn" behaves equally on all systems, and is safe if there are threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(function, items))


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file with a header."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def mark_as_phantom(folder: Path, what: str, seed: int) -> None:
    """Write the file that marks a dataset as synthetic, also after it has been copied."""
    text = f"Synthetic {what}, seed {seed}: nobody's heart is in these images.\n"
    (folder / PHANTOM_MARKER).write_text(text, encoding="utf-8")
