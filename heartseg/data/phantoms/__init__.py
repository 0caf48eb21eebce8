"""Synthetic datasets in the layouts of the real ones, seeded: a clone runs without any download."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from heartseg.data.source import PHANTOM_MARKER

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> list[Result]:
    """`function` of every item, in order, in `workers` processes; with one, in this process."""
    if workers == 1:
        return [function(item) for item in items]
    context = multiprocessing.get_context("spawn")  # the same on every system, safe beside threads
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(function, items))


def mark_as_phantom(folder: Path, what: str, seed: int) -> None:
    """Write the file by which a dataset is known as synthetic wherever it is copied to."""
    text = f"Synthetic {what}, seed {seed}: nobody's heart is in these images.\n"
    (folder / PHANTOM_MARKER).write_text(text, encoding="utf-8")
