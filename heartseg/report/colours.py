"""The colours of all figures and overlays.

They are Okabe and Ito's set, which colour-blind people tell apart (Wong, Nature Methods 8, 441,
2011). Where it is possible, a second sign (a marker, a dash, a label) says the same as a colour.
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
"""By structure, in figures and on images."""

GOOD, BAD = GREEN, VERMILION
"""Windows by their label."""
