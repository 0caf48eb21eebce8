"""Mutated image and video files."""

from __future__ import annotations

import io
import re
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import av
import numpy as np
import SimpleITK as sitk
from PIL import Image
from pydicom import Dataset

from heartseg.data.phantoms.recording import make_dicom
from tests.data.raw import echo
from tests.fuzz.mutations import INTEGERS, mutate

WORDS = (
    *("", "-1", "0", "1", "3", "5", "1e30", "nan", "inf", "99999999", "99999999999999999999"),
    *("x", "True", "False", "LOCAL", "LIST", "/etc/passwd", "../x.raw", "%03d.raw 1 9 1", "\0"),
    *("MET_DOUBLE", "MET_STRING", "MET_OTHER", "MET_UCHAR_ARRAY", "40 24", "1 1 1 1", "0 0 0 0"),
)  # fmt: skip


# --- MetaImage ----------------------------------------------------------------------------


@cache
def metaimage_seeds() -> list[bytes]:
    image, _ = echo()
    pictures = [image, image[None], np.stack([image] * 3), image.astype(np.int16) * 50]
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for number, pixels in enumerate([*pictures, np.stack([image] * 3, axis=-1)]):
            for packed in (False, True):
                picture = sitk.GetImageFromArray(pixels, isVector=number == len(pictures))
                picture.SetSpacing([0.4] * picture.GetDimension())
                sitk.WriteImage(picture, f"{folder}/a.mha", useCompression=packed)
                seeds.append(Path(f"{folder}/a.mha").read_bytes())
    return seeds


def make_metaimage(rng: Random) -> tuple[bytes, str]:
    data = rng.choice(metaimage_seeds())
    kind = rng.random()
    if kind < 0.6:  # whole or partial values of the header
        for _ in range(rng.choice((1, 1, 2, 3))):
            head = data[: data.index(b"ElementDataFile") + 24]
            values = list(re.finditer(rb"(?<= = )[^\n]+|(?<=[ =])[\d.]+(?=[ \n])", head))
            start, end = rng.choice(values).span()
            data = data[:start] + rng.choice(WORDS).encode() + data[end:]
            if b"ElementDataFile" not in data:
                break
    elif kind < 0.8:
        data = mutate(data, rng, 300)
    else:
        data = mutate(data, rng)
    return data, rng.choice((".mha", ".mha", ".mhd"))


# --- TIFF and JPEG ------------------------------------------------------------------------


@cache
def tiff_seeds() -> list[bytes]:
    image, _ = echo()
    gray, deep = Image.fromarray(image), Image.fromarray(image.astype(np.uint16) * 256)
    rgb = Image.fromarray(np.stack([image] * 3, -1))
    seeds = []
    for picture in (gray, deep, rgb, rgb.convert("P"), Image.fromarray(image / 7)):
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            buffer = io.BytesIO()
            pages = {"save_all": True, "append_images": [picture] * 2}
            picture.save(buffer, "TIFF", compression=compression, **pages)
            seeds.append(buffer.getvalue())
    return seeds


def make_tiff(rng: Random) -> tuple[bytes, str]:
    data = bytearray(rng.choice(tiff_seeds()))
    if rng.random() < 0.5:  # an entry of the directory of a page
        entries = [
            place
            for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279, 320, 339)
            for place in (data.find(tag.to_bytes(2, "little") + b"\3\0"),
                          data.find(tag.to_bytes(2, "little") + b"\4\0"))
            if place >= 0
        ]  # fmt: skip
        for _ in range(rng.choice((1, 1, 2))):
            place = rng.choice(entries) + rng.choice((2, 4, 8, 8, 8))
            data[place : place + 4] = rng.choice(INTEGERS).to_bytes(8, "little")[:4]
        return bytes(data), ".tif"
    return mutate(bytes(data), rng), ".tif"


@cache
def jpeg_seeds() -> list[bytes]:
    image, _ = echo()
    seeds = []
    for picture in (Image.fromarray(image), Image.fromarray(np.stack([image] * 3, -1))):
        for options in ({}, {"progressive": True}, {"quality": 100, "subsampling": 0}):
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", **options)
            seeds.append(buffer.getvalue())
    return seeds


def make_jpeg(rng: Random) -> tuple[bytes, str]:
    data = rng.choice(jpeg_seeds())
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if frame >= 0 and rng.random() < 0.3:  # height and width
        size = rng.choice(INTEGERS).to_bytes(8, "big")[-2:]
        place = frame + rng.choice((5, 7))
        return data[:place] + size + data[place + 2 :], ".jpg"
    return mutate(data, rng, rng.choice((200, None))), ".jpg"


# --- DICOM --------------------------------------------------------------------------------


@cache
def tissue_seeds() -> list[bytes]:
    """2-D images in the compressions that machines use."""
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

    image, _ = echo()
    seeds = []
    for syntax in (ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless):
        for deep in (False, True):
            dataset = tissue(image, deep)
            if syntax.is_compressed:
                dataset.compress(syntax)
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            seeds.append(buffer.getvalue())
    return seeds


def tissue(image: np.ndarray, deep: bool = False) -> Dataset:
    """A calibrated 2-D image uint8 (H, W) in gray values, of 16 bits with a window if deep."""
    dataset = make_dicom([image], 1.0, 1.0)
    picture = dataset.pixel_array[..., 0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    del dataset.PlanarConfiguration
    if deep:
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.WindowCenter, dataset.WindowWidth = 128, 256
        picture = picture.astype(np.uint16)
    dataset.PixelData = np.ascontiguousarray(picture).tobytes()
    dataset["PixelData"].VR = "OW" if deep else "OB"
    region = dataset.SequenceOfUltrasoundRegions[2]
    region.RegionSpatialFormat = 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.03, 0.05
    dataset.SequenceOfUltrasoundRegions = [region]
    return dataset


# --- video --------------------------------------------------------------------------------


def video(frames: np.ndarray, container: str, codec: str, pixels: str) -> bytes:
    """Frames uint8 (T, H, W) as an AVI or MP4 file of equal colours, 25 a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = pixels
        for frame in frames:
            colours = av.VideoFrame.from_ndarray(np.stack([frame] * 3, -1), format="rgb24")
            out.mux(stream.encode(colours))
        out.mux(stream.encode())
    return buffer.getvalue()


@cache
def video_seeds() -> list[tuple[bytes, str]]:
    image, _ = echo()
    frames = np.stack([np.roll(image, shift, 1) for shift in range(3)])
    kinds = (
        ("avi", "mjpeg", "yuvj420p"),
        ("avi", "rawvideo", "gray"),
        ("avi", "mpeg4", "yuv420p"),
        ("mp4", "mpeg4", "yuv420p"),
        ("mp4", "libx264", "yuv420p"),
    )
    return [(video(frames, *kind), f".{kind[0]}") for kind in kinds]


def make_video(rng: Random) -> tuple[bytes, str]:
    data, ending = rng.choice(video_seeds())
    return mutate(data, rng, rng.choice((400, None))), ending
