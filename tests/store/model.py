"""What the store must hold, in plain Python: the model that test_model.py compares it with.

It is written from the specification and from the glossary in `orchestrator/store/keys.py`, not from
the scripts. Whatever the store counts as it goes (best, streak, near misses, categories, ..) is
recounted here from the list of decided runs. A verb answers with its value, or with the class of
the error that refuses it. Time is an order here and nothing else.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import Conflict, LeaseLost, LeaseRenewed, NotFound

STATUSES = ("queued", "running", "keep", "discard", "crash", "timeout", "cancelled")
COMPLETED = ("keep", "discard")
LEASED = ("leased", "running")

Refusal = type[Exception]
State = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """How a run ended, as its reporter says."""

    status: str
    val_bpb: float | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass
class Attempt:
    epoch: int
    gpu: str
    outcome: str | None = None


@dataclass(eq=False)
class Run:
    id: str
    tag: "Tag"
    category: str
    commit: str
    parent: str | None
    state: str
    status: str
    source: str | None = None
    seed: int | None = None
    priority: int | None = None
    score: int | None = None
    gpu: str | None = None
    target: str | None = None
    losses: int = 0
    stop: str | None = None  # what a person has asked of a leased run: cancel or requeue
    repeat_of: str | None = None
    renewal: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    report: Report | None = None
    near: float | None = None
    verdict: dict[str, Any] | None = None

    @property
    def epoch(self) -> int:
        return len(self.attempts)

    @property
    def leased(self) -> bool:
        return self.state in LEASED

    @property
    def value(self) -> float:
        assert self.report is not None
        assert self.report.val_bpb is not None
        return self.report.val_bpb

    @property
    def judged(self) -> bool:
        """Says something about the search: decided, and neither cancelled nor lost."""
        assert self.report is not None
        return self.status != "cancelled" and self.report.reason is None


@dataclass(eq=False)
class Tag:
    name: str
    threshold: float
    max_crashes: int
    profile: str | None = None
    mode: str = "explore"
    ratio: float = 0.7
    temperature: float = 1.0
    pinned: bool = False
    paused: bool = False
    notes: list[str] = field(default_factory=list)
    steps: int = 0  # of the revision, besides decisions: strategies that were set, and acts
    decided: list[Run] = field(default_factory=list)
    sources: dict[str, list[str]] = field(default_factory=dict)

    @property
    def strategy(self) -> tuple[str, float, float, bool]:
        return self.mode, self.ratio, self.temperature, self.pinned

    @property
    def keeps(self) -> list[Run]:
        return [run for run in self.decided if run.status == "keep"]

    @property
    def best(self) -> Run | None:
        return min(self.keeps, key=lambda run: run.value, default=None)

    @property
    def recent(self) -> list[str]:
        return [run.status for run in reversed(self.decided) if run.judged][:10]

    @property
    def lost(self) -> int:
        return sum(run.report.reason == "infra_lost" for run in self.decided if run.report)

    @property
    def finished(self) -> int:
        return sum(run.status != "cancelled" for run in self.decided)

    @property
    def near(self) -> list[Run]:
        near = [run for run in self.decided if run.near is not None]
        return sorted(near, key=lambda run: (run.near, run.id))

    @property
    def streak(self) -> int:
        streak = 0
        for run in self.decided:
            if run.judged:
                streak = 0 if run.status in COMPLETED else streak + 1
        return streak

    @property
    def seconds(self) -> float:
        return sum(run.report.seconds or 0.0 for run in self.decided if run.report)


@dataclass(eq=False)
class Gpu:
    id: str
    order: int
    index: int
    profile: str | None = None
    problem: str | None = None
    quarantined: bool = False
    draining: bool = False
    drained: bool = False  # by a person
    lease: Run | None = None
    hold: Run | None = None
    last_hold: str | None = None
    silent: bool = False  # no sign of life for longer than a GPU may be silent
    lapsed: bool = False  # the time of its hold is over
    parked: bool = False  # found silent, and so out of the idle set

    @property
    def unfit(self) -> bool:
        return bool(self.problem or self.quarantined or self.draining or self.drained)

    @property
    def idle(self) -> bool:
        return not (self.lease or self.hold or self.unfit or self.parked)


class Model:
    def __init__(self) -> None:
        self.tags: dict[str, Tag] = {}
        self.runs: dict[str, Run] = {}
        self.gpus: dict[str, Gpu] = {}
        self.drained: set[str] = set()  # whether they are in the pool or away
        self.events: list[tuple[str, ...]] = []
        self._seq = 0
        self._renewals = 0

    # -- tags and experiments

    def setup(self, name: str, threshold: float, max_crashes: int) -> Refusal | None:
        if name in self.tags:
            return Conflict
        self.tags[name] = Tag(name, threshold, max_crashes)
        self.events.append(("setup", name, ""))
        return None

    def refusal_of_new(self, tag: str, parent: str | None) -> Refusal | None:
        unknown_parent = parent is not None and (
            parent not in self.runs or self.runs[parent].tag.name != tag
        )
        return NotFound if tag not in self.tags or unknown_parent else None

    def register(
        self, new_id: str, tag: str, category: str, parent: str | None, gpu: str | None
    ) -> None:
        self.runs[new_id] = Run(
            new_id, self.tags[tag], category, "c0ffee", parent, "hand", "running", gpu=gpu
        )
        self.events.append(("registered", tag, new_id))

    def duplicate_of(self, tag: str, source: str, seed: int) -> str | None:
        return next(iter(self.tags[tag].sources.get(f"{source}:{seed}", ())), None)

    def submit(
        self,
        new_id: str,
        tag: str,
        category: str,
        parent: str | None,
        source: str,
        seed: int,
        priority: int,
    ) -> int:
        """Answers the place in the tag's queue."""
        of = self.tags[tag]
        if parent is None and of.best:
            parent = of.best.id
        run = Run(
            new_id, of, category, source[:7], parent, "queued", "queued", source, seed, priority
        )
        run.score = self._score(priority)
        self.runs[new_id] = run
        of.sources.setdefault(f"{source}:{seed}", []).append(new_id)
        self._queued(run)
        return self.queue(of).index(run) + 1

    def _score(self, priority: int) -> int:
        self._seq += 1
        return self._seq - priority * 2**40

    def _queued(self, run: Run) -> None:
        run.state = run.status = "queued"
        run.gpu = None
        self.events.append(
            ("queued", run.tag.name, run.id, run.target or "", run.tag.profile or "")
        )

    def queue(self, tag: Tag, target: str | None = None) -> list[Run]:
        return sorted(
            (
                run
                for run in self.runs.values()
                if run.tag is tag and run.state == "queued" and run.target == target
            ),
            key=_score_of,
        )

    def _directed(self, gpu_id: str) -> list[Run]:
        runs = self.runs.values()
        directed = (run for run in runs if run.state == "queued" and run.target == gpu_id)
        return sorted(directed, key=_score_of)

    # -- ends

    def settle(
        self,
        run: Run,
        report: Report,
        states: tuple[str, ...],
        epoch: int | None = None,
        renewal: int | None = None,
    ) -> dict[str, Any] | Refusal | None:
        if epoch is not None and run.epoch != epoch:
            return LeaseLost
        if run.state == "decided":
            return run.verdict
        if epoch is not None and not run.leased:
            return LeaseLost
        if run.state not in states:
            return Conflict
        if renewal is not None and run.renewal != renewal:
            return LeaseRenewed
        self._decide(run, report)
        return run.verdict

    def _decide(self, run: Run, report: Report) -> None:
        tag = run.tag
        best = tag.best.value if tag.best else None
        if run.leased:
            self._end_lease(run, "lost" if report.reason else report.status)
        run.state, run.report = "decided", report
        tag.decided.append(run)
        if report.status == "completed":
            value = report.val_bpb
            assert value is not None
            improved = best is None or value < best
            run.status = "keep" if improved else "discard"
            if best is not None and not improved:
                distance = value - best
                run.near = distance if distance < tag.threshold or value == best else None
            run.verdict = {
                "experiment_id": run.id,
                "status": run.status,
                "val_bpb": value,
                "improved": improved,
                "delta": 0.0 if best is None else best - value,
                "best_val_bpb": value if improved else best,
                "action": "keep_commit" if improved else "git_reset",
            }
        else:
            run.status = report.status
            run.verdict = {
                "experiment_id": run.id,
                "status": run.status,
                "consecutive_crashes": tag.streak,
                "should_abort": tag.streak >= tag.max_crashes,
                "action": "git_reset",
                "reason": report.reason,
            }
        key = f"{run.source or ''}:{run.seed if run.seed is not None else ''}"
        if not run.judged and run.id in tag.sources.get(key, ()):
            tag.sources[key].remove(run.id)  # the source has not had its run
        if run.judged:
            self._adapt(tag)
        self.events.append(("decided", tag.name, run.id, run.status))

    @staticmethod
    def fitting(tag: Tag) -> tuple[str, float] | None:
        """Mode and temperature by the rules of api.md, in their order; None leaves them."""
        recent = tag.recent
        if tag.pinned or tag.finished < 5 or not recent:
            return None
        crashed = sum(status in ("crash", "timeout") for status in recent) / len(recent)
        kept = recent.count("keep") / len(recent)
        if crashed > 0.5:
            return "exploit", 0.3
        if kept == 0 and tag.finished > 20:
            return ("combine", 0.5) if len(tag.near) >= 2 else ("ablation", 0.3)
        return ("exploit", 0.5) if kept > 0.3 else ("explore", 0.8)

    def _adapt(self, tag: Tag) -> bool:
        fitting = self.fitting(tag)
        if fitting is not None:
            tag.mode, tag.temperature = fitting
            tag.ratio = 0.8 if tag.mode == "explore" else 0.3
        return fitting is not None

    @staticmethod
    def fate(run: Run, label: str) -> str:
        """What an attempt that ended like this leads to."""
        if run.stop is not None:
            return "cancelled" if run.stop == "cancel" else "requeue"
        if label in ("cancelled", "handed_back"):
            return "cancelled" if label == "cancelled" else "requeue"
        return "infra_lost" if run.losses >= 2 else "requeue"

    def lose(
        self, run: Run, epoch: int, label: str, renewal: int | None = None
    ) -> dict[str, Any] | Refusal | None:
        """An attempt ended as `label` says: lost, expired, handed back, or cancelled."""
        if run.epoch == epoch and run.state == "queued":
            return None  # the same report, sent again
        if (fate := self.fate(run, label)) != "requeue":
            cancelled = fate == "cancelled"
            report = Report("cancelled") if cancelled else Report("crash", reason="infra_lost")
            return self.settle(run, report, LEASED, epoch, renewal)
        if run.epoch != epoch:
            return LeaseLost
        if run.state == "decided":
            return run.verdict
        if renewal is not None and run.renewal != renewal:
            return LeaseRenewed
        self._end_lease(run, "requeued" if label == "cancelled" else label)
        run.losses += label in ("lost", "expired") and run.stop is None
        run.stop = None
        self._queued(run)
        return None

    def _end_lease(self, run: Run, outcome: str) -> None:
        run.attempts[-1].outcome = outcome
        assert run.gpu is not None
        gpu = self.gpus[run.gpu]
        assert gpu.lease is run
        gpu.lease, gpu.parked = None, False

    def cancel(self, run: Run) -> tuple[str, bool] | Refusal:
        """The public status, and whether the worker has been asked to stop."""
        if run.leased:
            self._stop(run, "cancel")
            return "running", True
        if run.state != "decided":
            self._told(run.tag.name, run.id, "cancel")
        self.settle(run, Report("cancelled"), ("hand", "queued"))
        return run.status, False

    def _stop(self, run: Run, what: str) -> None:
        if run.stop != what:
            run.stop = what
            self._act(run.tag, run.id, what)
            self.events.append(("cancelling", run.tag.name, run.id))

    # -- steering

    def _act(self, tag: Tag, target: str, action: str) -> None:
        tag.steps += 1
        self._told(tag.name, target, action)

    def _told(self, tag: str, target: str, action: str) -> None:
        self.events.append(("steered", tag, target, action))

    def pause(self, tag: Tag, *, paused: bool) -> None:
        if tag.paused != paused:
            tag.paused = paused
            self._act(tag, "", "pause" if paused else "resume")

    def note(self, tag: Tag) -> None:
        tag.notes.append(f"note-{self.revision(tag) + 1}")
        self._act(tag, tag.notes[-1], "note")

    def drop_note(self, tag: Tag, note_id: str) -> Refusal | None:
        if note_id not in tag.notes:
            return NotFound
        tag.notes.remove(note_id)
        self._act(tag, note_id, "drop-note")
        return None

    def requeue(self, run: Run, new_id: str) -> int | Refusal | None:
        """The place of a repeat in the queue; None when the worker has been asked to stop."""
        if run.leased:
            self._stop(run, "requeue")
            return None
        if run.state != "decided" or run.source is None:
            return Conflict
        assert run.seed is not None
        again = Run(
            new_id, run.tag, run.category, run.commit, run.parent, "queued", "queued", run.source,
            run.seed, run.priority or 0, repeat_of=run.id,
        )  # fmt: skip
        again.score = self._score(again.priority or 0)
        self.runs[new_id] = again
        run.tag.sources.setdefault(f"{run.source}:{run.seed}", []).append(new_id)
        self._queued(again)
        self._act(run.tag, run.id, "requeue")
        return self.queue(run.tag).index(again) + 1

    def set_priority(self, run: Run, priority: int) -> int | Refusal:
        """Answers the place in its queue."""
        if run.state != "queued":
            return Conflict
        before = run.priority or 0
        if before != priority:
            run.score = _score_of(run) + (before - priority) * 2**40
            run.priority = priority
            self._act(run.tag, run.id, "priority")
        line = self._directed(run.target) if run.target else self.queue(run.tag)
        return line.index(run) + 1

    def drain(self, gpu_id: str) -> Refusal | None:
        if gpu_id not in self.gpus and gpu_id not in self.drained:
            return NotFound
        if gpu_id not in self.drained:
            self.drained.add(gpu_id)
            self.gpus[gpu_id].drained = True
            self._told("", gpu_id, "drain")
        return None

    def undrain(self, gpu_id: str) -> Refusal | None:
        if gpu_id not in self.drained:
            return None if gpu_id in self.gpus else NotFound
        self.drained.remove(gpu_id)
        if gpu_id in self.gpus:
            self.gpus[gpu_id].drained = self.gpus[gpu_id].parked = False
        self._told("", gpu_id, "undrain")
        return None

    # -- strategy

    def set_strategy(
        self, tag: Tag, mode: str, ratio: float | None, temperature: float | None, pinned: bool
    ) -> None:
        tag.mode, tag.pinned = mode, pinned
        tag.ratio = ratio if ratio is not None else 0.8 if mode == "explore" else 0.3
        tag.temperature = tag.temperature if temperature is None else temperature
        self._told(tag.name, "", "set-strategy")
        self._chosen(tag)

    def adapt(self, tag: Tag) -> None:
        if self._adapt(tag):
            self._chosen(tag)

    def _chosen(self, tag: Tag) -> None:
        tag.steps += 1
        self.events.append(("strategy", tag.name, "", tag.mode))

    # -- leases

    def first_for(self, gpu: Gpu) -> Run | None:
        """The queued run that this GPU would get: by priority, then by arrival."""
        return min(
            (
                run
                for run in self.runs.values()
                if run.state == "queued"
                and run.target in (None, gpu.id)
                and run.tag.profile in (None, gpu.profile)
                and not run.tag.paused
            ),
            key=_score_of,
            default=None,
        )

    def claim(self, gpu_id: str) -> Run | Refusal | None:
        if gpu_id not in self.gpus:
            return NotFound
        gpu = self.gpus[gpu_id]
        gpu.silent = False
        if gpu.lease or gpu.hold or gpu.unfit:
            return None
        gpu.parked = False
        for run in self._directed(gpu_id):
            if run.tag.profile not in (None, gpu.profile):
                self._undirect(run)  # its tag was bound to another profile since
            elif not run.tag.paused:
                break
        run = self.first_for(gpu)
        if run is None:
            return None
        if run.tag.profile is None:
            run.tag.profile = gpu.profile
        run.state, run.status, run.gpu = "leased", "running", gpu_id
        run.attempts.append(Attempt(run.epoch + 1, gpu_id))
        gpu.lease = run
        self._renewed(run)
        self.events.append(("claimed", run.tag.name, run.id, gpu_id, str(run.epoch)))
        return run

    def _renewed(self, run: Run) -> None:
        self._renewals += 1
        run.renewal = self._renewals

    def renew(
        self, run: Run, epoch: int, *, started: bool, beat: bool
    ) -> tuple[bool, bool] | Refusal:
        """Whether it is to stop, and whether its GPU is known to the pool."""
        if not run.leased or run.epoch != epoch:
            return LeaseLost
        self._renewed(run)
        if started and run.state == "leased":
            run.state = "running"
            self.events.append(("started", run.tag.name, run.id))
        known = not beat or run.gpu in self.gpus
        if beat and known:
            self.gpus[run.gpu].silent = False
        return run.stop is not None, known

    def direct(self, run: Run, gpu_id: str, source: str) -> Refusal | None:
        if gpu_id not in self.gpus:
            return NotFound
        if run.tag.profile not in (None, self.gpus[gpu_id].profile):
            return Conflict
        if run.state == "decided":
            return None
        if run.leased:
            return Conflict
        run.source = run.source or source
        run.seed = 42 if run.seed is None else run.seed
        run.score = self._score(0) if run.score is None else run.score
        run.target = gpu_id
        gpu = self.gpus[gpu_id]
        if gpu.hold is run:  # acquired for it: now the lease will have it
            gpu.hold, gpu.last_hold, gpu.parked = None, run.id, False
        self._queued(run)
        return None

    def _undirect(self, run: Run) -> None:
        run.target = None
        self._queued(run)

    # -- pool

    def register_gpu(
        self, gpu_id: str, index: int, profile: str | None, problem: str | None, *, boots: bool
    ) -> None:
        """By a daemon that starts anew, or by a bare call, which lifts nothing."""
        if gpu_id not in self.gpus:
            self._seq += 1
            self.gpus[gpu_id] = Gpu(gpu_id, self._seq, index, drained=gpu_id in self.drained)
        gpu = self.gpus[gpu_id]
        if boots:
            gpu.profile, gpu.problem, gpu.quarantined, gpu.draining = None, None, False, False
        gpu.profile, gpu.problem = profile or gpu.profile, problem or gpu.problem
        gpu.silent = gpu.parked = False
        self._gpu_event(gpu_id, "registered")

    def heartbeat(
        self, gpu_id: str, problem: str | None, quarantined: bool, draining: bool
    ) -> Refusal | None:
        if gpu_id not in self.gpus:
            return NotFound
        gpu = self.gpus[gpu_id]
        gpu.problem, gpu.quarantined, gpu.draining = problem, quarantined, draining
        gpu.silent = gpu.parked = False
        return None

    def acquire(self, run: Run) -> Gpu | Refusal | None:
        if run.state != "hand":
            return Conflict
        for gpu in self.gpus.values():
            if gpu.hold is run:
                return gpu
        if run.tag.paused:
            return None
        for gpu in self._by_order():
            if not gpu.idle:
                continue
            if gpu.silent:
                gpu.parked = True
                continue
            gpu.hold, gpu.lapsed, run.gpu = run, False, gpu.id
            self._gpu_event(gpu.id, "held", run.tag.name)
            return gpu
        return None

    def release(self, gpu_id: str, run_id: str | None) -> Refusal | None:
        if gpu_id not in self.gpus:
            return NotFound
        gpu = self.gpus[gpu_id]
        if gpu.lease:
            return Conflict
        if gpu.hold is None:
            return None if run_id in (None, gpu.last_hold) else Conflict
        if run_id not in (None, gpu.hold.id):
            return Conflict
        self._free(gpu)
        return None

    def _free(self, gpu: Gpu) -> None:
        assert gpu.hold is not None
        gpu.last_hold, gpu.hold, gpu.parked = gpu.hold.id, None, False
        self._gpu_event(gpu.id, "released")

    def deregister(self, gpu_id: str) -> Refusal | None:
        if gpu_id not in self.gpus:
            return NotFound
        if self.gpus[gpu_id].lease or self.gpus[gpu_id].hold:
            return Conflict
        for run in self._directed(gpu_id):
            self._undirect(run)
        del self.gpus[gpu_id]
        self._gpu_event(gpu_id, "deregistered")
        return None

    def tidy(self) -> None:
        for gpu in sorted(self.gpus.values(), key=lambda gpu: gpu.id):
            if gpu.hold and gpu.lapsed:
                self._free(gpu)
        for gpu in self.gpus.values():
            gpu.parked = gpu.parked or gpu.silent

    def _by_order(self) -> list[Gpu]:
        return sorted(self.gpus.values(), key=lambda gpu: gpu.order)

    def _gpu_event(self, gpu_id: str, state: str, tag: str = "") -> None:
        self.events.append(("gpu", tag, gpu_id, state))

    # -- what must lie in Redis

    def state(self) -> State:
        """The whole keyspace by the names of keys.py; times are left out, empty keys too."""
        found: State = {
            "tags": list(self.tags),
            "seq": self._seq,
            "leases": [run.id for run in sorted(self.runs.values(), key=_renewal_of) if run.leased],
            "gpus": [(gpu.id, gpu.order) for gpu in self._by_order()],
            "idle": [(gpu.id, gpu.order) for gpu in self._by_order() if gpu.idle],
            "busy": [(gpu.id, gpu.order) for gpu in self._by_order() if gpu.lease or gpu.hold],
            "seen": sorted(self.gpus),
            "holds": sorted(gpu.id for gpu in self.gpus.values() if gpu.hold),
            "drained": sorted(self.drained),
        }
        for gpu in self.gpus.values():
            found[f"gpu:{gpu.id}"] = {
                "order": gpu.order,
                "profile": gpu.profile,
                "problem": gpu.problem,
                "quarantined": gpu.quarantined,
                "draining": gpu.draining,
                "drained": gpu.drained,
                "lease": f"{gpu.lease.id} {gpu.lease.epoch}" if gpu.lease else None,
                "hold": gpu.hold.id if gpu.hold else None,
                "last_hold": gpu.last_hold,
            }
        heads: dict[str, list[tuple[str, int]]] = {}
        directed: dict[str, list[Run]] = {}
        for tag in self.tags.values():
            found |= self._state_of_tag(tag)
            if (queue := self.queue(tag)) and not tag.paused:
                heads.setdefault(tag.profile or "-", []).append((tag.name, _score_of(queue[0])))
        for run in self.runs.values():
            found |= _state_of_run(run)
            if run.state == "queued" and run.target:
                directed.setdefault(run.target, []).append(run)
        for profile, tags in heads.items():
            found[f"ready:{profile}"] = sorted(tags, key=lambda pair: pair[1])
        for gpu_id, runs in directed.items():
            found[f"direct:{gpu_id}"] = [(r.id, r.score) for r in sorted(runs, key=_score_of)]
        return {name: value for name, value in found.items() if value not in ([], {}, 0)}

    @staticmethod
    def revision(tag: Tag) -> int:
        return len(tag.decided) + tag.steps

    def _state_of_tag(self, tag: Tag) -> State:
        runs = [run for run in self.runs.values() if run.tag is tag]
        cats = Counter(f"n:{run.category}" for run in runs if run.status != "cancelled")
        cats += Counter(f"kept:{run.category}" for run in tag.keeps)
        cats += Counter(f"near:{run.category}" for run in tag.near)
        best = tag.best
        found: State = {
            "tag": {
                "profile": tag.profile,
                "best_val_bpb": best.value if best else None,
                "best_id": best.id if best else None,
                "best_commit": best.commit if best else None,
                "streak": tag.streak,
                "revision": self.revision(tag),
                "paused": tag.paused,
                "infra_lost": tag.lost,
                "training_seconds": tag.seconds,
            },
            "strategy": {
                "mode": tag.mode,
                "explore_ratio": tag.ratio,
                "temperature": tag.temperature,
                "pinned": tag.pinned,
            },
            "notes": sorted(tag.notes),
            "all": [run.id for run in runs],
            "hand": [run.id for run in runs if run.state == "hand"],
            "keeps": [(run.id, run.value, run.category) for run in tag.keeps],
            "near": [(run.id, run.near) for run in tag.near],
            "recent": tag.recent,
            "cats": dict(cats),
            "sources": {key: " ".join(ids) for key, ids in tag.sources.items() if ids},
            "queue": [(run.id, run.score) for run in self.queue(tag)],
        }
        for status in STATUSES:
            found[f"status:{status}"] = [run.id for run in runs if run.status == status]
        return {f"{{{tag.name}}}:{name}": value for name, value in found.items()}


def _score_of(run: Run) -> int:
    assert run.score is not None
    return run.score


def _renewal_of(run: Run) -> int:
    return run.renewal


def _state_of_run(run: Run) -> State:
    base = f"{{{run.tag.name}}}:"
    return {
        f"{base}exp:{run.id}": {
            "category": run.category,
            "commit_sha": run.commit,
            "parent_id": run.parent,
            "source": run.source,
            "repeat_of": run.repeat_of,
        },
        f"{base}run:{run.id}": {
            "state": run.state,
            "status": run.status,
            "epoch": run.epoch,
            "losses": run.losses,
            "gpu_id": run.gpu,
            "target_gpu": run.target,
            "stop": run.stop,
            "seed": run.seed,
            "priority": run.priority,
            "score": run.score,
            "val_bpb": run.report.val_bpb if run.report else None,
            "reason": run.report.reason if run.report else None,
            "verdict": run.verdict,
        },
        f"{base}attempts:{run.id}": [(a.epoch, a.gpu, a.outcome) for a in run.attempts],
    }


# ---------------------------------------------------------------------------- the other side

# All keys of the system with what they hold, in one round trip.
DUMP = """
local out = {}
for _, key in ipairs(redis.call('KEYS', 'ar:*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if string.find(key, '^ar:nonce:') or string.find(key, '^ar:idem:') or kind == 'stream' then
    kind = nil
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  else value = redis.call('GET', key) end
  if kind then out[#out + 1] = { string.sub(key, 4), kind, value } end
end
return cjson.encode(out)
"""

_HASHES: dict[str, dict[str, Any]] = {
    "tag": {
        "profile": str, "best_val_bpb": float, "best_id": str, "best_commit": str,
        "streak": (int, 0), "revision": int, "infra_lost": (int, 0), "training_seconds": (float, 0),
        "paused": (bool, False),
    },
    "strategy": {
        "mode": str, "explore_ratio": float, "temperature": float,
        "pinned": lambda text: text == "1",
    },
    "gpu": {
        "order": int, "profile": str, "problem": str, "quarantined": (bool, False),
        "draining": (bool, False), "drained": (bool, False), "lease": str, "hold": str,
        "last_hold": str,
    },
    "exp": {
        "category": str, "commit_sha": str, "parent_id": str, "source": str, "repeat_of": str,
    },
    "run": {
        "state": str, "status": str, "epoch": (int, 0), "losses": (int, 0), "gpu_id": str,
        "target_gpu": str, "stop": str, "seed": int,
        "priority": int, "score": int, "val_bpb": float, "reason": str, "verdict": json.loads,
    },
}  # fmt: skip
_SCORED = ("gpus", "idle", "busy", "ready", "direct", "near", "queue")
_UNORDERED = ("seen", "holds")


def state_of(dump: str) -> State:
    """What `DUMP` found, in the form of `Model.state`."""
    return {name: _value(name, kind, value) for name, kind, value in json.loads(dump)}


def _value(name: str, kind: str, value: Any) -> Any:
    word = name.rpartition("}:")[2].partition(":")[0]
    if kind == "hash":
        stored = dict(zip(value[::2], value[1::2], strict=True))
        if word in _HASHES:
            return {field: _field(stored, field, how) for field, how in _HASHES[word].items()}
        if word in ("notes", "drained"):
            return sorted(stored)
        if word == "cats":
            return {field: int(n) for field, n in stored.items() if n != "0"}
        return stored
    if kind == "zset":
        members, scores = value[::2], [float(score) for score in value[1::2]]
        if word == "keeps":
            keeps = [json.loads(member) for member in members]
            return [(keep["id"], keep["val_bpb"], keep["category"]) for keep in keeps]
        if word in _SCORED:
            return list(zip(members, scores, strict=True))
        return sorted(members) if word in _UNORDERED else members
    if word == "attempts":
        attempts = [json.loads(text) for text in value]
        return [(a["epoch"], a["gpu_id"], a.get("outcome")) for a in attempts]
    return int(value) if kind == "string" else value


def _field(stored: dict[str, str], field: str, how: Any) -> Any:
    convert, absent = how if isinstance(how, tuple) else (how, None)
    return convert(stored[field]) if field in stored else absent
