"""Evaluation of models on held-out patients, their registration, and comparison of two models."""
