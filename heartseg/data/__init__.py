"""Datasets: reading releases, phantoms, preparing, splitting, loading, augmenting."""
