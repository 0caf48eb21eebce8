"""Data: reading image files and datasets, preparing, splitting and loading them, phantoms."""
