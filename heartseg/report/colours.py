"""The colours of all figures and overlays.

They are the colours of Okabe and Ito, which people with colour blindness can distinguish (Wong,
Nature Methods 8, 441, 2011). If possible, a marker, a dash or a label repeats what a colour means.
"""

from __future__ import annotations

BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#999999"
LIGHT_GREY = "#DDDDDD"

COLOURS = {"LV": ORANGE, "MYO": BLUE, "LVepi": SKY_BLUE, "LA": PURPLE, "BAD": VERMILION}
"""Colours of the structures in figures and on images."""

GOOD, BAD = GREEN, VERMILION
"""Colours of the labels of windows."""
