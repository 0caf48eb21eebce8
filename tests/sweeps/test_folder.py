"""A sweep's folder is found again, refused after other settings, and never shared."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from heartseg.errors import InputError
from heartseg.sweeps import folder as folder_module
from heartseg.sweeps.apply import apply_winner
from heartseg.sweeps.folder import find_sweep_dir, open_sweep_dir, put_aside, trial_dir
from heartseg.training.run_dir import read_state
from tests.examples import ROOT
from tests.sweeps.small import content


def made_of(**changes):
    return {
        "file": content(**changes),
        "params.yaml": {"camus": {"epochs": 18}},
        "contents": {"data/prepared/camus.parquet": "aa", "weights/camus/start.pth": "ww"},
        "code": {f"data/{number}.py": "cc" for number in range(9)},
    }


def opened(runs, made_of, fresh=False, trial=True):
    with open_sweep_dir(runs, "camus", made_of, fresh=fresh) as folder:
        if trial:
            trial_dir(folder, 0).mkdir(parents=True, exist_ok=True)
        return folder, read_state(folder)["id"]


def test_the_same_sweep_is_found_again(tmp_path):
    folder, name = opened(tmp_path, made_of())
    assert opened(tmp_path, made_of()) == (folder, name)
    assert find_sweep_dir(tmp_path, "camus") == folder
    assert trial_dir(folder, 7) == folder / "trials/007"


def test_changed_settings_are_listed_and_refused(tmp_path):
    folder, _ = opened(tmp_path, made_of())
    now = made_of(mode="min", seed=3, space={"batch_size": {"choice": [8, 12, 16]}})
    now["params.yaml"] = {"camus": {"epochs": 20, "learning_rate": 0.003}}  # now not searched
    now["file"]["sampler"] = {"name": "random"}
    now["contents"] = now["contents"] | {"weights/camus/start.pth": "vv"}
    now["code"] = now["code"] | {"data/3.py": "dd"}
    with pytest.raises(InputError) as caught:
        opened(tmp_path, now)
    text = str(caught.value)
    assert str(folder) in text
    assert "--fresh" in text
    assert [line.strip() for line in text.splitlines()[1:-1]] == [
        "mode: was 'max', is 'min'",
        "space.learning_rate: was {'loguniform': [0.001, 0.01]}, is absent",
        "sampler.name: was 'tpe', is 'random'",
        "seed: was 0, is 3",
        "params.yaml.camus.epochs: was 18, is 20",
        "weights/camus/start.pth: its content has changed",
        "the code of heartseg has changed: data/3.py",
    ]
    assert read_state(folder)["made_of"] == made_of()  # unchanged


def test_trials_and_hours_may_be_raised_but_not_lowered(tmp_path):
    opened(tmp_path, made_of(trials=6, hours=1))
    opened(tmp_path, made_of(trials=8, hours=1.5))
    for less in ({"trials": 7, "hours": 1.5}, {"trials": 8, "hours": 1}):
        with pytest.raises(InputError, match=r"trials: was 8, is 7|hours: was 1.5, is 1"):
            opened(tmp_path, made_of(**less))
    opened(tmp_path, made_of(trials=None, hours=2))  # no limit
    with pytest.raises(InputError, match="trials: was None, is 8"):
        opened(tmp_path, made_of(trials=8, hours=2))


def test_fresh_archives_the_old_sweep(tmp_path):
    folder, name = opened(tmp_path, made_of())
    (folder / "study.db").write_text("history")
    again, other = opened(tmp_path, made_of(seed=1), fresh=True)
    assert (again, other != name) == (folder, True)
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "trials"]
    aside = folder.with_name(f"camus-{name}")
    assert (aside / "study.db").read_text() == "history"
    assert read_state(aside)["made_of"] == made_of()


def test_another_recipe_is_reported_without_its_fields(tmp_path):
    opened(tmp_path, made_of())
    now = made_of(recipe="camus-unet") | {"params.yaml": {"camus-unet": {"epochs": 17, "seed": 1}}}
    now["code"] = dict.fromkeys(now["code"], "dd")
    with pytest.raises(InputError) as caught:
        opened(tmp_path, now)
    recipe, code = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert recipe == "recipe: was 'camus', is 'camus-unet'"
    assert code.endswith("data/4.py and 4 more")


def test_a_sweep_with_a_longer_name_is_not_an_archived_one(tmp_path):
    opened(tmp_path, made_of())
    with open_sweep_dir(tmp_path, "camus-unet", made_of(), fresh=False):
        pass
    folder, name = opened(tmp_path, made_of())
    opened(tmp_path, made_of(), fresh=True)
    assert put_aside(folder) == [folder.with_name(f"camus-{name}")]


def test_changes_count_only_once_a_trial_has_started(tmp_path):
    """Refused because no trial fits on the cluster, the file is fixed and run again."""
    too_much, fixed = ({"workers": 1, "cpus": cpus, "gpus": 0} for cpus in (64, 1))
    _, name = opened(tmp_path, made_of(resources=too_much), trial=False)
    folder, other = opened(tmp_path, made_of(resources=fixed))
    assert other != name
    assert read_state(folder)["made_of"] == made_of(resources=fixed)
    with pytest.raises(InputError, match=r"resources\.cpus: was 1, is 64"):
        opened(tmp_path, made_of(resources=too_much))


def test_an_empty_folder_is_used(tmp_path):
    """A kill before the state was written leaves an empty folder, which --fresh ignores."""
    (tmp_path / "sweeps/camus").mkdir(parents=True)
    with pytest.raises(InputError, match="run `heartseg sweep` first"):
        find_sweep_dir(tmp_path, "camus")
    opened(tmp_path, made_of(), fresh=True)
    find_sweep_dir(tmp_path, "camus")


def test_a_sweep_killed_at_any_write_while_it_starts_can_be_started_again(tmp_path, monkeypatch):
    real = folder_module.update_state
    for writes in range(3):
        left = iter(range(writes))

        def cut_off(folder, left=left, **values):
            if next(left, None) is None:
                raise KeyboardInterrupt
            real(folder, **values)

        monkeypatch.setattr(folder_module, "update_state", cut_off)
        with suppress(KeyboardInterrupt):
            opened(tmp_path / str(writes), made_of())
        monkeypatch.setattr(folder_module, "update_state", real)
        opened(tmp_path / str(writes), made_of())


def test_two_processes_never_share_a_folder(tmp_path):
    code = (
        "import json, sys; from pathlib import Path\n"
        "from heartseg.sweeps.folder import open_sweep_dir\n"
        "with open_sweep_dir(Path(sys.argv[1]), 'camus', json.loads(sys.argv[2]), fresh=False):\n"
        "    print('mine', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(made_of())],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout.readline() == b"mine\n"
        for fresh in (False, True):
            with pytest.raises(InputError, match="another process uses"):
                opened(tmp_path, made_of(), fresh=fresh)
    finally:
        other.kill()  # a killed process releases its lock
        other.communicate()
    opened(tmp_path, made_of())


def test_values_of_another_recipe_are_not_applied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "camus.yaml").write_text(yaml.safe_dump(content(recipe="camus-unet")))
    opened(tmp_path / "runs", made_of())
    with pytest.raises(InputError, match=r"a sweep of recipe camus, .* now names camus-unet"):
        apply_winner(Path("camus.yaml"))
    assert (tmp_path / "params.yaml").read_text() == text
