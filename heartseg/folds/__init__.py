"""A cross-validation: its job, its trainings, and what its folds amount to."""
