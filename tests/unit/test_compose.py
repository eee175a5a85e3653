"""docker-compose.yml and docker/Dockerfile, read and never started; docs/docker.md says what was.

PyYAML comes with schemathesis. It reads YAML 1.1, as docker-compose 1.29 does.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpu_worker.settings import WorkerSettings
from orchestrator.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name in SERVICES if name != "redis"]
WORKERS = ["worker", "worker-cpu"]
RUN_TRAIN_PY = [*WORKERS, "prepare"]
# Read by prepare.py, which has no settings class.
OF_PREPARE_PY = {"profile", "cache", "hub"}


def read_stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """The Dockerfile as {stage: (what it starts from, [(instruction, arguments)])}."""
    text = (ROOT / "docker/Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for line in filter(None, lines):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", arguments).groups()  # type: ignore[union-attr]
            stages[name] = (base, [])
        elif stages:
            stages[name][1].append((instruction, " ".join(arguments.split())))
    return stages


STAGES = read_stages()


def image(target: str) -> list[tuple[str, str]]:
    """All instructions that make the image of a build target, those of its bases first."""
    base, own = STAGES[target]
    return [*image(base), *own] if base in STAGES else own


def runs(target: str) -> list[str]:
    return [arguments for instruction, arguments in image(target) if instruction == "RUN"]


# ---------------------------------------------------------------------------- what `up` does


def test_up_alone_starts_what_needs_no_gpu() -> None:
    """Services without a profile: Redis and the orchestrator."""
    assert {name for name, s in SERVICES.items() if "profiles" not in s} == {
        "redis",
        "orchestrator",
    }
    assert SERVICES["worker"]["profiles"] == ["gpu"]
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]


def test_nothing_must_be_set() -> None:
    """Each variable has a default, in the one form that docker-compose 1.29 knows."""
    variables = re.findall(r"\$\{[^}]*\}", COMPOSE_TEXT)
    assert variables
    assert [v for v in variables if not re.fullmatch(r"\$\{[A-Z_]+:-[^}$]*\}", v)] == []


def test_each_service_waits_for_the_health_of_what_it_needs() -> None:
    needs = {
        name: {needed: how["condition"] for needed, how in s.get("depends_on", {}).items()}
        for name, s in SERVICES.items()
    }
    assert needs["orchestrator"] == {"redis": "service_healthy"}
    assert needs["worker"] == needs["worker-cpu"] == {"orchestrator": "service_healthy"}
    assert "redis-cli ping" in SERVICES["redis"]["healthcheck"]["test"][1]
    assert "/readyz" in SERVICES["orchestrator"]["healthcheck"]["test"][-1]


def test_the_gpu_worker_reserves_every_gpu_and_the_others_none() -> None:
    devices = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert SERVICES["worker"]["command"] == ["autoresearch", "worker", "--gpu", "all"]
    assert [name for name in SERVICES if "deploy" in SERVICES[name]] == ["worker"]


def test_a_worker_keeps_its_identity_and_has_time_to_drain() -> None:
    """The host name is part of the identity; by default Docker gives each container another."""
    for name in WORKERS:
        assert SERVICES[name]["hostname"]
        grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        settings = WorkerSettings.model_fields
        assert grace > settings["drain_timeout"].default + settings["kill_after_seconds"].default


def test_every_variable_is_one_that_the_programs_read() -> None:
    known = set(Settings.model_fields) | set(WorkerSettings.model_fields) | OF_PREPARE_PY
    given = {key for s in SERVICES.values() for key in s.get("environment", {})}
    ours = {key.removeprefix("AUTORESEARCH_").lower() for key in given - {"REDIS_URL"}}
    assert ours - known == set()


# ---------------------------------------------------------------------------- who may reach what


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published == {"orchestrator": ["127.0.0.1:${AUTORESEARCH_PORT:-3111}:3111"]}
    assert [name for name, s in SERVICES.items() if "network_mode" in s] == []


def test_a_run_of_train_py_cannot_reach_redis() -> None:
    """It has no password, so no network holds both."""
    assert SERVICES["redis"]["networks"] == ["backend"]
    assert COMPOSE["networks"]["backend"]["internal"] is True
    for name in RUN_TRAIN_PY:
        assert "backend" not in SERVICES[name]["networks"]


def test_a_token_reaches_the_orchestrator_and_each_worker() -> None:
    """Empty counts as none: both settings classes ignore empty variables."""
    for name in ["orchestrator", *WORKERS]:
        assert SERVICES[name]["environment"]["AUTORESEARCH_TOKEN"] == "${AUTORESEARCH_TOKEN:-}"
    assert Settings.model_config.get("env_ignore_empty")
    assert WorkerSettings.model_config.get("env_ignore_empty")


def test_the_orchestrator_answers_to_the_name_that_workers_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in WORKERS:
        url = SERVICES[name]["environment"]["AUTORESEARCH_ORCHESTRATOR"]
        assert url == "http://orchestrator:3111"
    hosts = SERVICES["orchestrator"]["environment"]["AUTORESEARCH_ALLOWED_HOSTS"]
    for further, expected in (("", ()), ("lab.example", ("lab.example",))):
        value = hosts.replace("${AUTORESEARCH_ALLOWED_HOSTS:-}", further)
        monkeypatch.setenv("AUTORESEARCH_ALLOWED_HOSTS", value)
        assert Settings().allowed_hosts == ("orchestrator", *expected)


def test_nothing_runs_as_root_or_can_become_it() -> None:
    assert SERVICES["redis"]["user"] == "${REDIS_USER:-redis}"
    for name in OURS:
        users = [a for i, a in image(SERVICES[name]["build"]["target"]) if i == "USER"]
        assert users[-1:] == ["autoresearch"]
    for service in SERVICES.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"][0] == "no-new-privileges:true"
        assert "privileged" not in service


def test_only_workers_get_what_their_sandbox_needs() -> None:
    """As tried with `docker run` on the zoo of hostile runs; docs/docker.md says how."""
    for name, service in SERVICES.items():
        opened = ["seccomp:unconfined", "apparmor:unconfined"]
        assert service["security_opt"][1:] == (opened if name in WORKERS else [])
    for name in WORKERS:
        level = SERVICES[name]["environment"]["AUTORESEARCH_SANDBOX"]
        assert level == "${AUTORESEARCH_SANDBOX:-strict}"
    assert any("apt-get install" in run and "bubblewrap" in run for run in runs("worker"))


# ---------------------------------------------------------------------------- what is kept


def test_redis_acknowledges_nothing_that_is_not_on_disk_and_evicts_nothing() -> None:
    program, *arguments = SERVICES["redis"]["command"]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert program == "redis-server"
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--dir"] == "/data"


def test_what_must_outlive_a_container_lies_in_a_volume() -> None:
    environment = dict(
        re.findall(r"(AUTORESEARCH_\w+)=(\S+)", " ".join(a for i, a in image("base") if i == "ENV"))
    )
    home, cache = environment["AUTORESEARCH_HOME"], environment["AUTORESEARCH_CACHE"]
    assert {name: s["volumes"] for name, s in SERVICES.items()} == {
        "redis": ["redis-data:/data"],
        "orchestrator": [f"home:{home}"],
        "worker": [f"worker-home:{home}", f"cache:{cache}:ro"],
        "worker-cpu": [f"worker-cpu-home:{home}", f"cache:{cache}:ro"],
        "prepare": [f"cache:{cache}"],
    }
    used = {volume.split(":")[0] for s in SERVICES.values() for volume in s["volumes"]}
    assert used == set(COMPOSE["volumes"])
    # A new volume takes its owner from the folder in the image.
    owned = next(run for run in runs("base") if "install -d -o ${UID}" in run)
    assert home in owned
    assert cache in owned


# ---------------------------------------------------------------------------- the images


def test_the_orchestrators_image_has_no_torch() -> None:
    """The dependency group `train` is among the default ones, so each install says otherwise."""
    installs = [run for run in runs("orchestrator") if "uv sync" in run]
    assert installs
    for install in installs:
        assert "--no-default-groups" in install
        assert "--group" not in install.replace("--no-default-groups", "")
        assert "torch" not in install


def test_the_workers_image_has_the_training_group_but_not_the_developers() -> None:
    install = [run for run in runs("worker") if "uv sync" in run][-1]
    assert "--no-default-groups --group train" in install
    assert "dev" not in install


def test_the_base_images_are_arguments() -> None:
    assert STAGES["base"][0] == "${BASE_IMAGE}"
    assert SERVICES["redis"]["image"].startswith("${REDIS_IMAGE:-")
    for name in OURS:
        build = SERVICES[name]["build"]
        assert build["args"]["BASE_IMAGE"].startswith("${BASE_IMAGE:-")
        assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_the_classic_builder_can_build_them() -> None:
    """docker-compose 1.29 asks for it by default: no mounts, no here-documents, no COPY --link."""
    for name in STAGES:
        for instruction, arguments in image(name):
            assert not arguments.startswith("--"), (instruction, arguments)
            assert "<<" not in arguments


def test_the_context_holds_what_is_copied_and_no_secrets() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for name in STAGES
        for instruction, arguments in image(name)
        if instruction == "COPY"
        for source in arguments.split()[:-1]
    }
    assert copied == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert allowed & {".env", ".git", "uv.lock"} == set()


def test_the_pinned_prepare_py_lies_where_the_orchestrator_looks_for_it() -> None:
    """app.py takes the one beside the package."""
    own = [arguments for instruction, arguments in image("orchestrator") if instruction == "COPY"]
    assert "orchestrator orchestrator" in own
    assert any("prepare.py" in arguments.split() and arguments.endswith("./") for arguments in own)
