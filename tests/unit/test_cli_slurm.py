"""`autoresearch fleet slurm` without Slurm: times as sbatch takes them, and what wrong use says."""

import json
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.cli.fleet.slurm import _notice_seconds

UP = ("up", "--cpu", "--time", "60")


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("10", 300), ("10:30", 315), ("0:10:30", 315), ("4:00:00", 600), ("1-0", 600),
        ("0-0:10", 300), ("0-0:10:30", 315), ("120", 600), ("1", 30),
    ],
)  # fmt: skip
def test_a_task_has_ten_minutes_notice_or_half_of_a_shorter_time(limit: str, seconds: int) -> None:
    assert _notice_seconds(limit) == seconds


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("up", "--cpu", "--time", "soon"), "--time soon: minutes, H:MM:SS or D-HH:MM:SS"),
        (("up", "--time", "60"), "--gpus-per-node N, or --cpu"),
        ((*UP, "--array", "0"), "--array 0: a number of tasks"),
        ((*UP, "--array", "1-4"), "8%2 for two at once"),
        ((*UP, "--label", "a b"), "--label a b: letters"),
        ((*UP, "--drain-timeout", "long"), "--drain-timeout"),
        (UP, "no sbatch here: run this on a machine of the Slurm cluster"),
        (("down",), "no squeue here"),
        (("status", "--orchestrator", "http://127.0.0.1:9"), "no squeue here"),
    ],
)
def test_wrong_use_says_what_to_do(
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["fleet", "slurm", *arguments, "--json"]) == 2
    assert words in json.loads(capsys.readouterr().out)["error"]
