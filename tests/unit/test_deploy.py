"""deploy/: manifests of Kubernetes and SkyPilot's task, read and never run, as their heads say.

The schemas and SkyPilot's parser come in environments of their own: neither is wanted elsewhere.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from bench.harness.ports import free_port
from gpu_worker import spot
from gpu_worker.attempt import LAST_CALL_SECONDS
from gpu_worker.settings import WorkerSettings
from orchestrator.cli.run.serve import refuse_open_address
from orchestrator.settings import Settings
from orchestrator.valkey import server_binary
from tests.conftest import Api
from tests.unit.test_compose import OF_PREPARE_PY, STAGES, image

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for name in KUSTOMIZATION["resources"]
    for manifest in yaml.safe_load_all((KUBERNETES / name).read_text())
]
PODS: dict[str, dict[str, Any]] = {
    manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
    for manifest in MANIFESTS
    if "template" in manifest.get("spec", {})
}
POLICIES = {m["metadata"]["name"]: m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"}
SKY: dict[str, Any] = yaml.safe_load((DEPLOY / "sky.yaml").read_text())
SECRET = "0123456789abcdef" * 4


def container(pod: str) -> dict[str, Any]:
    (only,) = PODS[pod]["containers"]
    return dict(only)


def environment(pod: str) -> dict[str, str]:
    """The variables of a pod, with secrets and $(NAME) in them filled in as Kubernetes does."""
    found: dict[str, str] = {}
    for each in container(pod).get("env", []):
        value = each.get("value", SECRET)
        found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found


def own_environment(package: str, script: str, **variables: str) -> str:
    """What a script prints in an environment with nothing but `package`."""
    command = ["uv", "run", "--no-project", "--isolated", "--with", package, "python", "-c", script]
    env = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | variables
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------------- validated


@pytest.mark.slow  # it installs the schemas
def test_every_manifest_passes_the_schemas_of_kubernetes() -> None:
    """The newest, and the oldest with all fields that are used: 1.30 has appArmorProfile."""
    script = f"""
import kubernetes_validate as schemas
for manifest in {MANIFESTS!r}:
    for version in ("1.30", schemas.latest_version()):
        schemas.validate(manifest, version, strict=True)
        print(manifest["kind"])
"""
    said = own_environment("kubernetes-validate==1.37.0", script).split()
    assert said == [manifest["kind"] for manifest in MANIFESTS for _ in range(2)]


@pytest.mark.slow  # it installs SkyPilot
def test_sky_yaml_passes_skypilot_s_own_parser(tmp_path: Path) -> None:
    script = f"""
import sky
task = sky.Task.from_yaml_config(
    {SKY!r}, env_overrides=[("AUTORESEARCH_ORCHESTRATOR", "https://here")],
    secrets_overrides=[("AUTORESEARCH_TOKEN", "secret")],
)
(resources,) = task.resources
print(resources.cloud, resources.use_spot, resources.accelerators, task.num_nodes)
"""
    said = own_environment(
        "skypilot==0.14.1", script, HOME=str(tmp_path), SKYPILOT_DISABLE_USAGE_COLLECTION="1"
    )
    assert said.splitlines()[-1] == "AWS True {'H100': 8} 1"


def test_kustomize_finds_every_file_and_every_image_that_docker_builds() -> None:
    names = {path.name for path in KUBERNETES.iterdir()}
    assert names == {"kustomization.yaml", *KUSTOMIZATION["resources"]}
    built = {f"autoresearch-{target}" for target in STAGES}
    named = {each["name"] for each in KUSTOMIZATION["images"]}
    used = {container(pod)["image"] for pod in PODS}
    assert named == used - {"valkey/valkey:8-alpine"}
    assert named <= built


# ---------------------------------------------------------------------------- settings


def test_every_variable_of_a_manifest_is_a_setting_that_exists() -> None:
    known = {"redis_url", *Settings.model_fields, *WorkerSettings.model_fields, *OF_PREPARE_PY}
    of_valkey = {"REDISCLI_AUTH", "REDIS_PASSWORD"}
    given = {name for pod in PODS for name in environment(pod)} - of_valkey
    given |= {*SKY["envs"], *SKY["secrets"]}
    assert {name.removeprefix("AUTORESEARCH_").lower() for name in given} <= known
    assert all(name == "REDIS_URL" or name.startswith("AUTORESEARCH_") for name in given)


def test_the_orchestrator_starts_with_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment("orchestrator").items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    refuse_open_address(settings)
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == f"redis://:{SECRET}@valkey:6379/0"
    assert container("orchestrator")["command"] == ["autoresearch", "serve"]


def test_the_worker_finds_the_orchestrator_by_a_name_that_it_answers_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment("worker").items():
        monkeypatch.setenv(name, value)
    settings = WorkerSettings()
    assert settings.orchestrator == "http://orchestrator:3111"
    assert settings.level == "strict"
    assert "orchestrator" in environment("orchestrator")["AUTORESEARCH_ALLOWED_HOSTS"].split(",")
    services = {m["metadata"]["name"]: m["spec"] for m in MANIFESTS if m["kind"] == "Service"}
    assert services["orchestrator"] == {
        "selector": {"app": "orchestrator"},
        "ports": [{"port": Settings.model_fields["port"].default}],
    }


def test_no_service_s_variables_are_taken_for_settings() -> None:
    """A service called autoresearch would set AUTORESEARCH_PORT to a URL in every pod."""
    assert [pod["enableServiceLinks"] for pod in PODS.values()] == [False] * len(PODS)


def test_the_probes_are_answered(api: Api) -> None:
    """With the kubelet's own Host header, the pod's address, they would be refused."""
    probes = [
        container("orchestrator")[kind]["httpGet"] for kind in ("readinessProbe", "livenessProbe")
    ]
    for probe in probes:
        headers = {each["name"]: each["value"] for each in probe["httpHeaders"]}
        assert api.http.get(probe["path"], headers=headers).status_code == 200
        assert api.http.get(probe["path"], headers={"Host": "10.1.2.3:3111"}).status_code == 403


# ---------------------------------------------------------------------------- what holds


def test_valkey_takes_its_arguments_and_writes_each_change_to_disk(tmp_path: Path) -> None:
    port = free_port()
    arguments = [a.replace("$(REDISCLI_AUTH)", SECRET) for a in container("valkey")["command"][1:]]
    arguments[arguments.index("/data")] = str(tmp_path)
    command = [server_binary(), *arguments, "--port", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            client = redis.Redis(port=port, password=SECRET)
            deadline = time.monotonic() + 20
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            wanted = {
                "appendonly": "yes",
                "appendfsync": "always",
                "maxmemory-policy": "noeviction",
            }
            assert client.config_get(*wanted) == wanted
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(port=port).ping()
        finally:
            server.send_signal(signal.SIGTERM)


def test_a_worker_has_time_to_hand_its_run_back() -> None:
    fields = WorkerSettings.model_fields
    needed = fields["drain_timeout"].default + fields["kill_after_seconds"].default
    assert PODS["worker"]["terminationGracePeriodSeconds"] > needed + 2 * LAST_CALL_SECONDS
    assert "AUTORESEARCH_DRAIN_TIMEOUT" not in environment("worker")
    assert fields["kill_after_seconds"].default + LAST_CALL_SECONDS < spot.SHORTEST_SECONDS


def test_nothing_runs_as_root_or_can_become_it() -> None:
    (uid,) = {a for name in ("orchestrator", "worker") for i, a in image(name) if "UID=" in a}
    for pod, spec in PODS.items():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert f"UID={spec['securityContext']['runAsUser']}" == uid
        assert spec["automountServiceAccountToken"] is False
        assert container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_only_workers_get_what_their_sandbox_needs() -> None:
    """As docker-compose.yml, which was run."""
    for pod, spec in PODS.items():
        profiles = [
            spec["securityContext"].get(f"{kind}Profile") for kind in ("seccomp", "appArmor")
        ]
        opened = [{"type": "Unconfined"}] * 2
        assert profiles == (opened if pod == "worker" else [{"type": "RuntimeDefault"}, None])


def test_what_runs_leave_behind_is_reaped() -> None:
    """As by `init: true` of docker-compose.yml: a daemon that is process 1 would keep zombies."""
    assert PODS["worker"]["shareProcessNamespace"] is True


def test_each_secret_is_one_that_docs_cluster_md_creates() -> None:
    page = (DEPLOY.parent / "docs" / "cluster.md").read_text("utf-8").replace("\\\n", "")
    created = {
        (name, key)
        for name, literals in re.findall(r"create secret generic (\S+)(.*)", page)
        for key in re.findall(r"--from-literal=([\w-]+)=", literals)
    }
    named = {
        (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"])
        for pod in PODS
        for each in container(pod).get("env", [])
        if "valueFrom" in each
    }
    assert named == created


def test_a_worker_reaches_the_orchestrator_and_names_and_nothing_else() -> None:
    """And the orchestrator Valkey. What no policy allows, the first one forbids to all."""
    assert POLICIES["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reached: dict[str, set[tuple[str, int]]] = {}
    for policy in POLICIES.values():
        selector = policy["podSelector"]
        names = [selector.get("matchLabels", {}).get("app")]
        for expression in selector.get("matchExpressions", []):
            names = expression["values"]
        for rule in policy.get("egress", []):
            for name in names:
                ports = {port["port"] for port in rule["ports"]}
                for peer in rule["to"]:
                    to = peer.get("podSelector", {}).get("matchLabels", {"app": "outside"})
                    target = to.get("app") or to["k8s-app"]
                    reached.setdefault(name, set()).update((target, port) for port in ports)
    assert reached == {
        "worker": {("orchestrator", 3111), ("kube-dns", 53)},
        "orchestrator": {("valkey", 6379), ("kube-dns", 53)},
        "prepare": {("outside", 443), ("kube-dns", 53)},
    }
    (valkey_s,) = POLICIES["valkey"]["ingress"]
    assert valkey_s["from"] == [{"podSelector": {"matchLabels": {"app": "orchestrator"}}}]


def test_what_must_outlive_a_pod_lies_in_a_claim_and_the_data_are_read_only() -> None:
    variables = dict(
        re.findall(r"(AUTORESEARCH_\w+)=(\S+)", " ".join(a for i, a in image("base") if i == "ENV"))
    )
    home, cache = variables["AUTORESEARCH_HOME"], variables["AUTORESEARCH_CACHE"]
    claims = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "PersistentVolumeClaim"}
    mounted: dict[str, dict[str, Any]] = {}
    for pod, spec in PODS.items():
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container(pod)["volumeMounts"]:
            volume = volumes[mount["name"]]
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims
            mounted.setdefault(pod, {})[mount["mountPath"]] = claim, mount.get("readOnly", False)
    assert mounted == {
        "valkey": {"/data": ("valkey", False)},
        "orchestrator": {home: ("home", False), "/tmp": (None, False)},
        "prepare": {cache: ("data", False), "/tmp": (None, False)},
        "worker": {
            home: (None, False), cache: ("data", True), "/dev/shm": (None, False),
            "/tmp": (None, False),
        },
    }  # fmt: skip
    (shm,) = [v for v in PODS["worker"]["volumes"] if v["name"] == "shm"]
    assert shm["emptyDir"]["medium"] == "Memory"


def test_a_spot_machine_s_worker_reads_the_notice_of_its_cloud() -> None:
    settings = {name: value for name, value in SKY["envs"].items() if value is not None}
    assert SKY["resources"]["use_spot"] is True
    assert "/spot/instance-action" in settings["AUTORESEARCH_SPOT_NOTICE"]
    left = 120 - float(settings["AUTORESEARCH_DRAIN_TIMEOUT"])
    assert left >= WorkerSettings.model_fields["kill_after_seconds"].default + LAST_CALL_SECONDS
    flags = SKY["run"].partition(" worker ")[2].split(" && ")[0].split()
    assert flags == ["--gpu", "all", "--prepare", "climbmix"]
