"""/metrics, and that the Grafana dashboard and the alerts ask for what is there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.services.dashboard import monitoring
from tests.conftest import Api

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
HEALTH = {
    "temperature_c": 61.0, "memory_used_mb": 1024.0, "memory_total_mb": 81_920.0,
    "utilization_percent": 98.0,
}  # fmt: skip
# What Prometheus adds to each sample, and the metric that it makes itself.
SCRAPE_LABELS = {"instance", "job"}
SCRAPE_METRICS: dict[str, set[str]] = {"up": set()}

Samples = dict[str, list[tuple[dict[str, str], float]]]


def scrape(api: Api) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(api.http.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


@pytest.fixture
def busy(api: Api) -> Api:
    """A system in which everything has happened that makes a metric."""
    api.tag()
    api.gpu()
    api.post("/api/pool/heartbeat", gpu_id="gpu-0", health=HEALTH)
    api.complete(api.register(), 0.5, training_seconds=120)
    api.complete(api.register(), 0.501)
    api.crash(api.register())
    api.submit("print()")
    return api


def test_a_scrape_tells_what_the_search_came_to(busy: Api) -> None:
    found = scrape(busy)

    def value(name: str, **labels: str) -> float:
        [(_, number)] = [s for s in found[f"autoresearch_{name}"] if labels.items() <= s[0].items()]
        return number

    assert value("best_val_bpb", tag="mar11") == 0.5
    assert value("runs", tag="mar11", status="keep") == 1
    assert value("runs", tag="mar11", status="queued") == 1
    assert value("near_misses", tag="mar11") == 1
    assert value("consecutive_crashes", tag="mar11") == 1
    assert value("training_seconds_total", tag="mar11") == 120
    assert value("queue_length") == 1
    assert value("tag_paused", tag="mar11") == 0
    assert value("strategy", tag="mar11", mode="explore") == 1
    assert value("gpus", status="idle") == 1
    assert value("gpus", status="offline") == 0
    assert value("gpu_state", gpu="gpu-0", state="idle") == 1
    assert value("gpu_temperature_celsius", gpu="gpu-0") == 61
    assert value("gpu_memory_used_bytes", gpu="gpu-0") == 1 << 30
    assert value("gpu_utilization_ratio", gpu="gpu-0") == 0.98
    assert 0 <= value("gpu_heartbeat_age_seconds", gpu="gpu-0") < 10
    assert value("build_info") == 1


def test_a_silent_gpu_has_no_temperature(api: Api) -> None:
    """Its last value would look like the present one."""
    api.gpu()
    api.post("/api/pool/heartbeat", gpu_id="gpu-0", health=HEALTH)
    assert "autoresearch_gpu_temperature_celsius" in scrape(api)
    api.silence("gpu-0")
    found = scrape(api)
    assert "autoresearch_gpu_temperature_celsius" not in found
    assert ({"gpu": "gpu-0", "state": "offline"}, 1.0) in found["autoresearch_gpu_state"]


def test_latencies_have_the_route_for_a_label_and_leave_long_polls_out(busy: Api) -> None:
    for experiment_id in ("exp-a", "exp-b"):
        busy.get(f"/api/experiment/{experiment_id}", 404)
    busy.http.get("/no/such/page")
    busy.claim()
    counts = {
        (labels["route"], labels["status"]): value
        for labels, value in scrape(busy)["autoresearch_http_request_seconds_count"]
    }
    assert counts["/api/experiment/{experiment_id}", "4xx"] == 2
    assert counts["/api/experiment/register", "2xx"] == 3
    assert counts["other", "4xx"] == 1
    assert not [route for route, _ in counts if "claim" in route or "exp-" in route]


def test_a_scrape_is_bounded_however_many_tags_there_are(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "LABELLED_TAGS", 3)
    for number in range(5):
        api.tag(f"t{number}")
    tags = {labels["tag"] for labels, _ in scrape(api)["autoresearch_runs"]}
    assert tags == {"t2", "t3", "t4"}


# ------------------------------------------------------------------------ dashboard and alerts


def dashboard() -> Any:
    return json.loads((GRAFANA / "dashboard.json").read_text())


def targets() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of everything that is drawn."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


def alerts() -> Iterator[tuple[str, str, str]]:
    for rule in yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"][0]["rules"]:
        words = " ".join(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        yield rule["alert"], rule["expr"], re.sub(r"(\w+)", r"{{\1}}", words)


def walk(node: Any) -> Iterator[Any]:
    """An expression and all its parts."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs"):
        part = getattr(node, name, None)
        if part is not None and not isinstance(part, str):
            yield from walk(part)
    for part in getattr(node, "args", None) or ():
        yield from walk(part)


def asked(expression: str) -> tuple[dict[str, set[str]], set[str]]:
    """The metrics of an expression, with the labels it selects by; and those it groups by."""
    metrics: dict[str, set[str]] = {}
    groups: set[str] = set()
    for node in walk(promql.parse(expression.replace("$tag", "x"))):
        if isinstance(node, promql.VectorSelector):
            labels = {matcher.name for matcher in node.matchers.matchers}
            metrics.setdefault(str(node.name), set()).update(labels)
        if isinstance(node, promql.AggregateExpr) and node.modifier:
            groups |= set(node.modifier.labels)
    return metrics, groups


def test_no_part_of_an_expression_is_overlooked() -> None:
    found, groups = asked(
        'a / (b{x="1"} + sum by (y) (rate(c[5m]))) and on() (histogram_quantile(0.9, d) > -e)'
    )
    assert found == {"a": set(), "b": {"x"}, "c": set(), "d": set(), "e": set()}
    assert groups == {"y"}


@pytest.mark.parametrize(
    ("title", "expression", "legend"), [*targets(), *alerts()], ids=lambda text: text[:40]
)
def test_every_expression_names_metrics_and_labels_that_are_exported(
    title: str, expression: str, legend: str, busy: Api
) -> None:
    exported = {
        name: set().union(*(labels for labels, _ in samples))
        for name, samples in scrape(busy).items()
    } | SCRAPE_METRICS
    metrics, groups = asked(expression)
    assert metrics, title
    for name, labels in metrics.items():
        assert name in exported, title
        assert labels <= exported[name] | SCRAPE_LABELS, title
    of_all = set().union(*(exported[name] for name in metrics)) | SCRAPE_LABELS
    shown = set(re.findall(r"{{\s*(\w+)\s*}}", legend))
    assert groups <= of_all, title
    assert shown <= (groups or of_all), title


def test_every_metric_of_ours_is_on_the_dashboard(busy: Api) -> None:
    on_it = " ".join(expression for _, expression, _ in targets())
    for name in scrape(busy):
        if name.startswith("autoresearch_"):
            stem = re.sub(r"_(created|sum|count|bucket)$", "", name)
            assert stem in on_it, name


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & mine, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= mine


def test_the_scrape_configuration_is_yaml_that_names_the_default_port() -> None:
    config = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["127.0.0.1:3111"]
    assert (GRAFANA / config["rule_files"][0]).is_file()
