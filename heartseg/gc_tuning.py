"""Setting of Python's collector of reference cycles.

The default makes the start of a process slow: torch, Ray and MLflow create a million objects that
live as long as the process.
"""

from __future__ import annotations

import gc

OBJECTS = 50_000
"""New objects before the collector runs. Python's default is 700."""


def relax_gc() -> None:
    """Run the collector rarely, so that it does not scan the modules during their import."""
    gc.set_threshold(OBJECTS, 10, 10)
