"""The one reader of image files: frames in memory, and how they lie in space and time.

NIfTI, MetaImage, PNG, JPEG, TIFF, ultrasound DICOM and video. What a file is, its content tells,
whatever its name. Label maps and uncertainty go back to the file's own grid by `Images.save`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from heartseg.data.formats.pixels import Images, check_size, to_uint8
from heartseg.data.geometry import SAME_SCALE, Spacing
from heartseg.errors import InputError, one_line, unreadable

__all__ = [
    "Images",
    "is_image",
    "read_images",
    "read_labels",
    "read_uncertainty",
    "read_values",
    "stem_of",
]

SUFFIXES = (
    *(".nii.gz", ".nii", ".mha", ".mhd", ".png", ".tif", ".tiff", ".jpg", ".jpeg"),
    *(".dcm", ".dicom", ".avi", ".mp4"),
)
KINDS = "NIfTI, MetaImage, PNG, JPEG, TIFF, DICOM, AVI or MP4"
HEAD = 1024
"""Bytes that tell what a file is."""
MOST_LABELS = 5
"""A file whose values are all whole numbers below this is a label map, as is one of 0 and 255."""
SAME_LABEL = 0.001
"""A label that was stored with slope and intercept comes back as 0.99998."""

# --- names --------------------------------------------------------------------------------


def suffix_of(path: Path) -> str:
    """The file's ending as it is written if it is one of SUFFIXES in any case, else ""."""
    name = path.name
    end = next((end for end in SUFFIXES if name.lower().endswith(end)), "")
    return name[len(name) - len(end) :]


def stem_of(path: Path) -> str:
    """The file's name without that ending."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_hidden(path: Path) -> bool:
    """Whether a file is none of the user's: hidden, or the ._NAME that macOS puts beside NAME."""
    return path.name.startswith(".")


def is_image(path: Path) -> bool:
    """Whether the name, or the mark of DICOM, promises an image. Hidden files are none."""
    from heartseg.data.strips.dicom import is_dicom

    return not is_hidden(path) and (bool(suffix_of(path)) or is_dicom(path))


# --- reading ------------------------------------------------------------------------------


def read_images(path: Path, *, spacing: Spacing | None = None) -> Images:
    """Read a file's gray values.

    Args:
        path: of the file.
        spacing: (row, column) in mm that counts instead of the file's own.

    Returns:
        Images of frames uint8 (T, H, W).

    Raises:
        InputError: "path: reason. Remedy."; also if the file holds a label map, not an image.
    """
    images = _read(path, _to_gray)
    return images if spacing is None else _with_spacing(images, spacing)


def _to_gray(values: np.ndarray) -> np.ndarray:
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    few = 0 < high < MOST_LABELS and (values == np.rint(values)).all()
    if low == 0 and (few or (high == 255 and np.isin(values, (0, 255)).all())):
        what = f"its values are {'0 to' if few else '0 and'} {high:g}"
        raise InputError(f"is a label map ({what} alone), not an image. Give the image")
    return to_uint8(values)


def read_labels(path: Path, known: Iterable[int]) -> Images:
    """Read a label map.

    Args:
        path: of the file.
        known: the labels that it may hold. A value within 0.001 of one is that label.

    Returns:
        Images of label maps uint8 (T, H, W).

    Raises:
        InputError: "path: reason. Remedy."; also if the file holds another value.
    """
    labels = sorted(int(label) for label in known)

    def to_labels(values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise InputError("holds NaN or infinite values. Replace them by labels")
        rounded = np.rint(values)
        wrong = ~np.isin(rounded, labels) | (abs(values - rounded) > SAME_LABEL)
        if wrong.any():
            found = np.unique(values[wrong])
            listed = ", ".join(f"{value:.6g}" for value in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            remedy = (
                "Resample label maps by the nearest neighbour, without interpolation"
                if (found != np.rint(found)).any()
                else "Give these pixels one of the labels"
            )
            raise InputError(
                f"has label values outside {labels[0]}-{labels[-1]} ({listed}{more}) in "
                f"{int(wrong.sum())} pixels. {remedy}"
            )
        return rounded.astype(np.uint8)

    return _read(path, to_labels)


def read_values(path: Path) -> Images:
    """Read a file's values as they are stored, such as those of a drawn mask.

    Raises:
        InputError: "path: reason. Remedy."
    """
    return _read(path, lambda values: values)


def read_uncertainty(path: Path) -> np.ndarray:
    """What `Images.save` wrote of uncertainty: float32 (T, H, W) from 0 to 1.

    Raises:
        InputError: "path: reason. Remedy."
    """
    return _read(path, _from_bytes).frames


def _from_bytes(values: np.ndarray) -> np.ndarray:
    return (values / 255 if values.dtype == np.uint8 else values).astype(np.float32)


def _with_spacing(images: Images, spacing: Spacing) -> Images:
    own, notes = images.spacing, images.notes
    if own and not all(
        math.isclose(a, b, rel_tol=SAME_SCALE) for a, b in zip(own, spacing, strict=True)
    ):
        notes += (
            f"states {own[0]:.4g} x {own[1]:.4g} mm per pixel; the given {spacing[0]:.4g} x "
            f"{spacing[1]:.4g} mm count instead",
        )
    geometry = replace(images.geometry, spacing=spacing, doubt="", source="given")
    return replace(images, geometry=geometry, notes=notes)


def _read(path: Path, convert: Callable[[np.ndarray], np.ndarray]) -> Images:
    try:
        images = _reader(path)(path)
        check_size(*images.frames.shape[1:])
        return replace(images, frames=np.ascontiguousarray(convert(images.frames)))
    except InputError as error:
        raise InputError(f"{path}: {str(error).rstrip('.')}.") from None
    except MemoryError:
        raise InputError(
            f"{path}: its pixels do not fit into the free memory. Export it smaller, or cut a "
            "sequence into shorter ones."
        ) from None
    except OSError as error:
        if error.errno is None:  # of Pillow
            raise InputError(f"{path}: {_damaged(error)}.") from None
        raise unreadable(path, error) from None
    except Exception as error:  # nibabel, zlib, Pillow and pydicom raise many kinds
        raise InputError(f"{path}: {_damaged(error)}.") from None


def _damaged(error: Exception) -> str:
    return (
        f"cannot be read ({one_line(error)}). It is damaged, or of an unusual kind: copy it again, "
        "or convert it"
    )


def _reader(path: Path) -> Callable[[Path], Images]:
    """What reads a file of this content."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    kind = kind_of(head)
    if kind is None:
        if not head:
            raise InputError("is empty. Copy it again")
        raise InputError(not_understood(head))
    return READERS[kind]


def not_understood(head: bytes) -> str:
    """What a file is that no reader takes, and what to do with it."""
    for mark, told in OTHERS.items():
        if head.lstrip().startswith(mark):
            return told
    if head.startswith((b"\x08\0", b"\x02\0")) and head[3:4] == b"\0":
        return "looks like DICOM without its first 132 bytes. Restore them (dcmconv, gdcmconv)"
    return f"is not {KINDS}, by its content. Convert it"


def kind_of(head: bytes) -> str | None:
    """Which of READERS reads a file that begins with these bytes; None if none does.

    Args:
        head: `HEAD` bytes, or the whole file if it is shorter.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    for kind, marks in MARKS.items():
        if head.startswith(marks):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head[4:8] == b"ftyp":
        return "mp4"
    if any(int.from_bytes(head[:4], order) in (348, 540) for order in ("little", "big")):
        return "nifti"
    if re.search(rb"^\s*NDims\s*=", head, re.MULTILINE):
        return "metaimage"
    return None


MARKS: dict[str, bytes | tuple[bytes, ...]] = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff",
    "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "nifti": b"\x1f\x8b",
}
OTHERS = {
    b"PK\x03\x04": "is a ZIP archive. Unpack it",
    b"BZh": "is packed by bzip2. Unpack it",
    b"\xfd7zXZ": "is packed by xz. Unpack it",
    b"\x1f\x8b": "is packed by gzip. Unpack it",
    b"NRRD": "is NRRD. Save it as NIfTI, for instance from 3D Slicer",
    b"GIF8": "is GIF. Export it as PNG, or a sequence as AVI or MP4",
    b"RIFF": "is WebP or sound. Export it as PNG, or a sequence as AVI or MP4",
    b"BM": "is BMP. Export it as PNG",
    b"\x1aE\xdf\xa3": "is Matroska or WebM. Export it as AVI or MP4",
    b"\x89HDF": "is HDF5. Export the images from it",
    b"MATLAB": "is a MATLAB file. Export the images from it (niftiwrite, imwrite)",
    b"<": "is a web page or XML, no image. Download the file again",
    b"version https://git-lfs": "is a pointer of Git LFS. Run `git lfs pull`",
}
"""What people have under the name of an image, by its first bytes."""


def _nifti(path: Path) -> Images:
    from heartseg.data.formats.nifti import read_nifti

    return read_nifti(path)


def _dicom(path: Path) -> Images:
    from heartseg.data.formats.dicom import read_tissue

    return read_tissue(path)


def _metaimage(path: Path) -> Images:
    from heartseg.data.formats.metaimage import read_metaimage

    return read_metaimage(path)


def _video(kind: str) -> Callable[[Path], Images]:
    def read(path: Path) -> Images:
        from heartseg.data.formats.video import read_video

        return read_video(path, kind)

    return read


def _picture(kind: str) -> Callable[[Path], Images]:
    def read(path: Path) -> Images:
        from heartseg.data.formats.pictures import read_picture

        return read_picture(path, kind)

    return read


READERS: dict[str, Callable[[Path], Images]] = {
    "nifti": _nifti,
    "metaimage": _metaimage,
    "dicom": _dicom,
    "avi": _video("avi"),
    "mp4": _video("mp4"),
    "png": _picture("PNG"),
    "jpeg": _picture("JPEG"),
    "tiff": _picture("TIFF"),
}
