"""Each hostile train.py at each sandbox level: held where docs/security.md says so, and seen to
succeed where it says that it is possible."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from gpu_worker.isolation import Level
from tests.hostile import zoo
from tests.hostile.conftest import MakeWorld, little_memory, world_at
from tests.hostile.zoo import ALL, ATTACKS, HONEST, World
from tests.worker.conftest import eventually, works
from tests.worker.fork_server import ForkServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"


def cases(*, fatal: bool = False, cgroup: bool = False) -> list[object]:
    return [
        pytest.param(
            name, level, id=f"{name}-{level}", marks=[pytest.mark.slow] * bool(attack.cost)
        )
        for name, attack in ATTACKS.items()
        for level in ALL
        if (attack.fatal, attack.cgroup) == (fatal, cgroup)
    ]


def _require(level: Level) -> None:
    if works(level) is None:
        pytest.skip(f"no sandbox {level} here")


@pytest.mark.parametrize(("name", "level"), cases())
def test_an_attack_is_held_exactly_by_the_levels_that_the_table_names(
    shared_world: MakeWorld, name: str, level: Level
) -> None:
    _require(level)
    world, attack = shared_world(level), ATTACKS[name]
    outcome = world.attack(name)
    if level in attack.levels:
        assert not attack.succeeded(world, outcome), outcome
    else:  # the world's servers may hear of it a moment later
        eventually(lambda: attack.succeeded(world, outcome))


@pytest.mark.parametrize(("name", "level"), cases(fatal=True))
def test_an_attack_on_the_worker_is_held_by_the_levels_that_the_table_names(
    tmp_path: Path, fork_server: ForkServer, name: str, level: Level
) -> None:
    """Where it is possible, it ends the worker: so each has a world of its own."""
    _require(level)
    attack = ATTACKS[name]
    with world_at(level, tmp_path, fork_server) as world:
        if level in attack.levels:
            outcome = world.attack(name)
            eventually(lambda: not world.left(), 10)
            assert world.run(HONEST).report["outcome"] == "completed"
            assert not attack.succeeded(world, outcome)
        else:
            with pytest.raises(AssertionError, match="it did not happen"):
                _attack_without_report(world, name)
            assert world.left()


@pytest.mark.parametrize(("name", "level"), cases(cgroup=True))
def test_an_attack_on_memory_is_held_where_the_worker_may_make_cgroups(
    tmp_path: Path, fork_server: ForkServer, name: str, level: Level
) -> None:
    """The worker has 600 MiB there, so that a run gets 300 and the test's host is in no danger."""
    _require(level)
    attack, held = ATTACKS[name], level in ATTACKS[name].levels
    with ExitStack() as stack:
        if held:
            stack.enter_context(little_memory(fork_server, 600 << 20))
        world = stack.enter_context(world_at(level, tmp_path, fork_server))
        outcome = world.attack(name)
        assert attack.succeeded(world, outcome) == (not held), outcome
        if held:
            assert outcome.report["outcome"] == "crash"
            assert outcome.says("it used more memory than a run may have here, 0.3 GiB"), outcome
        assert world.run(HONEST).report["outcome"] == "completed"


def _attack_without_report(world: World, name: str) -> None:
    source = (zoo.FOLDER / f"{name}.py").read_text()
    filled = f"TARGETS: dict[str, str] = {world.targets()!r}"
    run = world.stub.submit(source.replace("TARGETS: dict[str, str] = {}", filled))
    eventually(world.left)
    eventually(lambda: all(worker.poll() is not None for worker in world.host.workers))
    world.stub.report(run, 0.1)


def test_after_all_attacks_an_honest_run_is_measured_and_nothing_is_left(
    shared_world: MakeWorld,
) -> None:
    """In `strict`: the same worker serves on."""
    _require("strict")
    world = shared_world("strict")
    report = world.run(HONEST).report
    assert report["metrics"]["val_bpb"] == 1.25
    assert report["environment"]["sandbox"] == "strict"
    assert not world.left()


def test_every_attack_has_a_file_and_every_file_is_tried() -> None:
    assert {path.stem for path in zoo.FOLDER.glob("*.py")} == set(ATTACKS)


def test_the_table_in_the_document_is_that_of_the_tests() -> None:
    assert zoo.table() in DOCUMENT.read_text()
