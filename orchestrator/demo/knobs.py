"""The table of constants that the built-in agent may change, and in which range.

A knob maps a constant's value to a *coordinate*, a number in which equal steps matter about equally
(the logarithm of a learning rate, the place in a list of window patterns). Samplers and step sizes
work on coordinates only. Names that a train.py does not have are skipped.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.demo.constants import Derived, Value

Scale = Literal["log", "linear", "momentum", "power", "step", "choice"]
# From a number to its coordinate, and back.
_ENCODE: dict[Scale, Callable[[float], float]] = {
    "log": math.log, "momentum": lambda v: math.log(1 - v), "power": math.log2,
}  # fmt: skip
_DECODE: dict[Scale, Callable[[float], float]] = {
    "log": math.exp, "momentum": lambda at: 1 - math.exp(at), "power": lambda at: 2.0**at,
}  # fmt: skip


@dataclass(frozen=True)
class Knob:
    """One constant.

    `scale`: `log` (a rate), `linear` (a share), `momentum` (a decay near 1: the logarithm of its
    distance from 1), `power` (doublings), `step` (whole numbers), `choice` (one of `choices`).
    `down`, `up`: how far the coordinate may go from the baseline's. `low`, `high`: hard limits of
    the value. `weight`: how much it usually moves val_bpb, for a search of few experiments.
    `lean`: which way searches of this baseline usually found better values, +1 up, -1 down.
    """

    name: str
    category: str
    scale: Scale
    down: float = 0
    up: float = 0
    low: float = -math.inf
    high: float = math.inf
    weight: float = 1
    lean: int = 0
    choices: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return self.scale in ("power", "step", "choice")

    def fits(self, value: Value) -> bool:
        """True if this knob can change `value`: its kind and range fit."""
        if self.scale == "choice":
            return value in self.choices
        if isinstance(value, Derived):
            return self.scale in ("power", "step")
        if isinstance(value, str) or not self.low <= value <= self.high:
            return False
        if self.scale == "power":
            return isinstance(value, int) and value > 0
        if self.scale == "step":
            return isinstance(value, int)
        return (self.scale != "log" or value > 0) and (self.scale != "momentum" or value < 1)

    def encode(self, value: Value) -> float:
        """The coordinate of a value that `fits`."""
        if isinstance(value, Derived):
            return value.shift if self.scale == "power" else value.plus
        if isinstance(value, str):
            return self.choices.index(value)
        return _ENCODE.get(self.scale, float)(value)

    def decode(self, coordinate: float, like: Value) -> Value:
        """The value at a coordinate, of the kind of `like`, within the hard limits and rounded."""
        at = round(coordinate) if self.whole else coordinate
        if isinstance(like, Derived):
            changed = {"shift" if self.scale == "power" else "plus": round(coordinate)}
            return Derived(like.base, **changed)
        if self.scale == "choice":
            return self.choices[min(max(int(at), 0), len(self.choices) - 1)]
        value = min(max(_DECODE.get(self.scale, float)(at), self.low), self.high)
        return max(1, round(value)) if isinstance(like, int) else _rounded(value, self.scale)

    def range(self, base: Value) -> tuple[float, float]:
        """The coordinates that a search around the baseline's value `base` may use."""
        if self.scale == "choice":
            return 0, len(self.choices) - 1
        middle = self.encode(base)
        ends = (middle - self.down, middle + self.up)
        if isinstance(base, Derived):
            return ends
        first, last = sorted(self.encode(self.decode(end, base)) for end in ends)
        return min(first, middle), max(last, middle)


def _rounded(value: float, scale: Scale) -> float:
    """Three significant digits, of the distance from 1 where that is what counts."""
    if scale == "momentum":
        return round(1 - float(f"{1 - value:.2g}"), 12)
    return float(f"{value:.3g}")


_TRIPLE = math.log(3)

KNOBS: Sequence[Knob] = (
    Knob("TOTAL_BATCH_SIZE", "hyperparams", "power", 1, 1, weight=6, lean=-1),
    Knob("DEPTH", "architecture", "step", 1, 2, low=1, weight=2),
    Knob("ASPECT_RATIO", "architecture", "log", 0.5, 0.5, low=8, weight=2, lean=1),
    Knob("MLP_RATIO", "architecture", "step", 2, 2, low=1, high=8),
    Knob("HEAD_DIM", "attention", "power", 1, 0, low=32),
    Knob("WINDOW_PATTERN", "attention", "choice", choices=("L", "SL", "SSL", "SSSL", "SSSSL")),
    Knob("QUERY_SCALE", "attention", "log", 0.3, 0.4, low=0.3, high=4),
    Knob("ROTARY_BASE", "attention", "log", 1, 3.5, low=100, lean=1),
    Knob("LOGIT_SOFTCAP", "activation", "log", 0.7, 0.7, low=3, high=100),
    Knob("MATRIX_LR", "optimizer", "log", _TRIPLE, _TRIPLE, weight=3),
    Knob("HEAD_LR", "optimizer", "log", _TRIPLE, _TRIPLE, weight=2, lean=1),
    Knob("UNEMBEDDING_LR", "optimizer", "log", _TRIPLE, _TRIPLE, weight=2, lean=1),
    Knob("SCALAR_LR", "optimizer", "log", _TRIPLE, _TRIPLE),
    Knob("RESID_LR", "optimizer", "log", _TRIPLE, _TRIPLE, weight=0.5),
    Knob("X0_LR", "optimizer", "log", _TRIPLE, _TRIPLE, weight=0.5),
    Knob("ADAM_BETA1", "optimizer", "momentum", 1, 1, low=0.5, high=0.99),
    Knob("ADAM_BETA2", "optimizer", "momentum", 1.5, 1, low=0.8, high=0.9999),
    Knob("X0_BETA1", "optimizer", "momentum", 1, 1, low=0.5, high=0.99, weight=0.3),
    Knob("MUON_MOMENTUM_START", "optimizer", "momentum", 0.7, 0.7, low=0.5, high=0.98, weight=0.5),
    Knob("MUON_MOMENTUM_END", "optimizer", "momentum", 0.7, 0.7, low=0.7, high=0.99),
    Knob("MUON_BETA2", "optimizer", "momentum", 1, 1, low=0.7, high=0.999, weight=0.5),
    Knob("EMBEDDING_LR", "embedding", "log", _TRIPLE, _TRIPLE, weight=2, lean=1),
    Knob("WEIGHT_DECAY", "regularization", "log", 1.5, 1, weight=1.5),
    Knob("VALUE_DECAY", "regularization", "log", 2, 2, weight=0.5),
    Knob("HEAD_DECAY", "regularization", "log", 2, 2, weight=0.5),
    Knob("WARMDOWN_FRACTION", "scheduling", "linear", 0.3, 0.5, low=0.05, high=1, weight=2, lean=1),
    Knob("WARMDOWN_RATIO", "scheduling", "linear", 0.3, 0.5, low=0.05, high=1, weight=2, lean=1),
    Knob("WARMUP_RATIO", "scheduling", "linear", 0.2, 0.1, low=0, high=0.3),
    Knob("FINAL_LR_FRACTION", "scheduling", "linear", 0.1, 0.1, low=0, high=0.3, lean=1),
    Knob("FINAL_LR_FRAC", "scheduling", "linear", 0.1, 0.1, low=0, high=0.3, lean=1),
    Knob("MUON_MOMENTUM_STEPS", "scheduling", "log", 2, 0.7, low=5, lean=-1),
)


def usable_knobs(values: Mapping[str, Value]) -> dict[str, Knob]:
    """The knobs that these constants have, by name, in the table's order."""
    return {k.name: k for k in KNOBS if k.name in values and k.fits(values[k.name])}


def with_companions(
    knobs: Mapping[str, Knob], changes: Mapping[str, Value], values: Mapping[str, Value]
) -> dict[str, Value]:
    """`changes`, with the device's batch halved as often as the total, or the run would crash.

    `values` are the baseline's.
    """
    full = dict(changes)
    total, device = "TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE"
    if total in changes:
        knob = knobs[total]
        halvings = max(0, round(knob.encode(values[total]) - knob.encode(changes[total])))
        match values.get(device):
            case Derived(plus=0) as old:
                full[device] = replace(old, shift=old.shift - halvings)
            case int() as number:
                full[device] = max(1, number // 2**halvings)
    return full
