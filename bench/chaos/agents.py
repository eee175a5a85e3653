"""The agents: they submit trainings, wait for verdicts, train by hand, and note every answer.

Each request has an Idempotency-Key and is sent again, to any orchestrator, until it gets a final
answer, as program.md asks of agents.
"""

import asyncio
import itertools
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from bench.chaos import stub
from bench.chaos.promises import Promises
from bench.chaos.system import System
from bench.chaos.violations import Findings
from orchestrator.domain import KeepRule

TAGS = ("chaos-a", "chaos-b")
CATEGORIES = ("architecture", "optimizer", "attention", "other")
_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 8.0
_IN_PROGRESS = "still being served"

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    status: int
    body: Body


class Agents:
    def __init__(
        self,
        system: System,
        promises: Promises,
        findings: Findings,
        results: stub.Results,
        random: Random,
        racing: tuple[str, ...] = (),
        keep_rule: KeepRule = "greedy",
    ) -> None:
        """`racing` are the tags with this keep rule, which queues runs itself."""
        self.promises = promises
        self._system = system
        self._findings = findings
        self._results = results
        self._random = random
        self.racing = racing
        self._keep_rule = keep_rule
        self._by_hand = [tag for tag in TAGS if tag not in racing]
        self._keys = itertools.count(1)
        self._numbers = itertools.count(1)
        self._http = httpx.AsyncClient(
            timeout=_PATIENCE_SECONDS,
            trust_env=False,
            **(system.network.client_options() if system.network else {}),
            limits=httpx.Limits(max_connections=200, keepalive_expiry=2.0),
        )

    async def close(self) -> None:
        await self._http.aclose()

    # ------------------------------------------------------------------------ requests

    def key(self) -> str:
        return f"key-{next(self._keys)}"

    async def once(
        self, method: str, path: str, body: Body | None = None, key: str | None = None
    ) -> Answer | None:
        """One try at one orchestrator; None if there was no final answer."""
        orchestrator = self._random.choice(self._system.orchestrators)
        headers = {"Idempotency-Key": key} if key else {}
        try:
            response = await self._http.request(
                method, orchestrator.url + path, json=body, headers=headers
            )
        except httpx.TransportError:
            return None
        text = response.headers["content-type"].startswith("text/")
        answer = Answer(response.status_code, {"text": response.text} if text else response.json())
        if answer.status == 500:
            self._findings.add("answers", f"{path} failed with 500: {answer.body.get('error')}")
        if answer.status >= 500 or _IN_PROGRESS in str(answer.body.get("error")):
            return None
        return answer

    async def call(self, path: str, body: Body | None = None, key: str | None = None) -> Answer:
        """POST until there is a final answer."""
        return await self._persist("POST", path, body, key or self.key())

    async def read(self, path: str, *, missing: bool = False) -> Answer:
        """GET until there is a final answer; `missing`: it may be a 404."""
        return await self._persist("GET", path, missing=missing)

    async def _persist(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        key: str | None = None,
        *,
        missing: bool = False,
    ) -> Answer:
        while (answer := await self.once(method, path, body, key)) is None:
            await asyncio.sleep(_PAUSE_SECONDS)
        if answer.status == 404 and not missing:  # agents name only what was acknowledged to them
            self._findings.add("lost", f"{path}: {answer.body['error']}")
        return answer

    # ------------------------------------------------------------------------ the queue

    async def set_up(self) -> None:
        timing = self._system.plan.timing
        for tag in TAGS:
            body: Body = {
                "tag": tag, "time_budget_seconds": timing.budget, "near_miss_threshold": 0.003,
            }  # fmt: skip
            if tag in self.racing:
                body["keep_rule"] = self._keep_rule
            await self.call("/api/experiment/setup", body)

    async def submit(self, *, twice: bool = False) -> str | None:
        """Submit a new training; where one tag of two races, two of three are for that one."""
        if self.racing and self._random.random() < 2 / 3:
            return await self._submit_idea(self._random.choice(self.racing), twice=twice)
        text = stub.draw(next(self._numbers), self._results, self._random)
        return await self.submit_text(text, twice=twice)

    async def _submit_idea(self, tag: str, *, twice: bool) -> str | None:
        """An idea on the champion of a tag that races."""
        best = await self.read(f"/api/experiment/best?tag={tag}", missing=True)
        champion, base = None, stub.BASELINE
        if best.status == 200:
            champion = best.body["best"]["experiment_id"]
            base = (await self.read(f"/api/experiment/{champion}/train.py")).body["text"]
        text = stub.idea(next(self._numbers), base, self._random)
        return await self.submit_text(text, twice=twice, tag=tag, parent=champion)

    async def submit_text(
        self,
        train_py: str,
        *,
        twice: bool = False,
        tag: str | None = None,
        parent: str | None = None,
    ) -> str | None:
        """Submit this train.py; `twice`: the same request twice at once, which must be one."""
        body = {
            "tag": tag or self._random.choice(self._by_hand),
            "hypothesis": "an idea",
            "category": self._random.choice(CATEGORIES),
            "train_py": train_py,
            "priority": self._random.choice((0, 0, 0, 5)),
            "parent_id": parent,
        }
        key = self.key()
        path = "/api/experiment/submit"
        answers = await asyncio.gather(*(self.call(path, body, key) for _ in range(1 + twice)))
        first = answers[0]
        if first.status != 202 or any(answer != first for answer in answers):
            self._findings.add("answers", f"a new submission was answered {answers}")
            return None
        experiment_id: str = first.body["experiment_id"]
        self.promises.acknowledge(experiment_id)
        return experiment_id

    async def watch(self, experiment_id: str) -> None:
        """Wait for the verdict as agents do."""
        while True:
            answer = await self.read(f"/api/experiment/{experiment_id}/wait?timeout=5")
            self.promises.note_verdict(experiment_id, answer.body.get("verdict"))
            if answer.status != 202:
                return

    async def cancel(self, experiment_id: str) -> None:
        await self.call(f"/api/experiment/{experiment_id}/cancel")

    async def finish_again(self, body: Body) -> Answer | None:
        """Send a worker's report once more, perhaps changed or late, in one try."""
        answer = await self.once("POST", "/api/job/finish", body)
        if answer is not None and answer.status == 200:
            self.promises.note_verdict(body["experiment_id"], answer.body.get("verdict"))
        return answer

    # ------------------------------------------------------------------------ by hand

    async def register(self) -> str:
        number = next(self._numbers)
        body = {
            "tag": self._random.choice(self._by_hand),
            "hypothesis": f"by hand {number}",
            "description": "",
            "category": self._random.choice(CATEGORIES),
            "commit_sha": f"{number:07x}",
            "diff_summary": "",
        }
        answer = await self.call("/api/experiment/register", body)
        experiment_id: str = answer.body["experiment_id"]
        self.promises.acknowledge(experiment_id)
        return experiment_id

    def result(self) -> float:
        """A val_bpb like those that the queue reaches by now."""
        number = len(self.promises.acknowledged)
        return float(self._results.draw(number, self._random))

    async def complete(self, experiment_id: str, val_bpb: float, key: str | None = None) -> None:
        body = {"experiment_id": experiment_id, "val_bpb": val_bpb, "training_seconds": 1.5}
        answer = await self.call("/api/experiment/complete", body, key)
        if answer.status != 200:
            self._findings.add("answers", f"a report by hand was answered {answer}")
        else:
            self.promises.note_verdict(experiment_id, answer.body)

    async def acquire(self, experiment_id: str) -> str | None:
        """A GPU for a training by hand, if one is idle."""
        answer = await self.call("/api/pool/acquire", {"experiment_id": experiment_id})
        gpu_id: str | None = answer.body.get("gpu_id")
        return gpu_id

    async def release(self, experiment_id: str, gpu_id: str) -> None:
        await self.call("/api/pool/release", {"gpu_id": gpu_id, "experiment_id": experiment_id})
