"""The keyspace: every name in Redis, and what it holds. Only this module spells a key.

Below `ar:{TAG}:` (the braces make one tag one hash slot; in fact one primary holds everything):

    tag            hash     settings, best, streak, counters, `revision` (+1 with every decision,
                            choice of strategy and operator action), and `sealed`, on which the
                            seal of the next journal entry rests
    strategy       hash     the search strategy in force
    exp:ID         hash     the experiment: idea and source hash; never changes
    run:ID         hash     its run: state, epoch, metrics, verdict
    attempts:ID    list     JSON of each lease of the run, oldest first
    all            zset     ids by creation
    status:S       zset     ids in public status S, by creation: a page and a counter in one
    hand           zset     hand-runs that have not reported, by start
    keeps          zset     JSON of each keep, by decision: the progression
    near           zset     ids of near misses, by distance from the best at decision
    recent         list     statuses of the ten most recent judged runs, newest first
    cats           hash     `n:CAT`, `kept:CAT`, `near:CAT`: counters of a category
    sources        hash     SHA256:SEED -> the experiments with this source and seed, oldest first
    queue          zset     queued ids, by priority and then arrival
    race           string   JSON of what the keep rule believes (rules/race/state.py); not of greedy
    follow         hash     repeats and merges under way: id -> `SOURCE SEED` or `merge SEED`,
                            and after it the GPU or GPU model that a repeat checks
    stops          string   JSON of what the early stop has learned and done (decisions.EarlyStops)
    notes          hash     id -> JSON of each note that people have left for agents
    ledger         stream   the audit log's entries on this tag, under the same ids
    journal        stream   setup, every decision, choice of strategy and operator action, each with
                            what it was based on; never cut: the audit recomputes the tag from it

Global, below `ar:`:

    tags           zset     tags by creation
    seq            counter  arrival order of jobs, registration order of GPUs
    ready:P        zset     tags with queued jobs for platform P (`-`: bound to none yet),
                            by the score of the head of their queue; no paused ones
    ready:P#M      zset     the same for tags that are pinned to the GPU model M
    direct:GPU     zset     queued ids meant for one GPU
    leases         zset     leased ids by their last renewal
    gpus           zset     GPUs by registration
    idle           zset     those that a claim or an acquire may take, by registration
    busy           zset     those with a lease or a hold
    seen           zset     GPUs by last heartbeat
    holds          zset     GPUs held by hand-runs, by the time at which the hold lapses
    gpu:ID         hash     a GPU's facts, flags, lease and hold
    drained        hash     GPU -> JSON of who drained it; survives the GPU's own hash, which has
                            a copy
    ledger         stream   the audit log, every operator action: who did what to what, and why;
                            never cut
    tokens         hash     label -> JSON of each token: role, tags, hash of its secret, times
    session:HASH   string   JSON of a page's session, by the hash of its cookie; lapses with it
    events         stream   what happened, for those who follow it (capped)
    nonce:N        string   the reply of a script that has run, for the same request sent again
    idem:K         string   the answer stored for an Idempotency-Key
    answers        list     the keys that have one, the newest first
    restoring      string   exists while a backup is being put back
    files          string   `ID PLACE` of the orchestrators' files, which all of them must share

The Lua scripts get these names as the tables `T` (tag) and `G` (global) that `lua_names` renders.
"""

import re

PREFIX = "ar:"

# With the type of what each holds.
TAG_NAMES = {
    "tag": "hash", "strategy": "hash", "exp:": "hash", "run:": "hash", "attempts:": "list",
    "all": "zset", "status:": "zset", "hand": "zset", "keeps": "zset", "near": "zset",
    "recent": "list", "cats": "hash", "sources": "hash", "queue": "zset", "race": "string",
    "follow": "hash", "stops": "string", "notes": "hash",
    "ledger": "stream", "journal": "stream",
}  # fmt: skip
GLOBAL_NAMES = {
    "tags": "zset", "seq": "string", "ready:": "zset", "direct:": "zset", "leases": "zset",
    "gpus": "zset", "idle": "zset", "busy": "zset", "seen": "zset", "holds": "zset", "gpu:": "hash",
    "drained": "hash", "ledger": "stream", "tokens": "hash", "session:": "string",
    "events": "stream", "nonce:": "string", "idem:": "string", "answers": "list",
    "restoring": "string", "files": "string",
}  # fmt: skip
_KEY = re.compile(rf"{PREFIX}(\{{[^{{}}]+\}}:)?([a-z]+:?)(.*)", re.DOTALL)


def type_of(key: str) -> str | None:
    """The type of what a key holds; None for a key that is not ours."""
    match = _KEY.fullmatch(key)
    if match is None or match[2].endswith(":") != bool(match[3]):
        return None
    return (TAG_NAMES if match[1] else GLOBAL_NAMES).get(match[2])


def of_tag(tag: str, name: str, suffix: str = "") -> str:
    """The key `name` of a tag; names that end in a colon take a suffix."""
    assert name in TAG_NAMES  # noqa: S101 - a misspelt key must not create a new one
    return f"{PREFIX}{{{tag}}}:{name}{suffix}"


def of_all(name: str, suffix: str = "") -> str:
    """The global key `name`."""
    assert name in GLOBAL_NAMES  # noqa: S101
    return f"{PREFIX}{name}{suffix}"


def lua_names() -> str:
    """The same names as Lua: `G.events`, and `T(tag).queue` or `T(tag).run .. id`."""
    globals_ = ", ".join(f"{n.rstrip(':')} = '{PREFIX}{n}'" for n in GLOBAL_NAMES)
    of_tag_ = ", ".join(f"{n.rstrip(':')} = base .. '{n}'" for n in TAG_NAMES)
    return (
        f"local G = {{ {globals_} }}\n"
        f"local function T(tag) local base = '{PREFIX}{{' .. tag .. '}}:'; "
        f"return {{ {of_tag_} }} end\n"
    )
