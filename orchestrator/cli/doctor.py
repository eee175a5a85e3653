"""`autoresearch doctor`: is this machine fit, and if not, what to do."""

from typing import Any

import typer

from orchestrator.cli.errors import FAILED
from orchestrator.cli.options import UP_FLAGS, Json, Url, takes_settings
from orchestrator.cli.output import answer, write_json

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@takes_settings(UP_FLAGS)
def doctor(*, flags: dict[str, Any], orchestrator: Url = None, json: Json = False) -> None:
    """Check GPU, driver, torch, data, ports, Redis, uv, disk; exit code 1 if something fails."""
    from orchestrator.cli.checks import Subject, findings
    from orchestrator.cli.config import connect
    from orchestrator.cli.up import both_settings

    settings, worker = both_settings(flags)
    token = settings.token.get_secret_value() if settings.token else None
    found = []
    with connect(orchestrator, token) as client:
        for finding in findings(Subject(settings, worker, client)):
            found.append(finding)
            if not json:
                todo = f"\n{'':20}→ {finding.todo}" if finding.todo else ""
                answer(f"{_MARKS[finding.state]}  {finding.name:<13} {finding.text}{todo}")
    failed = any(finding.state == "fail" for finding in found)
    if json:
        write_json({"ok": not failed, "checks": [vars(finding) for finding in found]})
    if failed:
        raise typer.Exit(FAILED)
