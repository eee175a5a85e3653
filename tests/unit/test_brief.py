"""The brief is a whole account of a tag, harmless, and never longer than 8 KB."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings, strategies as st

from orchestrator.decisions import Snapshot
from orchestrator.domain import (
    Counts,
    Experiment,
    Metrics,
    Note,
    OperatorHold,
    Run,
    State,
    Status,
    Strategy,
    Tag,
)
from orchestrator.rules import sanitize
from orchestrator.rules.brief import LIMIT_BYTES, Situation, brief
from orchestrator.rules.suggest import advise
from orchestrator.schemas import DeadEnd
from tests import hostile_log as hostile

LONG_TAG = "m" * 64


def pair(name: str = "exp-1", hypothesis: str = "an idea", category: str = "optimizer") -> Any:
    experiment = Experiment(
        id=name, tag="mar11", created_us=1, hypothesis=hypothesis, description="",
        category=category, commit_sha="a", diff_summary="",
    )  # fmt: skip
    run = Run(
        experiment_id=name, state=State.DECIDED, status=Status.KEEP, seed=1, priority=0,
        time_budget_seconds=300, metrics=Metrics(0.98),
    )  # fmt: skip
    return experiment, run


def situation(tag: Tag | None = None, **fields: Any) -> Situation:
    tag = tag or Tag("mar11", 1, 300.0, 0.002, 3, best_experiment_id="exp-1", best_val_bpb=0.98)
    values: dict[str, Any] = {
        "snapshot": Snapshot(tag, Counts(keep=2), Strategy("explore", 0.8, 1.0, 1, "why"), 0, ()),
        "best": pair(), "keeps": [pair()], "near_misses": [(*pair("exp-2"), 0.001)],
        "dead_ends": [], "recent": [pair()], "running": [pair("exp-3")], "queued": [],
        "notes": [], "advice": ["Explore."], "gpus": (2, 1, 1),
    }  # fmt: skip
    return Situation(**(values | fields))


def test_a_brief_of_a_race_says_what_is_believed_of_the_best_and_what_is_a_repeat() -> None:
    race = replace(situation().snapshot.tag, keep_rule="race", best_val_bpb=0.9812345)
    experiment, run = pair("exp-4")
    lines = brief(
        situation(race, running=[(replace(experiment, repeat_of="exp-1"), run)])
    ).splitlines()
    assert any("The best is believed to be 0.981235." in line for line in lines)
    assert "- exp-4 (a repeat) `an idea`" in lines
    assert "Keep rule" not in brief(situation())


def test_a_brief_shows_the_state_of_the_search_and_how_to_go_on() -> None:
    text = brief(
        situation(
            notes=[Note("note-1", "try *less* depth", "human", 1)],
            dead_ends=[
                DeadEnd(
                    kind="failure",
                    text="3 failed alike",
                    tried=3,
                    experiment_ids=["exp-9"],
                    untrusted_cause="KeyError",
                )
            ],
        )
    )
    for part in (
        "- Best: 0.980000 keep exp-1 (optimizer) `an idea`",
        "- Runs: 2 finished, 2 kept",
        "- Strategy: explore: `why`",
        "- GPUs: 2 known, 1 busy, 1 idle",
        "## Notes to you\n- try less depth (human)",
        "## Near misses: combine them\n- 0.980000 keep exp-2 (optimizer) `an idea`, missed by 0.0",
        "## Dead ends: leave them\n- 3 failed alike: `KeyError` (such as exp-9)",
        "## Running\n- exp-3",
        "## What to do next\n- Explore.",
        "curl -s $API/api/experiment/exp-1/train.py -o train.py",
    ):
        assert part in text
    assert "## Queued" not in text


def test_a_tag_without_a_result_asks_for_the_baseline() -> None:
    tag = Tag("mar11", 1, 300.0, 0.002, 3)
    text = brief(situation(tag, best=None, keeps=[], recent=[]))
    assert "Run the unmodified train.py first" in text


def test_a_tag_whose_baseline_is_under_way_asks_to_wait_for_it() -> None:
    tag = Tag("mar11", 1, 300.0, 0.002, 3)
    snapshot = replace(situation(tag).snapshot, counts=Counts(queued=1))
    text = brief(situation(tag, snapshot=snapshot, best=None, keeps=[], recent=[]))
    assert "is under way: wait for its verdict" in text
    assert "unmodified" not in text
    assert "is under way" in advise(snapshot, {}, []).suggestions[0]


def test_a_pause_and_a_crash_streak_are_at_the_top() -> None:
    tag = Tag(
        "mar11", 1, 300.0, 0.002, 3, consecutive_crashes=3, pause=OperatorHold("me", "holiday", 1)
    )
    text = brief(situation(tag))
    assert "PAUSED: `holiday`" in text
    assert "Stop, and find the cause." in text


WORDS = st.text(max_size=300) | st.sampled_from(hostile.PIECES) | st.just('`"\\' * 200)
PAIRS = st.lists(st.builds(pair, st.just("exp-" + "9" * 80), WORDS, WORDS), max_size=9)


@settings(max_examples=80)
@given(
    pairs=PAIRS,
    notes=st.lists(st.builds(Note, st.just("note-1"), WORDS, WORDS, st.just(1)), max_size=20),
    ends=st.lists(
        st.builds(
            DeadEnd,
            kind=st.just("failure"),
            text=WORDS,
            tried=st.just(3),
            experiment_ids=st.just(["exp-1"]),
            untrusted_cause=WORDS,
        ),
        max_size=8,
    ),
    words=WORDS,
)
def test_it_is_always_under_eight_kilobytes_and_harmless(
    pairs: Any, notes: Any, ends: Any, words: str
) -> None:
    """With all lists full of the worst words; and no word of theirs leaves its code span."""
    tag = Tag(
        LONG_TAG, 1, 300.0, 0.002, 3, best_experiment_id="exp-" + "9" * 80, best_val_bpb=1.0,
        consecutive_crashes=9, pause=OperatorHold(words, words, 1),
    )  # fmt: skip
    strategy = Strategy("explore", 0.8, 1.0, 1, words, pinned=True)
    text = brief(
        situation(
            tag, snapshot=Snapshot(tag, Counts(keep=2**40), strategy, 0, ()), keeps=pairs,
            near_misses=[(*one, 1e6) for one in pairs], recent=pairs, running=pairs, queued=pairs,
            notes=notes, dead_ends=ends, advice=[words] * 9, best=pair(hypothesis=words),
        )
    )  # fmt: skip
    assert sanitize.size(text) <= LIMIT_BYTES
    hostile.assert_harmless(text)
    body, _, commands = text.partition("\n```bash\n")
    assert commands.count("```") == 1
    for line in body.splitlines():
        assert line.count("`") % 2 == 0
        outside = "".join(line.split("`")[::2])
        assert "](" not in outside
        assert "<script" not in outside
