"""Metrics on arrays: overlap, surface distances, clinical indices, agreement and bootstrap."""

Spacing = tuple[float, float]
"""Size of a pixel as (row, column), in mm; for M-mode in mm per row and s per column."""
