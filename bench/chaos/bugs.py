"""The patches that make the seeded bugs of sabotage.py, applied before a process starts.

Lua is edited as text. A patch that no longer applies fails: a bug that is not there must not count
as one that was caught.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, Literal

# How far apart the clocks of the orchestrators are in `client-clocks`, by their index.
_SKEW_SECONDS = (0, -1800, 1800)
_GAP_SECONDS = 0.01


# ---------------------------------------------------------------------------- the scripts


def _edit(verb: str, *edits: tuple[str, str]) -> None:
    """Replace parts of a verb's Lua text, prelude and nonce handling included."""
    from orchestrator.store import scripts

    load = scripts._load  # noqa: SLF001 - the product offers no other way, and needs none

    def edited(wanted: str) -> str:
        text = load(wanted)
        if wanted == verb:
            for old, new in edits:
                if old not in text:
                    raise LookupError(f"{verb} no longer says {old!r}")
                text = text.replace(old, new)
        return text

    edited(verb)  # fails now; later it would look like the bug
    _patch(scripts, "_load", edited)


def _verbs() -> list[str]:
    from importlib.resources import files

    folder = files("orchestrator.store") / "lua"
    names = [entry.name.removesuffix(".lua") for entry in folder.iterdir()]
    return [name for name in names if not name.startswith("_")]


def no_epoch_check() -> None:
    _edit("decide", ("if fenced and run.epoch ~= epoch then return lost() end", ""))
    _edit("requeue", ("if run.epoch ~= epoch then return lost() end", ""))
    _edit("renew", ("run[2] ~= epoch or ", ""))


def no_nonce() -> None:
    from orchestrator.store import scripts

    for verb in _verbs():
        if verb not in scripts.PLAIN:
            _edit(verb, ("if kept then return kept end", ""))


def no_compare() -> None:
    _edit("decide", ("if tag_fields[1] ~= revision then return reply('STALE') end", ""))


def finish_decides_again() -> None:
    done = "if is_over(run.state) then return reply('DONE', { verdict = run.verdict }) end"
    as_if_new = "if is_over(run.state) then run.state = string.match(states, '%a+') end"
    _edit("decide", (done, as_if_new))


def no_release() -> None:
    _edit(
        "decide",
        (
            "if redis.call('HGET', G.gpu .. gpu_id, 'lease') == id .. ' ' .. run.epoch then",
            "if false then",
        ),
    )


def two_step_claim() -> None:
    """Read the head of the queue in one script, take it in another a moment later."""
    from orchestrator.store import scripts

    load, run = scripts._load, scripts.Scripts.run  # noqa: SLF001
    choose, took = "if id then\n  redis.call('ZREM', G.direct", "local t = T(tag)\nlocal bound"

    def split(verb: str) -> str:
        if not verb.startswith("claim_"):
            return load(verb)
        text = load("claim")
        start, end = text.index(choose), text.index(took)
        if verb == "claim_look":
            seen = (
                "id = id or redis.call('ZRANGE', T(tag).queue, 0, 0)[1]\n"
                "if true then return reply('SEEN', { id = id }) end\n"
            )
            return text[:start] + seen + text[text.index(choose) :]
        blindly = (
            "id, tag = ARGV[6], tag_of(ARGV[6])\n"
            "redis.call('ZREM', T(tag).queue, id)\nredis.call('ZREM', G.direct .. gpu_id, id)\n"
        )
        return text[:start] + blindly + text[end:]

    look = scripts.Script[Literal["OK", "NONE", "BUSY", "SEEN"]]("claim_look")
    take = scripts.Script[Literal["OK", "NONE", "BUSY"]]("claim_take")

    async def in_two_steps(
        self: scripts.Scripts, script: Any, *args: object, nonce: str | None = None
    ) -> scripts.Reply[Any]:
        if script.verb != "claim":
            return await run(self, script, *args, nonce=nonce)
        seen = await run(self, look, *args, nonce=nonce)
        if seen.name != "SEEN":
            return seen  # nothing there, or the reply that was kept for this very claim
        await asyncio.sleep(_GAP_SECONDS)
        return await run(self, take, *args, seen["id"], nonce=nonce)

    split("claim_take")
    _patch(scripts, "_load", split)
    _patch(scripts.Scripts, "run", in_two_steps)


# ---------------------------------------------------------------------------- the orchestrator


def _patch(owner: object, name: str, value: object) -> None:
    if not hasattr(owner, name):
        raise LookupError(f"{owner} no longer has {name}")
    setattr(owner, name, value)


def short_lease() -> None:
    from orchestrator.services.core.reaper import Reaper

    init: Callable[..., None] = Reaper.__init__

    def impatient(self: Reaper, *others: Any) -> None:
        *stores, timing = others
        short = copy(timing)
        short.base = short.now = replace(
            timing.base, lease_seconds=timing.base.heartbeat_seconds / 4
        )
        init(self, *stores, short)

    _patch(Reaper, "__init__", impatient)
    _patch(Reaper, "_granted_seconds", lambda *_: 0.0)


def no_reaper() -> None:
    from orchestrator.services.core.reaper import Reaper

    async def sleep(_: Reaper) -> None:
        await asyncio.sleep(float("inf"))

    _patch(Reaper, "run", sleep)


def hasty_reaper() -> None:
    _judge_by_stamps(skew_seconds=0)


def client_clocks() -> None:
    skew = _SKEW_SECONDS[int(os.environ.get("CHAOS_INDEX", "0")) % len(_SKEW_SECONDS)]
    for verb in _verbs():
        _edit(verb, ("+ time[2]", f"+ time[2] + {skew * 1_000_000}"))
    _judge_by_stamps(skew)


def _judge_by_stamps(skew_seconds: float) -> None:
    """A lease is dead when its stamp is old by this process's clock, seen alive or not."""
    from orchestrator.services.core.reaper import Reaper

    def by_stamp(self: Any, leases: list[Any], _: float) -> list[tuple[Any, float]]:
        now = time.time() + skew_seconds
        silent = [(lease, now - int(lease.renewal) / 1e6) for lease in leases]
        return [each for each in silent if each[1] > self._timing.base.lease_seconds]

    _patch(Reaper, "_silent", by_stamp)


def keep_on_tie() -> None:
    from orchestrator.domain import Status
    from orchestrator.rules.decide import decide
    from orchestrator.services.core import judge

    def generous(snapshot: Any, result: Any) -> Any:
        decision = decide(snapshot, result)
        if decision.status is Status.DISCARD and decision.delta == 0:
            return replace(decision, status=Status.KEEP, improved=True, near_miss=None)
        return decision

    _patch(judge, "decide", generous)


# ---------------------------------------------------------------------------- the worker


def parent_only_kill() -> None:
    """End the process that was started, and nothing that it has started in turn."""
    from gpu_worker import tree

    def kill_the_child(statuses: dict[int, int] | None = None) -> list[int]:
        for pid in tree.descendants(os.getpid())[:1]:
            tree.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if statuses is not None:
                statuses[pid] = status
        return []

    _patch(tree, "kill_descendants", kill_the_child)
    _patch(tree, "kill_group", tree.kill)
    _patch(tree, "become_subreaper", lambda: None)
    _patch(tree, "sweep", lambda *_: [])
    _sabotage_supervisors()


def _sabotage_supervisors() -> None:
    """Give the supervisors that the worker starts the same bug."""
    module, name = "gpu_worker.supervisor", sys.argv[1]

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            if module in command:
                rest = command[command.index(module) + 1 :]
                command = [sys.executable, "-m", "bench.chaos.sabotage", name, module, *rest]
            super().__init__(command, **options)

    _patch(subprocess, "Popen", Popen)


def no_gpu_lock() -> None:
    from gpu_worker import lock

    def take(path: Any) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    _patch(lock, "take", take)


def no_wait_for_the_end() -> None:
    """A worker that has lost a lease takes the next job while the old run still lives."""
    import anyio

    from gpu_worker.attempt import Attempt

    listen, stop = Attempt._listen, Attempt._stop  # noqa: SLF001

    async def listen_while_leased(self: Any, link: Any) -> Any:
        while not self._lease_lost:
            with anyio.move_on_after(0.05):
                return await listen(self, link)
        return None

    async def no_sweep(_: Attempt) -> list[int]:
        return []

    def stop_others(self: Attempt, reason: Any, *, now: bool) -> None:
        if reason != "lease_lost":
            stop(self, reason, now=now)

    _patch(Attempt, "_listen", listen_while_leased)
    _patch(Attempt, "_sweep", no_sweep)
    _patch(Attempt, "_stop", stop_others)
