"""GPU hours that early stop saves, and its false kills, beside those of Optuna's pruners.

nice -n 19 uv run python -m bench.early_stop                     # simulated curves
nice -n 19 uv run python -m bench.early_stop FILE.jsonl ...      # of real runs, see replay.read
"""

import argparse
import random
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.early_stop import world
from bench.early_stop.replay import Outcome, Run, by_optuna, ours, read

HEAD = """\
| rule | saved, of all | saved, once begun | condemned | false kills | wins lost | at 25, 50, 75 % |
|---|---|---|---|---|---|---|"""


def rules() -> dict[str, Callable[[Sequence[Run]], Outcome]]:
    from optuna import exceptions, pruners

    warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
    found = {
        "early stop": ours,
        "Optuna, median": by_optuna(lambda: pruners.MedianPruner(n_startup_trials=0)),
        "Optuna, worst quarter": by_optuna(
            lambda: pruners.PercentilePruner(75.0, n_startup_trials=0)
        ),
    }
    if find_spec("scipy"):  # which nothing else here needs: uv run --with scipy
        found["Optuna, Wilcoxon"] = by_optuna(lambda: pruners.WilcoxonPruner(p_threshold=0.01))
    return found


def row(name: str, out: Outcome) -> str:
    at = ", ".join(str(out.reached.count(mark)) for mark in (25, 50, 75))
    false = f"{100 * out.false_kills / out.condemned:.1f} %" if out.condemned else ""
    lost = f"{100 * out.false_kills / out.wins:.0f} %" if out.wins else ""
    off = f", off {out.off} times" if out.off else ""
    return (
        f"| {name} | {100 * out.saved / out.seconds:.0f} % | {100 * out.saved / out.after:.0f} %"
        f" | {out.condemned} | {out.false_kills} ({false}){off} | {lost} | {at} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--histories", type=int, default=40)
    parser.add_argument("--runs", type=int, default=200, help="of each simulated history")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    known = [run for file in options.files for run in read(file)]
    chance = random.Random(options.seed)
    histories = []
    for number in range(options.histories):
        if known:  # the first stays the baseline, the others come in any order
            histories.append(known[:1] + chance.sample(known[1:], len(known) - 1))
        else:
            histories.append(world.runs(options.seed + number, options.runs))
    kind = f"{len(known)} real runs" if known else f"{options.runs} simulated runs"
    print(f"{kind}, {options.histories} histories\n\n{HEAD}", flush=True)
    for name, rule in rules().items():
        total = Outcome()
        for history in histories:
            total.add(rule(history))
        print(row(name, total), flush=True)


if __name__ == "__main__":
    main()
