"""Segment image files: label maps on each file's own grid, pictures with contours, and tables.

Inputs are NIfTI and MetaImage files (2-D, or 3-D with time last), PNG, JPEG, TIFF, DICOM, AVI and
MP4 files, folders (such as a CAMUS release or an nnU-Net dataset) and patterns. Files that were
already segmented are skipped.

DIR then contains NAME_seg and NAME_overlay for each file; images.csv (lengths and areas of each
frame, and the source of the scale); clinical.csv (volumes and EF of patients with both views at ED
and ES, named as in CAMUS); and sequences.csv and NAME_curves (volume over time). Without a
plausible scale, a file gets label maps and ejection fractions but no millimetres: see --spacing.

With --uncertainty, DIR also contains NAME_uncertainty, the entropy of each pixel from 0 to 1 (0 to
255 in a PNG), and images.csv has a column uncertainty with its mean over the heart.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartseg.cli import ModelOrFolder, make_app, paragraphs, positive, run_app, run_command
from heartseg.errors import InputError

if TYPE_CHECKING:
    from heartseg.models.package import Package
    from heartseg.prediction.files import Job
    from heartseg.prediction.segmenter import Outcome

THREADS = 3
"""While one thread uses the network, the others read and write files."""

app = make_app()


@app.command(help=paragraphs(__doc__))
def predict(
    model: ModelOrFolder,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Files, folders and patterns to segment."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    spacing: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="ROW COLUMN",
            callback=positive,
            help="Pixel size of all files in mm, if the files state none or a wrong one.",
        ),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write the uncertainty of each pixel.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Segment all files again.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Use the cluster at RAY_ADDRESS.")] = False,
) -> None:
    from heartseg.prediction.files import find_jobs
    from heartseg.prediction.results import mark_folder, write_summary
    from heartseg.prediction.segmenter import Outcome
    from heartseg.prediction.source import read_model

    folder = out.absolute()
    total = Outcome()
    jobs, total.problems = find_jobs(inputs, folder, total.notes)
    if jobs:
        package = read_model(model)
        settings = {
            "out": folder,
            "spacing": spacing,
            "uncertainty": uncertainty,
            "overwrite": overwrite,
            "made_before": mark_folder(folder, package, overwrite),
        }
        run = _on_cluster if ray else _here
        _follow(run(package, jobs, settings), len(jobs), total)
        write_summary(total, out)
    if total.problems:
        listing = "\n".join(f"  - {problem}" for problem in total.problems)
        raise InputError(f"{len(total.problems)} input(s) could not be segmented:\n{listing}")


def _follow(outcomes: Iterator[Outcome], files: int, total: Outcome) -> None:
    """Add up the outcomes and show a progress bar if there is a terminal."""
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


main = partial(run_app, app, "heartseg predict")

if __name__ == "__main__":
    run_command(main)
