"""What a person should look at now. Pure.

An alert says what is wrong and what to do. It names its subject, so that the page can link to it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from orchestrator.domain import Gpu, Tag

Severity = Literal["error", "warning"]
Kind = Literal[
    "gpu_offline", "gpu_quarantined", "gpu_unfit", "crash_streak", "no_keep", "queue_stuck",
    "disk_low", "store",
]  # fmt: skip

# A search that has kept nothing for this many runs has likely run dry.
NO_KEEP_RUNS = 100
# A tag that did nothing for a day raises no alert.
ACTIVE_SECONDS = 86_400
DISK_LOW_BYTES = 5 * 1024**3
DISK_FULL_BYTES = 1024**3

TAKES_RUNS = frozenset({"idle", "training"})


@dataclass(frozen=True)
class Alert:
    """`subject` is a GPU's id, a tag's name, or empty for the service itself."""

    kind: Kind
    severity: Severity
    subject: str
    text: str


@dataclass(frozen=True)
class TagActivity:
    """What alerts need of a tag; `runs_since_keep` is None while nothing was kept."""

    tag: Tag
    queued: int
    running: int
    runs_since_keep: int | None
    last_finished_us: int | None
    paused: bool = False

    def active(self, now_us: int) -> bool:
        if self.queued or self.running:
            return True
        last = self.last_finished_us
        return last is not None and now_us - last < ACTIVE_SECONDS * 1e6


@dataclass(frozen=True)
class Host:
    """The orchestrator's machine. `store_problem` is what Redis reports about itself, or None."""

    disk_free_bytes: int
    store_problem: str | None = None


def alerts(
    tags: Iterable[TagActivity],
    gpus: Iterable[Gpu],
    host: Host,
    now_us: int,
    offline_seconds: float,
) -> list[Alert]:
    """All that is wrong at `now_us`: errors before warnings, then by service, GPUs, tags."""
    statuses = [(gpu, gpu.status(now_us, offline_seconds)) for gpu in gpus]
    found = list(_of_host(host))
    for gpu, status in statuses:
        found.extend(_of_gpu(gpu, status, now_us))
    takers = any(status in TAKES_RUNS for _, status in statuses)
    for activity in tags:
        if activity.active(now_us):
            found.extend(_of_tag(activity, takers=takers))
    return sorted(found, key=lambda alert: alert.severity != "error")


def _of_host(host: Host) -> Iterator[Alert]:
    if host.store_problem:
        yield Alert("store", "error", "", f"Redis: {host.store_problem}")
    if host.disk_free_bytes < DISK_LOW_BYTES:
        full = host.disk_free_bytes < DISK_FULL_BYTES
        free = host.disk_free_bytes / 1024**3
        yield Alert(
            "disk_low",
            "error" if full else "warning",
            "",
            f"{free:.1f} GiB are left for logs and sources: free some below AUTORESEARCH_HOME.",
        )


def _of_gpu(gpu: Gpu, status: str, now_us: int) -> Iterator[Alert]:
    if status == "offline":
        silent = duration((now_us - gpu.heartbeat_us) / 1e6)
        busy = " while it trained" if gpu.lease_experiment_id else ""
        yield Alert("gpu_offline", "error", gpu.id, f"silent for {silent}{busy}: look at its host.")
    elif status == "quarantined":
        why = gpu.problem or "it failed in hardware"
        yield Alert("gpu_quarantined", "error", gpu.id, f"quarantined: {why}")
    elif gpu.problem:
        yield Alert("gpu_unfit", "warning", gpu.id, f"takes no runs: {gpu.problem}")


def _of_tag(activity: TagActivity, *, takers: bool) -> Iterator[Alert]:
    tag = activity.tag
    if tag.consecutive_crashes >= tag.max_consecutive_crashes:
        yield Alert(
            "crash_streak",
            "error",
            tag.name,
            f"{tag.consecutive_crashes} crashes in a row: read the last log.",
        )
    if (activity.runs_since_keep or 0) >= NO_KEEP_RUNS:
        yield Alert("no_keep", "warning", tag.name, f"no keep for {activity.runs_since_keep} runs.")
    if activity.queued and not (activity.running or activity.paused or takers):
        yield Alert(
            "queue_stuck",
            "error",
            tag.name,
            f"{activity.queued} queued, and no GPU takes them: start a worker.",
        )


def duration(seconds: float) -> str:
    """`14 min`, `3 h`, `2 d`: one unit, rounded down."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
