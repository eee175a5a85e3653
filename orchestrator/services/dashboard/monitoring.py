"""The state of the system as Prometheus metrics. It is read from Redis at each scrape, so every
orchestrator answers the same.

The cost of a scrape is bounded: only the newest `LABELLED_TAGS` tags and the first `LABELLED_GPUS`
GPUs have labels. The number of GPUs by status counts all of them.
"""

import platform
from dataclasses import asdict
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.gpus import GPU_STATES, Gpu
from orchestrator.services.core.timing import PoolTiming
from orchestrator.store.connection import Store
from orchestrator.store.reads import TagState

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
LABELLED_TAGS = 100
LABELLED_GPUS = 512
# What workers report of a GPU's health: the metric, its help, and the factor to its unit.
_HEALTH = {
    "temperature_c": ("gpu_temperature_celsius", "A GPU's temperature.", 1.0),
    "memory_used_mb": ("gpu_memory_used_bytes", "Device memory in use.", 2.0**20),
    "memory_total_mb": ("gpu_memory_total_bytes", "Device memory.", 2.0**20),
    "utilization_percent": ("gpu_utilization_ratio", "Share of time with kernels running.", 0.01),
}


class Monitoring:
    def __init__(self, store: Store, timing: PoolTiming) -> None:
        self.latency = Histogram(
            "autoresearch_http_request_seconds",
            "Time to the first byte of an answer, by route and class of status.",
            ["route", "status"],
            buckets=_BUCKETS,
            registry=None,
        )
        self._store = store
        self._timing = timing

    async def registry(self) -> CollectorRegistry:
        """All metrics as they are now."""
        pool = await self._store.pool.list()
        tags = await self._store.reads.tags(LABELLED_TAGS)
        offline = self._timing.now.offline_seconds
        states = {gpu.id: gpu.status(pool.now_us, offline) for gpu in pool.gpus}
        registry = CollectorRegistry(auto_describe=False)
        gpu_families = _about_gpus(pool.gpus, states, pool.now_us)
        registry.register(_Families([*gpu_families, *_about_tags(tags), _build_info()]))
        registry.register(self.latency)
        ProcessCollector(registry=registry)
        return registry


Families = list[GaugeMetricFamily | CounterMetricFamily]


class _Families(Collector):
    """A collector of metrics that are ready."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Families:
        return self._families


def _gauge(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"autoresearch_{name}", help_, labels=labels)


def _about_gpus(gpus: list[Gpu], states: dict[str, str], now_us: int) -> Families:
    by_status = _gauge("gpus", "GPUs by status.", "status")
    for status in GPU_STATES:
        by_status.add_metric([status], sum(s == status for s in states.values()))
    info = _gauge("gpu_info", "A GPU's host and model.", "gpu", "host", "model", "profile")
    state = _gauge("gpu_state", "1 for the state that a GPU is in.", "gpu", "state")
    age = _gauge("gpu_heartbeat_age_seconds", "Since the last heartbeat of a GPU's worker.", "gpu")
    health = {name: _gauge(*metric, "gpu") for name, (*metric, _) in _HEALTH.items()}
    for gpu in gpus[:LABELLED_GPUS]:
        info.add_metric([gpu.id, gpu.host or "", gpu.gpu_name, gpu.profile or ""], 1)
        state.add_metric([gpu.id, states[gpu.id]], 1)
        age.add_metric([gpu.id], (now_us - gpu.heartbeat_us) / 1e6)
        if states[gpu.id] == "offline":
            continue  # its last values are old
        for name, value in gpu.health.items():
            if name in health:
                health[name].add_metric([gpu.id], value * _HEALTH[name][2])
    return [by_status, info, state, age, *health.values()]


def _about_tags(tags: list[TagState]) -> Families:
    runs = _gauge("runs", "Experiments by tag and status.", "tag", "status")
    best = _gauge("best_val_bpb", "Best val_bpb of a tag.", "tag")
    improved = _gauge("best_timestamp_seconds", "When a tag's best was decided.", "tag")
    streak = _gauge("consecutive_crashes", "Crashes of a tag since its last result.", "tag")
    paused = _gauge("tag_paused", "1 while a tag is paused.", "tag")
    near = _gauge("near_misses", "Near misses of a tag.", "tag")
    mode = _gauge("strategy", "1 for the mode of a tag's search.", "tag", "mode")
    trained = CounterMetricFamily(
        "autoresearch_training_seconds", "Counted training time of a tag.", labels=["tag"]
    )
    queue = _gauge("queue_length", "Queued experiments of all labelled tags.")
    for state in tags:
        tag = state.tag
        counts = asdict(state.counts)
        del counts["infra_lost"]  # a part of crash
        for status, count in counts.items():
            runs.add_metric([tag.name, status], count)
        if tag.best_val_bpb is not None and tag.best_us is not None:
            best.add_metric([tag.name], tag.best_val_bpb)
            improved.add_metric([tag.name], tag.best_us / 1e6)
        streak.add_metric([tag.name], tag.consecutive_crashes)
        paused.add_metric([tag.name], tag.pause is not None)
        near.add_metric([tag.name], state.near_misses)
        mode.add_metric([tag.name, state.strategy.mode], 1)
        trained.add_metric([tag.name], tag.training_seconds)
    queue.add_metric([], sum(state.counts.queued for state in tags))
    return [runs, best, improved, streak, paused, near, mode, trained, queue]


def _build_info() -> GaugeMetricFamily:
    info = _gauge("build_info", "1, with the versions as labels.", "version", "python")
    info.add_metric([version("n-autoresearch"), platform.python_version()], 1)
    return info
