"""The built-in agent: repeatable, never the same file twice, always a file that Python can read."""

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from orchestrator.demo.agent import Agent, Guidance, NothingLeftError, Proposal
from orchestrator.demo.constants import Derived, Value, read_constants
from orchestrator.demo.knobs import KNOBS, Knob, usable_knobs, with_companions

SOURCE = """
DEPTH = PROFILE.depth
TOTAL_BATCH_SIZE = PROFILE.total_batch_size
DEVICE_BATCH_SIZE = PROFILE.device_batch_size
HEAD_DIM = 128
WINDOW_PATTERN = "SSSL"
MATRIX_LR = 0.04
EMBEDDING_LR = 0.6
ADAM_BETA1 = 0.8
WEIGHT_DECAY = 0.2
WARMDOWN_FRACTION = 0.5
FINAL_LR_FRACTION = 0.0
"""
MODES = ("explore", "exploit", "combine", "ablation")


def values(source: str) -> dict[str, Value]:
    return {name: constant.value for name, constant in read_constants(source).items()}


def search(agent: Agent, rounds: int, seed: int) -> list[Proposal]:
    """A search on a made-up landscape; modes in turn, every fourth run a crash."""
    made: list[Proposal] = []
    near: list[str] = []
    best, best_bpb = agent.baseline, 2.0
    agent.observe("exp-0", None, best_bpb)
    for i in range(rounds):
        guidance = Guidance(MODES[i % 4], temperature=0.5, near_misses=near)
        proposal = agent.propose(best, guidance)
        made.append(proposal)
        result = None if i % 4 == 3 else 2.0 + ((i * 7919 + seed) % 100 - 60) / 1000
        agent.observe(f"exp-{i + 1}", proposal, result)
        if result is not None and result < best_bpb:
            best, best_bpb = proposal.source, result
        elif result is not None:
            near.append(f"exp-{i + 1}")
    return made


def test_the_same_seed_proposes_the_same_edits() -> None:
    first, second = (search(Agent(SOURCE, seed=7), 12, 1) for _ in range(2))
    assert first == second
    assert search(Agent(SOURCE, seed=8), 12, 1) != first


@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_every_proposal_is_new_valid_and_within_the_knobs_ranges(seed: int) -> None:
    agent = Agent(SOURCE, seed)
    made = search(agent, 16, seed)
    sources = [SOURCE, *(p.source for p in made)]
    assert len(set(sources)) == len(sources)
    base = values(SOURCE)
    for proposal in made:
        ast.parse(proposal.source)
        now = values(proposal.source)
        assert now.keys() == base.keys()
        assert all(now[name] == value for name, value in proposal.changes.items())
        assert proposal.changes.keys() <= agent.knobs.keys() | {"DEVICE_BATCH_SIZE"}
        for name, knob in agent.knobs.items():
            low, high = knob.range(base[name])
            assert low - 0.01 <= knob.encode(now[name]) <= high + 0.01


@given(st.sampled_from(KNOBS), st.floats(-50, 50))
def test_a_decoded_value_fits_its_knob_and_keeps_its_kind(knob: Knob, at: float) -> None:
    kinds: dict[str, Value] = {"choice": "SSSL", "step": 4, "power": 256}
    like = kinds.get(knob.scale, 0.5)
    value = knob.decode(min(max(at, -20), 20), like)
    assert type(value) is type(like)
    if knob.scale != "power":
        assert knob.fits(value)


def test_halving_the_batch_halves_what_the_device_takes_at_once() -> None:
    """Otherwise the total would be no multiple of it, and the run would crash."""
    base = values(SOURCE)
    knobs = usable_knobs(base)
    half = {"TOTAL_BATCH_SIZE": Derived("PROFILE.total_batch_size", shift=-1)}
    assert with_companions(knobs, half, base)["DEVICE_BATCH_SIZE"] == Derived(
        "PROFILE.device_batch_size", shift=-1
    )
    double = {"TOTAL_BATCH_SIZE": Derived("PROFILE.total_batch_size", shift=1)}
    assert with_companions(knobs, double, base)["DEVICE_BATCH_SIZE"] == base["DEVICE_BATCH_SIZE"]


def test_ablation_takes_one_edit_of_the_best_back() -> None:
    best = SOURCE.replace("0.04", "0.06").replace("0.2", "0.1")
    agent = Agent(SOURCE, seed=1)
    proposal = agent.propose(best, Guidance("ablation"))
    assert proposal.category == "ablation"
    assert proposal.source in (best.replace("0.06", "0.04"), best.replace("0.1", "0.2"))


def test_combine_puts_the_edits_of_near_misses_upon_the_best() -> None:
    agent = Agent(SOURCE, seed=1)
    a = Proposal(SOURCE.replace("0.04", "0.06"), "", "", "", {"MATRIX_LR": 0.06})
    b = Proposal(SOURCE.replace("0.2", "0.1"), "", "", "", {"WEIGHT_DECAY": 0.1})
    agent.observe("exp-a", a, 2.001)
    agent.observe("exp-b", b, 2.001)
    best = SOURCE.replace("0.6", "0.9")
    proposal = agent.propose(best, Guidance("combine", near_misses=["exp-a", "exp-b", "exp-other"]))
    assert proposal.category == "combination"
    assert values(proposal.source)["EMBEDDING_LR"] == 0.9
    assert set(proposal.changes) <= {"MATRIX_LR", "WEIGHT_DECAY"}


def test_explore_goes_to_the_categories_that_were_hardly_tried() -> None:
    agent = Agent(SOURCE, seed=3)
    made = [agent.propose(SOURCE, Guidance("explore", underexplored=["scheduling"])) for _ in "123"]
    assert {p.category for p in made} == {"scheduling"}


def test_an_unknown_mode_explores() -> None:
    assert Agent(SOURCE, seed=3).propose(SOURCE, Guidance("wander"))


def test_a_file_without_known_constants_is_refused() -> None:
    with pytest.raises(NothingLeftError, match="no constant"):
        Agent("X = 1\n", seed=1)


def test_a_space_that_is_used_up_is_told() -> None:
    agent = Agent('WINDOW_PATTERN = "SSSL"\n', seed=1)
    with pytest.raises(NothingLeftError, match="no edit left"):
        [agent.propose(agent.baseline, Guidance()) for _ in range(9)]


def test_the_projects_own_train_py_has_knobs_in_many_categories() -> None:
    source = (Path(__file__).parents[2] / "train.py").read_text()
    knobs = usable_knobs(values(source))
    assert {"TOTAL_BATCH_SIZE", "MATRIX_LR", "WARMDOWN_FRACTION"} <= knobs.keys()
    assert len({k.category for k in knobs.values()}) >= 5
