"""Flags: one for each setting, a flag wins over its variable, and an error names both."""

import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from gpu_worker.settings import WorkerSettings
from orchestrator.cli import main
from orchestrator.cli.app import COMMANDS
from orchestrator.cli.client import is_loopback
from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import connect, load
from orchestrator.cli.run.serve import bits_of, refuse_open_address
from orchestrator.errors import SetupError
from orchestrator.settings import Settings


def flags_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    assert main([command, "--help"]) == 0
    return set(re.findall(r"--([a-z][a-z-]*)", capsys.readouterr().out))


def flags(*kinds: type[BaseSettings]) -> set[str]:
    return {name.replace("_", "-") for kind in kinds for name in kind.model_fields}


def test_every_setting_has_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert flags(Settings) <= flags_of("serve", capsys)
    assert flags(WorkerSettings) <= flags_of("worker", capsys)


def test_every_setting_says_what_it_is() -> None:
    for kind in (Settings, WorkerSettings):
        assert all(field.description for field in kind.model_fields.values())


def test_up_takes_the_settings_of_both_but_where_its_own_orchestrator_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = flags(Settings, WorkerSettings) - {"orchestrator"}
    shown = flags_of("up", capsys)
    assert both <= shown
    assert "orchestrator" not in shown


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
    refuse_open_address(Settings(host=host, no_token=True, insecure=True))
    refuse_open_address(Settings(host=host, token=secrets.token_hex(16), insecure=True))


def test_plain_http_for_other_machines_has_to_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        refuse_open_address(Settings(host="0.0.0.0", token=secrets.token_hex(16)))


def test_a_certificate_comes_with_its_key_and_both_are_read_at_once(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for files in (
        {"tls_cert": str(text)},
        {"tls_key": str(text)},
        {"tls_cert": str(text), "tls_key": str(text)},
        {"tls_cert": str(tmp_path / "none"), "tls_key": str(text)},
    ):
        with pytest.raises(ConfigError, match=r"--tls-key \(AUTORESEARCH_TLS_KEY\)"):
            load(Settings, **files)


def test_a_file_without_certificates_to_trust_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for file in (text, tmp_path / "none"):
        with pytest.raises(SetupError, match="AUTORESEARCH_CA"):
            connect("https://127.0.0.1:1", None, str(file))


@pytest.mark.parametrize(
    "token", ["secret", "a" * 64, "abcabcabc" * 9, "0123456789" * 3, "0123456789abcdef" * 2 + "!"]
)
def test_a_token_that_can_be_guessed_is_for_loopback_only(token: str) -> None:
    """By length and alphabet: nobody can see how random a text was."""
    weak = bits_of(token) < 128
    assert weak == (token != "0123456789abcdef" * 2 + "!")
    refuse_open_address(Settings(host="127.0.0.1", token=token))
    refuse_open_address(Settings(host="0.0.0.0", token=token, no_token=True, insecure=True))
    if weak:
        with pytest.raises(ConfigError, match="openssl rand -hex 32"):
            refuse_open_address(Settings(host="0.0.0.0", token=token))


@pytest.mark.parametrize("make", [secrets.token_hex, secrets.token_urlsafe])
def test_a_random_token_of_128_bits_is_not_called_weak(make: Callable[[int], str]) -> None:
    assert all(bits_of(make(16)) >= 128 for _ in range(500))
    assert all(bits_of(make(12)) < 128 for _ in range(500))


def test_help_needs_nothing_heavy() -> None:
    """`--help` is asked for often; importing torch, HTTP or pydantic for it would be felt."""
    code = (
        "import sys, orchestrator.cli.app;"
        "print([m for m in ('torch', 'httpx', 'pydantic', 'fastapi', 'optuna', 'matplotlib')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("fleet", "mirror", "token")])
def test_every_command_explains_itself_and_speaks_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out
