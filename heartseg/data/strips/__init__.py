"""Whole M-mode recordings: strips, their traces and labels, and the windows cut from them."""
