"""The first submission of a tag is its baseline, also when several GPUs run its first experiments.

While a tag has no result, a result waits for the runs that were submitted before it and still run.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Api


def _two_running(api: Api) -> tuple[Any, Any]:
    """The jobs of the first two submissions, each on its GPU."""
    api.tag()
    api.submit("baseline = 1\n")
    api.submit("variant = 1\n")
    return api.claim(api.gpu("gpu-0")), api.claim(api.gpu("gpu-1", 1))


def _status(api: Api, job: Any) -> str:
    return str(api.get(f"/api/experiment/{job['experiment_id']}")["status"])


def test_a_variant_that_ends_before_the_baseline_is_compared_with_it(api: Api) -> None:
    """Its report is refused for now, and changes nothing: its lease goes on."""
    baseline, variant = _two_running(api)
    early = api.finish(variant, 0.99, 503)
    assert f"waits for {baseline['experiment_id']}" in early["error"]
    assert early["reason"] == "earlier"
    assert _status(api, variant) == "running"
    first = api.finish(baseline, 0.98)["verdict"]
    assert (first["status"], first["improved"], first["delta"]) == ("keep", True, 0)
    late = api.finish(variant, 0.99)["verdict"]
    assert (late["status"], late["best_val_bpb"]) == ("discard", 0.98)


@pytest.mark.parametrize(
    "end",
    [
        lambda api, job: api.finish(job, outcome="crash", error="boom"),
        lambda api, job: api.finish(job, outcome="timeout", error="too long"),
        lambda api, job: api.finish(job, outcome="lost", error="the GPU failed"),
        lambda api, job: api.finish(job, outcome="handed_back"),
        lambda api, job: api.finish(job, outcome="cancelled"),
    ],
    ids=["crash", "timeout", "lost", "handed back", "cancelled"],
)
def test_a_variant_waits_no_longer_than_the_baseline_runs(
    api: Api, end: Callable[[Api, Any], Any]
) -> None:
    """A lost baseline is queued again, perhaps behind this very GPU: nothing waits for it."""
    baseline, variant = _two_running(api)
    api.finish(variant, 0.99, 503)
    end(api, baseline)
    assert api.finish(variant, 0.99)["verdict"]["status"] == "keep"


def test_what_has_no_result_waits_for_nothing(api: Api) -> None:
    """A crash is compared with nothing."""
    _, variant = _two_running(api)
    assert api.finish(variant, outcome="crash", error="boom")["verdict"]["status"] == "crash"


def test_the_baseline_waits_for_nothing_that_was_submitted_after_it(api: Api) -> None:
    baseline, variant = _two_running(api)
    assert api.finish(baseline, 0.98)["verdict"]["status"] == "keep"
    assert api.finish(variant, 0.97)["verdict"]["status"] == "keep"


def test_with_a_result_nothing_waits(api: Api) -> None:
    """Runs then end in any order, each compared with the best at that moment."""
    api.tag()
    api.complete(api.register(), 1.0)
    api.submit("one = 1\n")
    api.submit("two = 1\n")
    one, two = api.claim(api.gpu("gpu-0")), api.claim(api.gpu("gpu-1", 1))
    assert api.finish(two, 0.9)["verdict"]["status"] == "keep"
    assert api.finish(one, 0.95)["verdict"]["status"] == "discard"


def test_runs_by_hand_neither_wait_nor_are_waited_for(api: Api) -> None:
    """Nobody knows if an agent's run goes on."""
    api.tag()
    earlier = api.register()
    api.submit("x = 1\n")
    api.submit("y = 1\n")
    x, _ = api.claim(api.gpu("gpu-0")), api.claim(api.gpu("gpu-1", 1))
    later = api.register()
    assert api.complete(later, 0.99)["status"] == "keep"
    assert api.finish(x, 0.98)["verdict"]["status"] == "keep"
    assert api.complete(earlier, 0.97)["status"] == "keep"


def test_what_is_submitted_before_the_first_verdict_has_the_baseline_as_parent(api: Api) -> None:
    """While it is queued and while it runs; so `diff` has something to compare with."""
    api.tag()
    by_hand = api.register()
    baseline = api.submit("a = 1\n")
    while_queued = api.submit("a = 2\n")
    job = api.claim(api.gpu())
    while_running = api.submit("a = 3\n")
    chosen = api.submit("a = 4\n", parent_id=by_hand)
    for child in (while_queued, while_running):
        assert api.get(f"/api/experiment/{child}")["parent_id"] == baseline
        assert "-a = 1\n+a = " in api.http.get(f"/api/experiment/{child}/diff").text
    assert api.get(f"/api/experiment/{chosen}")["parent_id"] == by_hand
    assert api.get(f"/api/experiment/{baseline}")["parent_id"] is None
    api.finish(job, outcome="crash", error="boom")
    assert api.get(f"/api/experiment/{api.submit('a = 5')}")["parent_id"] == while_queued
