"""Figures and model cards."""
