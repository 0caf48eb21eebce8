"""The files of infra/: their shape by schema, and what a careful reader would look for."""

from __future__ import annotations

import copy
import json
import re
import shlex
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
        elif entry["kind"] == "CronJob":
            found.append(spec["jobTemplate"]["spec"]["template"]["spec"])
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


def test_users_code_sees_no_secrets_but_rays_token():
    whole = compose()
    services = whole["services"]
    assert services["ray-worker"]["secrets"] == ["ray_auth_token"]
    assert set(services["ray-head"]["secrets"]) == {"ray_auth_token", "case_ids_key"}
    assert "HEARTSEG_CASE_ID_KEY" not in services["ray-worker"]["environment"]
    folders = {f"/workspace/infra/{Path(s['file']).parent}" for s in whole["secrets"].values()}
    folders.add("/workspace/infra/data")  # make-secrets puts the services' data there
    sharing = [s for s in services.values() if "..:/workspace" in s.get("volumes", [])]
    assert len(sharing) == 2
    for service in sharing:
        assert {entry.partition(":")[0] for entry in service["tmpfs"]} == folders


def test_whom_mlflow_answers_it_also_lets_write():
    line = dict(part.partition("=")[::2] for part in compose()["services"]["mlflow"]["command"])
    names = [host for host in line["--allowed-hosts"].split(",") if "$" in host]  # else localhost
    assert names
    assert line["--cors-allowed-origins"].split(",") == [f"http://{name}" for name in names]


def test_postgres_is_made_alike_and_lets_its_own_container_in():
    (postgres,) = [entry for entry in workloads() if entry["metadata"]["name"] == "postgres"]
    container = postgres["spec"]["template"]["spec"]["containers"][0]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    there = compose()["services"]["postgres"]["environment"]
    assert given["POSTGRES_INITDB_ARGS"] == there["POSTGRES_INITDB_ARGS"]
    assert "--auth-host=scram-sha-256" in given["POSTGRES_INITDB_ARGS"]


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
    images = {image.partition("@")[0] for image in images}  # infra/pin-images adds digests
    assert images == {"heartseg:0.1.0", "postgres:16.10", "versity/versitygw:v1.0.20"}
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
    assert len(pods()) == 9
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


def test_no_secret_of_ours_has_the_name_of_kuberays_own():
    """KubeRay keeps a cluster's token in a Secret of the cluster's name, unless there is one."""
    clusters = {entry["metadata"]["name"] for entry in objects("RayCluster")}
    ours = set()
    for pod in pods():
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                ours.add(volume["secret"]["secretName"])
    assert len(ours) == 1
    assert not ours & clusters
    assert f"create secret generic {ours.pop()} " in (INFRA / "README.md").read_text()


def test_programs_are_where_the_image_has_them():
    """An entrypoint of ours takes the place of the image's, which knows where its program is."""
    compose_line = compose()["services"]["object-store"]["command"]
    assert compose_line[compose_line.index("--") + 1] == "/usr/local/bin/versitygw"
    (store,) = [one for one in workloads() if one["metadata"]["name"] == "object-store"]
    (script,) = store["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "exec /usr/local/bin/versitygw posix /data" in script


def test_every_service_has_limits():
    for name, service in compose()["services"].items():
        assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys(), name


def test_servers_go_before_trainings_and_budgets_find_their_pods():
    classes = {entry["metadata"]["name"]: entry for entry in objects("PriorityClass")}
    assert classes["heartseg-servers"]["value"] > classes["heartseg-training"]["value"]
    assert classes["heartseg-training"]["preemptionPolicy"] == "Never"
    (cluster,) = objects("RayCluster")
    (workers,) = [group["template"]["spec"] for group in cluster["spec"]["workerGroupSpecs"]]
    assert workers["priorityClassName"] == "heartseg-training"
    servers = [entry["spec"]["template"]["spec"] for entry in workloads()]
    for pod in [*servers, cluster["spec"]["headGroupSpec"]["template"]["spec"]]:
        assert pod["priorityClassName"] == "heartseg-servers"
    budgets = {entry["metadata"]["name"]: entry["spec"] for entry in objects("PodDisruptionBudget")}
    for name, kind in (("ray-head", "head"), ("ray-workers", "worker")):
        labels = budgets[name]["selector"]["matchLabels"]
        wanted = {"ray.io/cluster": cluster["metadata"]["name"], "ray.io/node-type": kind}
        assert labels == wanted  # KubeRay's own labels
    assert budgets["ray-workers"]["maxUnavailable"] == 1


def test_network_policies_deny_first_and_name_pods_that_exist():
    policies = {entry["metadata"]["name"]: entry["spec"] for entry in objects("NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    apps = {entry["spec"]["template"]["metadata"]["labels"]["app"] for entry in workloads()}
    apps.add("backup")
    for name, policy in policies.items():
        selected = policy["podSelector"].get("matchLabels", {}).get("app")
        assert selected in apps | {"ray", None}, name
    # Who holds the models' weights and the password hashes is asked by MLflow alone.
    (door,) = policies["postgres"]["ingress"]
    asking = [peer["podSelector"]["matchLabels"]["app"] for peer in door["from"]]
    assert asking == ["mlflow", "backup"]
    # A node's own DNS cache is no pod: a selector of namespaces does not match it.
    (rule,) = policies["dns"]["egress"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]
    # Users' code on a worker has no way out; who may talk to any address is the head alone.
    for name, policy in policies.items():
        if any("to" not in rule for rule in policy.get("egress", [])):
            assert policy["podSelector"]["matchLabels"]["ray.io/node-type"] == "head", name


def test_kubernetes_head_alone_has_a_secret_and_gives_jobs_time_to_end():
    (cluster,) = objects("RayCluster")
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    (worker,) = [group["template"]["spec"] for group in cluster["spec"]["workerGroupSpecs"]]
    assert [volume["name"] for volume in worker["volumes"] if "secret" in volume] == []
    (secret,) = [volume["secret"] for volume in head["volumes"] if "secret" in volume]
    assert [item["key"] for item in secret["items"]] == ["case_ids_key"]
    given = {entry["name"]: entry["value"] for entry in head["containers"][0]["env"]}
    there = compose()["services"]["ray-head"]["environment"]
    for name in ("RAY_JOB_STOP_WAIT_TIME_S", "PYTHONPATH", "MLFLOW_TRACKING_URI"):
        assert given[name] == there[name]
    assert int(given["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_mlflow_runs_the_same_lines_everywhere():
    (deployment,) = objects("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    for container in [*pod["containers"], *pod["initContainers"]]:
        line = [*container["command"], *container["args"]]
        line = [part.replace("/run/secrets/heartseg/", "/run/secrets/") for part in line]
        there = compose()["services"][container["name"]]
        own = ("--allowed-hosts", "--cors-allowed-origins")  # names differ
        assert [part for part in line if not part.startswith(own)] == [
            part for part in [*there["entrypoint"], *there["command"]] if not part.startswith(own)
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
