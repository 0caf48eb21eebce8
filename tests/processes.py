"""Processes that tests wait for and kill."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil


def wait_until(
    reached: Callable[[], object], what: str = "what was expected", seconds: float = 300
) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def children_running(word: str) -> list[psutil.Process]:
    """Processes that this one started, or they did, with the word in their command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found
