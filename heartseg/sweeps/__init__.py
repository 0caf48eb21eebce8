"""Sweeps: the file that describes one, its study, its folder, its trials and their display."""
