"""Memory that the resident arrays take, over their formula N * S * S * (C + 1) bytes.

`make bench` runs it: a prepared dataset of 400 frames is decoded at 256 pixels in a process of its
own, whose growth is measured.
"""

from __future__ import annotations

import subprocess
import sys

from heartseg.data.prepared import Sample, write_prepared
from tests.clones import environment
from tests.examples import ROOT, disks

COUNT, SIZE = 400, 256
MEASURE = """
import sys, psutil, torch
from heartseg.data.resident import load_resident
load_resident(sys.argv[1], "val", int(sys.argv[2]), threads=1)  # libraries and their buffers
before = psutil.Process().memory_info().rss
data = load_resident(sys.argv[1], "train", int(sys.argv[2]), threads=1)
print(data.nbytes, psutil.Process().memory_info().rss - before)
"""


def test_resident_memory(tmp_path):
    samples, splits = [], {}
    images, masks = disks(8, 400)
    for number in range(COUNT + 8):
        name, which = f"case{number:04d}", number % 8
        splits[name] = "val" if number >= COUNT else "train"
        pixels = images[which, 0], masks[which]
        samples.append(Sample(name, name, "4CH", "ED", 0, *pixels, (1.0, 1.0)))
    path = tmp_path / "camus.parquet"
    write_prepared(path, samples, splits, {"source": "disks"})
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(SIZE)],
        env=environment(ROOT), capture_output=True, text=True, check=True,
    )  # fmt: skip
    held, grown = map(int, done.stdout.split())
    formula = COUNT * SIZE * SIZE * 2
    print(
        f"\n{COUNT} images at {SIZE} px: formula {formula / 1e6:.1f} MB, arrays "
        f"{held / 1e6:.1f} MB (ratio {held / formula:.3f}), process grew by {grown / 1e6:.1f} MB "
        f"(ratio {grown / formula:.2f}, with the Parquet file's bytes still in its heap)"
    )
