"""What the page of a tag is drawn from: columns by cursor, rows by page."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import redis

from bench.histories import write
from orchestrator import schemas
from orchestrator.services.core.audit import Audit
from orchestrator.store.connection import Store
from tests.conftest import Api, MakeApi


def history(api: Api) -> list[str]:
    """A baseline, a keep, a near miss, a discard, a crash; the ids in the order of verdicts."""
    api.tag()
    made = []
    for hypothesis, val_bpb in (("baseline", 1.0), ("rope", 0.99), ("Muon", 0.991), ("gelu", 1.2)):
        made.append(
            api.register(hypothesis=hypothesis, description=hypothesis, category=hypothesis[0])
        )
        api.complete(made[-1], val_bpb, peak_vram_mb=1024)
    made.append(api.register(hypothesis="oom", description="bigger"))
    api.crash(made[-1], "CUDA out of memory")
    return made


def ids_of(answer: Any) -> list[str]:
    """The ids that the columns stand for, as the page computes them."""
    ids, created = [], 0
    for block in answer["blocks"]:
        created = 0
        for step in block["created_us"]:
            created += step
            ids.append(f"exp-{created:014x}-{answer['tag']}")
    return ids


def test_the_columns_hold_every_decided_run_in_the_order_of_verdicts(api: Api) -> None:
    made = history(api)
    answer = api.get("/api/report/series", tag="mar11")
    assert ids_of(answer) == made
    block = answer["blocks"][0]
    assert block["status"] == "kkndc"
    assert block["val_bpb"] == [1_000_000, 990_000, 991_000, 1_200_000, None]
    assert [answer["categories"][index] for index in block["category"]][:4] == ["b", "r", "M", "g"]
    assert answer["keeps"] == [{"n": 1, "description": "baseline"}, {"n": 2, "description": "rope"}]
    assert (answer["first"], answer["total"]) == (0, 5)


@pytest.mark.parametrize("sort", ["newest", "oldest", "best", "worst"])
def test_a_page_after_a_row_that_is_not_there_is_refused(api: Api, sort: str) -> None:
    history(api)
    for cursor in (5, 10_000, 2**53 - 1):
        answer = api.get("/api/report/runs", 422, tag="mar11", sort=sort, cursor=cursor)
        assert "next_cursor of an earlier page" in answer["error"]
    for cursor in range(5):
        api.get("/api/report/runs", tag="mar11", sort=sort, cursor=cursor)


def test_a_cursor_asks_for_what_is_new_alone(api: Api) -> None:
    """A page that follows a long search must not read it again and again."""
    history(api)
    cursor = api.get("/api/report/series", tag="mar11")["cursor"]
    assert api.get("/api/report/series", tag="mar11", since=cursor)["blocks"] == []
    new = api.register(description="better")
    api.complete(new, 0.98)
    answer = api.get("/api/report/series", tag="mar11", since=cursor)
    assert ids_of(answer) == [new]
    assert (answer["first"], answer["total"]) == (5, 6)
    assert answer["keeps"] == [{"n": 6, "description": "better"}]


def test_a_cursor_of_another_history_starts_from_the_beginning(api: Api) -> None:
    """After a restored backup what a page holds may be more than what there is."""
    history(api)
    created, rows, *rest = api.get("/api/report/series", tag="mar11")["cursor"].split(".")
    for strange in (f"1.{rows}", f"{created}.99"):
        answer = api.get("/api/report/series", tag="mar11", since=".".join([strange, *rest]))
        assert answer["first"] == 0
        assert len(ids_of(answer)) == 5
    api.get("/api/report/series", 422, tag="mar11", since="nonsense")
    api.get("/api/report/series", 404, tag="none")


def test_a_restored_backup_takes_back_what_is_in_memory(api: Api, redis_url: str) -> None:
    """Redis then holds less than the process has read."""
    history(api)
    with redis.Redis.from_url(redis_url) as client:
        before = {key: client.dump(key) for key in client.scan_iter("ar:*")}
        api.complete(api.register(), 0.5)
        assert api.get("/api/report/series", tag="mar11")["total"] == 6
        client.flushdb()
        for key, value in before.items():
            client.restore(key, 0, value)
    assert api.get("/api/report/series", tag="mar11")["total"] == 5
    api.complete(api.register(hypothesis="another"), 0.7)
    answer = api.get("/api/report/series", tag="mar11")
    assert (answer["total"], answer["blocks"][0]["val_bpb"][-1]) == (6, 700_000)


def test_two_orchestrators_answer_the_same_history(make_api: MakeApi) -> None:
    """What one has in memory the other reads: neither may be behind its own events."""
    first, second = make_api(), make_api()
    history(first)
    for api in (first, second, first):
        api.complete(api.register(), 0.5)
        answers = [a.get("/api/report/series", tag="mar11") for a in (first, second)]
        assert answers[0] == answers[1]


def test_cancelled_runs_are_left_out_and_lost_ones_are_not(api: Api) -> None:
    api.tag()
    cancelled = api.submit("a = 1")
    api.post(f"/api/experiment/{cancelled}/cancel")
    done = api.register()
    api.complete(done, 1.0)
    assert ids_of(api.get("/api/report/series", tag="mar11")) == [done]


def test_a_long_answer_is_compressed_for_those_who_read_that(api: Api) -> None:
    redis_url = api.settings.redis_url.get_secret_value()
    asyncio.run(write(redis_url, "long", 300))
    path = "/api/report/series?tag=long"
    plain = api.http.get(path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with api.http.stream("GET", path) as response:
        sent = b"".join(response.iter_raw())
        assert response.headers["content-encoding"] == "gzip"
    assert len(sent) < len(plain.content) / 2
    assert api.http.get(path).json() == plain.json()


@pytest.mark.anyio
async def test_many_readers_cost_one_reading(make_api: MakeApi) -> None:
    """Two hundred pages that hear of one verdict ask at the same time."""
    api = make_api()
    history(api)
    response_cache = api.app.state.services.response_cache
    made = 0
    of = response_cache._made

    async def counted(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return await of(*arguments)

    response_cache._made = counted
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
        answers = await asyncio.gather(
            *(client.get("/api/report/series?tag=mar11") for _ in range(100))
        )
    assert {answer.text for answer in answers} == {answers[0].text}
    assert made <= 2


def test_rows_say_what_a_table_shows(api: Api) -> None:
    made = history(api)
    rows = api.get("/api/report/runs", tag="mar11")["rows"]
    assert [row["id"] for row in rows] == made[::-1]
    assert [row["n"] for row in rows] == [5, 4, 3, 2, 1]
    crash, _, near, keep, _ = rows
    assert (crash["status"], crash["val_bpb"], crash["error"]) == (
        "crash",
        None,
        "CUDA out of memory",
    )
    assert near["near"]
    assert (keep["val_bpb"], keep["best_before"], keep["peak_vram_mb"]) == (0.99, 1.0, 1024)


def test_rows_are_filtered_sorted_and_found(api: Api) -> None:
    history(api)

    def found(**query: Any) -> list[str]:
        rows = api.get("/api/report/runs", tag="mar11", **query)["rows"]
        return [row["description"] for row in rows]

    assert found(sort="best") == ["rope", "Muon", "baseline", "gelu"]
    assert found(sort="worst", status="keep") == ["baseline", "rope"]
    assert found(status="near,crash") == ["bigger", "Muon"]
    assert found(cat="g") == ["gelu"]
    assert found(q="muON") == ["Muon"]
    assert found(q="oom") == ["bigger"]  # the hypothesis counts too
    assert found(q="nothing") == found(cat="none") == found(status="queued") == []
    assert found(since="2999-01-01T00:00:00Z") == []
    assert len(found(since="2000-01-01T00:00:00Z")) == 5
    for wrong in (
        {"sort": "x"},
        {"status": "nice"},
        {"since": "soon"},
        {"page": "2"},
        {"limit": 0},
    ):
        api.get("/api/report/runs", 422, tag="mar11", **wrong)


def test_pages_of_fifty_hold_everything_once(api: Api) -> None:
    asyncio.run(write(api.settings.redis_url.get_secret_value(), "long", 170))
    numbers: list[int] = []
    cursor = None
    while True:
        query = {} if cursor is None else {"cursor": cursor}
        answer = api.get("/api/report/runs", tag="long", **query)
        numbers += [row["n"] for row in answer["rows"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert numbers == list(range(170, 0, -1))


def test_queued_and_running_runs_stand_above_until_they_are_decided(api: Api) -> None:
    """A row keeps its id, so that a page can let it turn into its verdict in place."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("a = 1", description="idea")
    answer = api.get("/api/report/runs", tag="mar11")
    assert [(row["id"], row["status"]) for row in answer["active"]] == [(experiment_id, "queued")]
    job = api.claim()
    answer = api.get("/api/report/runs", tag="mar11")
    assert [row["status"] for row in answer["active"]] == ["running"]
    assert (answer["running"], answer["queued"], answer["rows"]) == (1, 0, [])
    api.finish(job, 0.97)
    answer = api.get("/api/report/runs", tag="mar11")
    assert answer["active"] == []
    assert [(row["id"], row["status"]) for row in answer["rows"]] == [(experiment_id, "keep")]
    assert api.get("/api/report/runs", tag="mar11", ids=experiment_id)["rows"] == answer["rows"]


def test_a_search_looks_at_a_bounded_number_and_goes_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the history, one request stays short, and says how far it has come."""
    monkeypatch.setattr("orchestrator.services.dashboard.series.SCAN_LIMIT", 2)
    history(api)
    first = api.get("/api/report/runs", tag="mar11", q="baseline")
    assert (first["rows"], first["scanned"], first["next_cursor"]) == ([], 2, 3)
    second = api.get("/api/report/runs", tag="mar11", q="baseline", cursor=first["next_cursor"])
    third = api.get("/api/report/runs", tag="mar11", q="baseline", cursor=second["next_cursor"])
    assert [row["description"] for row in third["rows"]] == ["baseline"]
    assert third["next_cursor"] is None


async def test_written_histories_are_as_the_journal_says(
    redis_url: str, anyio_backend: str
) -> None:
    """What the browser tests and the figures rest on is what the product would have written."""
    await write(redis_url, "made", 400)
    store = Store(redis_url, 5)
    report = await Audit(store).check("made")
    await store.close()
    assert report.differences == []
    assert (report.decisions, report.experiments) == (400, 400)


def test_the_answers_are_those_that_are_described(api: Api) -> None:
    """They are written without the model, which must describe them all the same."""
    history(api)
    text = api.http.get("/api/report/series?tag=mar11").text
    described = schemas.SeriesAnswer.model_validate_json(text)
    assert json.loads(described.model_dump_json()) == json.loads(text)
