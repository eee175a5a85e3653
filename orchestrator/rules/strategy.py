"""How the search strategy adapts to the newest judged runs. Pure; the store adds the time."""

from orchestrator.decisions import Snapshot
from orchestrator.domain import Mode, Status, Strategy

MINIMUM_FINISHED = 5
STUCK_AFTER = 20
HIGH_CRASH_RATE = 0.5
HIGH_KEEP_RATE = 0.3

INITIAL = Strategy(
    mode="explore", explore_ratio=0.7, temperature=1.0, updated_us=0, reason="a new tag"
)


def explore_ratio_of(mode: Mode) -> float:
    return 0.8 if mode == "explore" else 0.3


def adapt(snapshot: Snapshot) -> Strategy | None:
    """The strategy that fits `snapshot`, or None where the one in force stays.

    A pinned strategy stays, and every strategy stays until `MINIMUM_FINISHED` runs have finished.
    """
    finished, recent = snapshot.counts.finished, snapshot.recent
    if snapshot.strategy.pinned or finished < MINIMUM_FINISHED or not recent:
        return None
    crashes = sum(s in (Status.CRASH, Status.TIMEOUT) for s in recent)
    keeps = sum(s is Status.KEEP for s in recent)
    crash_rate, keep_rate = crashes / len(recent), keeps / len(recent)
    window = f"of the last {len(recent)}"

    if crash_rate > HIGH_CRASH_RATE:
        return _strategy("exploit", 0.3, f"{crashes} {window} crashed: stay near what works")
    if keep_rate == 0 and finished > STUCK_AFTER:
        if snapshot.near_misses >= 2:
            return _strategy(
                "combine",
                0.5,
                f"none {window} was kept; {snapshot.near_misses} near misses to join",
            )
        return _strategy("ablation", 0.3, f"none {window} was kept, and few near misses to join")
    if keep_rate > HIGH_KEEP_RATE:
        return _strategy("exploit", 0.5, f"{keeps} {window} were kept: go on in this direction")
    return _strategy("explore", 0.8, f"{keeps} {window} were kept: look elsewhere")


def _strategy(mode: Mode, temperature: float, reason: str) -> Strategy:
    return Strategy(
        mode=mode,
        explore_ratio=explore_ratio_of(mode),
        temperature=temperature,
        updated_us=0,
        reason=reason,
    )
