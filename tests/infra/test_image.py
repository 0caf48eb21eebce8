"""The image, the secrets beside it, and the clone as it gets to a cluster."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.examples import ROOT
from tests.infra.stack import INFRA, compose
from tests.infra.test_files import KUBERAY


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of the Dockerfile, lines joined."""
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_dockerfile():
    steps = instructions()
    names = [name for name, _ in steps]
    assert names[:2] == ["ARG", "FROM"]
    assert "ADD" not in names
    assert names.count("USER") == 1
    user = names.index("USER")
    assert dict(steps)["USER"].split(":")[0].isdigit()
    assert dict(steps)["USER"] != "0:0"
    assert not {"RUN", "COPY"} & set(names[user:])
    base = dict(steps)["ARG"].partition("=")[2]
    assert ":" in base
    assert not base.endswith(":latest")
    copies = [number for number, name in enumerate(names) if name == "COPY"]
    assert "requirements.lock" in steps[copies[0]][1]  # the stack before the code
    sync = next(number for number, (_, text) in enumerate(steps) if "uv pip sync" in text)
    assert copies[0] < sync < copies[1]
    # Of a clone that belongs to another user git says nothing, and a run not what it was made of.
    assert ("RUN", f"git config --system safe.directory {dict(steps)['WORKDIR']}") in steps
    for _, text in steps:
        if "apt-get install" in text:
            assert "--no-install-recommends" in text
            assert "rm -rf /var/lib/apt/lists" in text
        assert not re.search(r"\b(curl|wget|sudo)\b", text)


def test_image_holds_what_the_services_use_and_no_secrets():
    listed = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in listed if line.startswith("!")}
    assert listed[1] == "*"
    for name in kept:
        assert (ROOT / name).exists(), name
    assert {"infra/.env", "infra/secrets", "infra/data"} <= set(listed)
    lines = json.dumps(compose()) + "".join(path.read_text() for path in KUBERAY)
    for path in set(re.findall(r"/opt/heartseg/([\w./-]+)", lines)):
        assert (ROOT / path).is_file(), path
        assert path.split("/")[0] in kept


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path):
    script = tmp_path / "infra" / "make-secrets"
    script.parent.mkdir()
    script.write_bytes((INFRA / "make-secrets").read_bytes())
    for _ in range(2):
        subprocess.run(["sh", str(script)], check=True, capture_output=True)
        made = {path.name: path.read_text() for path in (script.parent / "secrets").iterdir()}
        if not _:
            first = made
    assert made == first
    assert set(made) == set(compose()["secrets"])
    assert len(set(made.values())) == len(made)
    for path in [*(script.parent / "secrets").iterdir(), script.parent / ".env"]:
        assert path.stat().st_mode & 0o077 == 0
    wanted = set(re.findall(r"\$\{(HEARTSEG_\w+):\?", (INFRA / "compose.yaml").read_text()))
    settings = dict(
        line.split("=", 1) for line in (script.parent / ".env").read_text().splitlines()
    )
    assert wanted <= settings.keys()
    assert all(
        (Path(settings["HEARTSEG_DATA"]) / name).is_dir() for name in ("postgres", "objects")
    )
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/infra/secrets/", "/infra/.env", "/infra/data/"} <= set(ignored)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("", "empty or shorter"),
        ("short", "empty or shorter"),
        ("password1234", "well-known"),
        ("my-changeme-please", "well-known"),
    ],
)
def test_absent_and_known_passwords_are_refused(tmp_path, content, reason):
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    command = ["sh", str(INFRA / "with-secrets"), f"A={file}", "--", "env"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stdout == ""


def test_secrets_reach_the_command_whole(tmp_path):
    (tmp_path / "secret").write_text("a b'$HOME\"*0123456789")
    script = ["sh", str(INFRA / "with-secrets"), f"A={tmp_path / 'secret'}", "--"]
    done = subprocess.run([*script, "printenv", "A"], capture_output=True, text=True, check=True)
    assert done.stdout == "a b'$HOME\"*0123456789\n"


def test_clone_for_kubernetes_has_no_secrets(tmp_path):
    """By the README's line, without the pod between its two halves."""
    line = re.search(r"^(ls -A \| tar .*) \| kubectl .* -- (tar .*) /workspace$", readme(), re.M)
    assert line is not None
    clone, volume = tmp_path / "clone", tmp_path / "volume"
    kept = {".git/HEAD", "heartseg/train.py", "infra/users.py"}
    for name in kept | {".venv/bin/ray", "infra/secrets/ray_auth_token", "infra/data/postgres/x"}:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("")
    volume.mkdir()
    volume.chmod(0o2775)
    subprocess.run(f"{line[1]} | {line[2]} {volume}", cwd=clone, shell=True, check=True)
    assert {str(p.relative_to(volume)) for p in volume.rglob("*") if p.is_file()} == kept
    # The folder itself is not in it: that of a volume belongs to root, and tar would fail there.
    assert volume.stat().st_mode & 0o7777 == 0o2775


def readme() -> str:
    return (INFRA / "README.md").read_text(encoding="utf-8")
