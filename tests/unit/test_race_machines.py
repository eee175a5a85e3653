"""The keep rule `race` on several GPU models: offsets, checks of GPUs, drift."""

import json
import random
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given, strategies as st

from orchestrator.decisions import RaceVerdict
from orchestrator.rules.noise import SeedNoise
from orchestrator.rules.pace import RECENT
from orchestrator.rules.race import FinishedRun, Next, State, check, next_run, step
from orchestrator.rules.race.beliefs import (
    KNOWN,
    UNKNOWN,
    Belief,
    Reading,
    adjusted,
    after_calibration,
    counted,
    of_offsets,
)
from orchestrator.rules.race.drift import CHECK_RUNS, GPUS
from orchestrator.rules.race.queue import Running
from orchestrator.rules.race.state import from_json, to_json

H200, L40S = "NVIDIA H200", "NVIDIA L40S"
BASELINE = (0.9979, 0.9991, 0.9968, 0.9984, 0.9977)
OFFSET = 0.0500  # how much higher the second model reads


class Night:
    """A tag whose runs come from GPUs of two models."""

    def __init__(self, model: str | None = H200) -> None:
        self.state = State()
        self.verdicts: Mapping[str, RaceVerdict] = {}
        for value in BASELINE:
            self.run("plain", value, model)

    def run(
        self, source: str, value: float | None, model: str | None = H200, gpu: str = "gpu-0",
        slow: float | None = None,
    ) -> RaceVerdict | None:  # fmt: skip
        known = [one.source for one in self.state.champions] + [*self.state.candidates.values()]
        seeds = [r.seed for one in known if one.id == source for r in one.readings]
        run = FinishedRun(
            source, max(seeds, default=41) + 1, value, "plain", bool(seeds), gpu=gpu, model=model,
            slow=slow, ending="crashed" if value is None else "completed",
        )  # fmt: skip
        self.state, verdicts = step(self.state, run)
        self.verdicts = {one.source: one for one in verdicts}
        return self.verdicts.get(source)


def test_what_runs_on_a_model_that_the_champion_has_not_run_on_waits_until_it_has() -> None:
    night = Night()
    idea = night.run("idea", 0.9900 + OFFSET, L40S)
    assert idea is not None
    assert (idea.status, idea.runs) == ("repeat", 0)
    assert idea.why == (
        "its value does not count until the champion has run on NVIDIA L40S; another seed follows"
    )
    night.run("plain", 0.9980 + OFFSET, L40S)
    assert night.verdicts["idea"].status == "keep"
    assert "with 0.0500 ± 0.0013 taken off on NVIDIA L40S; seeds" in night.verdicts["idea"].why
    assert night.state.champions[-1].id == "idea"
    assert night.state.champions[-1].belief.mean == pytest.approx(0.9925, abs=5e-4)


def test_an_idea_that_is_worse_on_its_model_is_discarded_though_its_number_is_lower() -> None:
    """The second model reads lower than the first by far."""
    night = Night()
    night.run("plain", 0.9980 - OFFSET, L40S)
    verdict = night.run("idea", 1.0010 - OFFSET, L40S)
    assert verdict is not None
    assert verdict.status == "discard"
    assert verdict.delta == pytest.approx(-0.0030, abs=2e-4)


def test_without_the_offset_a_slower_model_would_decide_the_search() -> None:
    night = Night(None)
    verdict = night.run("idea", 0.9980 - OFFSET, None)
    assert verdict is not None
    assert verdict.status == "keep"


@given(st.integers(0, 50))
def test_an_offset_is_learned_from_champions_on_both_models(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    night = Night()
    for _ in range(30):
        night.run("plain", chance.gauss(0.998 + OFFSET, 0.001), L40S)
        night.run("plain", chance.gauss(0.998, 0.001), H200)
    mean, variance = night.state.offsets[L40S]
    assert abs(mean - OFFSET) < 0.0015
    assert variance**0.5 < 0.001
    assert night.state.offsets[H200] == KNOWN
    assert abs(night.state.champions[-1].belief.mean - 0.998) < 0.001


@given(
    st.lists(st.tuples(st.floats(0.9, 1.1), st.sampled_from((None, H200, L40S, "other")))),
    st.floats(-0.1, 0.1),
    st.floats(0, 1e-4),
)
def test_adjusting_takes_the_offset_off_and_keeps_what_runs_on_the_first_model(
    runs: list[tuple[float, str | None]], mean: float, variance: float
) -> None:
    offsets = {H200: KNOWN, L40S: Belief(mean, variance)}
    readings = [Reading(seed, value, model=model) for seed, (value, model) in enumerate(runs)]
    values = counted(adjusted(readings, offsets))
    for seed, (value, model) in enumerate(runs):
        if model == "other":
            assert seed not in values
        else:
            assert values[seed] == value - (mean if model == L40S else 0.0)
    extra = of_offsets(adjusted(readings, offsets), offsets)
    assert 0 <= extra <= variance * (1 + 1e-9)
    if values and all(model == L40S for _, model in runs):
        assert extra == pytest.approx(variance), "repeats do not lessen it"


@given(st.floats(-1, 1), st.floats(1e-9, 1e-4), st.floats(0.5, 1.5))
def test_a_calibration_never_makes_an_offset_less_sure(
    mean: float, variance: float, value: float
) -> None:
    before, noise = Belief(mean, variance), SeedNoise()
    assert after_calibration(before, Belief(1.0, 1e-7), value, noise).variance < variance
    assert after_calibration(KNOWN, Belief(1.0, 1e-7), value, noise) == KNOWN


def test_a_tag_on_one_model_is_judged_as_before() -> None:
    alone, named = Night(None), Night(H200)
    for value in (0.9966, 0.9958, 0.9957, 0.9955):
        one, other = alone.run("idea", value, None), named.run("idea", value, H200)
        assert one == other
    assert alone.state.champions[-1].belief == named.state.champions[-1].belief


def test_a_state_of_an_older_version_goes_on() -> None:
    text = to_json(Night(None).state)
    older = (
        text.replace(',"offsets":{},"unchecked":{"gpu-0":0},"slow":{}', "")
        .replace("true,false,null,false]", "true,false]")
    )  # fmt: skip
    written = json.loads(older)
    assert "offsets" not in written
    assert len(written["champions"][0]["source"]["readings"][0]) == 4
    state, verdicts = step(from_json(older), FinishedRun("idea", 42, 0.99, model=H200, gpu="g"))
    assert verdicts[0].status == "keep"
    assert state.offsets == {H200: KNOWN}


# ---- which GPU runs the champion


def checked(
    state: State, gpu: str, model: str | None, running: Running, under_way: Collection[str]
) -> Next | None:
    ended = FinishedRun("idea", 42, 1.0, gpu=gpu, model=model)
    return check(state, ended, running, under_way)


def test_a_gpu_of_a_new_model_runs_the_champion_once() -> None:
    night = Night()
    night.run("idea", 1.04, L40S, "gpu-9")
    do = checked(night.state, "gpu-9", L40S, {}, ())
    assert do is not None
    assert (do.sources, do.seed, do.check) == (("plain",), 47, L40S)
    assert checked(night.state, "gpu-8", L40S, {}, (L40S,)) is None, "one for each model"
    night.run("plain", 1.04, L40S, "gpu-9")
    assert checked(night.state, "gpu-9", L40S, {}, ()) is None


def test_a_gpu_runs_the_champion_after_so_many_other_runs() -> None:
    night = Night(None)
    for number in range(CHECK_RUNS):
        assert checked(night.state, "gpu-0", None, {}, ()) is None
        night.run(f"idea-{number}", 1.1, None)
    do = checked(night.state, "gpu-0", None, {"plain": [47]}, ())
    assert do is not None
    assert (do.seed, do.check) == (48, "gpu-0")
    assert checked(night.state, "gpu-0", None, {}, ("gpu-0",)) is None
    assert checked(night.state, "gpu-1", None, {}, ()) is None
    night.run("plain", 0.9980, None)
    assert checked(night.state, "gpu-0", None, {}, ()) is None


def test_nothing_is_checked_before_the_baseline_is_known() -> None:
    assert checked(State(), "gpu-0", H200, {}, ()) is None
    state, _ = step(State(), FinishedRun("plain", 42, 0.99, gpu="gpu-0", model=H200))
    assert checked(state, "gpu-1", L40S, {}, ()) is None


@given(st.lists(st.integers(0, 2 * GPUS), max_size=3 * GPUS))
def test_the_gpus_that_are_counted_are_limited(gpus: list[int]) -> None:
    state = Night(None).state
    for number, gpu in enumerate(gpus):
        run = FinishedRun(f"idea-{number}", 42, None, gpu=str(gpu), ending="crashed")
        state, _ = step(state, run)
    assert len(state.unchecked) <= GPUS
    assert not gpus or str(gpus[-1]) in state.unchecked


@pytest.mark.parametrize("apart", [0.02, -0.02])
def test_a_champion_that_reads_otherwise_on_a_gpu_does_not_count_there(apart: float) -> None:
    night = Night(None)
    before = night.state.champions[-1].belief
    night.run("plain", 0.9980 + apart, None)
    assert night.state.champions[-1].belief == before
    assert not night.state.champions[-1].source.readings[-1].counts


@given(st.floats(0.9, 1.1), st.floats(0.9, 1.1))
def test_what_is_believed_of_an_unknown_model_is_nothing(mean: float, value: float) -> None:
    champion = Belief(mean, 1e-6)
    learned = after_calibration(UNKNOWN, champion, value, SeedNoise())
    assert learned.mean == pytest.approx(value - mean, abs=1e-5)


# ---- runs whose steps were uneven


def steady() -> Night:
    night = Night(None)
    for number in range(6):
        night.run(f"worse-{number}", 1.1, None, slow=0.01)
    return night


def test_an_idea_whose_steps_were_uneven_is_repeated_rather_than_discarded() -> None:
    night = steady()
    first = night.run("idea", 1.1, None, slow=0.3)
    assert first is not None
    assert (first.status, first.runs) == ("repeat", 0)
    assert first.why == (
        "its run was disturbed, so its value does not count (see its warnings); another seed"
        " follows"
    )
    do = next_run(night.state, {}, 1, ideas=True)
    assert do is not None
    assert (do.kind, do.sources, do.seed) == ("repeat", ("idea",), 43)
    again = night.run("idea", 0.9900, None, slow=0.01)
    assert again is not None
    assert (again.status, again.runs) == ("keep", 1)


def test_a_source_whose_steps_are_always_uneven_counts_from_its_second_run() -> None:
    night = steady()
    night.run("idea", 1.1, None, slow=0.3)
    again = night.run("idea", 1.1, None, slow=0.3)
    assert again is not None
    assert (again.status, again.runs) == ("discard", 1)


def test_a_run_of_the_champion_whose_steps_were_uneven_does_not_count() -> None:
    night = steady()
    before = night.state.champions[-1].belief
    night.run("plain", 0.9985, None, slow=0.3)
    assert night.state.champions[-1].belief == before


@given(st.lists(st.floats(0, 1), max_size=40))
def test_of_what_slow_steps_cost_the_newest_runs_are_kept(slow: list[float]) -> None:
    state = Night(None).state
    for number, cost in enumerate(slow):
        state, _ = step(state, FinishedRun(f"idea-{number}", 42, 1.1, "plain", slow=cost))
    assert list(state.slow.get("", ())) == slow[-RECENT:]
