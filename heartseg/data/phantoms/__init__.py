"""Synthetic datasets in the layouts of the real ones, seeded: a clone runs without any download."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

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
