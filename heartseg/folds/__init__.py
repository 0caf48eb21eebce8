"""Cross-validation: the training of the folds, their metrics, and the ensemble."""
