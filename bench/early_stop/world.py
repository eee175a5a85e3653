"""Curves of a search whose end is known, where curves cross in the warm-down.

- An idea helps (15 %), does nothing (25 %), or harms: most of these a little, some a lot
  (log-normal with a median of 0.004 bpb, of which a tenth harm by more than 0.03).
- The training loss is that of a run of the baseline plus what the idea does to it, which grows with
  progress, plus noise of batches. Equal seeds see equal batches, so half of that noise is common.
- Some ideas change the schedule: another learning rate or warm-down puts the loss up to 0.1 above
  or below where its end belongs, until the warm-down brings the curves together.
- One in fifty prints another loss: bits, or with a regularizer on top of it.
"""

import math

import numpy as np

from bench.early_stop.replay import Run

BASELINE = 0.998  # bpb
NATS = 2.9  # of loss for one bpb: bytes of a token, and the logarithm of 2
SIGMA = 0.0012  # of the final val_bpb, between seeds
BATCH_NOISE = 0.012  # of the printed loss, which is smoothed
BUDGET = 300.0
POINTS = 120


def runs(seed: int, count: int, crossing: float) -> list[Run]:
    """A history; `crossing` is the share of ideas that change the schedule."""
    chance = np.random.default_rng(seed)
    progress = np.linspace(0, 100, POINTS)
    shared = BATCH_NOISE * math.sqrt(0.5) * chance.standard_normal(POINTS)
    made = []
    best = 0.0
    for number in range(count):
        effect = _effect(chance) if number else 0.0
        made.append(_run(chance, progress, shared, best + effect, crossing))
        best = min(best, best + effect)  # ideas are made from the best
    return made


def _effect(chance: np.random.Generator) -> float:
    kind = chance.random()
    if kind < 0.15:
        return -float(chance.exponential(0.0015))
    return 0.0 if kind < 0.40 else float(chance.lognormal(math.log(0.004), 1.6))


def _run(
    chance: np.random.Generator,
    progress: "np.ndarray",
    shared: "np.ndarray",
    effect: float,
    crossing: float,
) -> Run:
    done = progress / 100
    warmdown = np.clip((done - 0.25) / 0.75, 0, 1)
    loss = 2.75 + 6.25 * np.exp(-40 * done) + 0.45 * (1 - done) ** 2 + 0.25 * (1 - warmdown)
    loss += NATS * effect * np.minimum(1, 0.5 + done)
    if chance.random() < crossing:
        loss += chance.uniform(-0.1, 0.1) * (1 - warmdown**2) * np.minimum(1, 20 * done)
    loss += shared + BATCH_NOISE * math.sqrt(0.5) * chance.standard_normal(POINTS)
    other = chance.random()
    if other < 0.01:
        loss /= math.log(2)
    elif other < 0.02:
        loss += 0.2 * np.minimum(1, 20 * done)
    value = BASELINE + effect + SIGMA * chance.standard_normal()
    curve = [(float(p), float(one)) for p, one in zip(progress, loss, strict=True)]
    return Run(BUDGET, float(value), curve)
