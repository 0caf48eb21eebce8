"""Errors of a full disk, and the exit of commands."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from heartseg.cli import run_command
from heartseg.errors import (
    InputError,
    StorageError,
    catch_full_disk,
    unreadable,
    unwritable,
)
from heartseg.paths import write_atomically, write_text

FULL = Path("/dev/full")  # Linux: every write says that there is no space left

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def test_a_full_disk_names_the_file(tmp_path):
    wanted = tmp_path / "results/cases.csv"
    with pytest.raises(StorageError, match=f"{wanted} could not be written: No space left"):
        write_atomically(lambda _: FULL.write_text("x"), wanted)
    assert list(wanted.parent.iterdir()) == []


@pytest.mark.parametrize("path", [None, "/mnt/results/table.csv"])
def test_the_file_that_the_error_names_is_told(path):
    with (
        pytest.raises(StorageError, match=r"/mnt/results/table\.csv"),
        catch_full_disk(path and Path(path)),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/mnt/results/table.csv")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EACCES, "permissions"),
        (errno.ENOSPC, "space"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "path"),
        (errno.EIO, "disk"),
    ],
)
def test_the_remedy_fits_what_the_operating_system_says(code: int, remedy: str) -> None:
    error = OSError(code, os.strerror(code))
    for told in (unreadable("a.csv", error), unwritable("a.csv", error)):
        assert str(told).startswith("a.csv: ")
        assert os.strerror(code) in str(told)
        assert remedy in str(told).rpartition(")")[2]


def end(main, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return ended.value.code, capsys.readouterr().err


def test_a_command_tells_where_a_disk_is_full(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = end(lambda _: FULL.write_text("x"), capsys)
    assert code == 2
    assert str(tmp_path) in said
    assert "Traceback" not in said


def test_a_bug_keeps_its_traceback(capsys):
    code, said = end(lambda _: {}["ours"], capsys)
    assert code == 1
    assert "KeyError: 'ours'" in said
    assert "Traceback" in said


def test_a_store_that_fails_in_the_midst_is_the_users_to_mend(capsys, tmp_path, monkeypatch):
    from mlflow.exceptions import MlflowException

    monkeypatch.chdir(tmp_path)

    def refused(_: object) -> None:
        raise MlflowException("API request to endpoint /x failed with error code 401 != 200")

    def rejected(_: object) -> None:
        raise MlflowException("Invalid parameter", error_code=1000)

    code, said = end(refused, capsys)
    assert code == 2
    assert "password" in said
    code, said = end(rejected, capsys)
    assert code == 1
    assert "Traceback" in said


def test_whole_files_are_replaced(tmp_path):
    write_text(tmp_path / "a/b.txt", "one")
    write_text(tmp_path / "a/b.txt", "two")
    assert (tmp_path / "a/b.txt").read_text() == "two"
    with pytest.raises(InputError), catch_full_disk(tmp_path / "c"):
        raise InputError("kept as it is")
