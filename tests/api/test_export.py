"""export, diff and chart against a real orchestrator, and the pages that they read."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.cli import main
from orchestrator.schemas import ExportRow
from tests import hostile_log as hostile
from tests.conftest import Api

TAG = "mar11"


@pytest.fixture
def cli(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An orchestrator that the command line finds, a tag, and an empty folder to be in."""
    monkeypatch.setenv("AUTORESEARCH_ORCHESTRATOR", api.url)
    monkeypatch.chdir(tmp_path)
    api.tag()
    return api


def mixed(api: Api) -> list[str]:
    """A keep, a discard, a crash, one that waits and one that was cancelled; in this order."""
    keep, discard, crash = (api.register(description=f"run {n}\twith a tab") for n in range(3))
    api.complete(keep, 1.0, num_steps=7)
    api.complete(discard, 1.1, peak_vram_mb=2048.0)
    api.crash(crash)
    waiting, cancelled = api.submit("print(1)"), api.submit("print(2)")
    api.post(f"/api/experiment/{cancelled}/cancel")
    return [keep, discard, crash, waiting, cancelled]


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_pages_come_in_order_of_creation_and_each_experiment_once(cli: Api) -> None:
    names = [cli.register() for _ in range(7)]
    seen: list[str] = []
    after = None
    while True:
        query = {"tag": TAG, "limit": 3} | ({"after": after} if after else {})
        page = cli.get("/api/report/export", **query)
        assert page["total"] == 7
        seen += [row["id"] for row in page["rows"]]
        after = page["next_after"]
        if after is None:
            break
    assert seen == names


def test_json_lines_hold_every_experiment_with_null_for_what_is_not_known(
    cli: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    names = mixed(cli)
    assert main(["export", TAG, "--format", "jsonl"]) == 0
    first = capsys.readouterr().out
    found = rows(first)
    assert [row["id"] for row in found] == names
    assert [r["status"] for r in found] == ["keep", "discard", "crash", "queued", "cancelled"]
    assert (found[0]["val_bpb"], found[0]["num_steps"], found[0]["depth"]) == (1.0, 7, None)
    assert found[2]["val_bpb"] is None
    assert list(found[0]) == list(ExportRow.model_fields)
    main(["export", TAG, "-o", "again.jsonl"])
    assert Path("again.jsonl").read_text() == first


def test_the_table_is_the_one_that_the_service_makes(cli: Api) -> None:
    mixed(cli)
    main(["export", TAG, "-o", "results.tsv"])
    assert Path("results.tsv").read_text() == cli.get("/api/report/tsv", tag=TAG)["tsv"] + "\n"


def test_parquet_has_types_and_the_same_rows(cli: Api) -> None:
    mixed(cli)
    main(["export", TAG, "-o", "runs.parquet"])
    main(["export", TAG, "-o", "runs.jsonl"])
    table = pq.read_table("runs.parquet")
    assert str(table.schema.field("val_bpb").type) == "double"
    assert str(table.schema.field("seed").type) == "int64"
    assert str(table.schema.field("finished_at").type) == "timestamp[us, tz=UTC]"
    times = ("created_at", "started_at", "finished_at")
    for row, line in zip(table.to_pylist(), rows(Path("runs.jsonl").read_text()), strict=True):
        for name in times:
            moment = row.pop(name)
            text = line.pop(name)
            assert (moment and moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) == text
        assert row == line


def test_parquet_without_pyarrow_says_what_to_install(cli: Api) -> None:
    """In a process of its own, in which the import fails."""
    code = (
        "import sys; sys.modules['pyarrow'] = None; from orchestrator.cli import main;"
        f"sys.exit(main(['export', '{TAG}', '-o', 'x.parquet']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "n-autoresearch[parquet]" in done.stderr
    assert not Path("x.parquet").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "csv"],
        ["-o", "x.csv"],
        ["--format", "parquet"],
        [],
        ["--tsv", "a", "--format", "jsonl"],
        ["--format", "jsonl", "--journal", "-"],
        ["--format", "jsonl", "--json"],
    ],
)
def test_what_cannot_be_meant_is_2(arguments: list[str], cli: Api) -> None:
    assert main(["export", TAG, *arguments]) == 2


def test_a_failed_export_leaves_what_was_there(cli: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it fails after the first page, and nothing else lies about."""
    mixed(cli)
    Path("runs.jsonl").write_text("yesterday's\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert main(["export", TAG, "-o", "runs.jsonl"]) == 1
    assert Path("runs.jsonl").read_text() == "yesterday's\n"
    assert [path.name for path in Path().iterdir() if "jsonl" in path.name] == ["runs.jsonl"]


def test_a_file_keeps_its_permissions_and_a_link_its_target(cli: Api) -> None:
    mixed(cli)
    Path("real.jsonl").touch(mode=0o600)
    Path("link.jsonl").symlink_to("real.jsonl")
    main(["export", TAG, "-o", "link.jsonl"])
    assert Path("link.jsonl").is_symlink()
    assert Path("real.jsonl").stat().st_mode & 0o777 == 0o600
    assert len(rows(Path("real.jsonl").read_text())) == 5


def test_hostile_words_are_escaped_and_still_themselves(
    cli: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    words = hostile.RUN_LOG.decode(errors="replace")[:4000]
    cli.complete(cli.register(description=words), 1.0)
    main(["export", TAG, "--format", "jsonl"])
    out = capsys.readouterr().out
    hostile.assert_harmless(out)
    assert rows(out)[0]["description"] == words


def test_a_diff_has_metrics_side_by_side_and_the_changed_lines(
    cli: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.gpu()
    first = cli.submit("A = 1\nB = 2\n", description="the first")
    cli.finish(cli.claim(), 1.0)
    second = cli.submit("A = 1\nB = 3\n", description="more B")
    cli.finish(cli.claim(), 0.9)
    assert main(["diff", first, second]) == 0
    out = capsys.readouterr().out
    for words in ("the first", "more B", "1.000000", "0.900000", "-0.100000", "-B = 2", "+B = 3"):
        assert words in out
    assert main(["diff", second, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["a"]["id"], told["b"]["id"]) == (first, second)
    assert told["deltas"]["val_bpb"] == pytest.approx(-0.1)
    assert told["deltas"]["depth"] is None
    assert main(["diff", first]) == 1
    assert "has no parent" in capsys.readouterr().err


def test_a_diff_of_runs_by_hand_has_no_source_and_says_so(
    cli: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = cli.register(), cli.register()
    cli.complete(first, 1.0)
    cli.complete(second, 0.9)
    assert main(["diff", first, second]) == 0
    said = capsys.readouterr()
    assert "0.900000" in said.out
    assert said.err


@pytest.mark.parametrize("name", ["p.png", "p.svg"])
def test_a_chart_is_drawn_of_any_history(cli: Api, name: str) -> None:
    assert main(["chart", TAG, "-o", name]) == 0
    mixed(cli)
    assert main(["chart", TAG, "-o", name, "--dark", "--by", "time", "--json"]) == 0
    head = Path(name).read_bytes()[:5]
    assert head in (b"\x89PNG\r", b"<?xml")


def test_a_chart_tells_the_words_of_keeps_and_the_gain(cli: Api) -> None:
    for value, words in ((1.0, "baseline"), (0.9, "wider\x1b[2J")):
        cli.complete(cli.register(description=words), value, training_seconds=300)
    main(["chart", TAG, "-o", "p.svg", "--title", "one night"])
    text = Path("p.svg").read_text()
    for words in (">one night<", "best 0.900000 (-0.100000, -10.0 %)", "0.9000  wider<",
                  "10 minutes", "2 kept"):  # fmt: skip
        assert words in text
    hostile.assert_harmless(text)


def test_a_chart_that_cannot_be_meant_is_2(cli: Api) -> None:
    assert main(["chart", TAG, "-o", "p.gif"]) == 2
    assert main(["chart", TAG, "--by", "luck"]) == 2
    assert main(["chart", "nothing", "-o", "p.png"]) == 1
