"""`heartseg clean` deletes what no command goes on with, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from heartseg import clean
from heartseg.config.params import load_params
from heartseg.data.prepared import file_digest
from heartseg.errors import InputError
from heartseg.training.run_dir import lock_folder, open_run_dir, update_state
from tests.examples import ROOT, small_recipe
from tests.sweeps.conftest import _cold_study, open_search

__all__ = ["_cold_study", "open_search"]

pytestmark = pytest.mark.slow  # imports Optuna


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"))
    content["recipes"]["camus"] = recipe.model_dump(mode="json")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    prepared = tmp_path / "data/prepared/camus.parquet"
    prepared.parent.mkdir(parents=True)
    prepared.write_text("images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_dir(place: Path, epochs: int, engine: str = "ray", **state: object) -> Path:
    """A training's folder as it is left behind, with a checkpoint of 1 kB."""
    recipe = small_recipe(load_params(place / "params.yaml"), epochs=epochs)
    digest = file_digest(place / "data/prepared/camus.parquet")
    with open_run_dir(place / "runs", "camus", recipe, digest, engine) as folder:
        update_state(folder, opening={"tags": {}}, **state)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/0001-000000.aa.pt").write_bytes(bytes(1000))
    return folder


def left(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.glob("r*/**/") if path != place}


def test_what_is_superseded_goes_after_asking(place, monkeypatch, capsys):
    own = load_params(place / "params.yaml").recipe("camus").epochs
    goes_on = run_dir(place, own, sent=True)
    earlier = run_dir(place, own + 1, sent=True, finished=True)
    later = run_dir(place, own + 2, sent=True, finished=True)
    changed = run_dir(place, own + 3, sent=True)
    unsent = run_dir(place, own + 4, sent=False)
    used = run_dir(place, own + 5, sent=True)
    sweeps = place / "runs/sweeps"
    for name, its in (("camus", "11"), ("camus-00", "00"), ("camus-unet", "22")):
        (sweeps / name / "trials/000/checkpoints").mkdir(parents=True)
        update_state(sweeps / name, id=its, mlflow_run_id="abc", made_of={})
    for name in ("camus", "gone"):
        (place / "results/sweeps" / name / "plots").mkdir(parents=True)
    kept = (goes_on, later, unsent, used, sweeps / "camus", sweeps / "camus-unet")
    kept += (place / "results/sweeps/camus",)
    before = left(place)

    for answer in ("", "n\n"):  # nobody, and a person who thinks better of it
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        with pytest.raises(InputError, match="nothing was deleted"):
            clean.main([])
        assert left(place) == before
    told = capsys.readouterr().out
    assert all(path.name in told for path in (earlier, changed))
    assert "epochs" not in told
    with lock_folder(used):
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        clean.main([])
    assert [path for path in kept if not path.is_dir()] == []
    gone = (earlier, changed, sweeps / "camus-00", place / "results/sweeps/gone")
    assert [path for path in gone if path.exists()] == []

    clean.main(["--yes"])
    assert not used.exists()  # nobody works on it any more
    capsys.readouterr()
    clean.main([])
    assert "superseded" in capsys.readouterr().out


def test_checkpoints_of_trials_that_lost_go_and_the_best_one_stays(place, params, open_search):
    search = open_search("runs/sweeps/small")
    folder = place / "runs/sweeps/small"
    update_state(folder, id="1", mlflow_run_id="abc", made_of={})
    for number, value in enumerate([0.5, 0.7, 0.6]):
        assert search.next().number == number
        trial = folder / f"trials/{number:03d}"
        (trial / "checkpoints").mkdir(parents=True)
        (trial / "checkpoints/0001-000000.aa.pt").touch()
        (trial / "journal.jsonl").touch()
        if number < 2:
            search.complete(number, value)
            update_state(trial, closed="complete")
    clean.main(["--yes"])
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.pt"))
    assert files == [f"trials/{n:03d}/checkpoints/0001-000000.aa.pt" for n in (1, 2)]
    assert len(list(folder.rglob("journal.jsonl"))) == 3
