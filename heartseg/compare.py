"""Compare two models, case by case, on the same evaluation data.

Writes one HTML page to the MLflow run of B: paired differences with bootstrap intervals and
p-values, agreement of clinical values, differences of the recipes, and the cases that changed most.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heartseg.cli import make_app, paragraphs, run_app, run_command
from heartseg.config.params import Params, load_params
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, catch_write_errors
from heartseg.paths import prepared_path, write_text
from heartseg.text import printable

if TYPE_CHECKING:
    from heartseg.evaluation.held_out import DisplayName, HeldOut
    from heartseg.tracking.evaluations import EvaluatedModel

PICTURES = 6
"""Number of cases shown, those that changed most."""

app = make_app()


@app.command(help=paragraphs(__doc__))
def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID."),
    ],
    b: Annotated[
        str, typer.Argument(metavar="B", help="Another model; differences are B minus A.")
    ],
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Evaluate both now, on the held-out patients of the local prepared dataset.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Also write the page to this file.")
    ] = None,
) -> None:
    params = load_params()

    from heartseg.data.privacy import case_names
    from heartseg.evaluation.held_out import load_recorded, measure_again
    from heartseg.tracking import evaluations
    from heartseg.tracking.client import connect, tracking_uri

    client = connect(tracking_uri(Path.cwd()))
    first, second = (evaluations.read_evaluated_model(client, uri) for uri in (a, b))
    _check(first, second)
    prepared = prepared_path(first.dataset)
    # Without the dataset there are no pictures, and so no names to hide.
    shown = case_names(params.privacy, prepared).shown if prepared.exists() else str
    if evaluate:
        held_out = measure_again((first, second), prepared, client, params, shown)
    else:
        held_out = load_recorded(first, second, prepared, client.tracking_uri)
    page, verdict = _page(first, second, held_out, params, shown)
    print(verdict)
    if out is not None:
        with catch_write_errors(out):
            write_text(out, page)
    run_id, path = evaluations.log_comparison(client, first, second, page)
    name = printable(second.tracked.run.info.run_name)
    print(f"in MLflow: run {name} ({run_id}), artifact {path}")


def _check(first: EvaluatedModel, second: EvaluatedModel) -> None:
    if first.dataset != second.dataset:
        raise InputError(
            f"{first.title} was trained on {first.dataset}, but {second.title} on "
            f"{second.dataset}; compare models of the same dataset"
        )
    if DATASETS[first.dataset].classifies:
        raise InputError(
            f"{first.title} classifies windows, which have no contours to compare: select both "
            "runs in `make ui` and press Compare"
        )
    if first.model_uri == second.model_uri and first.tracked.run_id == second.tracked.run_id:
        raise InputError(f"A and B are the same model: {first.title}")


def _page(
    first: EvaluatedModel,
    second: EvaluatedModel,
    held_out: HeldOut,
    params: Params,
    shown: DisplayName,
) -> tuple[str, str]:
    """Return the HTML page and the sentence with its main result."""
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
            f"one of the evaluations was made by another version of heartseg and lacks {error}. "
            f"{AGAIN}"
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


main = partial(run_app, app, "heartseg compare")

if __name__ == "__main__":
    run_command(main)
