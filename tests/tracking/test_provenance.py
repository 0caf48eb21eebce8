from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from heartseg.tracking.provenance import (
    cached_file,
    check_out,
    find_data,
    lineage_tags,
    working_patch,
)
from tests.examples import ROOT

PARQUET = Path("data/prepared/camus.parquet")
CONTENT = b"rows"
MD5 = hashlib.md5(CONTENT).hexdigest()
SOURCE_MD5 = "a" * 32 + ".dir"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def dvc(folder: Path, *arguments: str) -> None:
    from dvc.cli import main

    assert main(["--cd", str(folder), *arguments]) == 0


def write_lock(root: Path, prepared_md5: str = MD5) -> None:
    prepare = {
        "deps": [
            {"path": "heartseg/prepare.py", "md5": "0" * 32},
            {"path": "data/phantoms/camus", "md5": SOURCE_MD5},
        ],
        "outs": [{"path": PARQUET.as_posix(), "md5": prepared_md5}],
    }
    evaluate = {"outs": [{"path": "results/camus/figures", "md5": "c" * 32}]}
    other = {"deps": [{"path": "data/phantoms/camus", "md5": "wrong stage"}]}
    stages = {"prepare@mmode": other, "prepare@camus": prepare, "evaluate@camus": evaluate}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a clone after the prepare stage, not under git yet."""
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "requirements.lock").write_text("torch==2\n")
    (tmp_path / PARQUET).parent.mkdir(parents=True)
    (tmp_path / PARQUET).write_bytes(CONTENT)
    figures = tmp_path / "results/camus/figures"
    figures.mkdir(parents=True)
    (figures / "box.svg").write_text("1")
    (tmp_path / "code.py").write_text("1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clone(root: Path) -> Path:
    """The same folder as a git repository, with dvc.lock and everything else committed."""
    write_lock(root)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-qm", "start")
    return root


def test_a_clean_clone(clone):
    tags = lineage_tags(Path(), "camus", PARQUET)

    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == git(clone, "rev-parse", "HEAD")
    assert tags["git.branch"] == "main"
    assert tags["git.dirty"] == "false"
    assert tags["dvc.source"] == "data/phantoms/camus"
    assert tags["dvc.source_md5"] == SOURCE_MD5
    assert tags["dvc.prepared_md5"] == MD5
    assert tags["dvc.prepared_in_lock"] == "true"
    assert tags["dvc.experiment"] == "none"
    assert tags["heartseg.lock_md5"] == hashlib.md5(b"torch==2\n").hexdigest()
    assert tags["version.torch"].startswith("2.")
    assert all(isinstance(value, str) for value in tags.values())


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("code.py", "true"),
        ("params.yaml", "true"),
        ("dvc.lock", "false"),
        ("results/camus/figures/box.svg", "false"),
        ("untracked.py", "false"),
        ("heartseg/untracked.py", "true"),
    ],
)
@pytest.mark.parametrize("staged", [False, True])
def test_which_changes_make_it_dirty(clone, path, dirty, staged):
    Path(path).parent.mkdir(exist_ok=True)
    with open(path, "a") as stream:
        stream.write("\n")
    if staged and "untracked" not in path:
        git(clone, "add", path)

    assert lineage_tags(clone, "camus", PARQUET)["git.dirty"] == dirty


def test_a_deleted_and_a_renamed_file_make_it_dirty(clone):
    git(clone, "mv", "code.py", "results/camus/figures/code.py")

    assert lineage_tags(clone, "camus", PARQUET)["git.dirty"] == "true"


def test_a_detached_head_has_no_branch(clone):
    git(clone, "checkout", "-q", "--detach")

    tags = lineage_tags(clone, "camus", PARQUET)

    assert tags["git.branch"] == "none"
    assert len(tags["git.commit"]) == 40


def test_a_prepared_file_that_dvc_did_not_make(clone):
    write_lock(clone, prepared_md5="b" * 32)

    tags = lineage_tags(clone, "camus", PARQUET)

    assert tags["dvc.prepared_in_lock"] == "false"
    assert tags["dvc.prepared_md5"] == MD5


def test_outside_of_git_and_dvc(root):
    tags = lineage_tags(root, "camus", PARQUET)

    for name in ("git.commit", "git.branch", "git.dirty", "dvc.source_md5", "dvc.prepared_in_lock"):
        assert tags[name] == "none"
    assert "mlflow.source.git.commit" not in tags
    assert tags["dvc.prepared_md5"] == MD5


def test_a_repository_without_commits(root):
    git(root, "init", "-q", "-b", "trunk")

    tags = lineage_tags(root, "camus", PARQUET)

    assert tags["git.commit"] == "none"
    assert tags["git.branch"] == "trunk"
    assert tags["git.dirty"] == "true"


def test_a_source_under_dvc_add(root, monkeypatch):
    text = (root / "params.yaml").read_text()
    changed = text.replace("source: data/phantoms/camus", "source: data/CAMUS_public")
    (root / "params.yaml").write_text(changed)
    outs = [{"md5": "d" * 32 + ".dir", "path": "CAMUS_public"}]
    (root / "data/CAMUS_public.dvc").write_text(yaml.safe_dump({"outs": outs}))
    monkeypatch.setenv("DVC_EXP_NAME", "rusty-pint")

    tags = lineage_tags(root, "camus", PARQUET)

    assert tags["dvc.source"] == "data/CAMUS_public"
    assert tags["dvc.source_md5"] == "d" * 32 + ".dir"
    assert tags["dvc.experiment"] == "rusty-pint"


def test_a_patch_makes_the_last_commit_into_the_working_tree(clone, tmp_path_factory):
    """The patch has CR LF, text that is not UTF-8, binary files, deletions and new code."""
    (clone / "latin.txt").write_bytes(b"caf\xe9\r\nold\r\n")
    (clone / "bytes.bin").write_bytes(bytes(range(256)))
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "more")
    (clone / "latin.txt").write_bytes(b"caf\xe9\r\nnew\r\n\r\n")
    (clone / "bytes.bin").write_bytes(bytes(range(255, -1, -1)))
    (clone / "code.py").unlink()
    (clone / "heartseg").mkdir()
    (clone / "heartseg/new.py").write_text("1\n")
    (clone / "dvc.lock").write_text("stages: {}\n")
    (clone / "secret.txt").write_text("not code\n")
    git(clone, "add", "bytes.bin")
    staged = git(clone, "diff", "--cached", "--name-only")

    patch = working_patch(clone)

    assert git(clone, "diff", "--cached", "--name-only") == staged
    other = tmp_path_factory.mktemp("other") / "clone"
    git(clone, "clone", "-q", str(clone), str(other))
    command = ["git", "-C", str(other), "apply", "-"]
    subprocess.run(command, input=patch.encode(errors="surrogateescape"), check=True)
    for name in ("latin.txt", "bytes.bin", "heartseg/new.py"):
        assert (other / name).read_bytes() == (clone / name).read_bytes()
    assert not (other / "code.py").exists()
    assert not (other / "secret.txt").exists()
    assert (other / "dvc.lock").read_bytes() != (clone / "dvc.lock").read_bytes()
    assert lineage_tags(clone, "camus", PARQUET)["git.patch_md5"] != "none"


def test_a_clean_tree_has_no_patch(clone):
    assert working_patch(clone) == ""
    assert lineage_tags(clone, "camus", PARQUET)["git.patch_md5"] == "none"


@pytest.mark.slow
def test_data_come_from_the_cache_or_the_remote_or_not(clone):
    """A folder without one of its files counts as missing until the remote has the file."""
    for command in (["init", "-q"], ["remote", "add", "-q", "-d", "far", str(clone / "far")]):
        dvc(clone, *command)
    folder = clone / "data/release"
    folder.mkdir()
    (folder / "one.txt").write_text("one")
    (folder / "two.txt").write_text("two")
    dvc(clone, "add", "-q", "data/release")
    dvc(clone, "push", "-q")
    md5 = yaml.safe_load((clone / "data/release.dvc").read_text())["outs"][0]["md5"]

    cache = find_data(clone, md5)
    assert cache is not None
    one = cached_file(cache, hashlib.md5(b"one").hexdigest())
    assert one.read_text() == "one"
    one.chmod(0o644)
    one.unlink()
    assert find_data(clone, md5) is None
    assert check_out(clone, md5, clone / "again")
    assert {p.name: p.read_text() for p in (clone / "again").iterdir()} == {
        "one.txt": "one",
        "two.txt": "two",
    }
    assert not check_out(clone, "0" * 32, clone / "nothing")
    assert not (clone / "nothing").exists()


def test_no_data_without_dvc(root):
    assert find_data(root, MD5) is None
