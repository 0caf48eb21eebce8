"""The image, the secrets beside it, and the clone as it gets to a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.examples import ROOT
from tests.infra.stack import INFRA, Stack, compose
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
    stack = next(i for i, (_, text) in enumerate(steps) if "--constraint requirements.lock" in text)
    assert copies[0] < stack < copies[1]
    assert "--system-certs" in steps[stack][1]  # the site's own certificates, if the base has them
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"--extra (\w+)", steps[stack][1])
    assert set(extras) == project["optional-dependencies"].keys() - {"dev"}
    labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=(\S+)", dict(steps)["LABEL"]))
    assert (labels["version"], labels["licenses"]) == (project["version"], project["license"])
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


def test_try_image_names_what_is_absent(tmp_path):
    (tmp_path / "id").symlink_to(str(shutil.which("id")))
    command = [str(shutil.which("sh")), str(INFRA / "try-image")]
    done = subprocess.run(
        command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert ("apt-get install buildah" if os.geteuid() == 0 else "root") in done.stderr


@pytest.fixture(scope="module")
def image() -> Iterator[list[str]]:
    """The image by infra/try-image, which must succeed; the buildah command that knows it."""
    if os.environ.get("HEARTSEG_TEST_IMAGE") != "1":
        pytest.skip("set HEARTSEG_TEST_IMAGE=1: takes root, buildah, mmdebstrap, 25 GB, 15 minutes")
    folder = Path(tempfile.mkdtemp(prefix="image"))
    buildah = ["buildah", "--storage-driver=overlay"]
    buildah += [f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}"]
    try:
        command = [str(INFRA / "try-image"), "--keep", "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield buildah
    finally:
        subprocess.run([*buildah, "rm", "--all"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


class StackInImage(Stack):
    """Set-up and MLflow's server run in the image; Postgres and moto on this machine."""

    def __init__(self, buildah: list[str]) -> None:
        super().__init__()
        self.buildah = buildah
        made = subprocess.run(
            [*buildah, "from", "localhost/heartseg"], capture_output=True, text=True, check=True
        )
        self.container = made.stdout.strip()
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, 4242, 4242)

    def start(self, name, command, environment):
        if name == "mlflow":
            command = self.in_image(name, command)
        return super().start(name, command, environment)

    def run(self, command, environment):
        return super().run(self.in_image("set-up", command), environment)

    def in_image(self, service: str, command: list[str]) -> list[str]:
        given = self.environment(service)
        names = [*compose()["services"][service]["environment"], "PGHOST", "PGPORT"]
        return [
            *self.buildah,
            "run",
            "--isolation=chroot",
            "--user=4242:4242",
            f"--volume={self.home}:{self.home}",
            *(f"--env={name}={given[name]}" for name in names),
            self.container,
            "--",
            *(word.replace(str(ROOT), "/opt/heartseg") for word in command),
        ]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_image_serves_postgres_and_s3(image):
    """try-image itself runs in the fixture."""
    stack = StackInImage(image)
    try:
        stack.start_servers()
        artifact = f"{stack.uri}/api/2.0/mlflow-artifacts/artifacts/try/a.txt"
        admin = ("admin", stack.secret("mlflow_admin_password"))
        assert requests.put(artifact, data=b"kept", timeout=60).status_code == 401
        assert requests.put(artifact, data=b"kept", auth=admin, timeout=60).status_code == 200
        assert requests.get(artifact, auth=admin, timeout=60).content == b"kept"
        experiments = f"{stack.uri}/api/2.0/mlflow/experiments/create"
        answer = requests.post(experiments, json={"name": "try"}, auth=admin, timeout=60)
        assert answer.status_code == 200, answer.text
    finally:
        stack.stop()


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
