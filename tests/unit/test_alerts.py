"""What a person should look at now, on plain values."""

from dataclasses import replace

import pytest

from orchestrator.domain import Tag
from orchestrator.gpus import Gpu
from orchestrator.rules.alerts import (
    DISK_FULL_BYTES,
    DISK_LOW_BYTES,
    NO_KEEP_RUNS,
    Host,
    TagActivity,
    alerts,
    duration,
)
from orchestrator.schemas import Alert

NOW = 1_000_000_000_000_000
MINUTE = 60_000_000
HEALTHY = Host(disk_free_bytes=DISK_LOW_BYTES)
GPU = Gpu("gpu-0", "gpu-0", 0, "H100", 80_000, registered_us=0, heartbeat_us=NOW)
TAG = Tag("jul", 0, 300, 0.002, max_consecutive_crashes=3)
ACTIVITY = TagActivity(TAG, queued=0, running=1, runs_since_keep=5, last_finished_us=NOW)


def found(
    *, tags: tuple[TagActivity, ...] = (), gpus: tuple[Gpu, ...] = (GPU,), host: Host = HEALTHY
) -> list[Alert]:
    return alerts(tags, gpus, host, NOW, offline_seconds=60)


def kinds(**state: object) -> list[str]:
    return [alert.kind for alert in found(**state)]  # type: ignore[arg-type]


def test_a_healthy_system_is_silent() -> None:
    assert found(tags=(ACTIVITY,)) == []


def test_a_silent_gpu_says_for_how_long_and_what_it_was_doing() -> None:
    gpu = replace(GPU, heartbeat_us=NOW - 14 * MINUTE, lease_experiment_id="exp-1")
    (alert,) = found(gpus=(gpu,))
    assert (alert.kind, alert.severity, alert.subject) == ("gpu_offline", "error", "gpu-0")
    assert alert.text == "silent for 14 min while it trained: look at its host."


def test_a_gpu_out_of_use_says_why() -> None:
    """Quarantine is graver than a problem, and either shows the daemon's own words."""
    broken = replace(GPU, quarantined=True, problem="Xid 79")
    full = replace(GPU, id="gpu-1", problem="2 GiB of disk left")
    assert [(a.kind, a.severity) for a in found(gpus=(full, broken))] == [
        ("gpu_quarantined", "error"),
        ("gpu_unfit", "warning"),
    ]
    assert "Xid 79" in found(gpus=(broken,))[0].text
    assert "2 GiB" in found(gpus=(full,))[0].text


@pytest.mark.parametrize(("crashes", "expected"), [(2, []), (3, ["crash_streak"])])
def test_a_crash_streak_is_an_alert_from_the_tags_own_limit(
    crashes: int, expected: list[str]
) -> None:
    tag = replace(TAG, consecutive_crashes=crashes)
    assert kinds(tags=(replace(ACTIVITY, tag=tag),)) == expected


def test_a_search_that_has_run_dry_is_named() -> None:
    dry = replace(ACTIVITY, runs_since_keep=NO_KEEP_RUNS)
    (alert,) = found(tags=(dry,))
    assert (alert.kind, alert.severity, alert.subject) == ("no_keep", "warning", "jul")
    assert kinds(tags=(replace(dry, runs_since_keep=None),)) == []


def test_an_inactive_tag_raises_no_alert() -> None:
    """A tag that neither runs nor ended a run within a day has no alerts."""
    over = replace(
        ACTIVITY,
        running=0,
        tag=replace(TAG, consecutive_crashes=9),
        last_finished_us=NOW - 25 * 60 * MINUTE,
    )
    assert kinds(tags=(over,)) == []
    assert kinds(tags=(replace(over, last_finished_us=None),)) == []
    assert kinds(tags=(replace(over, queued=1),)) == ["crash_streak"]


def test_a_queue_that_no_gpu_takes_is_named_unless_it_is_paused() -> None:
    waiting = replace(ACTIVITY, running=0, queued=2)
    draining = replace(GPU, draining=True)
    assert kinds(tags=(waiting,)) == []
    assert kinds(tags=(waiting,), gpus=(draining,)) == ["queue_stuck"]
    assert kinds(tags=(replace(waiting, paused=True),), gpus=(draining,)) == []


def test_a_queue_whose_data_no_gpu_has_is_named_with_them() -> None:
    waiting = replace(ACTIVITY, running=0, queued=2, tag=replace(TAG, platform="cpu/0a1b"))
    same, other = replace(GPU, platform="cpu/0a1b"), replace(GPU, platform="cpu/ffff")
    assert kinds(tags=(waiting,), gpus=(other, same)) == []
    (alert,) = found(tags=(waiting,), gpus=(other,))
    assert (alert.kind, alert.subject) == ("queue_stuck", TAG.name)
    assert "2 queued, and no GPU has cpu/0a1b (profile and data)" in alert.text
    older = replace(waiting, tag=replace(TAG, platform="cpu"))
    assert kinds(tags=(older,), gpus=(other,)) == []


def test_a_disk_that_fills_up_is_a_warning_and_then_an_error() -> None:
    levels = [
        [alert.severity for alert in found(host=Host(free))]
        for free in (DISK_LOW_BYTES, DISK_LOW_BYTES - 1, DISK_FULL_BYTES - 1)
    ]
    assert levels == [[], ["warning"], ["error"]]


def test_errors_come_before_warnings() -> None:
    severities = [
        alert.severity
        for alert in found(
            tags=(replace(ACTIVITY, runs_since_keep=500, tag=replace(TAG, consecutive_crashes=3)),),
            gpus=(replace(GPU, problem="full"),),
            host=Host(DISK_LOW_BYTES - 1, store_problem="it is ill"),
        )
    ]
    assert severities == ["error", "error", "warning", "warning", "warning"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
