"""Time of ONNX Runtime over that of torch on the CPU, for one pulled model.

    HEARTSEG_CAMUS_ROOT=… python tests/bench/bench_onnx.py MODEL [IMAGES]

MODEL is a folder of `heartseg pull`. Both get the same real images one by one, at native size,
in turn, with all cores; medians over the images. Also printed: the part of the pixels that differ.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from heartseg.data.images import read_images
from heartseg.prediction.source import read_model


def main(model: str, count: int) -> None:
    database = Path(os.environ["HEARTSEG_CAMUS_ROOT"]) / "database_nifti"
    files = sorted(database.glob("*/*_E[DS].nii.gz"))
    files = files[:: max(len(files) // count, 1)][:count]
    with_torch = read_model(model).load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(Path(model) / "model.onnx", options)
    ways = {
        "torch": with_torch,
        "onnxruntime": lambda images: session.run(None, {"images": images})[0],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    differ = []
    for number, file in enumerate(files):
        images = read_images(file).frames[:, None]
        labels = {}
        for name in sorted(ways, reverse=bool(number % 2)):
            started = time.perf_counter()
            labels[name] = ways[name](images)
            seconds[name].append(time.perf_counter() - started)
        differ.append(np.mean(labels["torch"] != labels["onnxruntime"]))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"{len(files)} images, {torch.get_num_threads()} threads: torch "
        f"{1000 * median['torch']:.1f} ms, ONNX Runtime {1000 * median['onnxruntime']:.1f} ms, "
        f"torch / ONNX Runtime {median['torch'] / median['onnxruntime']:.2f}; pixels that differ: "
        f"mean {np.mean(differ):.2e}, most {np.max(differ):.2e}"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
