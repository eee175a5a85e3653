"""What a person should look at now. Pure.

An alert says what is wrong and what to do. It names its subject, so that the page can link to it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.domain import Tag
from orchestrator.gpus import TAKING, Gpu
from orchestrator.rules import machines
from orchestrator.schemas import Alert

# A search that has kept nothing for this many runs has likely run dry.
NO_KEEP_RUNS = 100
# A tag that did nothing for a day raises no alert.
ACTIVE_SECONDS = 86_400
DISK_LOW_BYTES = 5 * 1024**3
DISK_FULL_BYTES = 1024**3


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
        idle_us = now_us - (self.last_finished_us or 0)
        return bool(self.queued or self.running) or idle_us < ACTIVE_SECONDS * 1e6


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
    takers = [gpu for gpu, status in statuses if status in TAKING]
    data = machines.folders(gpu for gpu, _ in statuses)
    for activity in tags:
        if activity.active(now_us):
            found.extend(_of_tag(activity, takers, data))
    return sorted(found, key=lambda alert: alert.severity != "error")


def _of_host(host: Host) -> Iterator[Alert]:
    if host.store_problem:
        text = f"Redis: {host.store_problem}"
        yield Alert(kind="store", severity="error", subject="", text=text)
    if host.disk_free_bytes < DISK_LOW_BYTES:
        free = host.disk_free_bytes / 1024**3
        text = f"{free:.1f} GiB are left for logs and sources: free some below AUTORESEARCH_HOME."
        severity = "error" if host.disk_free_bytes < DISK_FULL_BYTES else "warning"
        yield Alert(kind="disk_low", severity=severity, subject="", text=text)


def _of_gpu(gpu: Gpu, status: str, now_us: int) -> Iterator[Alert]:
    if status == "offline":
        silent = duration((now_us - gpu.heartbeat_us) / 1e6)
        busy = " while it trained" if gpu.lease_experiment_id else ""
        text = f"silent for {silent}{busy}: look at its host."
        yield Alert(kind="gpu_offline", severity="error", subject=gpu.id, text=text)
    elif status == "quarantined":
        text = f"quarantined: {gpu.problem or 'it failed in hardware'}"
        yield Alert(kind="gpu_quarantined", severity="error", subject=gpu.id, text=text)
    elif gpu.problem:
        text = f"takes no runs: {gpu.problem}"
        yield Alert(kind="gpu_unfit", severity="warning", subject=gpu.id, text=text)
    if gpu.drift:
        yield Alert(kind="gpu_drift", severity="warning", subject=gpu.id, text=gpu.drift)


def _of_tag(
    activity: TagActivity, takers: Sequence[Gpu], data: machines.Folders
) -> Iterator[Alert]:
    tag = activity.tag
    if tag.consecutive_crashes >= tag.max_consecutive_crashes:
        text = f"{tag.consecutive_crashes} crashes in a row: read the last log."
        yield Alert(kind="crash_streak", severity="error", subject=tag.name, text=text)
    if (activity.runs_since_keep or 0) >= NO_KEEP_RUNS:
        text = f"no keep for {activity.runs_since_keep} runs."
        yield Alert(kind="no_keep", severity="warning", subject=tag.name, text=text)
    why = machines.blocked(tag, takers, data)
    if activity.queued and why and not (activity.running or activity.paused):
        text = f"{activity.queued} queued, and {why}"
        yield Alert(kind="queue_stuck", severity="error", subject=tag.name, text=text)


def duration(seconds: float) -> str:
    """`14 min`, `3 h`, `2 d`: one unit, rounded down."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
