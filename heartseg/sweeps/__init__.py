"""Sweeps: the Optuna study, the trials, their display, and the winner."""
