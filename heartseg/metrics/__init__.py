"""Overlap, surface distance and clinical measures, and how they are summarised."""
