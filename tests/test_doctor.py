"""The output and the exit codes of `heartseg doctor`. The tests of its checks are elsewhere."""

from __future__ import annotations

import json

import pytest

from heartseg import doctor
from heartseg.checks.check import Check, attempt
from heartseg.errors import InputError

GOOD = Check("Ray", "driver", "ok", "2.60.0")
WARNING = Check("DVC remote", "driver", "warn", "none", "`dvc remote add`")
BAD = Check("disk", "gpu1", "fail", "1.0 GB free at /srv/[runs]", "make room there")


def test_all_well_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "run_checks", lambda: [GOOD, WARNING])
    doctor.main([])
    printed = capsys.readouterr().out
    assert "1 ok, 1 warn, 0 fail" in printed
    assert "dvc remote add" in printed


def test_a_failed_check_ends_with_the_users_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "run_checks", lambda: [GOOD, BAD])
    with pytest.raises(InputError, match="1 of 2"):
        doctor.main(["--json"])
    told = json.loads(capsys.readouterr().out)
    assert told[1] == {
        "name": "disk",
        "where": "gpu1",
        "status": "fail",
        "seen": "1.0 GB free at /srv/[runs]",
        "fix": "make room there",
    }
    with pytest.raises(InputError):
        doctor.main([])
    assert "[runs]" in capsys.readouterr().out  # not taken for markup


def test_an_unexpected_exception_fails_one_check_only():
    def look() -> list[Check]:
        raise ZeroDivisionError("oh")

    (check,) = attempt("clock", "gpu1", look)
    assert (check.status, check.seen) == ("fail", "ZeroDivisionError: oh")


def test_no_cluster_at_the_address(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    (check,) = doctor.check_cluster(tmp_path)
    assert check.status == "fail"
    assert "127.0.0.1:1" in check.seen
    assert "RAY_AUTH_TOKEN_PATH" in check.seen  # the remedy is not cut off
