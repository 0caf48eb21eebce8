"""Images/s and peak memory of `heartseg predict` over a plain loop that does the same work.

    HEARTSEG_CAMUS_ROOT=… python tests/bench/bench_predict.py MODEL [PATIENTS]

MODEL is a folder of `heartseg pull`. The plain loop reads a file, segments it alone, writes the
overlay and the label map, goes on to the next one, and measures a patient after its four files; it
calls the same functions for each of these. Each runs twice in processes of its own, in turn, and
once with more than 100 patients; times include neither imports nor loading the model, memory all of
it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path


def plain(package, jobs, out) -> float:
    import numpy as np

    from heartseg.data.images import read_images
    from heartseg.paths import write_atomically
    from heartseg.prediction.files import patient_of
    from heartseg.prediction.tables import Mask, clinical_rows, frame_rows, write_table
    from heartseg.report.overlay import save_overlay

    predict = package.load()
    started = time.perf_counter()
    frames, patients = [], []
    for _, own in groupby(jobs, key=patient_of):
        masks = []
        for job in own:
            images = read_images(job.file)
            labels = predict(images.frames[:, None])
            numbers = np.arange(1)
            save_overlay(images.frames, labels, numbers, "camus", images.spacing, job.output)
            target = job.output.with_name(f"{job.output.name}_seg{images.ending}")
            write_atomically(lambda path, save=images.save, maps=labels: save(maps, path), target)
            frames += frame_rows(job, labels, numbers, images.spacing, out)
            masks.append(Mask(job, labels[0], images.spacing, images.frames[0]))
        patients += clinical_rows(masks, out)
    write_table(frames, out / "images.csv")
    write_table(patients, out / "clinical.csv")
    return time.perf_counter() - started


def heartseg(package, jobs, out) -> float:
    from heartseg.predict import THREADS, ThreadPoolExecutor
    from heartseg.prediction.files import in_chunks
    from heartseg.prediction.results import write_summary
    from heartseg.prediction.segmenter import Outcome, Segmenter

    segmenter = Segmenter(package.load(), package.metadata, out)
    started = time.perf_counter()
    total = Outcome()
    with ThreadPoolExecutor(THREADS) as pool:
        for outcome in pool.map(segmenter, in_chunks(jobs)):
            total.add(outcome)
    write_summary(total, out)
    return time.perf_counter() - started


def measure(way: str, model: str, patients: int, out: Path) -> None:
    from heartseg.prediction.files import find_jobs
    from heartseg.prediction.source import read_model

    database = Path(os.environ["HEARTSEG_CAMUS_ROOT"]) / "database_nifti"
    folders = sorted(path for path in database.iterdir() if path.is_dir())[:patients]
    jobs, problems = find_jobs([str(folder) for folder in folders], out)
    assert not problems
    seconds = {"plain": plain, "heartseg": heartseg}[way](read_model(model), jobs, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"images": len(jobs), "seconds": seconds, "peak_mib": peak}))


def main(model: str, patients: int) -> None:
    found: dict[str, list[dict]] = {"plain": [], "heartseg": []}
    turns = ("plain", "heartseg", "heartseg", "plain")
    for way in turns if patients <= 100 else turns[:2]:
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, __file__, model, str(patients), way, out]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, found[way][-1], flush=True)
    speed = {
        way: statistics.mean(run["images"] / run["seconds"] for run in runs)
        for way, runs in found.items()
    }
    print(f"predict / plain loop: {speed['heartseg'] / speed['plain']:.2f} in images/s")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        measure(sys.argv[3], sys.argv[1], int(sys.argv[2]), Path(sys.argv[4]).absolute())
    else:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300)
