"""What the wire and the domain both declare is declared alike."""

from dataclasses import fields

import pytest

from orchestrator import domain, schemas


@pytest.mark.parametrize("name", ["Metrics", "Environment"])
def test_a_wire_model_and_its_value_have_the_same_fields(name: str) -> None:
    """So a service can make one from the other, and the store its fields from the value."""
    wire, value = getattr(schemas, name), getattr(domain, name)
    assert list(wire.model_fields) == [field.name for field in fields(value)]


def test_an_attempt_ends_in_each_way_that_a_worker_reports() -> None:
    reported = set(schemas.ReportedResult.__args__)
    assert reported < set(domain.AttemptEnding.__args__)
    assert set(domain.ResultKind.__args__) == reported - {"handed_back", "lost"}
