"""docs/operations.md tells the limits for callers as the code has them."""

from pathlib import Path

from orchestrator import connections, guard, schemas
from orchestrator.cli.run import process
from orchestrator.services.core import limited
from orchestrator.store import idempotency, scripts


def spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def test_the_table_of_limits_has_the_figures_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    table = page.partition("## Limits for callers\n")[2].partition("\n## ")[0]
    work = f"{limited.CPU_SECONDS} s of CPU, {limited.MEMORY_BYTES >> 20} MiB"
    head, body = connections.HEAD_SECONDS, connections.BODY_SECONDS
    submission = guard.SUBMIT_LIMIT_BYTES / 2**20
    hours, kept = scripts.IDEMPOTENCY_SECONDS // 3600, spaced(idempotency.ANSWERS_KEPT)
    rows = {
        "connections of one address": spaced(process._OPEN_FILES // 2),
        "headers, then for its body": f"{head:g} s, {body:g} s",
        "| headers |": f"{connections.HEAD_BYTES >> 10} KiB",
        "| body; of a": f"{schemas.BODY_LIMIT_BYTES >> 10} KiB; {submission:g} MiB",
        "compiling a source": work,
        "comparing two sources": work,
        "stored": f"{hours} h, the newest {kept}, each up to {guard.LONGEST_ANSWER >> 10} KiB",
    }
    for name, limit in rows.items():
        row = next(line for line in table.splitlines() if name in line)
        assert limit in row
