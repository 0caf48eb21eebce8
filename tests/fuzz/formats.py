"""File formats for fuzzing: small valid files, their mutations and their readers.

All files are generated, so the repository contains no binary files.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from heartseg.config.params import load_params
from heartseg.config.sweep_file import read_sweep
from heartseg.data import images
from heartseg.data.camus.sequences import frame_rate
from heartseg.data.camus.tables import read_info, read_split_lists, read_truth
from heartseg.data.phantoms.recording import make_dicom
from heartseg.data.strips.dicom import read_dicom
from heartseg.data.strips.pictures import read_mask, read_picture
from heartseg.datasets.camus import Camus
from heartseg.errors import InputError
from heartseg.serving.limits import Limits, PixelBudget
from heartseg.serving.uploads import read_uploads
from tests.data.raw import INFO, echo
from tests.examples import ROOT
from tests.fuzz.mutations import FLOATS, INTEGERS, mutate
from tests.fuzz.pictures import (
    make_jpeg,
    make_metaimage,
    make_tiff,
    make_video,
    tissue_seeds,
)

Reader = Callable[[Path], None]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        make: Function that returns the bytes and the suffix of a mutated file.
        readers: Functions that read a valid result or raise InputError.
    """

    make: Callable[[Random], tuple[bytes, str]]
    readers: tuple[Reader, ...]


# --- NIfTI --------------------------------------------------------------------------------


@cache
def nifti_seeds() -> list[bytes]:
    image, _ = echo()
    pictures = [image.T, image.T.astype(np.int16) * 50, np.stack([image.T] * 3, axis=-1)]
    pictures.append(image.T.astype(np.float32) / 7)
    seeds = [nib.Nifti1Image(pixels, np.eye(4)).to_bytes() for pixels in pictures]
    scaled = nib.Nifti1Image(image.T, np.eye(4))
    scaled.header.set_slope_inter(0.5, 3)
    return [*seeds, scaled.to_bytes(), nib.Nifti2Image(image.T, np.eye(4)).to_bytes()]


@cache
def gzip_bomb() -> bytes:
    """Return a valid header and 320 MB of zeros, compressed to 300 kB."""
    return gzip.compress(nifti_seeds()[0]) + gzip.compress(bytes(1 << 24)) * 20


# of NIfTI-1: dim, datatype, bitpix, pixdim, vox_offset, scl_slope, scl_inter, xyzt, sizeof, magic
SHORTS = (*range(40, 56, 2), 68, 70, 72, 252, 254)
SINGLES = (*range(76, 108, 4), 108, 112, 116, 280, 296)


def make_nifti(rng: Random) -> tuple[bytes, str]:
    if rng.random() < 0.003:
        return gzip_bomb(), ".nii.gz"
    data = rng.choice(nifti_seeds())
    kind = rng.random()
    if kind < 0.4:  # extremes of the header's fields
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            if rng.random() < 0.5:
                value = (rng.choice((1, -1)) * rng.choice(INTEGERS)) % 65536
                struct.pack_into("<H", changed, rng.choice(SHORTS), value)
            else:
                struct.pack_into(
                    "<f", changed, rng.choice(SINGLES), rng.choice((*FLOATS, 352, 1e9))
                )
        data = bytes(changed)
        if rng.random() < 0.1:  # with enough bytes for the stated pixels
            data += bytes(rng.choice((1 << 16, 1 << 22)))
    elif kind < 0.75:
        data = mutate(data, rng, rng.choice((348, None)))
    if kind >= 0.75 or rng.random() < 0.3:
        data = gzip.compress(data, 1)
        return (mutate(data, rng) if kind >= 0.75 else data), ".nii.gz"
    return data, ".nii"


def read_as_label_map(path: Path) -> None:
    labels = images.read_labels(path, Camus)
    assert set(np.unique(labels.frames)) <= set(Camus)


def read_to_predict(path: Path) -> None:
    read = images.read_images(path)
    assert (read.frames.dtype, read.frames.ndim) == (np.uint8, 3)
    assert (read.spacing is None) == bool(read.geometry.scale_problem)
    if read.spacing is not None:
        assert all(0 < step < np.inf for step in read.spacing)


def read_as_upload(path: Path) -> None:
    """Read a file like the service, which refuses it with a status of 4xx."""
    try:
        with path.open("rb") as stream:
            limits = Limits(upload_bytes=1 << 26, upload_s=60)
            with PixelBudget(limits.pixels_in_memory).request() as take:
                frames = read_uploads([(stream, str(path))], limits, take)[0].frames
    except HTTPException as error:
        if error.status_code not in (400, 413, 415, 422):
            raise
        raise InputError(str(error.detail)) from None
    assert (frames.dtype, frames.ndim) == (np.uint8, 3)


# --- PNG ----------------------------------------------------------------------------------


@cache
def png_seeds() -> list[list[tuple[bytes, bytes]]]:
    """Return PNG files as lists of chunks (kind, content)."""
    image, mask = echo()
    gray, rgb = Image.fromarray(image), Image.fromarray(np.stack([image] * 3, -1))
    alpha = gray.convert("LA")
    alpha.putalpha(Image.fromarray(mask * 80))
    deep = Image.fromarray(image.astype(np.uint16) * 256)
    pictures = [gray, rgb, rgb.convert("RGBA"), alpha, rgb.convert("P"), deep, gray.convert("1")]
    seeds = []
    for picture in pictures:
        text = PngInfo()
        text.add_text("Title", "a window", zip=True)
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", pnginfo=text)
        seeds.append(chunks(buffer.getvalue()))
    return seeds


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def png(parts: list[tuple[bytes, bytes]]) -> bytes:
    """Assemble a PNG with valid checksums, so that mutations reach the code after the check."""
    blocks = [
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(blocks)


@cache
def deflate_bomb() -> bytes:
    return zlib.compress(bytes(1 << 27))


def make_png(rng: Random) -> tuple[bytes, str]:
    parts = list(rng.choice(png_seeds()))
    kind = rng.random()
    if kind < 0.2:  # the header
        head = bytearray(parts[0][1])
        sizes = (*INTEGERS, 8192, 20000, 1 << 26)
        for _ in range(rng.choice((1, 2))):
            struct.pack_into(">I", head, rng.choice((0, 4)), rng.choice(sizes))
        if rng.random() < 0.5:
            head[rng.randrange(8, 13)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        parts[0] = (parts[0][0], bytes(head))
    elif kind < 0.22:  # small compressed data of a large size
        name = rng.choice((b"zTXt", b"iCCP", b"IDAT", b"iTXt"))
        lead = {b"zTXt": b"a\0\0", b"iCCP": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}.get(name, b"")
        parts.insert(rng.randrange(1, len(parts)), (name, lead + deflate_bomb()))
    elif kind < 0.7:
        number = rng.randrange(len(parts))
        name, content = parts[number]
        if rng.random() < 0.3:
            names = (
                b"IDAT",
                b"PLTE",
                b"tRNS",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"gAMA",
                b"eXIf",
                b"IHDR",
            )
            name = rng.choice(names)
        parts[number] = (name, mutate(content, rng))
    elif kind < 0.8:
        rng.shuffle(parts)
    data = png(parts)
    return (mutate(data, rng) if kind >= 0.8 else data), ".png"


def read_as_window(path: Path) -> None:
    pixels, _ = read_picture(path)
    assert (pixels.dtype, pixels.ndim) == (np.uint8, 2)


def read_as_mask(path: Path) -> None:
    read_mask(path)


# --- DICOM --------------------------------------------------------------------------------


@cache
def dicom_seeds() -> list[bytes]:
    from pydicom.encaps import encapsulate
    from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

    image, _ = echo()
    seeds = []
    for kind in ("raw", "implicit", "rle", "jpeg", "palette"):
        dataset = make_dicom([image, np.roll(image, -9, axis=1)], 0.04, 0.001)
        dataset.PatientName = "Doe^Jane"
        if kind == "implicit":
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        elif kind == "rle":
            dataset.compress(RLELossless)
        elif kind == "jpeg":
            frames = []
            for pixels in dataset.pixel_array:
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG")
                frames.append(buffer.getvalue())
            dataset.PixelData = encapsulate(frames)
            dataset["PixelData"].VR = "OB"
            dataset.PhotometricInterpretation = "YBR_FULL_422"
            dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        elif kind == "palette":
            dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[..., 0]).tobytes()
            dataset.SamplesPerPixel = 1
            dataset.PhotometricInterpretation = "PALETTE COLOR"
            del dataset.PlanarConfiguration
            for colour in ("Red", "Green", "Blue"):
                setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
                table = (np.arange(256, dtype=np.uint16) * 257).tobytes()
                setattr(dataset, f"{colour}PaletteColorLookupTableData", table)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        seeds.append(buffer.getvalue())
    return seeds


VRS = (
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UI UL UN US UT"
)
COUNTED = {  # little-endian tags: numbers of pixels and frames, bits, and places of regions
    b"\x28\x00\x08\x00": "text", b"\x28\x00\x10\x00": "short", b"\x28\x00\x11\x00": "short",
    b"\x28\x00\x02\x00": "short", b"\x28\x00\x00\x01": "short", b"\x28\x00\x01\x01": "short",
    b"\x28\x00\x03\x01": "short", b"\x28\x00\x06\x00": "short", b"\x18\x00\x18\x60": "long",
    b"\x18\x00\x1a\x60": "long", b"\x18\x00\x1c\x60": "long", b"\x18\x00\x1e\x60": "long",
    b"\x18\x00\x2c\x60": "double", b"\x18\x00\x2e\x60": "double", b"\x18\x00\x12\x60": "short",
}  # fmt: skip


def make_dicom_file(rng: Random) -> tuple[bytes, str]:
    data = rng.choice(dicom_seeds() + tissue_seeds())
    kind = rng.random()
    if kind < 0.35:  # a count, a place or a size of the geometry
        for _ in range(rng.choice((1, 1, 2))):
            tag, form = rng.choice(list(COUNTED.items()))
            place = data.rfind(tag)
            if place < 0:
                continue
            if form == "text":
                text = rng.choice((b"0", b"-1", b"2147483647", b"1e9", b"", b"3\\4", b"x"))
                text += b" " * (len(text) % 2)
                end = place + 8 + int.from_bytes(data[place + 6 : place + 8], "little")
                new = data[place : place + 6] + len(text).to_bytes(2, "little") + text
                data = data[:place] + new + data[end:]
                continue
            size = {"short": 2, "long": 4, "double": 8}[form]
            value = rng.choice(INTEGERS).to_bytes(8, "little")[:size]
            if form == "double":
                value = struct.pack("<d", rng.choice(FLOATS))
            data = data[: place + 8] + value + data[place + 8 + size :]
    elif kind < 0.65:  # the kind or the length of an element
        found = list(
            re.finditer(
                rb"[\x00-\xff]{2}\x00[\x00-\xff](?:" + VRS.replace(b" ", b"|") + rb")", data
            )
        )
        if found:
            place = rng.choice(found).start()
            if rng.random() < 0.4:
                data = data[: place + 4] + rng.choice(VRS.split()) + data[place + 6 :]
            else:
                length = rng.choice((0, 1, 2, 255, 65534, 65535)).to_bytes(2, "little")
                wide = rng.choice((length + b"\0\0", b"\xff" * 4, b"\xfe\xff\xff\x7f"))
                new = rng.choice((length, b"\0\0" + wide))
                data = data[: place + 6] + new + data[place + 6 + len(new) :]
    else:
        data = mutate(data, rng, rng.choice((400, 1500, None)))
    return data, ".dcm"


def read_as_dicom(path: Path) -> None:
    recording = read_dicom(path)
    assert recording.strips
    assert all((strip.dtype, strip.ndim) == (np.uint8, 2) for strip in recording.strips)
    assert all(0 < step < np.inf for step in recording.spacing)


# --- text ---------------------------------------------------------------------------------

WORDS = (
    *("", "-1", "0", "1e999", "-.inf", ".nan", "99999999999999999999", "9" * 5000, "null", "~"),
    *("[]", "{}", "[1, 2]", "{a: b}", "true", "2001-99-99", "2001-02-30", "1:99:99", "0x", "0b2"),
    *("!!timestamp x", "!!float x", "!!int ''", "!!bool x", "!!binary x", "!!set {a}", "!!omap 3"),
    *("!!python/object/apply:os.getcwd []", "!!merge a", "*nowhere", "&a [*a]", "? [a, b]"),
    *("\u0661", "\u221e", "a" * 70000, "'", '"', "|", "%", "@", "\t", "<<: 3", "- - - -", "."),
)  # fmt: skip


def make_text(text: str, rng: Random) -> bytes:
    """Change values, lines or the encoding of a text."""
    kind = rng.random()
    lines = text.splitlines()
    if kind < 0.5:
        for _ in range(rng.choice((1, 1, 2, 4))):
            number = rng.randrange(len(lines))
            if rng.random() < 0.7:
                values = list(re.finditer(r"(?<=: )[^,{}\[\]#]+|(?<=\[)[^,\]]+", lines[number]))
                if values:
                    start, end = rng.choice(values).span()
                    lines[number] = lines[number][:start] + rng.choice(WORDS) + lines[number][end:]
            else:
                change = rng.choice(("double", "drop", "indent", "insert"))
                if change == "double":
                    lines.insert(number, lines[number])
                elif change == "drop" and len(lines) > 1:
                    del lines[number]
                elif change == "indent":
                    lines[number] = rng.choice((" ", "  ", "\t", "    ")) + lines[number]
                else:
                    lines.insert(
                        number, rng.choice(("a: ", "ED: ", "EF: ", "")) + rng.choice(WORDS)
                    )
        return "\n".join(lines).encode()
    if kind < 0.6:
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-be", "cp500")))
    return mutate(text.encode(), rng)


def make_cfg(rng: Random) -> tuple[bytes, str]:
    return make_text(INFO, rng), "_2CH.cfg"


def read_as_info(path: Path) -> None:
    info = read_info(path)
    assert all(number >= 0 for number in info.frames.values())
    assert 0 <= info.reference.get("reference_ef", 0) <= 100
    assert all(np.isfinite(value) for value in info.reference.values())


def read_as_tables(path: Path) -> None:
    """Read the other text files of a CAMUS release, which collect problems."""
    problems: list[str] = []
    read_truth(path, problems)
    rate = frame_rate(path.with_name("p_2CH_half_sequence.nii.gz"))
    assert rate is None or 0 < rate < np.inf
    listed = path.with_name("subgroup_training.txt")
    listed.write_bytes(path.read_bytes())
    path.with_name("Info_2CH.cfg").write_bytes(path.read_bytes())
    read_split_lists([listed], {"patient0001"}, problems, [])
    assert all("Traceback" not in problem for problem in problems)


@cache
def yaml_seeds() -> tuple[str, str]:
    """Return params.yaml without most of its recipes, and a sweep."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    start, end = text.index("  # Echo2Pheno's training"), text.index("train: #")
    return text[:start] + text[end:], (ROOT / "sweeps/camus.yaml").read_text(encoding="utf-8")


def make_yaml(rng: Random) -> tuple[bytes, str]:
    number = int(rng.random() < 0.7)
    text, ending = yaml_seeds()[number], ("_params.yaml", "_sweep.yaml")[number]
    kind = rng.random()
    if kind < 0.03:  # aliases for 10 ** 9 values in a few lines
        lists = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        maps = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
        bomb = rng.choice((["a0: &a0 [x, x]", *lists], ["a0: &a0 {x: 1}", *maps]))
        place = rng.choice((f"{text}\n" + "\n".join(bomb), "\n".join(bomb)))
        return place.encode(), ending
    if kind < 0.05:
        opening = rng.choice(("[", "{a: ", "- ", "? ", "!!seq [", "&a [", "[[],"))
        return (opening * rng.choice((10, 200, 1000, 10_000))).encode(), ending
    return make_text(text, rng), ending


@cache
def committed_params():
    return load_params(ROOT / "params.yaml")


def read_as_yaml(path: Path) -> None:
    if path.name.endswith("_params.yaml"):
        load_params(path)
    else:
        read_sweep(path, committed_params())


# --- faults that the harness must find ------------------------------------------------------

FAULTS = ("good", "refused", "traceback", "crash", "hang", "memory")


def make_faulty(rng: Random) -> tuple[bytes, str]:
    return rng.choice(FAULTS).encode(), ".faulty"


def read_faulty(path: Path) -> None:
    match path.read_text():
        case "refused":
            raise InputError(f"{path}: is refused. Fix it.")
        case "traceback":
            raise KeyError("a bug")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            while True:
                pass
        case "memory":
            try:
                np.ones(8 << 30, np.uint8)
            except MemoryError as error:
                raise InputError(f"{path}: cannot be read (MemoryError: {error})") from None


FORMATS = {
    "nifti": Format(make_nifti, (read_to_predict, read_as_label_map, read_as_upload)),
    "png": Format(make_png, (read_as_window, read_as_mask, read_to_predict, read_as_upload)),
    "dicom": Format(make_dicom_file, (read_as_dicom, read_to_predict, read_as_upload)),
    "metaimage": Format(make_metaimage, (read_to_predict, read_as_label_map, read_as_upload)),
    "tiff": Format(make_tiff, (read_to_predict, read_as_upload)),
    "jpeg": Format(make_jpeg, (read_to_predict, read_as_upload)),
    "video": Format(make_video, (read_to_predict, read_as_upload)),
    "cfg": Format(make_cfg, (read_as_info, read_as_tables)),
    "yaml": Format(make_yaml, (read_as_yaml,)),
    "faulty": Format(make_faulty, (read_faulty,)),
}


def problem_with(reader: Reader, path: Path) -> str | None:
    """Return the problem of reading a file, or None if it was read or correctly refused."""
    try:
        reader(path)
    except InputError as error:
        text = str(error)
        if "MemoryError" in text or "allocate" in text:
            return f"memory: {text}"
        return None if str(path) in text else f"the message does not name the file: {text}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
