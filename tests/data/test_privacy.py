"""Display names of patients, and absence of real names in everything that is sent."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from heartseg import case_ids as look_up
from heartseg.config.params import Params, Privacy, load_params
from heartseg.config.recipe import DatasetName
from heartseg.data.prepared import Sample, write_prepared
from heartseg.data.privacy import KEY_VARIABLE, WITHHELD, CaseNames, case_names, read_key
from heartseg.errors import InputError
from heartseg.tracking import tracker
from tests.examples import ROOT, disks, small_recipe
from tests.tracking.stores import _cold_store, _own_environment, store

__all__ = ["_cold_store", "_own_environment", "store"]

PATIENTS = {"ZZMUELLER-19550101": "train", "ZZSCHMIDT-7731": "val", "QX4711": "test"}
CASES = {name: f"{name}_2CH_ED" for name in PATIENTS}


def prepare(place: Path) -> Path:
    """Write a prepared dataset of these patients with both views and phases."""
    path, samples = place / "data/prepared/camus.parquet", []
    for patient in PATIENTS:
        images, masks = disks(4)
        frames = [(view, phase) for view in ("2CH", "4CH") for phase in ("ED", "ES")]
        for (view, phase), image, mask in zip(frames, images, masks, strict=True):
            case = f"{patient}_{view}_{phase}"
            samples.append(
                Sample(case, patient, view, phase, 0, image[0], mask, (1.0, 1.0), "Good")
            )
    counts = {"train": 1, "val": 1, "test": 1}
    facts = {"source": "disks", "dataset": "camus", "synthetic": True, "patients": counts}
    facts |= {"cases": counts, "split": {"method": "by hand"}}
    facts |= {"notes": ["QX4711: no 3CH"], "skipped": ["/x/ZZMUELLER-19550101.nii: is bad. Mend."]}
    write_prepared(path, samples, PATIENTS, facts)
    return path


def names(place: Path, mode: str) -> CaseNames:
    return case_names(Privacy.model_validate({"case_ids": mode}), prepare(place))


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings/key"
    monkeypatch.setenv(KEY_VARIABLE, str(path))
    return path


# --- names --------------------------------------------------------------------------------


def test_hashed_name_depends_on_patient_and_key(tmp_path, key):
    first, again = names(tmp_path, "hashed"), names(tmp_path, "hashed")
    shown = first.shown("QX4711")
    assert again.shown("QX4711") == shown
    assert first.shown("QX4711_2CH_ED") == f"{shown}_2CH_ED"
    assert len({first.shown(name) for name in PATIENTS}) == len(PATIENTS)
    # Nobody finds it by trying all numbers without the key.
    assert hashlib.sha256(b"QX4711").hexdigest()[:12] not in shown
    assert "QX4711" not in repr(first)  # nor the key, if it is ever logged
    assert repr(first.key)[2:-1] not in repr(first)
    key.unlink()
    assert names(tmp_path, "hashed").shown("QX4711") != shown


def test_other_parts_of_case_names_are_hidden(tmp_path, key):
    """The rest of the name of an M-mode file, after the animal, may be a date of birth."""
    pixels = np.zeros((16, 16), np.uint8)
    sample = Sample("mueller_1955_w3", "mueller", "", "", 3, pixels, pixels, (1.0, 1.0))
    path = tmp_path / "mmode.parquet"
    write_prepared(path, [sample], {"mueller": "train"}, {})
    found = case_names(Privacy(case_ids="hashed"), path)
    for name in ("mueller", "mueller_1955_w3", "an unknown one of 1955"):
        assert found.shown(name).startswith("id-")
        assert "1955" not in found.shown(name)


def test_tables_and_texts(tmp_path, key):
    table = pd.DataFrame(
        {"case_id": list(CASES.values()), "patient": list(CASES), "dice": ["0.10", "0.9", "0.50"]}
    )
    text = "ValueError: /data/QX4711/QX4711_2CH_ED.nii is not ZZSCHMIDT-7731's, see QX47110"
    plain = names(tmp_path, "plain")
    assert plain.table(table).equals(table)
    assert plain.text(text) == text

    hashed = names(tmp_path, "hashed")
    shown = hashed.table(table)
    assert list(shown["case_id"]) == sorted(f"{hashed.shown(name)}_2CH_ED" for name in CASES)
    assert set(shown["dice"]) == {"0.10", "0.9", "0.50"}
    own = shown.set_index("patient").loc[hashed.shown("QX4711")]
    assert (own["case_id"], own["dice"]) == (hashed.shown("QX4711_2CH_ED"), "0.50")
    one, other = hashed.shown("QX4711"), hashed.shown("ZZSCHMIDT-7731")
    assert hashed.text(text) == (
        f"ValueError: /data/{one}/{one}_2CH_ED.nii is not {other}'s, see QX47110"
    )

    none = names(tmp_path, "none")
    shown = none.table(table)
    assert set(shown["case_id"]) | set(shown["patient"]) == {WITHHELD}
    assert list(shown["dice"]) == ["0.10", "0.50", "0.9"]  # not in the order of the names
    assert not any(name in none.text(text) for name in ("ZZSCHMIDT", "QX4711_", "QX4711/"))


def test_case_ids_command_finds_the_patient(tmp_path, key, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)  # hashed
    shown = names(tmp_path, "hashed").shown("QX4711")
    look_up.main(["camus", f"{shown}_4CH_ES", "ZZSCHMIDT-7731"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [f"{shown}_4CH_ES", "QX4711_4CH_ES"]
    assert [line.split()[1] for line in lines] == ["QX4711_4CH_ES", "ZZSCHMIDT-7731"]
    with pytest.raises(InputError, match="id-0"):
        look_up.main(["camus", "id-0"])


@pytest.mark.parametrize("dataset", get_args(DatasetName))
def test_names_are_looked_up_in_every_dataset(tmp_path, monkeypatch, key, capsys, dataset):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    prepare(tmp_path).rename(tmp_path / f"data/prepared/{dataset}.parquet")
    look_up.main([dataset])
    assert "ZZSCHMIDT-7731" in capsys.readouterr().out


# --- the key ------------------------------------------------------------------------------


def test_key_is_created_once_and_readable_by_owner_only(key):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: read_key(), range(8)))
    assert keys == {key.read_bytes()}
    assert len(key.read_bytes()) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert os.listdir(key.parent) == ["key"]


def test_default_key_is_outside_the_repository(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    read_key()
    assert (tmp_path / "heartseg/case_ids.key").exists()


def test_unsafe_key_is_refused(key):
    read_key()
    key.chmod(0o644)
    with pytest.raises(InputError, match="Run `chmod 600"):
        read_key()
    key.chmod(0o640)  # of a group is meant
    key.write_bytes(b"short")
    with pytest.raises(InputError, match="has 5 bytes"):
        read_key()
    key.unlink()
    key.mkdir()
    with pytest.raises(InputError, match=f"Set {KEY_VARIABLE}"):
        read_key()


# --- what leaves --------------------------------------------------------------------------


def contents(path: Path) -> Iterator[bytes]:
    """Return the bytes of a file, and the texts in its archive members and images."""
    data = path.read_bytes()
    yield data
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                yield archive.read(member)
    if data.startswith(b"\x89PNG"):
        yield repr(Image.open(io.BytesIO(data)).info).encode()


def named_in(folder: Path) -> dict[str, set[str]]:
    """Return the files below a folder that name a patient in content or name, by patient."""
    found: dict[str, set[str]] = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        for patient in PATIENTS:
            forms = [patient.encode(code) for code in ("utf-8", "utf-16-le", "utf-32-le")]
            own = (form in data for data in contents(path) for form in forms)
            if patient in path.name or any(own):
                found.setdefault(patient, set()).add(str(path.relative_to(folder)))
    return found


def run_stages(place: Path, params: Params, mode: str, *, register: bool) -> None:
    from heartseg import evaluate, train
    from heartseg import register as registration

    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["recipes"]["camus"] = small_recipe(params, epochs=2).model_dump(mode="json")
    content["privacy"]["case_ids"] = mode
    content["train"]["overlay_every"] = 1
    content["tracking"]["system_metrics"] = False
    (place / "params.yaml").write_text(yaml.safe_dump(content))
    assert load_params(place / "params.yaml").privacy.case_ids == mode
    prepare(place)
    train.main(["camus", "--in-process"])
    evaluate.main(["camus"])
    if register:
        registration.main(["camus"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["plain", "hashed", "none"])
def test_no_sent_data_contain_patient_names(tmp_path, params, store, key, monkeypatch, mode):
    drawn: list[str] = []
    set_text = matplotlib.text.Text.set_text

    def remember(self: matplotlib.text.Text, text: object) -> None:
        drawn.append(str(text))
        set_text(self, text)

    monkeypatch.setattr(matplotlib.text.Text, "set_text", remember)
    monkeypatch.setattr(tracker, "CLOSE_S", 120.0)  # the last figure may be late on a busy machine
    monkeypatch.chdir(tmp_path)
    run_stages(tmp_path, params, mode, register=mode == "hashed")

    artifacts = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("mlartifacts/**/*.*")}
    for wanted in ("epoch_002.png", "evaluation/cases.csv", "figures/overlay_worst.png"):
        assert any(path.endswith(wanted) for path in artifacts), artifacts
    # Beside the images, on the disk of whoever has them, the names are as they were.
    assert named_in(tmp_path / "data") == {name: {"prepared/camus.parquet"} for name in PATIENTS}
    assert "QX4711_2CH_ED" in (tmp_path / "results/camus/cases.csv").read_text()

    shown = names(tmp_path, mode).shown("QX4711")
    [table] = tmp_path.glob("mlartifacts/**/cases.csv")
    assert set(pd.read_csv(table)["patient"]) == {shown}
    assert any(f"worst: {shown}" in text for text in drawn)  # the figure's text is seen at all
    sent = [tmp_path / "mlartifacts", tmp_path / "runs"]
    database = [path for path in tmp_path.glob("mlflow.db*")]
    assert database
    if mode == "plain":  # so the search does find names
        assert named_in(sent[0]).keys() == PATIENTS.keys()  # all, in lineage/cases.json
        assert named_in(sent[1]).keys() == PATIENTS.keys()  # in artifacts/lineage/cases.json
        return
    assert not [text for text in drawn for patient in PATIENTS if patient in text]
    assert [named_in(folder) for folder in sent] == [{}, {}]
    for path in database:
        assert not [patient for patient in PATIENTS if patient.encode() in path.read_bytes()]
    assert named_in(tmp_path / "results").get("QX4711") == {"camus/cases.csv", "camus/clinical.csv"}
