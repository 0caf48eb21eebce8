"""Segment image files: label maps on the files' own grids, pictures with contours, tables.

MODEL is a registered model or a folder made by `heartseg pull`. Images are NIfTI and MetaImage
files (2-D, or 3-D with time last), PNG, JPEG, TIFF, DICOM, AVI and MP4 files, folders (a CAMUS
release or an nnU-Net dataset is one) and patterns. What was segmented before is not done again.
Left in DIR, besides NAME_seg and NAME_overlay of each file:

images.csv (lengths and areas per frame, and where the scale comes from), clinical.csv (volumes and
EF of patients whose two views at ED and ES are there, named as in CAMUS), sequences.csv and
NAME_curves (volume over time). Files without a scale that can be believed give label maps and
ejection fractions, but no millimetres: see --spacing.
With --uncertainty also NAME_uncertainty, the entropy of each pixel from 0 to 1 (in a PNG 0 to 255),
and the column uncertainty of images.csv, its mean over the heart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartseg.cli import positive, run_command
from heartseg.errors import InputError

if TYPE_CHECKING:
    from heartseg.models.package import Package
    from heartseg.prediction.files import Job
    from heartseg.prediction.segmenter import Outcome

THREADS = 3
"""While one has the network, the others read and write."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="heartseg predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="models:/heartseg-camus@champion, or a pulled folder")
    parser.add_argument("inputs", nargs="+", metavar="FILE_FOLDER_OR_PATTERN")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--spacing",
        nargs=2,
        type=positive(float),
        metavar=("ROW", "COLUMN"),
        help="mm per pixel of all files, where they do not say or are wrong",
    )
    parser.add_argument("--uncertainty", action="store_true", help="how unsure it is, per pixel")
    parser.add_argument("--overwrite", action="store_true", help="do all files again")
    parser.add_argument("--ray", action="store_true", help="on the cluster at RAY_ADDRESS")
    options = parser.parse_args(argv)

    from heartseg.prediction.files import find_jobs
    from heartseg.prediction.results import mark_folder, write_summary
    from heartseg.prediction.segmenter import Outcome
    from heartseg.prediction.source import read_model

    out = options.out.absolute()
    total = Outcome()
    jobs, total.problems = find_jobs(options.inputs, out, total.notes)
    if jobs:
        package = read_model(options.model)
        settings = {
            "out": out,
            "spacing": tuple(options.spacing) if options.spacing else None,
            "uncertainty": options.uncertainty,
            "overwrite": options.overwrite,
            "made_before": mark_folder(out, package, options.overwrite),
        }
        run = _on_cluster if options.ray else _here
        _follow(run(package, jobs, settings), len(jobs), total)
        write_summary(total, options.out)
    if total.problems:
        listing = "\n".join(f"  - {problem}" for problem in total.problems)
        raise InputError(f"{len(total.problems)} input(s) could not be segmented:\n{listing}")


def _follow(outcomes: Iterator[Outcome], files: int, total: Outcome) -> None:
    """Add up the outcomes, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("segmenting", total=files)
        for outcome in outcomes:
            total.add(outcome)
            progress.update(task, completed=total.done + total.skipped)


def _here(package: Package, jobs: Sequence[Job], settings: dict[str, Any]) -> Iterator[Outcome]:
    from heartseg.prediction.files import in_chunks
    from heartseg.prediction.segmenter import Segmenter

    segmenter = Segmenter.of(package, settings)
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(segmenter, in_chunks(jobs))


def _on_cluster(
    package: Package, jobs: Sequence[Job], settings: dict[str, Any]
) -> Iterator[Outcome]:
    from heartseg.cluster import predict as ray_predict
    from heartseg.cluster import train as ray_train

    with tempfile.TemporaryDirectory() as logs:
        ray_train.start_ray(Path(logs) / "ray.log")
        try:
            yield from ray_predict.segment_on_cluster(package, jobs, settings)
        finally:
            ray_train.shutdown()


if __name__ == "__main__":
    run_command(main)
