"""Write and read the prepared dataset: a Parquet file with a row per frame or window."""

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
from heartseg.errors import InputError, one_line

SPLITS = ("train", "val", "test")
METADATA_KEY = b"heartseg"
ROW_GROUP = 64  # rows that a reader decodes at a time

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
    """One frame or window.

    Attributes:
        case_id: Id that is unique within the dataset, such as "patient0001_2CH_ED".
        patient: Patient or animal. All its samples are in the same split.
        view: "2CH" or "4CH"; "" for M-mode.
        phase: "ED" or "ES"; "" for M-mode.
        frame: Number of the frame or window within its recording, from 0.
        image: uint8 (H, W), or (C, H, W) for the frames of a sequence, of which the first is
            segmented.
        mask: Label map uint8 (H, W) with the label values of `heartseg.datasets`.
        spacing: (row, column) in mm for CAMUS; (mm per row, s per column) for M-mode.
        quality: Image quality as stated by the dataset; "" if unknown.
        reference: Known clinical values, with keys from REFERENCES.
        notes: Unusual properties of the files.
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
    """Apply a function to items on several threads, and yield the results in order.

    Only a few items are processed ahead, so memory is bounded. Threads are sufficient because zlib,
    Pillow and torch release the GIL while they work.

    Args:
        function: Function of an item.
        items: Items, consumed as needed.
        threads: Number of threads.
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
    """Write samples to a Parquet file. If this fails, an existing file does not change.

    The same samples and metadata give the same bytes.

    Args:
        path: Path of the Parquet file.
        samples: Samples in the order of the rows. They are consumed one at a time, so the decoded
            dataset need not fit into memory.
        split_of: Split by patient.
        metadata: JSON-serialisable facts about the dataset, stored in the schema of the file.

    Returns:
        Number of rows written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = SCHEMA.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    rows = map_in_order(
        lambda sample: _row(sample, split_of[sample.patient]), samples, os.cpu_count() or 1
    )
    written = 0
    try:
        # Without compression, because PNG images are compressed.
        with pq.ParquetWriter(temporary, schema, compression="none") as writer:
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
        "image": encode_png(sample.image.reshape(-1, width)),  # frames stacked vertically
        "mask": encode_png(sample.mask),
    }


def read_prepared(path: Path | str, split: str | None = None) -> pd.DataFrame:
    """Read the rows of a prepared dataset, with images as PNG bytes.

    Args:
        path: Path of the Parquet file.
        split: "train", "val" or "test"; None for all rows.

    Returns:
        Table with the columns of SCHEMA, and the column `species` from the metadata.

    Raises:
        InputError: The file is missing, or was not written by `heartseg prepare`.
    """
    metadata = read_metadata(path)
    try:
        table = pq.read_table(path, filters=None if split is None else [("split", "=", split)])
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from None
    frames = table.to_pandas()
    return frames.assign(species=metadata.get("species") or _likely_species(frames, metadata))


def _likely_species(frames: pd.DataFrame, metadata: dict[str, Any]) -> str:
    """Guess the species for a file that was written before the metadata contained it."""
    if metadata.get("dataset") != "mmode":
        return "mouse"  # the species of other datasets is not used
    masks = (decode_png(mask) == Mmode.LV for mask in frames["mask"])
    return likely_species(masks, frames["spacing_row"]).name


def read_names(path: Path | str) -> set[tuple[str, str, str, str]]:
    """Read (case_id, patient, view, phase) of all rows of a prepared dataset.

    Raises:
        InputError: The file is missing, or was not written by `heartseg prepare`.
    """
    read_metadata(path)
    columns = pq.read_table(path, columns=["case_id", "patient", "view", "phase"])
    return set(zip(*(column.to_pylist() for column in columns.columns), strict=True))


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Read the metadata of a prepared dataset from the schema of its file.

    Raises:
        InputError: The file is missing, or was not written by `heartseg prepare`.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist. Run `dvc repro` or `heartseg prepare`") from None
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from None
    if METADATA_KEY not in metadata:
        raise InputError(f"{path}: was not written by heartseg. Run `heartseg prepare`")
    return json.loads(metadata[METADATA_KEY])


def _not_parquet(path: Path | str, error: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read as Parquet ({one_line(error)}). Run `dvc repro` or `heartseg "
        "prepare` to write it again"
    )


def file_digest(path: Path | str) -> str:
    """Return the MD5 of a file in hexadecimal, which is also the hash that DVC records."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 (H, W) as PNG bytes."""
    buffer = io.BytesIO()
    # Level 1 takes a fifth of the time of the default, for files that are a seventh larger.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(data: bytes, height: int) -> np.ndarray:
    """Decode the image of a row to uint8 (C, H, W).

    Args:
        data: PNG bytes.
        height: H, the height of a frame.
    """
    pixels = decode_png(data)
    return pixels.reshape(-1, height, pixels.shape[1])


def decode_png(data: bytes) -> np.ndarray:
    """Decode PNG bytes to uint8 (H, W)."""
    return np.array(Image.open(io.BytesIO(data)))
