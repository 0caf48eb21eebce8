"""Python's collector of reference cycles, which costs a starting process more than it brings.

torch, Ray and MLflow make a million objects that live as long as the process.
"""

from __future__ import annotations

import gc

OBJECTS = 50_000
"""New objects before the collector looks at them; Python's own number is 700."""


def relax_gc() -> None:
    """Let the collector run seldom, so that it does not walk over what is being imported."""
    gc.set_threshold(OBJECTS, 10, 10)
