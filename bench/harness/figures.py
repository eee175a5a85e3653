"""Medians over repetitions with their spread, and the table of measured figures against bars."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Series:
    """One quantity, measured once a repetition."""

    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.median:.4g} {self.unit} ({low:.4g} to {high:.4g})"


class Measurements:
    """Series by name; all that a run measured, for the table and the JSON file."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.series.setdefault(name, Series(unit)).values.append(value)

    def median(self, name: str) -> float:
        return self.series[name].median

    def ratio(self, above: str, below: str) -> float:
        """The median of the ratios within each repetition, so that a change of the machine between
        repetitions affects both sides alike."""
        pairs = zip(self.series[above].values, self.series[below].values, strict=True)
        return statistics.median(a / b for a, b in pairs)

    def as_json(self) -> dict[str, Any]:
        return {
            name: {"unit": s.unit, "median": s.median, "values": s.values}
            for name, s in self.series.items()
        }


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure and the bar that it must not exceed."""

    what: str
    value: float
    bar: float | None
    unit: str = ""
    detail: str = ""

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return ""
        return "PASS" if self.value <= self.bar else "FAIL"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | measured | bar | | how |", "|---|---|---|---|---|"]
    for row in rows:
        bar = "" if row.bar is None else f"≤ {row.bar:g} {row.unit}"
        lines.append(
            f"| {row.what} | {row.value:.3g} {row.unit} | {bar.strip()} | {row.verdict} |"
            f" {row.detail} |"
        )
    return "\n".join(lines)


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
