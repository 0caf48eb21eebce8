"""Experiment tracking: the one writer to MLflow, lineage tags, and the model registry."""
