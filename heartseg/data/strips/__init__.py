"""Whole M-mode recordings: strips, traces, quality labels, and the windows cut from them."""
