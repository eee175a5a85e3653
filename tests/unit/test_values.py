"""What the wire and the domain both declare is declared alike."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from orchestrator import domain, schemas
from orchestrator.mcp import models as mcp_models


@pytest.mark.parametrize("name", ["Metrics", "Environment"])
def test_a_wire_model_and_its_value_have_the_same_fields(name: str) -> None:
    """So a service can make one from the other, and the store its fields from the value."""
    wire, value = getattr(schemas, name), getattr(domain, name)
    assert list(wire.model_fields) == [field.name for field in fields(value)]


def test_an_attempt_ends_in_each_way_that_a_worker_reports() -> None:
    reported = set(schemas.ReportedResult.__args__)
    assert reported < set(domain.AttemptEnding.__args__)
    # A run that was stopped early was reported as cancelled, handed back or lost.
    assert set(domain.ResultKind.__args__) == reported - {"handed_back", "lost"} | {"stopped"}


def _requests(base: type[schemas.Request] = schemas.Request) -> Iterator[type[schemas.Request]]:
    for model in base.__subclasses__():
        yield model
        yield from _requests(model)


def _asks_for_a_number(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_asks_for_a_number, get_args(annotation)))


NUMBERS = {
    f"{model.__module__}.{model.__name__}.{name}": (model, name)
    for model in _requests()
    for name, field in model.model_fields.items()
    if _asks_for_a_number(field.annotation) and not model.__name__.endswith("Answer")
}


def test_the_table_has_the_numbers_of_both_kinds_of_request() -> None:
    assert "orchestrator.schemas.experiments.SetupRequest.time_budget_seconds" in NUMBERS
    assert f"{mcp_models.__name__}.WaitRequest.seconds" in NUMBERS


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("field", NUMBERS)
def test_truth_is_no_number_in_any_field_of_a_request(field: str, truth: bool) -> None:
    """Python counts true as 1: a search whose budget was `true` would train for a second."""
    model, name = NUMBERS[field]
    with pytest.raises(ValidationError) as refused:
        model.model_validate({name: truth})
    found = [error["msg"] for error in refused.value.errors() if error["loc"][0] == name]
    assert found == ["Value error, must be a number, not true or false"]
