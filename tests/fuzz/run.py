"""Feed mutated files to the readers: python -m tests.fuzz.run [FORMAT ...] --count 10000

Each format is read in a process of its own with bounded memory and, for each file, bounded CPU
time. A file must be read or refused with InputError. A traceback, a crash (a signal), a hang or a
lack of memory is a finding. It is printed with the number that reproduces it: --first N --count 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[2]
MEMORY = 2 << 30  # bytes beyond what the libraries take
CPU_S = 10  # of a file
NAMES = ("nifti", "metaimage", "png", "tiff", "jpeg", "dicom", "video", "cfg", "yaml")


def read_files(name: str, seed: int, first: int, count: int, cpu_s: int, folder: Path) -> None:
    """Read files in the child: print findings, and write the current number to `folder`/now."""
    from tests.fuzz.formats import FORMATS, committed_params, problem_with

    committed_params()
    warnings.simplefilter("ignore")
    logging.disable()  # nibabel and pydicom have much to say
    made = FORMATS[name]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with open(folder / "now", "wb", buffering=0) as now:
        for number in range(first, first + count):
            now.seek(0)
            now.write(f"{number:9d}".encode())
            data, ending = made.make(Random(f"{name} {seed} {number}"))
            path = folder / f"file{ending}"
            path.write_bytes(data)
            for reader in made.readers:
                signal.setitimer(signal.ITIMER_PROF, cpu_s)  # SIGPROF ends the process
                if (problem := problem_with(reader, path)) is not None:
                    line = {"number": number, "reader": reader.__name__, "problem": problem[:400]}
                    print(json.dumps(line), flush=True)
            signal.setitimer(signal.ITIMER_PROF, 0)
            path.unlink()


def fuzz(
    name: str, seed: int, first: int, count: int, cpu_s: int = CPU_S
) -> list[dict[str, object]]:
    """Return the findings among mutated files. A child that was ended by a file is restarted."""
    findings: list[dict[str, object]] = []
    end = first + count
    while first < end:
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, "-m", "tests.fuzz.run", name, "--seed", str(seed), "--child"]
            command += [place, "--first", str(first), "--count", str(end - first)]
            command += ["--cpu-s", str(cpu_s)]
            environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
            )
            findings += [json.loads(line) for line in done.stdout.splitlines()]
            if done.returncode == 0:
                return findings
            if done.returncode > 0:
                raise RuntimeError(f"the child of {name} failed with {done.returncode}")
            number = int((Path(place) / "now").read_text())
        hang = -done.returncode == signal.SIGPROF
        problem = f"more than {cpu_s} s" if hang else f"signal {-done.returncode}"
        findings.append({"number": number, "reader": "", "problem": problem})
        first = number + 1
    return findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(NAMES))
    parser.add_argument("--count", type=int, default=10_000, help="files of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-s", type=int, default=CPU_S, help="seconds a file may take")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        [name] = options.formats
        read_files(name, options.seed, options.first, options.count, options.cpu_s, options.child)
        return
    total = 0
    for name in options.formats or NAMES:
        started = time.monotonic()
        findings = fuzz(name, options.seed, options.first, options.count, options.cpu_s)
        seconds = time.monotonic() - started
        print(
            f"{name}: {options.count} files, {len(findings)} findings, {seconds:.0f} s", flush=True
        )
        for finding in findings:
            print(f"  {finding['number']} {finding['reader']}: {finding['problem']}", flush=True)
        total += len(findings)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
