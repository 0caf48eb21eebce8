"""Evaluations: models measured on held-out patients, their tables, and comparisons of two."""
