"""Wrong use: the right exit code, a message that says what to do, and JSON when that was asked."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main

NOWHERE = "http://127.0.0.1:9"  # nothing listens on the discard port


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["submit"],
        ["submit", "train.py", "--tag", "t"],
        ["demo", "--experiments", "0"],
        ["history", "t", "--limit", "many"],
        ["pause", "t"],
        ["priority", "exp-1", "high", "-r", "r"],
    ],
)
def test_a_usage_error_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Error" in said.err
    code, answer = run_json(capsys, *arguments)
    assert code == answer["exit_code"] == 2
    assert answer["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"], ["status", "t"], ["status", "exp-1"], ["setup", "t"], ["best", "t"],
        ["history", "t"], ["export", "t", "--tsv", "x.tsv"], ["log", "exp-1"],
        ["wait", "exp-1"], ["cancel", "exp-1"], ["pause", "t", "-r", "r"],
        ["resume", "t", "-r", "r"], ["requeue", "exp-1", "-r", "r"],
        ["priority", "exp-1", "3", "-r", "r"], ["drain", "g", "-r", "r"],
        ["undrain", "g", "-r", "r"], ["note", "t", "text"], ["notes", "t"], ["ledger"],
        ["watch"], ["watch", "t", "--once"], ["diff", "exp-1", "exp-2"],
        ["chart", "t", "-o", "x.png"], ["log", "-f", "exp-1"], ["export", "t", "-o", "x.jsonl"],
    ],
)  # fmt: skip
def test_nobody_there_is_3_and_says_how_to_start(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer = run_json(capsys, *arguments, "--orchestrator", NOWHERE)
    assert code == answer["exit_code"] == 3
    assert "autoresearch up" in answer["error"]
    assert main([*arguments, "--orchestrator", NOWHERE]) == 3
    assert "error: no orchestrator answers" in capsys.readouterr().err


def test_a_misspelt_address_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = run_json(capsys, "status", "--orchestrator", "127.0.0.1:3111")
    assert code == 2
    assert "--orchestrator (AUTORESEARCH_ORCHESTRATOR)" in answer["error"]


def test_the_address_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTORESEARCH_ORCHESTRATOR", NOWHERE)
    code, answer = run_json(capsys, "status")
    assert code == 3
    assert NOWHERE in answer["error"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_submitted_is_2(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.py"
    if content is not None:
        path.write_bytes(content)
    code, answer = run_json(capsys, "submit", str(path), "--tag", "t", "--hypothesis", "h")
    assert code == 2
    assert str(path) in answer["error"]


def test_a_tag_that_is_no_name_is_2_without_asking_anybody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, answer = run_json(capsys, "setup", "../../x", "--orchestrator", NOWHERE)
    assert code == 2
    assert answer["error"].startswith("tag:")


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_taken_port_is_2_and_names_who_has_it(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.listen(0)
        port = str(taken.getsockname()[1])
        code, answer = run_json(
            capsys, command, "--port", port, "--home", str(tmp_path),
            *(["--cpu"] if command == "up" else []),
        )  # fmt: skip
    assert code == 2
    assert f"port {port} on 127.0.0.1 is taken" in answer["error"]
    assert "--port 0" in answer["error"]
    assert not (tmp_path / "redis").exists()


def test_serve_refuses_to_stand_open(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = run_json(capsys, "serve", "--host", "0.0.0.0")
    assert code == 2
    assert "AUTORESEARCH_TOKEN" in answer["error"]


def test_cpu_and_a_gpu_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "worker", "--cpu", "--gpu", "0")[0] == 2


def test_a_gpu_that_is_not_there_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = run_json(capsys, "up", "--gpu", "9999", "--home", str(tmp_path))
    assert code == 2
    assert "9999" in answer["error"]


def test_best_does_not_mix_a_file_and_json_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_json(capsys, "best", "t", "--source", "-")[0] == 2
    assert run_json(capsys, "export", "t", "--tsv", "-")[0] == 2


def test_a_demo_without_a_baseline_or_without_knobs_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "train.py")
    arguments = ["demo", "--cpu", "--check", "false", "--home", str(tmp_path), "--train-py"]
    code, answer = run_json(capsys, *arguments, missing)
    assert code == 2
    assert "--train-py" in answer["error"]
    Path(missing).write_text("X = 1\n")
    code, answer = run_json(capsys, *arguments, missing)
    assert code == 2
    assert "no constant" in answer["error"]


@pytest.mark.parametrize("made", [(), ("prepare.py", "pyproject.toml")])
def test_up_is_not_up_where_no_worker_could_serve(
    made: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in made:
        (tmp_path / name).write_text("")
    arguments = ["up", "--cpu", "--port", "0", "--home", str(tmp_path / "home")]
    code, answer = run_json(capsys, *arguments, "--project", str(tmp_path))
    assert code == 2
    assert ("uv sync" if made else "--project") in answer["error"]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("optuna", ["demo"]), ("matplotlib", ["demo"]), ("matplotlib", ["chart", "t"])],
)
def test_without_the_extra_a_command_says_what_to_install(
    module: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, answer = run_json(capsys, *arguments)
    assert code == 2
    assert "pip install 'n-autoresearch[demo]'" in answer["error"]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("autoresearch ")
