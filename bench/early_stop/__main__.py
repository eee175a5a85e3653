"""GPU hours that early stop saves, and its false kills, beside those of Optuna's pruners.

uv run python -m bench.early_stop                     # simulated curves
uv run python -m bench.early_stop FILE.jsonl ...      # of real runs, logs of bench.trials
"""

import argparse
import random
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.early_stop import world
from bench.early_stop.replay import Outcome, Run, by_optuna, every_five_percent, ours, read

HEAD = """\
| rule | saved | once begun | condemned | false kills | wins lost | by 25 % | 50 % | 75 % |
|---|---|---|---|---|---|---|---|---|"""


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
        found["Optuna, Wilcoxon"] = by_optuna(
            lambda: pruners.WilcoxonPruner(p_threshold=0.01, n_startup_steps=5), every_five_percent
        )
    return found


def row(name: str, out: Outcome) -> str:
    ends = [sum(low < one <= low + 25 for one in out.reached) for low in (0, 25, 50)]
    false = f"{100 * out.false_kills / out.condemned:.1f} %" if out.condemned else ""
    lost = f"{100 * out.false_kills / out.wins:.0f} %" if out.wins else ""
    off = f", off {out.off} times" if out.off else ""
    saved = [f"{100 * out.saved / of:.0f} %" if of else "" for of in (out.seconds, out.after)]
    cells = [name, *saved, out.condemned, f"{out.false_kills} ({false}){off}", lost, *ends]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--histories", type=int, default=40)
    parser.add_argument("--runs", type=int, default=200, help="of each simulated history")
    parser.add_argument(
        "--crossing", type=float, default=0.05, help="share of simulated runs that cross the others"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    known = [run for file in options.files for run in read(file)]
    chance = random.Random(options.seed)
    histories = []
    for number in range(options.histories):
        if known:  # the first stays the baseline, the others come in any order
            histories.append(known[:1] + chance.sample(known[1:], len(known) - 1))
        else:
            histories.append(world.runs(options.seed + number, options.runs, options.crossing))
    kind = f"{len(known)} real runs" if known else f"{options.runs} simulated runs"
    print(f"{kind}, {options.histories} histories\n\n{HEAD}", flush=True)
    for name, rule in rules().items():
        total = Outcome()
        for history in histories:
            total.add(rule(history))
        print(row(name, total), flush=True)


if __name__ == "__main__":
    main()
