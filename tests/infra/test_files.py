"""The files of infra/: their shape by schema, and what a careful reader would look for."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.examples import ROOT
from tests.infra.stack import INFRA, compose

KUBERAY = sorted((INFRA / "kuberay").glob("*.yaml"))
YAML = [INFRA / "compose.yaml", INFRA / "compose.gpu.yaml", INFRA / "ray-cluster.yaml", *KUBERAY]
SCHEMAS = json.loads((Path(__file__).parent / "schemas.json").read_text(encoding="utf-8"))
SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY")


def objects(kind: str = "") -> list[dict[str, Any]]:
    """What the files of kuberay/ describe."""
    found = [entry for path in KUBERAY for entry in yaml.safe_load_all(path.read_text())]
    return [entry for entry in found if kind in ("", entry["kind"])]


def pods() -> list[dict[str, Any]]:
    """Specifications of all pods in kuberay/."""
    found = []
    for entry in objects():
        spec = entry.get("spec", {})
        if entry["kind"] == "RayCluster":
            groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
            found += [group["template"]["spec"] for group in groups]
        elif entry["kind"] == "RayJob":
            found.append(spec["submitterPodTemplate"]["spec"])
        elif "template" in spec:
            found.append(spec["template"]["spec"])
    return found


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_lint(path):
    from yamllint import linter
    from yamllint.config import YamlLintConfig

    rules = (
        "{extends: default, rules: {line-length: disable, document-start: disable, "
        "braces: {max-spaces-inside: 0}, comments: {min-spaces-from-content: 1}, "
        "truthy: {allowed-values: ['true', 'false']}}}"
    )
    problems = linter.run(path.read_text(encoding="utf-8"), YamlLintConfig(rules))
    assert [str(problem) for problem in problems] == []


# --- compose ------------------------------------------------------------------------------


def check(schema: str, value: Any) -> None:
    wanted = {"$defs": SCHEMAS["$defs"], **SCHEMAS[schema]}
    jsonschema.Draft202012Validator(wanted).validate(value)


def test_compose_has_the_shape_of_the_specification():
    check("compose", compose())
    check("compose", yaml.safe_load((INFRA / "compose.gpu.yaml").read_text()))


@pytest.mark.parametrize(
    ("service", "key", "wrong"),
    [
        ("mlflow", "restart", "sometimes"),
        ("mlflow", "depends_on", {"set-up": {"condition": "done"}}),
        ("mlflow", "comand", ["mlflow"]),
        ("postgres", "healthcheck", {"test": ["pg_isready"]}),
        ("postgres", "ports", ["five"]),
    ],
)
def test_compose_schema_refuses_what_compose_would(service, key, wrong):
    broken = compose()
    broken["services"][service][key] = wrong
    with pytest.raises(jsonschema.ValidationError):
        check("compose", broken)


def test_compose_uses_what_it_declares_and_nothing_else():
    whole = compose()
    used: dict[str, set[str]] = {"secrets": set(), "volumes": set()}
    for service in whole["services"].values():
        used["secrets"] |= set(service.get("secrets", []))
        mounts = [volume.split(":")[0] for volume in service.get("volumes", [])]
        used["volumes"] |= {name for name in mounts if not name.startswith(".")}
        for other in service.get("depends_on", {}):
            assert other in whole["services"]
    assert used == {kind: set(whole[kind]) for kind in used}


def test_every_secret_of_a_command_is_given_to_its_service():
    for name, service in compose()["services"].items():
        line = " ".join([*service.get("command", []), *service.get("environment", {}).values()])
        wanted = set(re.findall(r"/run/secrets/(\w+)", line))
        assert wanted == set(service.get("secrets", [])), name


def test_services_watch_themselves_and_come_back():
    for name, service in compose()["services"].items():
        if name == "set-up":  # ends
            assert service["restart"].startswith("on-failure")
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        for other, how in service.get("depends_on", {}).items():
            ends = other == "set-up"
            wanted = "service_completed_successfully" if ends else "service_healthy"
            assert how["condition"] == wanted


def test_no_service_is_run_by_root_or_gains_rights():
    for name, service in compose()["services"].items():
        assert service["user"].startswith("${HEARTSEG_UID:?"), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["cap_drop"] == ["ALL"]


def test_only_mlflow_is_published_beyond_this_machine():
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            wanted = "${HEARTSEG_BIND:-127.0.0.1}:" if name == "mlflow" else "127.0.0.1:"
            assert port.startswith(wanted), (name, port)


def is_secret_in_the_open(name: str, value: str) -> bool:
    """A variable with a secret's name that holds no path, or a URI with a password."""
    named = any(word in name for word in SECRET_WORDS) and not name.endswith(("_FILE", "_PATH"))
    return named or bool(re.search(r"://[^/@\s]*:[^/@\s]+@", value))


def test_no_secret_stands_in_a_file():
    pairs = [
        pair
        for service in compose()["services"].values()
        for pair in service.get("environment", {}).items()
    ]
    for pod in pods():
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            pairs += [(entry["name"], entry.get("value", "")) for entry in container.get("env", [])]
    assert pairs
    assert [pair for pair in pairs if is_secret_in_the_open(*pair)] == []
    for path in [*YAML, INFRA / "basic_auth.ini", INFRA / "Dockerfile"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"://[^/@\s]*:[^/@\s]+@", text), path
        assert "password1234" not in text
    assert is_secret_in_the_open("MLFLOW_TRACKING_PASSWORD", "x")
    assert is_secret_in_the_open("URI", "postgresql://mlflow:hunter2@postgres/mlflow")


def test_images_are_pinned():
    images = {service["image"] for service in compose()["services"].values()}
    images |= {container["image"] for pod in pods() for container in pod["containers"]}
    assert images == {"heartseg:0.1.0", "postgres:16.10", "versity/versitygw:v1.0.18"}
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert f"heartseg:{version[1]}" in images


# --- Kubernetes ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_kubernetes_objects_fit_their_schemas(path):
    import kubernetes_validate

    for entry in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if entry["apiVersion"] == "ray.io/v1":
            check(entry["kind"], entry)
            continue
        kubernetes_validate.validate(entry, "1.31", strict=True)


def test_pods_of_ray_fit_the_schema_of_pods():
    import kubernetes_validate

    for spec in pods():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
        kubernetes_validate.validate(pod, "1.31", strict=True)


@pytest.mark.parametrize(
    ("kind", "key", "wrong"),
    [
        ("RayCluster", "workerGroupSpec", []),
        ("RayCluster", "authOptions", {"mode": "password"}),
        ("RayCluster", "autoscalerOptions", {"upscalingMode": "Fast"}),
        ("RayJob", "submissionMode", "Mail"),
        ("RayJob", "entryPoint", "true"),
        ("RayJob", "backoffLimit", "two"),
    ],
)
def test_kuberay_schema_refuses_what_the_operator_would(kind, key, wrong):
    broken = copy.deepcopy(objects(kind)[0])
    broken["spec"][key] = wrong
    with pytest.raises(jsonschema.ValidationError):
        check(kind, broken)


def test_pods_keep_to_the_restricted_standard():
    assert len(pods()) == 7
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            tight = container["securityContext"]
            assert tight["allowPrivilegeEscalation"] is False
            assert tight["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()


def test_servers_have_probes_and_services_find_their_pods():
    labels = [entry["spec"]["template"]["metadata"]["labels"] for entry in workloads()]
    for service in objects("Service"):
        assert service["spec"]["selector"] in labels
    for entry in workloads():
        container = entry["spec"]["template"]["spec"]["containers"][0]
        assert {"readinessProbe", "livenessProbe"} <= container.keys()


def workloads() -> list[dict[str, Any]]:
    return [*objects("StatefulSet"), *objects("Deployment")]


def test_network_policies_deny_first_and_name_pods_that_exist():
    policies = {entry["metadata"]["name"]: entry["spec"] for entry in objects("NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    apps = {entry["spec"]["template"]["metadata"]["labels"]["app"] for entry in workloads()}
    for name, policy in policies.items():
        selected = policy["podSelector"].get("matchLabels", {}).get("app")
        assert selected in apps | {"ray", None}, name
    # Who holds the models' weights and the password hashes is asked by MLflow alone.
    (door,) = policies["postgres"]["ingress"]
    assert door["from"] == [{"podSelector": {"matchLabels": {"app": "mlflow"}}}]


def test_mlflow_runs_the_same_lines_everywhere():
    (deployment,) = objects("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    for container in [*pod["containers"], *pod["initContainers"]]:
        line = [*container["command"], *container["args"]]
        line = [part.replace("/run/secrets/heartseg/", "/run/secrets/") for part in line]
        there = compose()["services"][container["name"]]
        same = [part for part in line if not part.startswith("--allowed-hosts")]
        assert same == [
            part
            for part in [*there["entrypoint"], *there["command"]]
            if not part.startswith("--allowed-hosts")
        ]


def test_jobs_run_commands_that_exist():
    for job in objects("RayJob"):
        shell, flag, script = shlex.split(job["spec"]["entrypoint"])
        assert (shell, flag) == ("sh", "-c")
        change, _, command = script.partition(" && ")
        assert change == "cd /workspace"
        python, waiter, count, *rest = command.split()
        assert (ROOT / waiter).exists()
        assert int(count) <= objects("RayCluster")[0]["spec"]["workerGroupSpecs"][0]["maxReplicas"]
        module = rest[rest.index("-m") + 1]
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()
        target = rest[-1]
        recipes = yaml.safe_load((ROOT / "params.yaml").read_text())["recipes"]
        assert target in recipes or (ROOT / target).exists()
        assert python == "python"


# --- Ray on plain machines ----------------------------------------------------------------


def test_ray_cluster_fits_rays_own_schema():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((INFRA / "ray-cluster.yaml").read_text(encoding="utf-8"))
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])
    with pytest.raises(jsonschema.ValidationError):
        validate_config({**prepared, "head_start_commands": []})


def test_ray_versions_agree():
    locked = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.M)
    assert locked is not None
    assert objects("RayCluster")[0]["spec"]["rayVersion"] == locked[1]


# --- the image ----------------------------------------------------------------------------


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
