"""Segmentation of files: finding them, the model, the results and their tables."""
