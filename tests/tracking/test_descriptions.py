"""What MLflow's pages show without a look into tags and artifacts."""

from __future__ import annotations

from heartseg.tracking.client import connect, log_evaluation
from heartseg.tracking.descriptions import DESCRIPTION_LENGTH, describe, first_page, run_note
from heartseg.tracking.registry import register_version, use_store
from tests.tracking.stores import new_run

METRICS = {
    "evaluated_on": "test",
    "n_cases": 40,
    "n_patients": 10,
    "overall": {"LV": {"dice": 0.91, "dice_low": 0.9, "dice_high": 0.92}},
    "ef": {"ef_vs_reference": {"mae": 4.25, "mae_low": None, "mae_high": None}},
}


def test_a_run_says_how_good_its_model_is(store: str) -> None:
    client = connect(store)
    run_id = new_run(store)
    tags = client.get_run(run_id).data.tags
    assert tags["mlflow.source.name"] == "heartseg"
    log_evaluation(client, run_id, {"test/LV": 0.91}, [], note=run_note(METRICS))
    run = client.get_run(run_id)
    note = run.data.tags["mlflow.note.content"]
    assert "40 images of 10" in note
    assert "| LV | 0.910 [0.900 to 0.920] |" in note
    assert "mean absolute error 4.25 points" in note
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "test/" in experiment.tags["mlflow.note.content"]


def test_other_metrics_leave_the_note_as_it_is() -> None:
    assert run_note({"crossval": {"mean": 0.9}}) == ""


def test_a_registered_model_is_described_and_its_source_model_leads_to_it(store: str) -> None:
    client = use_store(store)
    run_id = new_run(store)
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name="unet", source_run_id=run_id)
    uri = f"models:/{logged.model_id}"
    version = register_version(client, "heartseg-camus", run_id, uri, {})
    describe(client, "heartseg-camus", version, uri, "camus")
    described = client.get_registered_model("heartseg-camus").description
    assert described is not None
    assert "models:/heartseg-camus@champion" in described
    held = client.get_logged_model(logged.model_id).tags["mlflow.modelVersions"]
    assert held == '[{"name": "heartseg-camus", "version": "1"}]'
    client.update_registered_model("heartseg-camus", "by hand")
    second = register_version(client, "heartseg-camus", run_id, uri, {})
    describe(client, "heartseg-camus", second, uri, "camus")
    assert client.get_registered_model("heartseg-camus").description == "by hand"


def test_the_first_page_of_a_card_has_whole_sections_and_says_what_is_left_out():
    sections = {name: f"## {name}\n\n" + f"{name} is told.\n\n" * n for name, n in
                (("Use", 20), ("Results", 500), ("Limits", 30))}  # fmt: skip
    card = "# A model\n\nIt segments.\n\n" + "".join(sections.values()).strip() + "\n"
    page = first_page(card)
    assert len(page) <= DESCRIPTION_LENGTH < len(card)
    assert page.startswith("# A model\n\nIt segments.\n\n## Use\n\n")
    assert all(sections[name].strip() in page for name in ("Use", "Limits"))
    assert "Results is told" not in page
    assert "Results" in page.splitlines()[-1]
    assert "model_card.md" in page.splitlines()[-1]
    assert first_page(page) == page
