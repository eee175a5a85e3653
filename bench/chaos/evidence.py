"""Everything that is known once the system rests: read from Redis itself, around the service.

Field and key names are those of orchestrator/store/keys.py. What it means is audit.py's.
"""

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.store import keys

_CHUNK = 500
_STATUSES = ("queued", "running", "keep", "discard", "crash", "timeout", "cancelled")

Fields = dict[str, str]


@dataclass(frozen=True)
class Record:
    """One experiment: what it is, how its run stands, the leases that the run had."""

    id: str
    experiment: Fields
    run: Fields
    attempts: list[dict[str, Any]]

    @property
    def decided(self) -> bool:
        return self.run.get("state") == "decided"

    @property
    def status(self) -> str:
        return self.run["status"]

    @property
    def val_bpb(self) -> float | None:
        value = self.run.get("val_bpb")
        return None if value is None else float(value)

    @property
    def infra_lost(self) -> bool:
        return self.run.get("reason") == "infra_lost"

    @property
    def verdict(self) -> dict[str, Any] | None:
        text = self.run.get("verdict")
        return None if text is None else json.loads(text)


@dataclass(frozen=True)
class TagEvidence:
    """A tag: its records by id, and the indexes that the service keeps of them."""

    name: str
    fields: Fields
    records: dict[str, Record]
    ids: list[str]
    by_status: dict[str, set[str]]
    keeps: list[tuple[dict[str, Any], float]]
    near: dict[str, float]
    categories: dict[str, int]
    recent: list[str]
    queued: list[str]
    by_hand: list[str]
    summary: dict[str, Any]

    @property
    def in_order(self) -> list[Record]:
        """The decided ones by their moment of decision."""
        decided = [record for record in self.records.values() if record.decided]
        return sorted(decided, key=lambda record: int(record.run["finished"]))


@dataclass(frozen=True)
class PoolEvidence:
    """The pool, and the leases of all tags."""

    leases: list[str]
    busy: list[str]
    idle: list[str]
    holds: list[str]
    gpus: list[str]


async def read_pool(client: Any) -> PoolEvidence:
    names = ("leases", "busy", "idle", "holds", "gpus")
    return PoolEvidence(**{name: await client.zrange(keys.of_all(name), 0, -1) for name in names})


async def read_tag(client: Any, tag: str, summary: dict[str, Any]) -> TagEvidence:
    """`summary` is what the service answers for this tag."""

    def key(name: str) -> str:
        return keys.of_tag(tag, name)

    ids = await client.zrange(key("all"), 0, -1)
    keeps = await client.zrange(key("keeps"), 0, -1, withscores=True)
    return TagEvidence(
        name=tag,
        fields=await client.hgetall(key("tag")),
        records=await _records(client, tag, ids),
        ids=ids,
        by_status={
            status: set(await client.zrange(keys.of_tag(tag, "status:", status), 0, -1))
            for status in _STATUSES
        },
        keeps=[(json.loads(text), score) for text, score in keeps],
        near=dict(await client.zrange(key("near"), 0, -1, withscores=True)),
        categories={
            name: int(count) for name, count in (await client.hgetall(key("cats"))).items()
        },
        recent=await client.lrange(key("recent"), 0, -1),
        queued=await client.zrange(key("queue"), 0, -1),
        by_hand=await client.zrange(key("hand"), 0, -1),
        summary=summary,
    )


async def _records(client: Any, tag: str, ids: list[str]) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        pipeline = client.pipeline(transaction=False)
        for experiment_id in some:
            pipeline.hgetall(keys.of_tag(tag, "exp:", experiment_id))
            pipeline.hgetall(keys.of_tag(tag, "run:", experiment_id))
            pipeline.lrange(keys.of_tag(tag, "attempts:", experiment_id), 0, -1)
        flat = await pipeline.execute()
        for i, experiment_id in enumerate(some):
            experiment, run, attempts = flat[3 * i : 3 * i + 3]
            leases = [json.loads(text) for text in attempts]
            records[experiment_id] = Record(experiment_id, experiment, run, leases)
    return records
