"""Flags: one for each setting, a flag wins over its variable, and an error names both."""

import re
import subprocess
import sys

import pytest

from gpu_worker.settings import WorkerSettings
from orchestrator.cli import main
from orchestrator.cli.config import is_loopback, load, refuse_open_address
from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import SERVE_FLAGS, UP_FLAGS, WORKER_FLAGS
from orchestrator.settings import Settings


def test_every_setting_has_its_flag() -> None:
    assert {f.name for f in SERVE_FLAGS} == set(Settings.model_fields)
    assert {f.name for f in WORKER_FLAGS} == set(WorkerSettings.model_fields)


def test_up_takes_the_settings_of_both_but_where_its_own_orchestrator_is() -> None:
    both = set(Settings.model_fields) | set(WorkerSettings.model_fields)
    assert {f.name for f in UP_FLAGS} == both - {"orchestrator"}


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_PORT", "1111")
    monkeypatch.setenv("AUTORESEARCH_LEASE_SECONDS", "17")
    settings = load(Settings, port="2222", lease_seconds=None)
    assert (settings.port, settings.lease_seconds) == (2222, 17)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", "99999", "--port (AUTORESEARCH_PORT)"),
        ("lease_seconds", "-1", "--lease-seconds (AUTORESEARCH_LEASE_SECONDS)"),
    ],
)
def test_a_bad_value_is_named_by_flag_and_variable(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(Settings, **{name: value})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]"])
def test_loopback_addresses_need_no_token(host: str) -> None:
    refuse_open_address(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "somewhere"])
def test_other_addresses_need_a_token_or_the_word_that_none_is_meant(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="--no-token"):
        refuse_open_address(Settings(host=host))
    refuse_open_address(Settings(host=host, no_token=True))
    refuse_open_address(Settings(host=host, token="secret"))


def test_help_needs_nothing_heavy() -> None:
    """`--help` is asked for often; importing torch, HTTP or pydantic for it would be felt."""
    code = (
        "import sys, orchestrator.cli.app;"
        "print([m for m in ('torch', 'httpx', 'pydantic', 'fastapi', 'optuna', 'matplotlib')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


COMMANDS = [
    "up", "serve", "worker", "demo", "setup", "submit", "status", "log", "wait", "cancel", "best",
    "history", "export", "doctor", "watch", "diff", "chart",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_speaks_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out
