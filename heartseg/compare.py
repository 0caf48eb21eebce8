"""Compare two models, case by case, on the same evaluation data.

Paired differences with bootstrap intervals and p-values, agreement of clinical values, what differs
in the recipes, and the cases that changed most: one HTML page, which goes to the MLflow run of B.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heartseg.cli import run_command
from heartseg.config.params import Params, load_params
from heartseg.data.privacy import case_names
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, catch_write_errors
from heartseg.paths import prepared_path, write_text
from heartseg.text import printable

if TYPE_CHECKING:
    from heartseg.evaluation.held_out import DisplayName, HeldOut
    from heartseg.tracking.evaluations import EvaluatedModel

PICTURES = 6  # the cases that changed most


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg compare", description=__doc__)
    what = "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID"
    parser.add_argument("a", metavar="A", help=what)
    parser.add_argument("b", metavar="B", help="the same; differences are B minus A")
    again = "measure both now, on the held-out patients of the prepared dataset here"
    parser.add_argument("--evaluate", action="store_true", help=again)
    parser.add_argument("--out", type=Path, metavar="HTML", help="also write the page to a file")
    options = parser.parse_args(argv)
    params = load_params()

    from heartseg.evaluation.held_out import load_recorded, measure_again
    from heartseg.tracking import evaluations
    from heartseg.tracking.client import connect, tracking_uri

    client = connect(tracking_uri(Path.cwd()))
    first, second = (
        evaluations.read_evaluated_model(client, uri) for uri in (options.a, options.b)
    )
    _check(first, second)
    prepared = prepared_path(first.dataset)
    # Without the dataset there are no pictures, and so no names.
    shown = case_names(params.privacy, prepared).shown if prepared.exists() else str
    if options.evaluate:
        held_out = measure_again((first, second), prepared, client, params, shown)
    else:
        held_out = load_recorded(first, second, prepared, client.tracking_uri)
    page, verdict = _page(first, second, held_out, params, shown)
    print(verdict)
    if options.out is not None:
        with catch_write_errors(options.out):
            write_text(options.out, page)
    run_id, path = evaluations.log_comparison(client, first, second, page)
    name = printable(second.tracked.run.info.run_name)
    print(f"in MLflow: run {name} ({run_id}), artifact {path}")


def _check(first: EvaluatedModel, second: EvaluatedModel) -> None:
    if first.dataset != second.dataset:
        raise InputError(f"{first.title} is for {first.dataset}, {second.title} {second.dataset}")
    if DATASETS[first.dataset].classifies:
        raise InputError(
            f"{first.title} classifies windows, which have no contours to compare: select both "
            "runs in `make ui` and press Compare"
        )
    if first.model_uri == second.model_uri and first.tracked.run_id == second.tracked.run_id:
        raise InputError(f"both are the same model: {first.title}")


def _page(
    first: EvaluatedModel,
    second: EvaluatedModel,
    held_out: HeldOut,
    params: Params,
    shown: DisplayName,
) -> tuple[str, str]:
    """The page, and what it says first."""
    from heartseg.evaluation import compare_page, paired
    from heartseg.evaluation.held_out import changed_cases
    from heartseg.tracking.evaluations import AGAIN, describe_model

    dataset = first.dataset
    try:
        pairs = paired.pair_cases(*held_out.cases, dataset)
        agreement = paired.compare_agreement(*held_out.clinical, dataset, params.evaluate)
    except ValueError as error:
        raise InputError(f"the two evaluations do not match: {error}. {AGAIN}") from None
    except KeyError as error:
        raise InputError(
            f"one of the evaluations is by another version of heartseg, without {error}. {AGAIN}"
        ) from None
    differences = paired.compare_cases(pairs, dataset, params.evaluate)
    changed = paired.most_changed(pairs, dataset, PICTURES)
    page = compare_page.comparison_page(
        (
            compare_page.Side(first.title, describe_model(first), first.recipe),
            compare_page.Side(second.title, describe_model(second), second.recipe),
        ),
        dataset,
        held_out.about,
        differences,
        agreement,
        ef=[next(iter(paired.clinical_pairs(t, dataset).values())) for t in held_out.clinical],
        cases=changed_cases(changed, held_out, dataset, shown),
        no_pictures=held_out.no_pictures,
        confidence=params.evaluate.confidence,
    )
    return page, compare_page.verdict(differences)


if __name__ == "__main__":
    run_command(main)
