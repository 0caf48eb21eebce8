"""CAMUS data: file names, tables, frames and half sequences."""
