"""A tag that races, as its terminal, its columns and its GPU hours show it."""

import asyncio
import threading
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.domain import Run, Status
from orchestrator.services.dashboard.history import Histories, History
from orchestrator.store.connection import Store
from tests.api.test_race import BASELINE, Race, changed
from tests.conftest import Api


@pytest.fixture
def race(api: Api) -> Race:
    return Race(api)


@pytest.fixture
def say(api: Api, capsys: pytest.CaptureFixture[str]) -> Any:
    """`autoresearch WORDS`: its exit code, and what it printed on stdout and stderr."""

    def say(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--orchestrator", api.url])
        said = capsys.readouterr()
        return code, said.out, said.err

    return say


def candidate(race: Race) -> str:
    """An idea whose first run reads better than the baseline."""
    race.baseline()
    idea = race.api.submit(changed(BASELINE, 3), description="half the rate")
    assert race.run(0.9958)["status"] == "candidate"
    return idea


def keep(race: Race, idea: str) -> None:
    race.run(0.9957)
    race.run(0.9955)
    assert race.detail(idea)["status"] == "keep"


def test_who_waits_at_a_terminal_waits_for_the_verdict_and_reads_why(
    race: Race, say: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    orchestrator = ("--orchestrator", race.api.url)
    idea = candidate(race)
    assert race.detail(idea)["finished_at"] is None
    words = say("status", idea)[1]
    assert words.startswith(f"{idea} candidate: 0.0022 better than the champion's estimate 0.9980;")
    assert words.endswith("after 1 run; another seed follows\n")
    codes = list[int]()
    waiter = threading.Thread(target=lambda: codes.append(main(["wait", idea, *orchestrator])))
    waiter.start()
    keep(race, idea)
    waiter.join()
    out = capsys.readouterr().out
    assert codes == [0]
    assert out.startswith(f"{idea} keep: val_bpb 0.995800; 0.00")
    assert out.endswith("after 3 runs; kept\n")


def test_a_terminal_names_candidates_repeats_and_the_estimate(race: Race, say: Any) -> None:
    candidate(race)
    rows = [line.split()[:2] for line in say("history", "mar11")[1].splitlines()]
    assert [status for _, status in rows[1:]][:7] == [
        "keep", "repeat", "repeat", "repeat", "repeat", "candidate", "queued",
    ]  # fmt: skip
    assert say("best", "mar11")[1].startswith("0.997980 (an estimate, 0.99")
    assert "mar11 (race)" in say("status")[1]
    assert ", 1 candidate" in say("status", "mar11")[1]
    picture = say("watch", "mar11", "--once")[1]
    assert "best 0.997980 (an estimate)" in picture
    verdicts = picture[picture.index("verdict") :].splitlines()
    assert "candidate" in verdicts[1], "its verdict is to come, so it stands first"
    assert "repeat" in verdicts[2]


def test_the_columns_hold_estimates_and_the_table_has_candidates_on_top(race: Race) -> None:
    idea = candidate(race)
    answer = race.api.get("/api/report/series", tag="mar11")
    assert (answer["keep_rule"], answer["total"]) == ("race", 1)
    assert answer["race"]["best_val_bpb"] == pytest.approx(0.99798)
    assert answer["race"]["provisional"] == []
    table = race.api.get("/api/report/runs", tag="mar11")
    assert (table["decided"], table["candidates"]) == (1, 1)
    [row] = [row for row in table["active"] if row["status"] == "candidate"]
    assert (row["id"], row["n"], row["val_bpb"]) == (idea, None, 0.9958)
    assert row["delta"] == pytest.approx(0.0022, abs=1e-4)
    assert row["measured_at"] > row["created_at"]
    [chosen] = race.api.get("/api/report/runs", tag="mar11", status="candidate")["active"]
    assert chosen["id"] == idea
    keep(race, idea)
    answer = race.api.get("/api/report/series", tag="mar11", since=answer["cursor"])
    assert answer["blocks"][0]["status"] == "k"
    assert answer["keeps"][0]["estimate"] == pytest.approx(0.9958, abs=2e-4)
    beside = race.api.get(f"/api/experiment/{idea}/surroundings")
    assert [(one["seed"], one["val_bpb"]) for one in beside["repeats"]] == [
        (43, 0.9957), (44, 0.9955),
    ]  # fmt: skip


def test_a_gpu_is_busy_with_every_run_until_it_ended_and_not_until_the_verdict(race: Race) -> None:
    idea = candidate(race)
    keep(race, idea)
    url = race.api.settings.redis_url
    assert url is not None

    async def read() -> tuple[History, list[Run]]:
        store = Store(url.get_secret_value(), 5)
        try:
            entries = [entry async for entry in store.reads.everything("mar11")]
            history = await Histories(store).of(await store.reads.tag("mar11"))
            return history, [entry.run for entry in entries]
        finally:
            await store.close()

    history, runs = asyncio.run(read())
    done = [run for run in runs if run.status is not Status.QUEUED]
    assert len(done) == 8, "the baseline and an idea, with repeats"
    assert {(one.started_us, one.ended_us) for one in history.trainings} == {
        (run.started_us, run.measured_us or run.finished_us) for run in done
    }
