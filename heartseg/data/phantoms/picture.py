"""Picture of examples of the phantoms, for the documentation."""

from __future__ import annotations

from pathlib import Path

from heartseg.config.params import Phantoms
from heartseg.data.phantoms.camus import make_patient, make_view
from heartseg.data.phantoms.mmode import make_animal
from heartseg.datasets.camus import VIEWS
from heartseg.errors import catch_write_errors

ROWS = 4
"""Number of patients, and of animals beside them."""
COLORS = {2: "tab:green", 3: "tab:cyan", 1: "tab:red", 255: "tab:red"}
"""Colours of contours by value in the mask."""


def draw_picture(phantoms: Phantoms, path: Path) -> None:
    """Draw a PNG with a patient and an animal in each row.

    A row shows the patient's 4CH and 2CH views at ED and an M-mode window of the animal, each
    followed by the same image with the contours of its mask.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.6 * ROWS), layout="constrained", facecolor="black")
    axes = figure.subplots(ROWS, 6, width_ratios=[1.35] * 4 + [1] * 2, squeeze=False)
    for row in range(ROWS):
        patient = make_patient(phantoms.camus.seed, row + 1)
        window, strip, mask = make_animal(phantoms.mmode, row + 1)[0]
        panels = [(strip, mask, window.name, 1.0)]
        aspect = patient.sector.spacing[1] / patient.sector.spacing[0]
        for view in VIEWS:
            image, labels = make_view(patient, view).frame(0, 0.0)
            title = f"{patient.name} {view}, EF {patient.ef:.0f} %, {patient.quality}"
            panels.insert(0, (image.T, labels.T, title, aspect))
        for column, (image, labels, title, ratio) in enumerate(panels):
            for axis in axes[row, 2 * column : 2 * column + 2]:
                axis.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=ratio)
                axis.axis("off")
            axes[row, 2 * column].set_title(title, color="white", fontsize=9)
            for label, color in COLORS.items():
                if label in labels:
                    axes[row, 2 * column + 1].contour(labels == label, [0.5], colors=color)
    with catch_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80, facecolor="black", metadata={"Software": None})
