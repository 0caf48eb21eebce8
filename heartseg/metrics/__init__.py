"""Overlap, surface distance and clinical measures, and how they are summarised."""

Spacing = tuple[float, float]
"""Size of a pixel as (row, column): in mm, for M-mode in mm per row and s per column."""
