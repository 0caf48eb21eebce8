"""The model card: description, intended use, results, data and provenance of a registered model.

It contains, in Markdown, the entries of metadata.json in MONAI's bundle specification (task,
intended_use, network_data_format, data_source, data_type, label_classes, eval_metrics, references).
The most important sections come first, because MLflow's description has limited space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heartseg.config.nested import get, leaves
from heartseg.datasets import DATASETS
from heartseg.models.inputs import frame_count
from heartseg.report.certainty import certainty_section
from heartseg.report.clinical import clinical_section
from heartseg.report.markdown import interval, number, table, with_interval

if TYPE_CHECKING:
    from heartseg.models.trained import TrainingRecord

SURFACE = {"dice": "Dice (0 to 1)", "hd95_mm": "HD95 (mm)", "msd_mm": "mean surface distance (mm)"}
GROUPS = {"by_view": "view", "by_phase": "phase", "by_quality": "image quality"}
REFERENCES = {
    "deeplabv3": "Network: Chen et al., DeepLabV3, arXiv:1706.05587, 2017",
    "quicknat": "Network: Roy et al., QuickNAT, NeuroImage 186:713-727, 2019",
    "unet": "Network: Kerfoot et al., residual U-Net, STACOM 2018, LNCS 11395, 2019",
    "window_cnn": "Network: convolutions and a global average (Lin et al., arXiv:1312.4400)",
    "dynunet": "Network: Isensee et al., nnU-Net, Nature Methods 18:203-211, 2021",
}


def model_card(
    recipe: dict[str, Any],
    metrics: dict[str, Any],
    training: TrainingRecord,
    dataset_metadata: dict[str, Any],
    registered: dict[str, Any],
) -> str:
    """Return the model card of a registered model in Markdown.

    Args:
        recipe: Recipe, as `Recipe.model_dump(mode="json")` returns it.
        metrics: Content of report.json. Missing and null values are shown as "–".
        training: Record of the training.
        dataset_metadata: Metadata of the prepared dataset, from `read_metadata`.
        registered: Name, version, alias, reason and weights_md5 of the registered model.
    """
    dataset, network = recipe["dataset"], recipe["model"]["name"]
    synthetic = bool(dataset_metadata.get("synthetic"))
    sections = [
        f"# {registered['name']} version {registered['version']} ({registered['alias']})",
        f"A {network} network that {DATASETS[dataset].purpose}. When registered it became "
        f"{registered['alias']}: {registered['reason'].rstrip('.')}.",
        *(["**Trained on synthetic phantoms: it knows no real image.**"] if synthetic else []),
        "## Intended use\n\n"
        "Research on heart segmentation: comparing methods, measuring images like those below, "
        "proposing contours that a person then checks.\n\n"
        "**Not a medical device.** Not for diagnosis, treatment or any decision about a patient; "
        "not for other views, species, devices or structures without an evaluation of your own.",
        _limits(dataset, metrics, synthetic),
        _usage(recipe, metrics, registered),
        _rates(metrics) if DATASETS[dataset].classifies else _results(dataset, metrics),
        clinical_section(metrics, synthetic) if DATASETS[dataset].apical else "",
        certainty_section(metrics),
        _data(dataset, metrics, training, dataset_metadata),
        "## Lineage\n\n" + table(("what", "value"), _lineage(training, registered)),
        "## Recipe\n\n"
        + table(("key", "value"), [(".".join(key), v) for key, v in leaves(recipe)]),
        "## References\n\n"
        + ("" if synthetic else f"- {DATASETS[dataset].reference}\n")
        + f"- {REFERENCES[network]}",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _usage(recipe: dict[str, Any], metrics: dict[str, Any], registered: dict[str, Any]) -> str:
    frames = frame_count(recipe["model"]["in_channels"])
    stacked = (
        f"- The {frames} channels are a half sequence, resampled to {frames} frames: first the "
        "frame to segment (ED or ES), last the other end of the half cycle.\n"
    )
    largest = get(metrics, "postprocess", "chosen") == "largest_component"
    cleaned = ", of each structure its largest connected part" if largest else ""
    networks, views = (metrics.get(key) or 1 for key in ("networks", "views"))
    averaged = (
        f"- The label of each pixel is that of the mean class probability over {networks} "
        f"network(s) and {views} view(s) of the image: {networks * views} forward passes, and as "
        "many times the work of a single one.\n"
    )
    channels = recipe["model"]["in_channels"]
    uri = f"models:/{registered['name']}/{registered['version']}"
    spec = DATASETS[recipe["dataset"]]
    rows = [(label.value, label.name, spec.label_texts[label.name]) for label in spec.labels]
    return (
        "## Inputs, outputs and how to use it\n\n"
        f"- Input: ultrasound images, uint8 (N, {channels}, H, W), grey values 0 to 255, any H and "
        f"W; the model itself resizes to {recipe['input_size']} pixels and normalises.\n"
        + (stacked if frames > 1 else "")
        + (averaged if networks * views > 1 else "")
        + f"- Output: label maps, uint8 (N, H, W), on the same grid{cleaned}:\n\n"
        + table(("value", "name", "meaning"), rows)
        + "\n\nWith MLFLOW_TRACKING_URI naming the store; heartseg need not be installed:\n\n"
        "```python\n"
        "import mlflow\n"
        f'model = mlflow.pyfunc.load_model("{uri}")\n'
        f"labels = model.predict(images)  # numpy uint8 (N, {channels}, H, W) -> uint8 (N, H, W)\n"
        "```"
    )


def _results(dataset: str, metrics: dict[str, Any]) -> str:
    overall = metrics.get("overall") or {}
    structures = [*DATASETS[dataset].structures, *(["mean"] if "mean" in overall else [])]
    columns = {
        key: text
        for key, text in SURFACE.items()
        if any(get(overall, name, key) is not None for name in structures)
    }
    rows = [
        (name, *(with_interval(overall.get(name) or {}, key) for key in columns))
        for name in structures
    ]
    parts = [
        f"## Results\n\n{number(metrics.get('n_cases'))} images of "
        f"{number(metrics.get('n_patients'))} {DATASETS[dataset].subjects} of the "
        f"{metrics['evaluated_on']} split, at native resolution. In brackets: bootstrap "
        f"intervals over {DATASETS[dataset].subjects}.",
        table(("structure", *columns.values()), rows),
    ]
    clinical = [
        (
            text,
            *(with_interval(found, name) for name in ("bias", "mae")),
            number(found.get("r"), 2),
            number(found.get("icc"), 2),
            interval(found.get("loa_low"), found.get("loa_high"), 2),
            number(found.get("n")),
            number(found.get("missing")),
        )
        for key, text in DATASETS[dataset].clinical.items()
        if (found := get(metrics, *key.split(".")))
    ]
    if clinical:
        head = ("measurement", "bias", "mean absolute error", "r (-1 to 1)", "ICC(2,1) (to 1)")
        parts.append(table((*head, "95 % limits of agreement", "n", "not measured"), clinical))
    groups = [
        (
            f"{title} {name}",
            *(
                with_interval(found.get(part) or {}, "dice")
                for part in DATASETS[dataset].structures
            ),
        )
        for key, title in GROUPS.items()
        for name, found in (metrics.get(key) or {}).items()
        if found
    ]
    if groups:
        parts.append(table(("mean Dice (0 to 1) by", *DATASETS[dataset].structures), groups))
    return "\n\n".join(parts)


def _rates(metrics: dict[str, Any]) -> str:
    confusion = metrics["confusion"]
    names = {
        "auc": "area under the ROC curve",
        "sensitivity": "sensitivity for bad",
        "specificity": "specificity (good ones let pass)",
        "balanced_accuracy": "balanced accuracy",
    }
    rows = [
        (label, confusion[f"{label}_called_good"], confusion[f"{label}_called_bad"])
        for label in ("good", "bad")
    ]
    return "\n\n".join(
        (
            f"## Results\n\n{metrics['n_cases']} windows of {metrics['n_patients']} animals of the "
            f"{metrics['evaluated_on']} split, {metrics['n_bad']} of them bad. In brackets: "
            "bootstrap intervals over animals.",
            table(
                ("rate (0 to 1)", "value"),
                [(text, with_interval(metrics, key)) for key, text in names.items()],
            ),
            table(("windows labelled", "called good", "called bad"), rows),
        )
    )


def _data(
    dataset: str, metrics: dict[str, Any], training: TrainingRecord, facts: dict[str, Any]
) -> str:
    rows = [(split, facts["patients"][split], facts["cases"][split]) for split in facts["patients"]]
    split = ", ".join(f"{key} {value}" for key, value in facts["split"].items())
    lines = [
        f"- Source: `{facts['source']}`; {DATASETS[dataset].images}",
        f"- Prepared dataset, MD5: `{training.data_digest}`",
        f"- Split by {DATASETS[dataset].subjects[:-1]}: {split}",
    ]
    if metrics.get("data_digest") not in (None, training.data_digest):
        lines.append(f"- **Evaluated on other data**, MD5: `{metrics['data_digest']}`")
    if facts.get("skipped"):
        lines.append(f"- Left out as faulty: {len(facts['skipped'])}")
    return (
        "## Data\n\n" + "\n".join(lines) + "\n\n"
        + table(("split", DATASETS[dataset].subjects, "images"), rows)
    )  # fmt: skip


def _limits(dataset: str, metrics: dict[str, Any], synthetic: bool) -> str:
    spec = DATASETS[dataset]
    lines = []
    if not spec.classifies:
        lines.append("Each image is segmented by itself; nothing makes successive frames agree.")
    lines += spec.limits
    lines.append(
        "How sure it is tells nothing of images unlike those it was trained on: networks are often "
        "sure and wrong there."
    )
    if metrics.get("selected_on_it"):
        lines.append(
            "Evaluated on the split by which epoch or post-processing were chosen: optimistic."
        )
    if synthetic:
        lines.append("The results are those on phantoms and say nothing about patients.")
    elif spec.licence:
        lines.append(spec.licence)
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _lineage(training: TrainingRecord, registered: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("recipe", training.recipe_name),
        ("epoch", training.epoch),
        ("MLflow experiment", training.experiment),
        ("MLflow run", training.mlflow_run_id or registered["run_id"]),
        *(
            (f"MLflow run of fold {fold.fold} (epoch {fold.epoch})", fold.mlflow_run_id)
            for fold in training.folds
        ),
        ("weights MD5", registered.get("weights_md5")),
        *sorted((k, v) for k, v in training.tags.items() if not k.startswith("mlflow.")),
    ]
