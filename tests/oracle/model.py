"""Every request that changes something, and what it must answer and do.

A verb answers with its value, or with why it refuses. What is counted is counted in search.py.
"""

from dataclasses import dataclass

from tests.oracle.search import LEASED, Attempt, Refused, Report, Run, Tag, Verdict


@dataclass(eq=False)
class Gpu:
    id: str
    order: int
    index: int
    model: str
    profile: str | None = None
    problem: str | None = None
    quarantined: bool = False
    draining: bool = False
    drained: bool = False  # by an operator
    lease: Run | None = None
    hold: Run | None = None
    last_hold: str | None = None
    silent: bool = False  # no sign of life for longer than a GPU may be silent
    lapsed: bool = False  # the time of its hold is over
    parked: bool = False  # found silent, and so out of the idle set

    def serves(self, tag: Tag) -> bool:
        """A tag is bound to nothing, to this GPU's platform, or to its profile without the data;
        and to a model."""
        bound, own = tag.profile, self.profile
        same_data = bound in (None, own, own and own.split("/")[0])
        return same_data and tag.model in (None, self.model)

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
        self.drained: set[str] = set()  # GPUs, also those that have left the pool
        self.events: list[tuple[str, ...]] = []
        self.seq = 0
        self._renewals = 0

    # -- tags and experiments

    def setup(
        self, name: str, threshold: float, max_crashes: int, *, mixes: bool = False
    ) -> Refused | None:
        if name in self.tags:
            return Refused.CONFLICT
        self.tags[name] = Tag(name, threshold, max_crashes, mixes=mixes)
        self.events.append(("setup", name, ""))
        return None

    def refusal_of_new(self, tag: str, parent: str | None) -> Refused | None:
        unknown_parent = parent is not None and (
            parent not in self.runs or self.runs[parent].tag.name != tag
        )
        return Refused.NOT_FOUND if tag not in self.tags or unknown_parent else None

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
        if parent is None:
            first = of.best or of.first_undecided(self.runs.values())
            parent = first and first.id
        run = Run(
            new_id, of, category, source[:7], parent, "queued", "queued", source, seed, priority
        )
        run.score = self._score(priority)
        self.runs[new_id] = run
        of.sources.setdefault(f"{source}:{seed}", []).append(new_id)
        self._queued(run)
        return self.queue(of).index(run) + 1

    def _score(self, priority: int) -> int:
        self.seq += 1
        return self.seq - priority * 2**40

    def _queued(self, run: Run) -> None:
        run.state = run.status = "queued"
        run.gpu = None
        self.events.append(
            (
                "queued",
                run.tag.name,
                run.id,
                run.target or "",
                run.tag.profile or "",
                run.tag.model or "",
            )
        )

    @property
    def queued(self) -> list[Run]:
        """All queued runs, by priority and then by arrival."""
        return sorted((r for r in self.runs.values() if r.state == "queued"), key=_score_of)

    def queue(self, tag: Tag) -> list[Run]:
        """A tag's queued runs that any GPU may have."""
        return [run for run in self.queued if run.tag is tag and run.target is None]

    def directed(self, gpu_id: str) -> list[Run]:
        """The queued runs, of any tag, that only this GPU may have."""
        return [run for run in self.queued if run.target == gpu_id]

    def line_of(self, run: Run) -> list[Run]:
        """The queue in which this run waits."""
        return self.directed(run.target) if run.target else self.queue(run.tag)

    def runs_of(self, tag: Tag) -> list[Run]:
        return [run for run in self.runs.values() if run.tag is tag]

    # -- ends

    def settle(
        self,
        run: Run,
        report: Report,
        states: tuple[str, ...],
        epoch: int | None = None,
        renewal: int | None = None,
    ) -> Verdict | Refused | None:
        if epoch is not None and run.epoch != epoch:
            return Refused.LEASE_LOST
        if run.state == "decided":
            return run.verdict
        if epoch is not None and not run.leased:
            return Refused.LEASE_LOST
        if run.state not in states:
            return Refused.CONFLICT
        if renewal is not None and run.renewal != renewal:
            return Refused.LEASE_RENEWED
        if epoch is not None and report.status == "completed" and not run.tag.best:
            first = run.tag.first_undecided(self.runs.values(), leased=True)
            if first is not run:
                return Refused.UNAVAILABLE
        self._decide(run, report)
        return run.verdict

    def _decide(self, run: Run, report: Report) -> None:
        if run.leased:
            self._end_lease(run, "lost" if report.reason else report.status)
        run.tag.decide(run, report)
        self.events.append(("decided", run.tag.name, run.id, run.status))

    @staticmethod
    def after_lost_attempt(run: Run, label: str) -> str:
        """What an attempt without a result leads to; `label` says how it ended."""
        if run.stop is not None:
            return "cancelled" if run.stop == "cancel" else "requeue"
        if label in ("cancelled", "handed_back"):
            return "cancelled" if label == "cancelled" else "requeue"
        return "infra_lost" if run.losses >= 2 else "requeue"

    def lose(
        self, run: Run, epoch: int, label: str, renewal: int | None = None
    ) -> Verdict | Refused | None:
        """An attempt ended as `label` says: lost, expired, handed back, or cancelled."""
        if run.epoch == epoch and run.state == "queued":
            return None  # the same report, sent again
        if (then := self.after_lost_attempt(run, label)) != "requeue":
            cancelled = then == "cancelled"
            report = Report("cancelled") if cancelled else Report("crash", reason="infra_lost")
            return self.settle(run, report, LEASED, epoch, renewal)
        if run.epoch != epoch:
            return Refused.LEASE_LOST
        if run.state == "decided":
            return run.verdict
        if renewal is not None and run.renewal != renewal:
            return Refused.LEASE_RENEWED
        self._end_lease(run, "requeued" if label == "cancelled" else label)
        lost = label in ("lost", "expired") and run.stop is None
        run.losses += lost
        run.stop = None
        if run.target and (lost or not self._takes_runs(run.target)):
            run.target = None
        self._queued(run)
        return None

    def _takes_runs(self, gpu_id: str) -> bool:
        """Now, or after the run that it has."""
        gpu = self.gpus.get(gpu_id)
        return gpu is not None and bool(gpu.idle or gpu.lease or gpu.hold)

    def _end_lease(self, run: Run, outcome: str) -> None:
        run.attempts[-1].outcome = outcome
        assert run.gpu is not None
        gpu = self.gpus[run.gpu]
        assert gpu.lease is run
        gpu.lease, gpu.parked = None, False

    def cancel(self, run: Run) -> tuple[str, bool] | Refused:
        """The public status, and whether the worker has been asked to stop."""
        if run.leased:
            self._stop(run, "cancel")
            return "running", True
        if run.state != "decided":
            self._steered(run.tag.name, run.id, "cancel")
        self.settle(run, Report("cancelled"), ("hand", "queued"))
        return run.status, False

    def _stop(self, run: Run, what: str) -> None:
        if run.stop != what:
            run.stop = what
            self._operator_action(run.tag, run.id, what)
            self.events.append(("cancelling", run.tag.name, run.id))

    # -- operator actions

    def _operator_action(self, tag: Tag, target: str, action: str) -> None:
        tag.steps += 1
        self._steered(tag.name, target, action)

    def _steered(self, tag: str, target: str, action: str) -> None:
        self.events.append(("steered", tag, target, action))

    def pause(self, tag: Tag, *, paused: bool) -> None:
        if tag.paused != paused:
            tag.paused = paused
            self._operator_action(tag, "", "pause" if paused else "resume")

    def note(self, tag: Tag) -> None:
        tag.notes.append(f"note-{tag.revision + 1}")
        self._operator_action(tag, tag.notes[-1], "note")

    def drop_note(self, tag: Tag, note_id: str) -> Refused | None:
        if note_id not in tag.notes:
            return Refused.NOT_FOUND
        tag.notes.remove(note_id)
        self._operator_action(tag, note_id, "drop-note")
        return None

    def requeue(self, run: Run, new_id: str) -> int | Refused | None:
        """The place of a repeat in the queue; None when the worker has been asked to stop."""
        if run.leased:
            self._stop(run, "requeue")
            return None
        if run.state != "decided" or run.source is None:
            return Refused.CONFLICT
        assert run.seed is not None
        again = Run(
            new_id, run.tag, run.category, run.commit, run.parent, "queued", "queued", run.source,
            run.seed, run.priority or 0, repeat_of=run.id,
        )  # fmt: skip
        again.score = self._score(again.priority or 0)
        self.runs[new_id] = again
        run.tag.sources.setdefault(f"{run.source}:{run.seed}", []).append(new_id)
        self._queued(again)
        self._operator_action(run.tag, run.id, "requeue")
        return self.queue(run.tag).index(again) + 1

    def set_priority(self, run: Run, priority: int) -> int | Refused:
        """Answers the place in its queue."""
        if run.state != "queued":
            return Refused.CONFLICT
        before = run.priority or 0
        if before != priority:
            run.score = _score_of(run) + (before - priority) * 2**40
            run.priority = priority
            self._operator_action(run.tag, run.id, "priority")
        return self.line_of(run).index(run) + 1

    def drain(self, gpu_id: str) -> Refused | None:
        if gpu_id not in self.gpus and gpu_id not in self.drained:
            return Refused.NOT_FOUND
        if gpu_id not in self.drained:
            self.drained.add(gpu_id)
            self.gpus[gpu_id].drained = True
            self._steered("", gpu_id, "drain")
        return None

    def undrain(self, gpu_id: str) -> Refused | None:
        if gpu_id not in self.drained:
            return None if gpu_id in self.gpus else Refused.NOT_FOUND
        self.drained.remove(gpu_id)
        if gpu_id in self.gpus:
            self.gpus[gpu_id].drained = self.gpus[gpu_id].parked = False
        self._steered("", gpu_id, "undrain")
        return None

    # -- strategy

    def set_strategy(
        self, tag: Tag, mode: str, ratio: float | None, temperature: float | None, pinned: bool
    ) -> None:
        tag.mode, tag.pinned = mode, pinned
        tag.ratio = ratio if ratio is not None else 0.8 if mode == "explore" else 0.3
        tag.temperature = tag.temperature if temperature is None else temperature
        self._steered(tag.name, "", "set-strategy")
        self._chosen(tag)

    def adapt(self, tag: Tag) -> None:
        if tag.adapt():
            self._chosen(tag)

    def _chosen(self, tag: Tag) -> None:
        tag.steps += 1
        self.events.append(("strategy", tag.name, "", tag.mode))

    # -- leases

    def first_for(self, gpu: Gpu) -> Run | None:
        """The queued run that this GPU would get: by priority, then by arrival."""
        for run in self.queued:
            fits = run.target in (None, gpu.id) and gpu.serves(run.tag)
            if fits and not run.tag.paused:
                return run
        return None

    def claim(self, gpu_id: str) -> Run | Refused | None:
        if gpu_id not in self.gpus:
            return Refused.NOT_FOUND
        gpu = self.gpus[gpu_id]
        gpu.silent = False
        if gpu.lease or gpu.hold or gpu.unfit:
            return None
        gpu.parked = False
        for directed in self.directed(gpu_id):
            if not gpu.serves(directed.tag):
                self._undirect(directed)  # its tag was bound to another profile since
            elif not directed.tag.paused:
                break
        run = self.first_for(gpu)
        if run is None:
            return None
        if run.tag.profile is None:
            run.tag.profile = gpu.profile
        if not run.tag.mixes:
            run.tag.model = gpu.model
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
    ) -> tuple[bool, bool] | Refused:
        """Two flags: its operator wants it to stop; its GPU is known to the pool."""
        if not run.leased or run.epoch != epoch:
            return Refused.LEASE_LOST
        self._renewed(run)
        if started and run.state == "leased":
            run.state = "running"
            self.events.append(("started", run.tag.name, run.id))
        gpu = self.gpus.get(run.gpu or "")
        if beat and gpu:
            gpu.silent = False
        return run.stop is not None, gpu is not None or not beat

    def direct(self, run: Run, gpu_id: str, source: str) -> Refused | None:
        if gpu_id not in self.gpus:
            return Refused.NOT_FOUND
        if not self.gpus[gpu_id].serves(run.tag):
            return Refused.CONFLICT
        if run.state == "decided":
            return None
        if run.leased:
            return Refused.CONFLICT
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
        self, gpu_id: str, index: int, model: str, profile: str | None, problem: str | None, *,
        boots: bool,
    ) -> None:  # fmt: skip
        """By a daemon that starts (`boots`), or by a bare call, which clears no flag."""
        if gpu_id not in self.gpus:
            self.seq += 1
            drained = gpu_id in self.drained
            self.gpus[gpu_id] = Gpu(gpu_id, self.seq, index, model, drained=drained)
        gpu = self.gpus[gpu_id]
        gpu.model = model
        if boots:
            gpu.profile, gpu.problem, gpu.quarantined, gpu.draining = None, None, False, False
        gpu.profile, gpu.problem = profile or gpu.profile, problem or gpu.problem
        gpu.silent = gpu.parked = False
        self._gpu_event(gpu_id, "registered")

    def heartbeat(
        self, gpu_id: str, problem: str | None, quarantined: bool, draining: bool
    ) -> Refused | None:
        if gpu_id not in self.gpus:
            return Refused.NOT_FOUND
        gpu = self.gpus[gpu_id]
        gpu.problem, gpu.quarantined, gpu.draining = problem, quarantined, draining
        gpu.silent = gpu.parked = False
        return None

    def acquire(self, run: Run) -> Gpu | Refused | None:
        if run.state != "hand":
            return Refused.CONFLICT
        for gpu in self.gpus.values():
            if gpu.hold is run:
                return gpu
        if run.tag.paused:
            return None
        for gpu in sorted(self.gpus.values(), key=lambda gpu: gpu.order):
            if not gpu.idle:
                continue
            if gpu.silent:
                gpu.parked = True
                continue
            if run.tag.model not in (None, gpu.model):
                continue
            gpu.hold, gpu.lapsed, run.gpu = run, False, gpu.id
            self._gpu_event(gpu.id, "held", run.tag.name)
            return gpu
        return None

    def release(self, gpu_id: str, run_id: str | None) -> Refused | None:
        if gpu_id not in self.gpus:
            return Refused.NOT_FOUND
        gpu = self.gpus[gpu_id]
        if gpu.lease:
            return Refused.CONFLICT
        if gpu.hold is None:
            return None if run_id in (None, gpu.last_hold) else Refused.CONFLICT
        if run_id not in (None, gpu.hold.id):
            return Refused.CONFLICT
        self._free(gpu)
        return None

    def _free(self, gpu: Gpu) -> None:
        assert gpu.hold is not None
        gpu.last_hold, gpu.hold, gpu.parked = gpu.hold.id, None, False
        self._gpu_event(gpu.id, "released")

    def deregister(self, gpu_id: str) -> Refused | None:
        if gpu_id not in self.gpus:
            return Refused.NOT_FOUND
        if self.gpus[gpu_id].lease or self.gpus[gpu_id].hold:
            return Refused.CONFLICT
        for run in self.directed(gpu_id):
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

    def _gpu_event(self, gpu_id: str, state: str, tag: str = "") -> None:
        self.events.append(("gpu", tag, gpu_id, state))


def _score_of(run: Run) -> int:
    assert run.score is not None
    return run.score
