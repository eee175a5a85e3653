"""The digest of a run stays below 2 KB and harmless, even if the run prints hostile text."""

import json
from typing import Any

from hypothesis import given, settings, strategies as st

from orchestrator.domain import Environment, Experiment, Metrics, Run, State, Status
from orchestrator.rules import digest as rule
from orchestrator.rules.digest import Evidence, digest
from orchestrator.schemas import DIGEST_LIMIT_BYTES, Digest
from tests import hostile_log as hostile

ID = "exp-0660f78349a45a-mar11"
GOOD = Metrics(0.98, 45_000.0, 300.0, 499.6, 39.8, 953, 50.3, 8)


def experiment(**fields: Any) -> Experiment:
    values = {
        "id": ID, "tag": "mar11", "created_us": 1, "hypothesis": "h", "description": "d",
        "category": "optimizer", "commit_sha": "a", "diff_summary": "s",
    }  # fmt: skip
    return Experiment(**(values | fields))


def run(metrics: Metrics | None = GOOD, **fields: Any) -> Run:
    values: dict[str, Any] = {
        "experiment_id": ID, "state": State.DECIDED, "status": Status.KEEP, "seed": 42,
        "priority": 0, "time_budget_seconds": 300.0, "metrics": metrics,
    }  # fmt: skip
    return Run(**(values | fields))


def size(made: Digest) -> int:
    return len(made.model_dump_json().encode())


def codes(made: Digest) -> list[str]:
    return [warning.code for warning in made.warnings]


def test_a_good_run_says_its_metrics_and_what_changed() -> None:
    """Against the parent metric by metric; the best itself is compared with what it beat."""
    parent = run(Metrics(0.99, 40_000.0, 300.0, 500.0), experiment_id="exp-1")
    made = digest(Evidence(experiment(), run(best_before=0.985), parent, run()))
    assert made.metrics["tokens_per_second"] == 1_665_000
    assert made.parent is not None
    assert made.parent.changes["val_bpb"] == -0.01
    assert made.parent.changes["peak_vram_mb"] == 5000
    assert made.best is not None
    assert made.best.changes == {"val_bpb": -0.005}
    assert made.warnings == []
    assert made.untrusted is None


def test_the_curve_has_a_dozen_points_beside_the_parent_s_at_the_same_percent() -> None:
    """First and last are among them; the parent's column is empty where it has no point."""
    curve = [(float(p), 5 - p / 50) for p in range(101)]
    parent = [(p * 2.0, 6 - p / 25) for p in range(46)]
    made = digest(Evidence(experiment(), run(), curve=curve, parent_curve=parent))
    assert len(made.curve) == 12
    assert made.curve[0] == [0.0, 5.0, 6.0]
    assert made.curve[-1] == [100.0, 3.0, None]
    assert made.curve[5][2] == round(made.curve[5][1] + 1, 3)


def test_what_is_worth_a_look_is_warned_about() -> None:
    """Each warning from numbers, with the numbers in its text."""
    curve = [(0.0, 9.0), (20.0, 3.0), (40.0, 4.0), (100.0, 3.1)]
    tail = b"".join(b"\rstep %d | dt: %dms |" % (i, 300 if i % 5 else 900) for i in range(40))
    mine = run(
        Metrics(0.99, 79_000.0, 200.0, 100.0), losses=1, environment=Environment(profile="cpu")
    )
    parent = run(GOOD, experiment_id="exp-1", environment=Environment(profile="h100"))
    made = digest(Evidence(experiment(), mine, parent, parent, curve, (), tail, vram_mb=81_559))
    assert codes(made) == [
        "vram_near_limit", "loss_unstable", "uneven_steps", "slower_than_parent",
        "not_comparable", "short_training", "lost_attempts",
    ]  # fmt: skip
    assert made.warnings[1].text == "the loss rose from 3 to 4 at 40 %"


def test_a_steady_run_is_not_warned_about() -> None:
    curve = [(float(p), 9 - p / 20 + (0.1 if p % 2 else 0)) for p in range(101)]
    tail = b"".join(b"\rstep %d | dt: %dms |" % (i, 300 + i % 7) for i in range(40))
    made = digest(Evidence(experiment(), run(), None, None, curve, (), tail, vram_mb=80_000))
    assert codes(made) == []


def test_a_crash_says_class_message_and_frames_below_untrusted() -> None:
    """And nowhere else: all of it is what the run printed."""
    crashed = run(None, status=Status.CRASH, error="out of GPU memory; exit code 1\n…")
    tail = (
        b"Traceback (most recent call last):\n"
        b'  File "/w/train.py", line 7, in step\n    x = f(y)\nValueError: bad shape\n'
    )
    made = digest(Evidence(experiment(), crashed, tail=tail))
    assert codes(made) == ["out_of_gpu_memory"]
    said = made.untrusted
    assert said is not None
    assert (said.exception, said.message) == ("ValueError", "bad shape")
    assert (said.frames[0].file, said.frames[0].line) == ("/w/train.py", 7)
    assert made.metrics == {}


def texts_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts_of(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return [value] if isinstance(value, str) else []


def test_the_hostile_log_stays_in_its_field() -> None:
    """Neither metric nor warning nor status comes from what it says, and all text is harmless."""
    crashed = run(
        None,
        status=Status.CRASH,
        error=hostile.RUN_LOG.decode(errors="replace"),
        warnings=tuple(hostile.PIECES),
    )
    made = digest(Evidence(experiment(), crashed, tail=hostile.RUN_LOG))
    assert made.status == "crash"
    assert made.metrics == {}
    assert made.untrusted is not None
    outside = made.model_copy(update={"untrusted": None}).model_dump_json()
    for word in ("IGNORE", "0.0001", "script", "EvilError"):
        assert word not in outside
    for text in texts_of(json.loads(made.model_dump_json())):
        hostile.assert_harmless(text)


AMOUNTS = st.none() | st.floats(0, 2**53)
METRICS = st.none() | st.builds(
    Metrics,
    st.floats(1e-9, 1e6), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS,
    st.none() | st.integers(0, 2**53), AMOUNTS, st.none() | st.integers(0, 2**53),
)  # fmt: skip
WORDS = st.text(max_size=600) | st.sampled_from(hostile.PIECES) | st.just('\\"' * 1000)
LONG_ID = "exp-0660f78349a45a-" + "m" * 64
RUNS = st.builds(
    run,
    METRICS,
    experiment_id=st.just(LONG_ID),
    status=st.sampled_from(list(Status)),
    state=st.sampled_from(list(State)),
    losses=st.integers(0, 3),
    best_before=st.none() | st.floats(1e-9, 1e6),
    error=st.none() | WORDS,
    reason=st.none() | WORDS,
    warnings=st.lists(WORDS, max_size=20).map(tuple),
    time_budget_seconds=st.floats(1, 86_400),
    environment=st.builds(Environment, profile=st.none() | WORDS),
)
CURVES = st.lists(st.tuples(st.floats(0, 2**53), st.floats(-1e300, 1e300)), max_size=40)


@settings(max_examples=150)
@given(
    mine=RUNS,
    parent=st.none() | RUNS,
    best=st.none() | RUNS,
    curves=st.tuples(CURVES, CURVES),
    tail=st.binary(max_size=300) | st.just(hostile.RUN_LOG),
    vram=AMOUNTS,
)
def test_it_is_always_under_two_kilobytes_and_harmless(
    mine: Run, parent: Run | None, best: Run | None, curves: Any, tail: bytes, vram: float | None
) -> None:
    """With the longest names, the largest numbers and the worst words."""
    made = digest(
        Evidence(experiment(id=LONG_ID, tag="m" * 64), mine, parent, best, *curves, tail, vram)
    )
    assert size(made) <= rule.LIMIT_BYTES
    assert len(json.dumps(json.loads(made.model_dump_json())).encode()) <= 4 * DIGEST_LIMIT_BYTES
    for text in texts_of(json.loads(made.model_dump_json())):
        hostile.assert_harmless(text)


def test_the_worst_case_loses_words_and_points_but_no_number() -> None:
    """Everything at its longest at once: what is dropped is what the record has in full."""
    huge = Metrics(123456.7, *[9.00719e15 / 7] * 4, 2**53, 9.00719e15 / 7, 2**53)
    mine = run(
        huge, experiment_id=LONG_ID, status=Status.TIMEOUT, losses=2, best_before=1.0,
        error="out of GPU memory " + '"\\' * 2000, warnings=('"\\' * 900,) * 20, reason="\\" * 99,
        time_budget_seconds=9e15, environment=Environment(profile="a"),
    )  # fmt: skip
    other = run(
        Metrics(1.1, *[1.0] * 4, 1, 1.0), experiment_id=LONG_ID + "x",
        environment=Environment(profile="b"),
    )  # fmt: skip
    curve = [(p * 1e13 / 3, (-1) ** p * 1.234e-200) for p in range(40)]
    frame = b'  File "' + b"/" * 99 + b'", line 999999999, in ' + b"\\" * 99
    frame += b"\n    " + b'"' * 400
    tail = b"Traceback (most recent call last):\n" + (frame + b"\n") * 9
    tail += b"E" * 99 + b": " + b'"' * 999
    made = digest(
        Evidence(experiment(id=LONG_ID, tag="m" * 64), mine, other, other, curve, curve, tail, 1.0)
    )
    assert size(made) <= rule.LIMIT_BYTES
    assert len(made.metrics) == 9
    assert made.parent is not None
    assert len(made.parent.changes) == 5
    assert made.untrusted is not None
    assert made.untrusted.exception
