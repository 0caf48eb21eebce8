"""Segmenting files: which ones, with which model, and what is left of them."""
