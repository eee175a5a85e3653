"""The steering commands against a real orchestrator: what they do, say, and refuse."""

import json
from typing import Any

import pytest

from orchestrator.cli import main
from tests.conftest import Api


@pytest.fixture
def run(api: Api, capsys: pytest.CaptureFixture[str]) -> Any:
    """`autoresearch WORDS`: its exit code and what it printed on stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--orchestrator", api.url])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_tag_is_paused_and_resumed_and_status_says_so(api: Api, run: Any) -> None:
    api.tag()
    code, out, _ = run("pause", "mar11", "-r", "GPUs are needed", "--by", "Ada")
    assert (code, out) == (0, "mar11 is paused by Ada: GPUs are needed\n")
    assert "mar11 (paused)" in run("status")[1]
    assert "by Ada: GPUs are needed" in run("status", "mar11")[1]
    assert run("resume", "mar11", "-r", "done")[:2] == (0, "mar11 is not paused\n")
    assert "(paused)" not in run("status")[1]


def test_a_tag_is_switched_to_race_and_status_says_so(api: Api, run: Any) -> None:
    api.tag()
    api.gpu()
    best = api.submit("1")
    api.finish(api.claim(), 0.9)
    said = f"mar11 keeps by race from now on; its best, {best}, is repeated first\n"
    assert run("race", "mar11", "-r", "keeps shall hold")[:2] == (0, said)
    assert "mar11 (race)" in run("status")[1]


def test_a_run_is_prioritised_requeued_and_cancelled(api: Api, run: Any) -> None:
    """Queued, running, decided: each command says what became of it."""
    api.tag()
    api.gpu()
    first, second = api.submit("1"), api.submit("2")
    code, out, _ = run("priority", second, "7", "-r", "sooner")
    assert (code, out) == (0, f"{second} has priority 7, position 1\n")
    job = api.claim()
    assert "back into the queue" in run("requeue", second, "-r", "again")[1]
    api.finish(job, outcome="cancelled")
    api.finish(api.claim(), 1.0)
    code, out, _ = run("requeue", second, "-r", "for noise", "--json")
    assert json.loads(out)["repeat_of"] == second
    assert run("cancel", first, "-r", "pointless")[1] == f"{first} cancelled\n"
    code, _, err = run("priority", first, "1", "-r", "r")
    assert (code, "requeue it" in err) == (1, True)


def test_notes_are_left_listed_and_dropped(api: Api, run: Any) -> None:
    api.tag()
    assert "no notes" in run("notes", "mar11")[2]
    code, out, _ = run("note", "mar11", "wider\nand deeper", "--by", "Ada")
    note = out.split()[0]
    assert (code, out) == (0, f"{note} is left for the agents of mar11\n")
    [head, *text] = run("notes", "mar11")[1].splitlines()
    assert head.startswith(note)
    assert head.endswith("Ada")
    assert text == ["  wider", "  and deeper"]
    assert run("notes", "mar11", "--drop", note)[:2] == (0, f"{note} is dropped\n")
    code, _, err = run("notes", "mar11", "--drop", note)
    assert (code, note in err) == (1, True)


def test_a_gpu_is_drained_and_undrained(api: Api, run: Any) -> None:
    api.gpu()
    assert run("drain", "gpu-0", "-r", "a new fan")[:2] == (0, "gpu-0 gets no new run\n")
    assert "draining" in run("status")[1]
    assert run("undrain", "gpu-0", "-r", "it turns")[:2] == (0, "gpu-0 gets runs again\n")
    code, _, err = run("drain", "gpu-9", "-r", "r")
    assert (code, "gpu-9" in err) == (1, True)


def test_the_ledger_is_a_table_or_json(api: Api, run: Any) -> None:
    api.tag()
    run("pause", "mar11", "-r", "first", "--by", "Ada")
    run("resume", "mar11", "-r", "second")
    rows = run("ledger")[1].splitlines()
    assert rows[0].split()[1:3] == ["by", "action"]
    assert "Ada" in rows[2]
    assert "first" in rows[2]
    code, out, err = run("ledger", "mar11", "--limit", "1", "--json")
    assert (code, err) == (0, "")
    assert [entry["action"] for entry in json.loads(out)["entries"]] == ["resume"]
    code, _, err = run("ledger", "mar12")
    assert (code, "Did you mean 'mar11'" in err) == (1, True)


def test_text_that_is_not_plain_is_refused_before_it_is_sent(api: Api, run: Any) -> None:
    api.tag()
    code, _, err = run("pause", "mar11", "-r", "red \x1b[31m")
    assert (code, "reason" in err, "U+001B" in err) == (2, True, True)
    code, _, err = run("pause", "nosuch", "-r", "r")
    assert (code, "autoresearch setup nosuch" in err) == (1, True)
