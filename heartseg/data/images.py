"""Read image files: NIfTI, MetaImage, PNG, JPEG, TIFF, ultrasound DICOM, AVI and MP4.

The format is detected by the content of a file, not by its name. `Images.save` writes label maps
and uncertainty on the grid of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from heartseg.data.formats.pixels import Images, check_size, to_uint8
from heartseg.data.geometry import SCALE_TOLERANCE, Spacing
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
FORMATS = "NIfTI, MetaImage, PNG, JPEG, TIFF, DICOM, AVI or MP4"
SIGNATURE_BYTES = 1024
"""Number of bytes from the start of a file by which its format is detected."""
MAX_LABELS = 5
"""A file whose values are all whole numbers from 0 to below this one is a label map. A file that
contains only 0 and 255 is one as well."""
LABEL_TOLERANCE = 0.001
"""Greatest difference between a value and its label. A label stored with a slope and an intercept
can be read as 0.99998."""

# --- names --------------------------------------------------------------------------------


def suffix_of(path: Path) -> str:
    """Return the suffix of a file as it is written, or "" if it is none of SUFFIXES in any case."""
    name = path.name
    end = next((end for end in SUFFIXES if name.lower().endswith(end)), "")
    return name[len(name) - len(end) :]


def stem_of(path: Path) -> str:
    """Return the name of a file without its suffix (see `suffix_of`)."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_hidden(path: Path) -> bool:
    """Return whether a file is hidden, such as the ._NAME that macOS writes beside NAME."""
    return path.name.startswith(".")


def is_image(path: Path) -> bool:
    """Return whether a file is not hidden and has an image suffix or the signature of DICOM."""
    from heartseg.data.formats.dicom_header import is_dicom

    return not is_hidden(path) and (bool(suffix_of(path)) or is_dicom(path))


# --- reading ------------------------------------------------------------------------------


def read_images(path: Path, *, spacing: Spacing | None = None) -> Images:
    """Read the gray values of a file.

    Args:
        path: Path of the file.
        spacing: (row, column) in mm per pixel, used instead of the spacing in the file.

    Returns:
        Images with frames uint8 (T, H, W).

    Raises:
        InputError: The file cannot be read, or contains a label map instead of an image. The
            message has the form "path: reason. Remedy."
    """
    images = _read(path, _to_gray_values)
    return images if spacing is None else _override_spacing(images, spacing)


def _to_gray_values(values: np.ndarray) -> np.ndarray:
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    few = 0 < high < MAX_LABELS and (values == np.rint(values)).all()
    if low == 0 and (few or (high == 255 and np.isin(values, (0, 255)).all())):
        what = f"its only values are {'0 to' if few else '0 and'} {high:g}"
        raise InputError(f"is a label map ({what}), not an image. Name the image instead")
    return to_uint8(values)


def read_labels(path: Path, known: Iterable[int]) -> Images:
    """Read a label map.

    Args:
        path: Path of the file.
        known: Labels that the file may contain. A value within 0.001 of a label is read as this
            label.

    Returns:
        Images with label maps uint8 (T, H, W).

    Raises:
        InputError: The file cannot be read, or contains other values. The message has the form
            "path: reason. Remedy."
    """
    labels = sorted(int(label) for label in known)

    def to_labels(values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise InputError("contains NaN or infinite values. Replace them by labels")
        rounded = np.rint(values)
        wrong = ~np.isin(rounded, labels) | (abs(values - rounded) > LABEL_TOLERANCE)
        if wrong.any():
            found = np.unique(values[wrong])
            listed = ", ".join(f"{value:.6g}" for value in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            remedy = (
                "Resample label maps with nearest-neighbour interpolation"
                if (found != np.rint(found)).any()
                else "Change these pixels to one of the labels"
            )
            raise InputError(
                f"has label values outside {labels[0]}-{labels[-1]} ({listed}{more}) in "
                f"{int(wrong.sum())} pixels. {remedy}"
            )
        return rounded.astype(np.uint8)

    return _read(path, to_labels)


def read_values(path: Path) -> Images:
    """Read the values of a file as they are stored, such as those of a drawn mask.

    Returns:
        Images with frames (T, H, W) of the stored data type.

    Raises:
        InputError: The file cannot be read. The message has the form "path: reason. Remedy."
    """
    return _read(path, lambda values: values)


def read_uncertainty(path: Path) -> np.ndarray:
    """Read uncertainty that `Images.save` has written: float32 (T, H, W) from 0 to 1.

    Raises:
        InputError: The file cannot be read. The message has the form "path: reason. Remedy."
    """
    return _read(path, _to_unit_interval).frames


def _to_unit_interval(values: np.ndarray) -> np.ndarray:
    return (values / 255 if values.dtype == np.uint8 else values).astype(np.float32)


def _override_spacing(images: Images, spacing: Spacing) -> Images:
    own, notes = images.spacing, images.notes
    if own and not all(
        math.isclose(a, b, rel_tol=SCALE_TOLERANCE) for a, b in zip(own, spacing, strict=True)
    ):
        notes += (
            f"states {own[0]:.4g} x {own[1]:.4g} mm per pixel, but the given {spacing[0]:.4g} x "
            f"{spacing[1]:.4g} mm are used",
        )
    geometry = replace(images.geometry, spacing=spacing, scale_problem="", source="given")
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
            f"{path}: does not fit into the free memory. Export it with fewer pixels, or split the "
            "sequence into shorter ones."
        ) from None
    except OSError as error:
        if error.errno is None:  # raised by Pillow
            raise InputError(f"{path}: {_describe_damage(error)}.") from None
        raise unreadable(path, error) from None
    except Exception as error:  # nibabel, zlib, Pillow and pydicom raise errors of many classes
        raise InputError(f"{path}: {_describe_damage(error)}.") from None


def _describe_damage(error: Exception) -> str:
    return (
        f"cannot be read ({one_line(error)}). It is damaged, or uses an unsupported variant of its "
        "format. Copy it again, or convert it"
    )


def _reader(path: Path) -> Callable[[Path], Images]:
    """Return the function that reads a file with this content."""
    with path.open("rb") as stream:
        head = stream.read(SIGNATURE_BYTES)
    kind = detect_format(head)
    if kind is None:
        if not head:
            raise InputError("is empty. Copy it again")
        raise InputError(describe_unsupported(head))
    return READERS[kind]


def describe_unsupported(head: bytes) -> str:
    """Describe a file that no reader supports, and what to do about it, as a clause.

    Args:
        head: First `SIGNATURE_BYTES` bytes of the file.
    """
    for signature, description in UNSUPPORTED.items():
        if head.lstrip().startswith(signature):
            return description
    if head.startswith((b"\x08\0", b"\x02\0")) and head[3:4] == b"\0":
        return (
            "looks like a DICOM file without its preamble of 132 bytes. Restore the preamble with "
            "dcmconv or gdcmconv"
        )
    return f"is not a {FORMATS} file. Convert it to one of these formats"


def detect_format(head: bytes) -> str | None:
    """Return the format of a file, a key of READERS, or None if it is not supported.

    Args:
        head: First `SIGNATURE_BYTES` bytes of the file, or the whole file if it is shorter.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    for kind, signature in SIGNATURES.items():
        if head.startswith(signature):
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


SIGNATURES: dict[str, bytes | tuple[bytes, ...]] = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff",
    "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "nifti": b"\x1f\x8b",
}
UNSUPPORTED = {
    b"PK\x03\x04": "is a ZIP archive. Unpack it",
    b"BZh": "is compressed with bzip2. Decompress it",
    b"\xfd7zXZ": "is compressed with xz. Decompress it",
    b"\x1f\x8b": "is compressed with gzip. Decompress it",
    b"NRRD": "is an NRRD file. Save it as NIfTI, for example with 3D Slicer",
    b"GIF8": "is a GIF file. Export an image as PNG, or a sequence as AVI or MP4",
    b"RIFF": "is a WebP or audio file. Export an image as PNG, or a sequence as AVI or MP4",
    b"BM": "is a BMP file. Export it as PNG",
    b"\x1aE\xdf\xa3": "is a Matroska or WebM file. Export it as AVI or MP4",
    b"\x89HDF": "is an HDF5 file. Export the images from it",
    b"MATLAB": "is a MATLAB file. Export the images from it with niftiwrite or imwrite",
    b"<": "is a web page or an XML file, not an image. Download the image again",
    b"version https://git-lfs": "is a Git LFS pointer. Run `git lfs pull`",
}
"""Descriptions of unsupported files that are often found instead of an image, by first bytes."""


def _nifti(path: Path) -> Images:
    from heartseg.data.formats.nifti import read_nifti

    return read_nifti(path)


def _dicom(path: Path) -> Images:
    from heartseg.data.formats.dicom import read_dicom_image

    return read_dicom_image(path)


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
