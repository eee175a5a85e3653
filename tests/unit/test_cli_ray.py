"""`autoresearch fleet ray` without Ray: wrong use, and what a node's daemon gets of its actor."""

import json
import os
import sys

import pytest

from orchestrator.cli import main
from orchestrator.cli.fleet.ray import _environment


def test_without_the_extra_a_fleet_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for command in ("up", "status", "watch", "down"):
        assert main(["fleet", "ray", command]) == 2
        assert "uv sync --extra ray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--gpus", "none"], "--gpus none: a number from 1, or all"),
        (["watch", "--gpus", "0"], "--gpus 0: a number"),
        (["status", "--label", "a b"], "--label a b: letters, digits"),
        (["up", "--orchestrator", "here"], "--orchestrator (AUTORESEARCH_ORCHESTRATOR)"),
    ],
)
def test_wrong_use_is_named_before_ray_is_asked(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "ray", *arguments, "--json"]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]


def test_a_daemon_has_neither_rays_token_nor_what_ray_sets_for_its_actors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray gives an actor without CPUs one thread, which would be that of its GPU's training too."""
    for name in ("RAY_AUTH_TOKEN", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "3")
    assert "PATH" in os.environ
    assert _environment().keys() & {"RAY_AUTH_TOKEN", "OMP_NUM_THREADS"} == set()
    assert _environment()["CUDA_VISIBLE_DEVICES"] == "3"
    assert _environment()["PATH"] == os.environ["PATH"]
