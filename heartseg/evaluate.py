"""Evaluate a recipe's trained model on the held-out patients, at native resolution.

Leaves cases.csv, clinical.csv (a row per patient or M-mode window), metrics.json and figures in
results/DATASET, and all of them in the training's MLflow run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from heartseg.config import Params, load_params
from heartseg.data.prepared import decode_image, decode_png, file_digest, read_prepared
from heartseg.errors import InputError, run_command
from heartseg.paths import MODEL, prepared_path, results_dir
from heartseg.privacy import CaseNames, case_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from heartseg.metrics.plausibility import Ranges

Predict = Callable[[np.ndarray], np.ndarray]

CASE_COLUMNS = ["case_id", "patient", "view", "phase", "quality"]
CHARTS = {
    "camus": {
        "ef": ("ejection fraction", "%"),
        "ef_cfg": ("recorded EF", "%"),
        "edv": ("end-diastolic volume", "mL"),
        "esv": ("end-systolic volume", "mL"),
    },
    "mmode": {"lvidd": ("LVIDd", "mm"), "fs": ("fractional shortening", "%")},
}
"""Whose agreement is drawn, and its unit."""
SHOWN = {"worst": 0.0, "median": 0.5, "best": 1.0}
"""Cases drawn as overlays, by the quantile of their mean Dice."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="heartseg evaluate", description=__doc__)
    parser.add_argument("recipe", help="name of a recipe in params.yaml")
    name = parser.parse_args(argv).recipe
    params = load_params()
    dataset = params.recipe(name).dataset
    evaluate_model(name, dataset, results_dir(dataset), params)


def evaluate_model(name: str, dataset: str, results: Path, params: Params) -> None:
    """Measure the model in `results`/model and leave tables, metrics and figures beside it.

    Args:
        name: of the recipe, or of the sweep's trial, that is to have trained it.
        dataset: that it segments.
        results: folder.
        params: params.yaml.

    Raises:
        InputError: there is no such model, or it was trained on other data.
    """
    prepared = prepared_path(dataset)
    model_folder = results / MODEL
    split, held_out = _held_out(prepared, params.evaluate.split)

    import torch

    from heartseg.metrics.plausibility import area_ranges
    from heartseg.models.trained import WEIGHTS, load_trained
    from heartseg.tracking.mlflow import connect, tracking_uri
    from heartseg.training.postprocess import decide

    model, recipe, training = load_trained(model_folder)
    digest = file_digest(prepared)
    if training["recipe_name"] != name:
        raise InputError(
            f"{model_folder} was trained by recipe {training['recipe_name']}, not {name}; "
            f"run `heartseg train {name}` first"
        )
    if training["data_digest"] != digest:
        raise InputError(
            f"{prepared} is not what {model_folder} was trained on, so held-out patients "
            f"may have been trained on; run `heartseg train {name}` first"
        )
    client = connect(tracking_uri(Path.cwd()))  # a store that is down is told before the work
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predict = predictor(model.to(device), recipe.model.in_channels, device)
    camus = dataset == "camus"
    wanted = params.evaluate.postprocess if camus else "none"
    postprocess = decide(wanted, read_prepared(prepared, "val"), predict)
    model.largest_component = postprocess["chosen"] == "largest_component"
    ranges = area_ranges(read_prepared(prepared, "train")) if camus else {}
    cases, clinical = measure_cases(held_out, dataset, predict, ranges)
    selected = recipe.select == "best" or recipe.early_stopping > 0 or "sweep" in training
    selected |= postprocess["chosen_on"] == "val"
    metrics = {
        "evaluated_on": split,
        "selected_on_it": split == "val" and selected,
        "postprocess": postprocess,
        "data_digest": digest,
        "weights_md5": file_digest(model_folder / WEIGHTS),
        **_summarise(dataset, cases, clinical, params),
    }
    names = case_names(params.privacy, prepared)
    figures = _overlays(held_out, cases, dataset, predict, names)
    figures |= _charts(cases, clinical, dataset, results / "history.csv")

    _write_figures(results / "figures", figures)
    _write(results / "cases.csv", cases.to_csv(index=False))
    _write(results / "clinical.csv", clinical.to_csv(index=False))
    _write(results / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    _log(client, training["mlflow_run_id"], metrics, results, names)
    print(_report(metrics, results))


def _log(
    client: Any, run_id: str, metrics: dict[str, Any], results: Path, names: CaseNames
) -> None:
    from heartseg.tracking.mlflow import is_active, log_evaluation

    if is_active(client, run_id):
        with names.shareable([results / "cases.csv", results / "clinical.csv"]) as tables:
            files = [results / "metrics.json", *tables, results / "figures"]
            log_evaluation(client, run_id, metrics, files)
    else:
        print(f"the MLflow run {run_id} is not in this store; the evaluation stays in {results}")


def _held_out(prepared: Path, wanted: str) -> tuple[str, pd.DataFrame]:
    """The split evaluated and its rows; val where test is empty."""
    for split in dict.fromkeys((wanted, "val")):
        rows = read_prepared(prepared, split)
        if len(rows):
            if split != wanted:
                print(f"{prepared} has no {wanted} patients; evaluating on {split}")
            return split, rows
    raise InputError(f"{prepared} has neither {wanted} nor val patients; change its split")


def predictor(model: nn.Module, channels: int, device: Any) -> Predict:
    """A function from a uint8 image (C, H, W) to its uint8 label map (H, W).

    C is 1, repeated for a network of several channels, or `channels`.
    """
    import torch

    def predict(image: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(image)[None].expand(-1, channels, -1, -1)
        with torch.inference_mode():
            return model(batch.to(device))[0].cpu().numpy()

    return predict


def measure_cases(
    frames: pd.DataFrame, dataset: str, predict: Predict, ranges: Ranges
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict every frame; the rows of cases.csv, with flags for CAMUS, and of clinical.csv."""
    from rich.console import Console
    from rich.progress import track

    from heartseg.metrics.clinical import SUMMARISED, clinical_row
    from heartseg.metrics.plausibility import flags
    from heartseg.metrics.summary import case_metrics, window_row

    cases: list[dict[str, Any]] = []
    clinical: list[dict[str, Any]] = []
    patients = frames.groupby("patient")
    quiet = not Console().is_terminal
    for patient, own in track(patients, "evaluating", len(patients), disable=quiet):
        masks = {}
        for frame in own.to_dict("records"):
            prediction = predict(decode_image(frame["image"], frame["height"]))
            reference = decode_png(frame["mask"])
            spacing = (frame["spacing_row"], frame["spacing_col"])
            about = {column: frame[column] for column in CASE_COLUMNS}
            rows = case_metrics(dataset, frame["case_id"], prediction, reference, spacing)
            odd = {}
            if dataset == "camus":
                odd = flags(prediction, spacing, ranges.get((frame["view"], frame["phase"])))
            cases += [about | row | odd for row in rows]
            masks[frame["view"], frame["phase"]] = (prediction, reference, spacing)
            if dataset == "mmode":
                measured = window_row(prediction, reference, spacing)
                about = {"case_id": frame["case_id"], "patient": patient}
                clinical.append(about | measured | _truth_mmode(frame))
        if dataset == "camus" and (indices := clinical_row(masks)) is not None:
            quality = "/".join(filter(None, own["quality"].unique()))  # views may differ
            about = {"patient": patient, "quality": quality}
            clinical.append(about | indices | _truth_camus(own))
    columns = SUMMARISED if dataset == "camus" and not clinical else None
    return pd.DataFrame(cases), pd.DataFrame(clinical, columns=columns)


def _truth_camus(frames: pd.DataFrame) -> dict[str, float]:
    """The values that came with any of a patient's frames; NaN where there are none."""
    first = frames[["reference_ef", "reference_edv", "reference_esv"]].bfill().iloc[0]
    return {
        "ef_cfg": first["reference_ef"],
        "edv_true": first["reference_edv"],
        "esv_true": first["reference_esv"],
    }


def _truth_mmode(frame: Mapping[Hashable, Any]) -> dict[str, float]:
    """The values that came with an M-mode window; NaN where there are none."""
    from heartseg.metrics.mmode import MOUSE, fractional_shortening, teichholz_ef

    lvidd, lvids = frame["reference_lvidd"], frame["reference_lvids"]
    return {
        "lvidd_true": lvidd,
        "lvids_true": lvids,
        "fs_true": fractional_shortening(lvidd, lvids),
        "ef_true": teichholz_ef(lvidd, lvids, MOUSE),
        "hr_true": frame["reference_hr"],
    }


def _summarise(
    dataset: str, cases: pd.DataFrame, clinical: pd.DataFrame, params: Params
) -> dict[str, Any]:
    from heartseg.metrics.plausibility import summarise_plausibility
    from heartseg.metrics.summary import summarise_camus, summarise_mmode, tidy

    if dataset == "mmode":
        return summarise_mmode(cases, clinical, params.evaluate)
    plausibility = tidy(summarise_plausibility(cases, params.evaluate))
    return summarise_camus(cases, clinical, params.evaluate) | {"plausibility": plausibility}


# --- figures ------------------------------------------------------------------------------


def _overlays(
    frames: pd.DataFrame, cases: pd.DataFrame, dataset: str, predict: Predict, names: CaseNames
) -> dict[str, Figure]:
    """The worst, the median and the best case by mean Dice, and the median case's targets."""
    from heartseg.metrics.summary import mean_dice
    from heartseg.report.figures import overlay_panel
    from heartseg.report.targets import target_panels

    ranked = mean_dice(cases, dataset).sort_values(kind="stable")
    figures = {}
    for name, part in SHOWN.items():
        case_id = ranked.index[round(part * (len(ranked) - 1))]
        frame = frames[frames["case_id"] == case_id].iloc[0]
        image = decode_image(frame["image"], frame["height"])
        reference, prediction = decode_png(frame["mask"]), predict(image)
        title = f"{name}: {names.shown(case_id)}, Dice {ranked[case_id]:.3f}"
        spacing = (frame["spacing_row"], frame["spacing_col"])
        figures[f"overlay_{name}"] = overlay_panel(
            image[0], reference, prediction, dataset, title, spacing
        )
        if name == "median":
            maps = {"reference": reference, "prediction": prediction}
            figures["targets_median"] = target_panels(image[0], maps, dataset, title, spacing)
    return figures


def _charts(
    cases: pd.DataFrame, clinical: pd.DataFrame, dataset: str, history: Path
) -> dict[str, Figure]:
    from heartseg.metrics.clinical import comparisons
    from heartseg.report.figures import (
        agreement_scatter,
        bland_altman,
        box_plots,
        training_curves,
    )

    figures = {"box_plots": box_plots(cases, dataset)}
    recorded = comparisons(clinical)["cfg"] if dataset == "camus" else pd.DataFrame()
    for key, (quantity, unit) in CHARTS[dataset].items():
        pair = (
            (recorded["reference"], recorded["measured"])
            if key == "ef_cfg"
            else (clinical[f"{key}_reference"], clinical[f"{key}_predicted"])
        )
        qualities = clinical.loc[pair[0].index, "quality"] if dataset == "camus" else None
        figures[f"{key}_bland_altman"] = bland_altman(*pair, quantity, unit, qualities)
        figures[f"{key}_scatter"] = agreement_scatter(*pair, quantity, unit)
    if history.exists():
        figures["training_curves"] = training_curves(pd.read_csv(history))
    return figures


# --- writing ------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _write_figures(folder: Path, figures: dict[str, Figure]) -> None:
    """Replace the folder, so that no figure of an earlier model stays behind."""
    from heartseg.report.figures import save

    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, figure in figures.items():
            save(figure, temporary / f"{name}.png")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _report(metrics: dict[str, Any], results: Path) -> str:
    """A few lines for the terminal."""
    from heartseg.metrics.summary import CLINICAL

    lines = [
        f"{results / 'metrics.json'}: {metrics['n_cases']} cases of {metrics['n_patients']} "
        f"patients ({metrics['evaluated_on']})"
    ]
    for structure, values in metrics["overall"].items():
        line = f"  {structure:<5} Dice {values['dice']:.3f}"
        line += f" ({values['dice_low']:.3f} to {values['dice_high']:.3f})"
        if "hd95_mm" in values:
            line += f"  HD95 {values['hd95_mm']:.2f} mm  MSD {values['msd_mm']:.2f} mm"
        lines.append(line)
    clinical = metrics.get("ef") or {key: metrics[key] for key in CLINICAL}
    for quantity, values in clinical.items():
        line = f"  {quantity:<10}"
        if values["n"]:
            line += f" bias {values['bias']:.2f}  MAE {values['mae']:.2f}"
        lines.append(f"{line}  n {values['n']}  not measured {values['missing']}")
    if plausibility := metrics.get("plausibility"):
        lines.append(f"  plausible  {plausibility['fraction']:.3f} of {plausibility['n']} cases")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
