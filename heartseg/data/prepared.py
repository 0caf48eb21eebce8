"""The prepared dataset: one Parquet file, a row per frame or window, written whole or never."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from heartseg.data.species import likely_species
from heartseg.datasets.mmode import Mmode
from heartseg.errors import InputError

SPLITS = ("train", "val", "test")
METADATA_KEY = b"heartseg"
ROW_GROUP = 64  # rows that a reader of the file has to hold at a time

Item = TypeVar("Item")
Result = TypeVar("Result")

REFERENCES = (
    "reference_ef",  # ejection fraction, percent
    "reference_edv",  # end-diastolic volume, mL
    "reference_esv",  # end-systolic volume, mL
    "reference_lvidd",  # LV inner diameter at end-diastole, mm
    "reference_lvids",  # LV inner diameter at end-systole, mm
    "reference_hr",  # heart rate, beats per minute
)

SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("patient", pa.string()),
        ("view", pa.string()),
        ("phase", pa.string()),
        ("frame", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("spacing_row", pa.float64()),
        ("spacing_col", pa.float64()),
        ("split", pa.string()),
        ("quality", pa.string()),
        *[(name, pa.float64()) for name in REFERENCES],
        ("image", pa.binary()),
        ("mask", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Sample:
    """One frame or window as a reader hands it over.

    Attributes:
        case_id: unique within the dataset, e.g. "patient0001_2CH_ED".
        patient: patient or animal; never on both sides of a split.
        view: "2CH" or "4CH"; "" for M-mode.
        phase: "ED" or "ES"; "" for M-mode.
        frame: 0-based frame or window number within its recording.
        image: uint8 (H, W), or (C, H, W) for frames of a sequence, the first one segmented.
        mask: uint8 (H, W), label values of `heartseg.datasets`.
        spacing: (row, column); mm for CAMUS; mm per row and s per column for M-mode.
        quality: the dataset's own word for image quality, "" where unknown.
        reference: known clinical values, keys from REFERENCES.
        notes: what is odd about the files but no fault.
    """

    case_id: str
    patient: str
    view: str
    phase: str
    frame: int
    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float]
    quality: str = ""
    reference: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """`map` on several threads that runs only a few items ahead, so memory stays bounded.

    Threads are enough: zlib, Pillow and torch let go of Python's lock while they work.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def write_prepared(
    path: Path, samples: Iterable[Sample], split_of: dict[str, str], metadata: dict[str, Any]
) -> int:
    """Write the samples to one Parquet file; a failure leaves what stood there before.

    The same samples and metadata give the same bytes.

    Args:
        path: the Parquet file.
        samples: in the order of the rows; consumed one at a time, so that a dataset need not
            fit in memory decoded.
        split_of: split by patient.
        metadata: JSON-serialisable facts about the dataset, kept in the file's schema.

    Returns:
        The number of rows written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = SCHEMA.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    rows = map_in_order(
        lambda sample: _row(sample, split_of[sample.patient]), samples, os.cpu_count() or 1
    )
    written = 0
    try:
        with pq.ParquetWriter(temporary, schema, compression="none") as writer:  # PNG is compressed
            while group := list(islice(rows, ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                written += len(group)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def _row(sample: Sample, split: str) -> dict[str, Any]:
    height, width = sample.mask.shape
    return {
        "case_id": sample.case_id,
        "patient": sample.patient,
        "view": sample.view,
        "phase": sample.phase,
        "frame": sample.frame,
        "height": height,
        "width": width,
        "spacing_row": sample.spacing[0],
        "spacing_col": sample.spacing[1],
        "split": split,
        "quality": sample.quality,
        **{name: sample.reference.get(name) for name in REFERENCES},
        "image": encode_png(sample.image.reshape(-1, width)),  # frames below one another
        "mask": encode_png(sample.mask),
    }


def read_prepared(path: Path | str, split: str | None = None) -> pd.DataFrame:
    """Read the rows of the prepared dataset, all or one split, images still as PNG bytes.

    The column `species` is the whole dataset's, from the metadata.

    Raises:
        InputError: the file is missing or was not written by `heartseg prepare`.
    """
    metadata = read_metadata(path)
    try:
        table = pq.read_table(path, filters=None if split is None else [("split", "=", split)])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {error}") from None
    frames = table.to_pandas()
    return frames.assign(species=metadata.get("species") or _likely_species(frames, metadata))


def _likely_species(frames: pd.DataFrame, metadata: dict[str, Any]) -> str:
    """The species of a file from before the metadata had it."""
    if metadata.get("dataset") != "mmode":
        return "mouse"  # it does not matter
    masks = (decode_png(mask) == Mmode.LV for mask in frames["mask"])
    return likely_species(masks, frames["spacing_row"]).name


def read_names(path: Path | str) -> set[tuple[str, str, str, str]]:
    """All (case_id, patient, view, phase) of the prepared dataset.

    Raises:
        InputError: the file is missing or was not written by `heartseg prepare`.
    """
    read_metadata(path)
    columns = pq.read_table(path, columns=["case_id", "patient", "view", "phase"])
    return set(zip(*(column.to_pylist() for column in columns.columns), strict=True))


def read_metadata(path: Path | str) -> dict[str, Any]:
    """The facts that `prepare` wrote into the file's schema.

    Raises:
        InputError: the file is missing or was not written by `heartseg prepare`.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run `dvc repro` or `heartseg prepare`") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {error}") from None
    if METADATA_KEY not in metadata:
        raise InputError(f"{path} was not written by heartseg; make it with `heartseg prepare`")
    return json.loads(metadata[METADATA_KEY])


def file_digest(path: Path | str) -> str:
    """MD5 of a file in hexadecimal: the same hash that DVC records for it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W) as lossless PNG bytes."""
    buffer = io.BytesIO()
    # Level 1 takes a fifth of the default's time for files a seventh larger.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(data: bytes, height: int) -> np.ndarray:
    """A row's image as uint8 (C, H, W): C frames of `height` rows each."""
    pixels = decode_png(data)
    return pixels.reshape(-1, height, pixels.shape[1])


def decode_png(data: bytes) -> np.ndarray:
    """PNG bytes as uint8 (H, W)."""
    return np.array(Image.open(io.BytesIO(data)))
