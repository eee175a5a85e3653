"""The service against its own OpenAPI description: no request, however odd, is a server error."""

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import Api

# How many requests in all. More on demand: SCHEMATHESIS_CASES=20000 uv run pytest -n 0 --timeout 0.
CASES = int(os.environ.get("SCHEMATHESIS_CASES", "800"))
# Streams never end, and a claim's long poll is tested elsewhere.
ENDLESS = "/api/events"


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_every_answer_is_one_that_the_description_names(api: Api) -> None:
    """Status, content type and body of each answer conform; none is 5xx."""
    api.tag()
    api.gpu()
    api.complete(api.register(), 0.9)
    api.submit("1")
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json", timeout=60).exclude(
        path=ENDLESS
    )
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:
        probe(operation, -(-CASES // len(operations)))


def probe(operation: Any, cases: int) -> None:
    """Odd but describable requests to one operation."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=cases,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        database=None,
    )
    def check(case: schemathesis.Case) -> None:
        for name in ("wait", "timeout"):  # keep long polls short
            if isinstance((case.query or {}).get(name), (int, float)):
                case.query[name] = min(case.query[name], 0.05)
        case.call_and_validate(checks=CHECKS, timeout=60)

    check()
