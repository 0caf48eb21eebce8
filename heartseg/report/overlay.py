"""Contours on images: a PNG of one frame, or an animated GIF of a sequence.

They are drawn with Pillow, because matplotlib needs half a second per picture and an archive has
thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from skimage.measure import find_contours

from heartseg.datasets import DATASETS, structure_mask
from heartseg.paths import write_atomically
from heartseg.report.colours import COLOURS

LONG_SIDE, ANIMATED_SIDE = 640, 400  # pixels
FRAME_MS = 100
GRAYS = 256 - len(COLOURS)


def save_overlay(
    frames: np.ndarray,
    labels: np.ndarray,
    numbers: Sequence[int] | np.ndarray,
    dataset: str,
    spacing: tuple[float, float] | None,
    place: Path,
) -> None:
    """Save PLACE_overlay.png of one frame, or PLACE_overlay.gif of several at 10 frames/s.

    Args:
        frames: All frames, uint8 (T, H, W).
        labels: Label maps (K, H, W) of some of the frames.
        numbers: Indices (K,) of these frames, from 0.
        dataset: "camus" or "mmode".
        spacing: (row, column) in mm for pictures in true proportion; None for square pixels.
        place: Path without suffix.
    """
    side = LONG_SIDE if len(labels) == 1 else ANIMATED_SIDE
    count = len(frames)
    captions = [f"{number + 1}/{count}" if count > 1 else "" for number in numbers]
    pictures = [
        draw(frames[number], mask, dataset, spacing, side, caption)
        for number, mask, caption in zip(numbers, labels, captions, strict=True)
    ]
    suffix = "png" if len(pictures) == 1 else "gif"
    path = place.with_name(f"{place.name}_overlay.{suffix}")
    write_atomically(lambda temporary: _save(pictures, temporary), path)


def draw(
    image: np.ndarray,
    labels: np.ndarray,
    dataset: str,
    spacing: tuple[float, float] | None,
    side: int,
    caption: str = "",
) -> Image.Image:
    """Draw the outlines and names of the structures on an image.

    Args:
        image: uint8 (H, W).
        labels: Label map (H, W).
        dataset: "camus" or "mmode".
        spacing: (row, column) in mm for true proportion; None for square pixels.
        side: Longer side of the picture in pixels.
        caption: Text below the image, after the names of the structures.
    """
    row, column = spacing or (1.0, 1.0)
    height, width = image.shape[0] * row, image.shape[1] * column
    scale = side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    picture = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    step = np.array([size[0] / image.shape[1], size[1] / image.shape[0]])  # x, y
    font = ImageFont.load_default(14)
    left = 6.0
    for name, points in outlines(labels, dataset):
        canvas.line([tuple(point) for point in points * step], fill=COLOURS[name], width=2)
    for name in DATASETS[dataset].contours:
        canvas.text((left, size[1] - 20), name, fill=COLOURS[name], font=font)
        left += canvas.textlength(name, font=font) + 10
    canvas.text((left + 6, size[1] - 20), caption, fill="white", font=font)
    return picture


def outlines(labels: np.ndarray, dataset: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the outlines of the structures in a label map (H, W).

    Yields:
        Name of the structure, and points (n, 2) as x, y in pixels from the image's upper left
        corner.
    """
    for name in DATASETS[dataset].contours:
        mask = np.pad(structure_mask(labels, dataset, name), 1)
        # The origin of find_contours is the centre of the first pixel, which is in the padding.
        for contour in find_contours(mask.astype(np.float32), 0.5):
            yield name, contour[:, ::-1] - 0.5


def _save(pictures: list[Image.Image], path: Path) -> None:
    """Save pictures with one palette of grays and contour colours, which avoids flicker."""
    grays = np.repeat(np.linspace(0, 255, GRAYS).round().astype(int), 3).tolist()
    colours = [channel for name in COLOURS.values() for channel in ImageColor.getrgb(name)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(grays + colours)
    reduced = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    if len(reduced) == 1:
        reduced[0].save(path)
    else:
        reduced[0].save(
            path, save_all=True, append_images=reduced[1:], duration=FRAME_MS, loop=0, disposal=1
        )
