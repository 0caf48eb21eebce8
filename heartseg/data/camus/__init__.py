"""CAMUS: its release files, names, tables and half sequences."""
