"""The checks of the datasets and of DVC's remote."""

from __future__ import annotations

import shutil
import sys

import pytest

from heartseg.checks.data import check_data, check_remote, interpret_status
from tests.clones import run

DVC = [sys.executable, "-m", "dvc"]


def test_prepared_unprepared_and_missing_data(params, tmp_path):
    def statuses() -> list[str]:
        checks = check_data(params, tmp_path)
        assert checks[-1].status == "warn"  # no DVC repository
        assert all(check.fix for check in checks if check.status != "ok")
        return [check.status for check in checks[:-1]]

    others = ["fail"] * (len(params.pipeline) - 1)
    assert statuses() == ["fail", *others]
    (tmp_path / params.datasets.camus.source).mkdir(parents=True)
    assert statuses() == ["warn", *others]
    (tmp_path / "data/prepared").mkdir()
    (tmp_path / "data/prepared/camus.parquet").touch()
    assert statuses() == ["ok", *others]


@pytest.mark.parametrize(
    ("differences", "status", "fix"),
    [
        ({}, "ok", ""),
        ({"data/a": "new"}, "warn", "dvc push"),
        ({"data/a": "deleted"}, "warn", "dvc pull"),
        ({"data/a": "new", "data/b": "missing"}, "fail", "dvc repro"),
    ],
)
def test_the_status_of_the_remote_is_interpreted(differences, status, fix):
    check = interpret_status(differences)
    assert check.status == status
    assert fix in check.fix


@pytest.mark.slow
def test_a_real_remote_complete_incomplete_and_missing(tmp_path):
    place, remote = tmp_path / "clone", tmp_path / "remote"
    (place / ".dvc").mkdir(parents=True)

    def configure(url: str | None) -> None:
        core = "[core]\nno_scm = True\nanalytics = False\n"
        if url is not None:
            core += f"remote = storage\n['remote \"storage\"']\nurl = {url}\n"
        (place / ".dvc/config").write_text(core)

    configure(None)
    (place / "data.txt").write_text("x")
    run([*DVC, "add", "--quiet", "data.txt"], place)
    assert check_remote(place).seen == "none"
    configure(str(remote))
    lacking = check_remote(place)
    assert lacking.status == "warn"
    assert "data.txt" in lacking.seen
    run([*DVC, "push", "--quiet"], place)
    assert check_remote(place).status == "ok"
    shutil.rmtree(remote)
    shutil.rmtree(place / ".dvc/cache")
    assert check_remote(place).status == "fail"
    configure("ssh://127.0.0.1:1/nowhere")
    unreachable = check_remote(place)
    assert unreachable.status == "fail"
    assert "ERROR" in unreachable.seen
