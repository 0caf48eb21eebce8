"""How structures are drawn, in figures and on images.

Colours are of Okabe and Ito's set, which colour-blind people tell apart (Wong, Nature Methods 8,
441, 2011).
"""

from __future__ import annotations

COLOURS = {
    "LV": "#E69F00",
    "MYO": "#0072B2",
    "LVepi": "#56B4E9",
    "LA": "#CC79A7",
    "BAD": "#D55E00",
}
