"""The commands of infra/ for real: Postgres, object store, MLflow with users, Ray with a token.

One start serves all tests. No container, no SSH, no Kubernetes: their command lines run as
processes of this machine (see stack.py). The object store is moto's server.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import requests
import yaml

from tests.clones import environment
from tests.examples import ROOT, small_recipe, write_disks
from tests.infra.stack import INFRA, SETTINGS, Stack, compose, wait_for
from tests.infra.test_files import objects
from tests.tracking.stores import free_port

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(600)]

PASSWORDS = {"anna": "anna-" + os.urandom(8).hex(), "rita": "rita-" + os.urandom(8).hex()}
EXPERIMENT = "heartseg-camus"
DENIED = r"403|[Pp]ermission"


# --- the one start ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    running = Stack()
    try:
        start_ray(running, tmp_path_factory.mktemp("nodes"))  # while the servers start
        running.start_servers()
        worker = f"http://127.0.0.1:{running.ports['agent']}/api/local_raylet_healthz"
        wait_for(worker, running.processes["ray-worker"], running.log("ray-worker"))
        yield running
    finally:
        running.stop()


def start_ray(stack: Stack, folder: Path) -> None:
    """Head and worker by compose.yaml's lines; `masked` is another folder for the worker."""
    stack.ports |= {"gcs": free_port(), "dashboard": free_port(), "agent": free_port()}
    address = f"127.0.0.1:{stack.ports['gcs']}"
    here = {"RAY_TMPDIR": str(stack.ray_tmp), "RAY_ADDRESS": address}
    for service in ("ray-head", "ray-worker"):
        line = [
            part.replace("ray-head:6379", address)
            .replace("--port=6379", f"--port={stack.ports['gcs']}")
            .replace("--dashboard-port=8265", f"--dashboard-port={stack.ports['dashboard']}")
            for part in stack.line(service)
        ]
        if service == "ray-head":  # others run Ray on this machine
            line += [f"--ray-client-server-port={free_port()}"]
        if service == "ray-worker":
            masked = folder / "masked"
            masked.mkdir()
            stack.masked = masked if may_mount() else None
            # A node that does not share the folder: in its mount namespace it is another one.
            mount = f'mount -t tmpfs none {masked} && exec "$@"'
            line += [f"--dashboard-agent-listen-port={stack.ports['agent']}"]
            if stack.masked:
                line = ["unshare", "--mount", "sh", "-c", mount, "sh", *line]
        stack.start(service, line, stack.environment(service) | here)
        if service == "ray-head":
            head = f"http://127.0.0.1:{stack.ports['dashboard']}/api/gcs_healthz"
            wait_for(head, stack.processes[service], stack.log(service))


def may_mount() -> bool:
    probe = ["unshare", "--mount", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def users(stack) -> ModuleType:
    """infra/users.py, loaded once: MLflow takes seconds to import."""
    spec = importlib.util.spec_from_file_location("users", INFRA / "users.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_user(monkeypatch: pytest.MonkeyPatch, stack: Stack, name: str) -> None:
    password = PASSWORDS.get(name) or stack.secret("mlflow_admin_password")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


@pytest.fixture(scope="module")
def granted(stack, users) -> None:
    """Users and grants by the very commands of infra/README.md, as the administrator."""
    from mlflow import MlflowClient

    commands = re.findall(r"^python infra/users\.py (.*)$", readme(), re.M)
    with pytest.MonkeyPatch.context() as patch:
        as_user(patch, stack, "admin")
        client = MlflowClient(stack.uri)
        for name in (EXPERIMENT, "heartseg-mmode"):
            client.create_experiment(name)
            client.create_registered_model(name)
        done = set()
        for command in commands:
            words = shlex.split(command.partition("#")[0])
            if words[0] in ("remove", "revoke", "password"):
                continue
            patch.setattr(sys, "stdin", io.StringIO(PASSWORDS.get(words[1], "") + "\n"))
            users.main(words)
            done.add(tuple(words[:2]))
        assert {("add", "anna"), ("add", "rita"), ("grant", "anna")} <= done


def readme() -> str:
    return (INFRA / "README.md").read_text(encoding="utf-8")


# --- who may do what ----------------------------------------------------------------------


def status_of(stack: Stack, user: str, password: str, path: str = "users/list") -> int:
    request = urllib.request.Request(f"{stack.uri}/api/2.0/mlflow/{path}")
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_default_password_survives(stack):
    assert status_of(stack, "admin", stack.secret("mlflow_admin_password")) == 200
    for password in ("password1234", ""):
        assert status_of(stack, "admin", password) == 401
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{stack.uri}/api/2.0/mlflow/users/list")


@pytest.mark.parametrize(("origin", "status"), [(SETTINGS["HEARTSEG_HOST"], 200), ("evil", 403)])
def test_pages_may_write_where_people_reach_them(stack, origin, status):
    """What a browser sends from MLflow's page under HEARTSEG_HOST, and from a stranger's."""
    host = f"{SETTINGS['HEARTSEG_HOST']}:5000"
    answer = requests.post(
        f"{stack.uri}/ajax-api/2.0/mlflow/experiments/search",
        json={"max_results": 1},
        auth=("admin", stack.secret("mlflow_admin_password")),
        headers={"Host": host, "Origin": f"http://{origin}:5000"},
        timeout=60,
    )
    assert answer.status_code == status, answer.text


def test_the_database_wants_the_password(stack):
    import psycopg2

    access = {"host": "127.0.0.1", "port": stack.ports["postgres"], "user": "mlflow"}
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(dbname="mlflow", password="mlflow", **access)


def test_set_up_again_changes_nothing(stack):
    assert stack.set_up == ""


@pytest.mark.parametrize("user", ["rita", "anna"])
def test_everybody_reads_but_writes_only_what_was_granted(stack, users, granted, monkeypatch, user):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    as_user(monkeypatch, stack, user)
    client = MlflowClient(stack.uri)
    mine = {EXPERIMENT} if user == "anna" else set()  # the README grants her camus
    for name in (EXPERIMENT, "heartseg-mmode"):
        experiment = client.get_experiment_by_name(name)
        assert client.get_registered_model(name).name == name
        client.search_runs([experiment.experiment_id])
        if name in mine:
            run = client.create_run(experiment.experiment_id)
            client.log_metric(run.info.run_id, "dice", 0.9)
            client.set_registered_model_tag(name, "tried", "yes")
            continue
        with pytest.raises(MlflowException, match=DENIED):
            client.create_run(experiment.experiment_id)
        with pytest.raises(MlflowException, match=DENIED):
            client.set_registered_model_tag(name, "tried", "yes")
        with pytest.raises(MlflowException, match=DENIED):
            client.set_registered_model_alias(name, "champion", "1")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a-password-of-eve\n"))
    with pytest.raises(SystemExit, match="error"):  # who may make users may make an administrator
        users.main(["add", "eve"])
    with pytest.raises(SystemExit, match="error"):
        users.main(["grant", user, "experiment", "heartseg-mmode", "MANAGE"])


# --- a training against it all ------------------------------------------------------------


@pytest.fixture(scope="module")
def place(stack, tmp_path_factory) -> Path:
    """A working directory with prepared images, small enough for seconds."""
    from heartseg.config.params import load_params

    folder = tmp_path_factory.mktemp("place")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe = small_recipe(load_params(ROOT / "params.yaml"), epochs=2)
    content["recipes"]["camus"] = recipe.model_dump(mode="json")
    content["pipeline"] = {"camus": "camus"}
    content["tracking"]["system_metrics"] = False
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    write_disks(folder, train=12, val=4)
    (folder / "infra").symlink_to(INFRA)
    (folder / "heartseg").symlink_to(ROOT / "heartseg")
    return folder


def of_anna(stack: Stack, place: Path, uri: str | None = None) -> dict[str, str]:
    """Environment of a driver; only the driver knows her password."""
    return environment(ROOT) | {
        "HOME": str(place),
        "RAY_ADDRESS": f"127.0.0.1:{stack.ports['gcs']}",
        "RAY_AUTH_TOKEN_PATH": str(stack.secrets / "ray_auth_token"),
        "RAY_AUTH_MODE": "token",
        "HEARTSEG_CASE_ID_KEY": str(stack.secrets / "case_ids_key"),
        "MLFLOW_TRACKING_URI": uri or stack.uri.replace("://", f"://anna:{PASSWORDS['anna']}@"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@pytest.fixture(scope="module")
def trained(stack, granted, place) -> str:
    """What the entrypoint of kuberay/rayjob-train.yaml printed."""
    entrypoints = [job["spec"]["entrypoint"] for job in objects("RayJob")]
    (line,) = [line for line in entrypoints if "heartseg.train" in line]
    line = line.replace("/workspace", str(place)).replace("with_gpus.py 2", "with_gpus.py 0")
    printed = ""
    for _ in range(3):  # what a slow server could not take comes with the same command
        done = subprocess.run(
            shlex.split(line),
            cwd="/",
            env=of_anna(stack, place),
            capture_output=True,
            text=True,
            check=False,
        )
        printed += done.stdout + done.stderr
        assert done.returncode == 0, printed
        (state,) = place.glob("runs/*/run.json")
        if json.loads(state.read_text())["finished"]:
            return printed
    raise AssertionError(printed)


def test_job_trains_on_the_cluster_whose_nodes_know_no_password(stack, trained, place, monkeypatch):
    from mlflow import MlflowClient

    as_user(monkeypatch, stack, "rita")
    client = MlflowClient(stack.uri)
    training = json.loads((place / "results/camus/model/training.json").read_text())
    run = client.get_run(training["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "dice/mean")) == 2
    assert "recipe.yaml" in {entry.path for entry in client.list_artifacts(run.info.run_id)}
    for service in ("ray-head", "ray-worker"):
        known = environment_of(stack.processes[service].pid)
        assert known["RAY_AUTH_MODE"] == "token"
        assert not {"MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_USERNAME"} & known.keys()
        assert ("HEARTSEG_CASE_ID_KEY" in known) is (service == "ray-head")


def environment_of(pid: int) -> dict[str, str]:
    import psutil

    return psutil.Process(pid).environ()


def test_passwords_are_nowhere(stack, trained, place):
    """In no file of the run, log, tag, parameter or artifact; secrets are in their files only."""
    import boto3

    hidden = [*PASSWORDS.values(), *(stack.secret(name) for name in compose()["secrets"])]
    texts: dict[str, bytes] = {"printed": trained.encode()}
    for name in ("mlflow", "mlflow_auth"):  # every tag, parameter and metric there is
        texts[name] = stack.postgres.tool(["pg_dump", f"--dbname={name}", "--inserts"])
    assert b"dice/mean" in texts["mlflow"]
    for folder in (place, stack.home, stack.ray_tmp):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.parent != stack.secrets:
                texts[str(path)] = path.read_bytes()
    store = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{stack.ports['objects']}",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        region_name="us-east-1",
    )
    for entry in store.list_objects_v2(Bucket="mlflow")["Contents"]:
        texts[f"s3:{entry['Key']}"] = store.get_object(Bucket="mlflow", Key=entry["Key"])[
            "Body"
        ].read()
    assert any(key.endswith("journal.jsonl") for key in texts)
    assert any(key.startswith("s3:artifacts/") for key in texts)
    assert any("session_" in key and key.endswith((".log", ".out", ".err")) for key in texts)
    found = [key for key, text in texts.items() for word in hidden if word.encode() in text]
    assert found == []


def test_backup_comes_back(stack, trained):
    """By the commands of the README: a dump of both databases, restored beside them."""
    dump = stack.home / "mlflow.dump"
    line = re.search(r"pg_dump (.*) mlflow >", readme())
    assert line is not None
    assert line[1] == "--username mlflow --format custom"
    dump.write_bytes(stack.postgres.tool(["pg_dump", *shlex.split(line[1]), "mlflow"]))
    stack.postgres.tool(["createdb", "--username", "mlflow", "restored"])
    restore = ["pg_restore", "--username", "mlflow", "--clean", "--if-exists", "--no-owner"]
    assert " ".join(restore) in readme()
    stack.postgres.tool([*restore, "--dbname", "restored", str(dump)])

    def count(database: str) -> bytes:
        query = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM metrics)"
        return stack.postgres.tool(["psql", "--dbname", database, "--tuples-only", "-c", query])

    assert count("restored") == count("mlflow")
    assert count("mlflow").split(b"|")[1].strip() != b"0"


def test_nightly_backup_of_kubernetes(stack, trained, tmp_path):
    """The CronJob's very script: whole dumps of both databases, and none older than two weeks."""
    entry = yaml.safe_load_all((INFRA / "kuberay/backup.yaml").read_text())
    (job,) = [one for one in entry if one["kind"] == "CronJob"]
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    for there, here in {
        "/run/secrets/heartseg": str(stack.secrets),
        "/backup": str(tmp_path),
        "--host postgres": f"--host 127.0.0.1 --port {stack.ports['postgres']}",
    }.items():
        assert there in script
        script = script.replace(there, here)
    old = tmp_path / "mlflow-2020-01-01.dump"
    old.touch()
    os.utime(old, (0, 0))
    programs = {"PATH": f"{stack.postgres.programs}{os.pathsep}{os.environ['PATH']}"}
    command = [*container["command"], script]
    subprocess.run(command, env=os.environ | programs, check=True, timeout=120)
    made = sorted(path.name.rsplit("-", 3)[0] for path in tmp_path.iterdir())
    assert made == ["mlflow", "mlflow_auth"]
    (dump,) = tmp_path.glob("mlflow-*.dump")
    assert b"TABLE DATA public runs" in stack.postgres.tool(["pg_restore", "--list", str(dump)])


def test_upgrade_of_the_schema(stack):
    """By the README's line; where there is nothing to migrate it changes nothing."""
    line = re.search(r"run --rm mlflow (.*)$", readme(), re.M)
    assert line is not None
    command = [stack.line("mlflow")[0], *shlex.split(stack.here(line[1]))]
    query = ["psql", "--dbname", "mlflow", "--tuples-only", "-c", "SELECT * FROM alembic_version"]
    before = stack.postgres.tool(query)
    stack.run(command, stack.environment("mlflow"))
    assert stack.postgres.tool(query) == before != b""


# --- doctor -------------------------------------------------------------------------------


def doctor(stack: Stack, place: Path, **changes: str) -> tuple[int, list[dict[str, str]]]:
    done = subprocess.run(
        [sys.executable, "-m", "heartseg.doctor", "--json"],
        cwd=place,
        env=of_anna(stack, place) | changes,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("["), done.stderr
    assert PASSWORDS["anna"] not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def test_doctor_finds_all_well_and_leaves_nothing(stack, trained, place, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    as_user(monkeypatch, stack, "admin")
    client = MlflowClient(stack.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    before = {run.info.run_id for run in client.search_runs([experiment])}
    files = {path for path in place.rglob("*")}
    code, checks = doctor(stack, place)
    assert [check for check in checks if check["status"] == "fail"] == []
    assert code == 0
    per_node = [check["where"] for check in checks if check["name"] == "shared storage"]
    assert len(set(per_node)) == 2
    seen = {(check["name"], check["status"]) for check in checks}
    wanted = "Ray,State API,Ray token,versions,GPUs,disk,clock,shared storage,ports,tracking URI,"
    wanted += "tracking server,tracking store,experiment,artifact store,registered model,data"
    assert {(name, "ok") for name in wanted.split(",")} <= seen | {("disk", "ok")}
    assert {run.info.run_id for run in client.search_runs([experiment])} == before
    (probe,) = client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)
    assert client.list_artifacts(probe.info.run_id, "doctor") == []
    assert "heartseg-doctor" not in client.get_registered_model(EXPERIMENT).tags
    assert {path for path in place.rglob("*")} == files


def test_doctor_finds_a_node_without_the_storage_and_a_reader(stack, granted, trained, place):
    """The worker sees another folder at the place of runs/; rita may read only."""
    if stack.masked is None:
        pytest.skip("mount namespaces are not permitted here")
    shutil.copytree(place / "data", stack.masked / "data")
    shutil.copy(place / "params.yaml", stack.masked)
    reader = stack.uri.replace("://", f"://rita:{PASSWORDS['rita']}@")
    code, checks = doctor(stack, stack.masked, MLFLOW_TRACKING_URI=reader)
    assert code == 2
    failed = [check for check in checks if check["status"] == "fail"]
    names = sorted(check["name"] for check in failed)
    assert names == ["experiment", "registered model", "shared storage"], failed
    assert all(check["fix"] for check in failed)
    (storage,) = [check for check in failed if check["name"] == "shared storage"]
    assert "does not exist" in storage["seen"]


def test_doctor_names_what_an_editor_may_not(stack, users, granted, place, monkeypatch):
    """EDIT writes, but deletes nothing: the probe stays, and does not look like a running one."""
    from mlflow import MlflowClient

    from heartseg.tracking.server_checks import check_tracking

    name = "heartseg-mmode"
    as_user(monkeypatch, stack, "admin")
    for kind in ("experiment", "model"):
        users.main(["grant", "rita", kind, name, "EDIT"])
    try:
        as_user(monkeypatch, stack, "rita")
        found = {check.name: check for check in check_tracking(place, [name])}
    finally:
        as_user(monkeypatch, stack, "admin")
        for kind in ("experiment", "model"):
            users.main(["revoke", "rita", kind, name])
    assert found["experiment"].status == "ok"
    assert found["deletion"].status == found["registered model"].status == "warn"
    assert found["artifact store"].status in ("ok", "warn")
    assert all("MANAGE" in check.fix for check in found.values() if check.status == "warn")
    client = MlflowClient(stack.uri)
    (probe,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert probe.info.run_id in found["deletion"].seen
    assert probe.info.status == "KILLED"


def test_doctor_finds_a_wrong_token_and_a_wrong_password(stack, granted, place, tmp_path):
    (tmp_path / "token").write_text("0" * 64)
    wrong = stack.uri.replace("://", "://anna:wrong-wrong-wrong@")
    code, checks = doctor(
        stack, place, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"), MLFLOW_TRACKING_URI=wrong
    )
    assert code == 2
    failed = {check["name"]: check["seen"] for check in checks if check["status"] == "fail"}
    assert failed.keys() == {"Ray", "tracking user"}, failed
    assert "token" in failed["Ray"]
