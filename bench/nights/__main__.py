"""The table of docs/keep-rules.md: each keep rule at three noise levels, on 1, 4 and 16 GPUs.

uv run python -m bench.nights --nights 400
uv run python -m bench.nights --nights 40 --cells 0.0015x4 0.003x16 --rho 0.9
uv run python -m bench.nights --cells 0.0015x4 --rules greedy race race-of-two-models
"""

import argparse
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import product
from multiprocessing import Pool

from bench.nights.play import RULES, TABLE, Score, play
from bench.nights.world import Night

CELLS = tuple(f"{sigma}x{gpus}" for sigma in (0.0005, 0.0015, 0.003) for gpus in (1, 4, 16))
SEED = 20_000


@dataclass(frozen=True)
class Cell:
    """Nights of one rule under one noise, on so many GPUs."""

    rule: str
    sigma: float
    gpus: int
    rho: float
    runs: int
    nights: int
    seed: int


def score(cell: Cell) -> Score:
    """Means over the nights of the cell."""
    nights = range(cell.seed, cell.seed + cell.nights)
    scores = [
        play(cell.rule, Night(seed, cell.runs, cell.sigma, cell.rho), cell.gpus, cell.runs)
        for seed in nights
    ]
    sums = [sum(column) for column in zip(*map(astuple, scores), strict=True)]
    return Score(*(total / cell.nights for total in sums))


def cells(options: argparse.Namespace) -> list[Cell]:
    found = []
    for name, rule in product(options.cells, options.rules):
        sigma, gpus = name.split("x")
        found.append(
            Cell(
                rule,
                float(sigma),
                int(gpus),
                options.rho,
                options.runs,
                options.nights,
                options.seed,
            )
        )
    return found


HEAD = """\
| sigma | GPUs | rule | gain | ÷ greedy | keeps | false | optimism / sigma | recovered | repeats |
|---|---|---|---|---|---|---|---|---|---|"""


def rows(pairs: Iterable[tuple[Cell, Score]]) -> Iterable[str]:
    greedy: Score | None = None
    for cell, mean in pairs:
        if cell.rule == "greedy":
            greedy = mean
        ratio = f"{100 * (mean.gain / greedy.gain - 1):+.1f} %" if greedy else ""
        recovered = f"{mean.recovered / mean.lost:.2f}" if mean.lost else ""
        yield (
            f"| {cell.sigma} | {cell.gpus} | {cell.rule} | {mean.gain:.4f}"
            f" | {ratio} | {mean.keeps:.1f}"
            f" | {mean.false / mean.keeps:.3f} | {mean.optimism / cell.sigma:+.2f} | {recovered}"
            f" | {mean.repeats / cell.runs:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--nights", type=int, default=40, help="of each cell")
    parser.add_argument("--runs", type=int, default=300, help="of each night")
    parser.add_argument("--seed", type=int, default=SEED, help="of the first night")
    parser.add_argument(
        "--rho", type=float, default=0.0, help="part of sigma² that the seed decides"
    )
    parser.add_argument("--cells", nargs="*", default=CELLS, metavar="SIGMAxGPUS")
    parser.add_argument(
        "--rules", nargs="*", default=list(TABLE), choices=RULES, help="greedy first"
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    print(HEAD, flush=True)
    todo = cells(options)
    with Pool(options.processes) as pool:
        for row in rows(zip(todo, pool.imap(score, todo), strict=True)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
