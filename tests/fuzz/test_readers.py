"""Some of the mutated files. `make fuzz` reads 10,000 of each format in a limited process."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.formats import FAULTS, FORMATS, make_faulty, problem_with
from tests.fuzz.run import NAMES, fuzz

pytestmark = pytest.mark.slow

FILES = {"nifti": 300, "cfg": 300, "png": 150, "dicom": 80, "yaml": 30} | dict.fromkeys(
    ("metaimage", "tiff", "jpeg", "video"), 100
)
SEED = 1  # `make fuzz` has 0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()  # nibabel and pydicom have much to say of broken files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    made = FORMATS[name]
    findings = []
    for number in range(FILES[name]):
        data, ending = made.make(Random(f"{name} {SEED} {number}"))
        if len(data) > 1 << 17:
            continue  # the bombs have a process of their own below
        path = tmp_path / f"file{ending}"
        path.write_bytes(data)
        for reader in made.readers:
            problem = problem_with(reader, path)
            if problem is not None:
                findings.append(f"{number} {reader.__name__}: {problem}")
    assert findings == []


@pytest.mark.slow
def test_harness_finds_tracebacks_crashes_hangs_and_memory() -> None:
    """The harness reports each kind of finding, and reads the following files."""
    seed, count = 41, 7  # with each of them
    made = [make_faulty(Random(f"faulty {seed} {n}"))[0].decode() for n in range(count)]
    assert set(made) == set(FAULTS)
    said = {"traceback": "KeyError", "crash": "signal 11", "hang": "more than 1 s"}
    said["memory"] = "memory"
    found = fuzz("faulty", seed, 0, count, cpu_s=1)
    assert [(finding["number"], str(finding["problem"]).split(":")[0]) for finding in found] == [
        (number, said[kind]) for number, kind in enumerate(made) if kind in said
    ]
