"""Register a trained and evaluated model, with its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heartseg.config.params import Params
from heartseg.data.prepared import file_digest, read_metadata
from heartseg.data.privacy import case_names
from heartseg.errors import InputError
from heartseg.paths import CARD, MODEL, prepared_path, write_text


def register_model(name: str, dataset: str, results: Path, params: Params) -> None:
    """Package and register the model in `results`/model, and promote it by its metrics.

    Args:
        name: Name of the recipe, or of the sweep's trial, that must have trained the model.
        dataset: Name of the dataset.
        results: Folder of the results. registered.json and model_card.md are written to it.
        params: Content of params.yaml.

    Raises:
        InputError: If the model or its metrics are missing or do not belong together.
    """
    model_folder = results / MODEL
    gate = params.register_.of(dataset)
    path = results / "report.json"
    report = _read_report(path)

    from heartseg.evaluation.summary import headline
    from heartseg.models.inference import log_packaged
    from heartseg.models.trained import WEIGHTS, load_trained
    from heartseg.models.tta import views_of
    from heartseg.report.card import model_card
    from heartseg.tracking import registry
    from heartseg.tracking.client import tracking_uri
    from heartseg.tracking.descriptions import describe, first_page
    from heartseg.tracking.faults import explain_missing_run
    from heartseg.tracking.offline_buffer import add_pending, connect_or_buffer

    numbers = headline(report, dataset)
    value = numbers[gate.metric]
    if value is None:
        raise InputError(
            f"{path}: {gate.metric} is undefined for these data; choose another "
            f"register.{dataset}.metric in params.yaml"
        )
    model, recipe, training = load_trained(model_folder)
    if training.recipe_name != name:
        raise InputError(
            f"{model_folder} was trained by recipe {training.recipe_name}, not {name}; "
            f"train and evaluate {name} first"
        )
    postprocess, tta = (report[choice]["chosen"] for choice in ("postprocess", "tta"))
    model.largest_component = postprocess == "largest_component"
    model.set_tta(views_of(dataset, tta))
    registered_name = params.tracking.experiment_prefix + dataset
    weights_md5 = file_digest(model_folder / WEIGHTS)
    if report["weights_md5"] != weights_md5:
        raise InputError(
            f"{path} is the evaluation of another model than the one in {model_folder}; "
            f"run `heartseg evaluate {name}` first"
        )
    missed = registry.missed_floors(numbers, gate.floor)
    facts = read_metadata(prepared_path(dataset))
    client = connect_or_buffer(params.tracking, f"the registration of {results}")
    registered: dict[str, Any] = {
        "name": registered_name,
        "version": "not yet",
        "alias": "not registered",
        "reason": "the store did not answer; `heartseg sync` registers the model",
        "run_id": None,
        "model_uri": None,
        "weights_md5": weights_md5,
        "metric": gate.metric,
        "value": value,
    }
    if client is None:
        add_pending("register", name, dataset, results, weights_md5)
        card = model_card(training.recipe, report, training, facts, registered)
        write_text(results / CARD, card)
        write_text(results / "registered.json", json.dumps(registered, indent=1) + "\n")
        return
    registry.use_store(tracking_uri(Path.cwd()))
    tags = {
        registry.WEIGHTS_TAG: weights_md5,
        registry.TRAINING_TAG: training.mlflow_run_id or "buffered",
        registry.POSTPROCESS_TAG: postprocess,
        registry.TTA_TAG: tta,
        registry.FORMAT_TAG: registry.FORMAT,
        registry.METRIC_TAG: gate.metric,
        registry.VALUE_TAG: repr(value),
        registry.DATA_TAG: report["data_digest"],
        registry.SPLIT_TAG: report["evaluated_on"],
        registry.FLOOR_TAG: missed,
        "heartseg.dataset": dataset,
        "heartseg.recipe": name,
    }
    if training.sweep is not None and report["selected_on_it"]:
        tags[registry.SWEPT_TAG] = "true"

    found = registry.find_version(client, registered_name, tags)
    if found is None:
        names = case_names(params.privacy, prepared_path(dataset))
        run_id = registry.find_or_create_run(client, training, prepared_path(dataset), names)
        registry.drop_unregistered(client, registered_name, run_id)
        model_uri = log_packaged(
            model,
            recipe.model.in_channels,
            name=recipe.model.name,
            run_id=run_id,
            metadata={
                "dataset": dataset,
                "recipe": training.recipe,
                "postprocess": postprocess,
                "tta": tta,
                "networks": training.members,
            },
        ).model_uri
        version = registry.register_version(client, registered_name, run_id, model_uri, tags)
        describe(client, registered_name, version, model_uri, dataset)
    else:
        if (gone := explain_missing_run(client, str(found.run_id))) is not None:
            raise InputError(
                f"this model is version {found.version} of {registered_name} already, but {gone}"
            )
        run_id, model_uri, version = str(found.run_id), str(found.source), str(found.version)
        for key, text in tags.items():  # the model may have been evaluated again
            client.set_model_version_tag(registered_name, version, key, text)
    promotion = registry.promote(client, registered_name, version, gate.mode)

    registered |= {
        "version": version,
        "alias": promotion.alias,
        "reason": promotion.reason,
        "run_id": run_id,
        "model_uri": model_uri,
    }
    card = model_card(training.recipe, report, training, facts, registered)
    card_path = results / CARD
    write_text(card_path, card)
    client.update_model_version(registered_name, version, first_page(card))
    client.log_artifact(run_id, str(card_path))
    client.log_model_artifact(model_uri.removeprefix("models:/"), str(card_path))
    write_text(results / "registered.json", json.dumps(registered, indent=1) + "\n")
    known = "" if found is None else " (registered before)"
    print(
        f"{registered_name} version {version}{known} is {promotion.alias}: {promotion.reason}\n"
        f"pull it with mlflow.pyfunc.load_model('models:/{registered_name}@{promotion.alias}')"
    )


def _read_report(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; evaluate the model first") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); evaluate it again") from None
