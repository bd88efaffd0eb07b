"""Figures: medians of interleaved rounds, what they are held against, and the table that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal, Self

HEADER = ("figure", "unit", "ours", "best", "spread", "peer", "best", "spread", "ratio", "target", "met")


@dataclass(frozen=True)
class Target:
    """`Target(">=", 0.8)` is about the ratio, `Target("<=", 5, "ours")` about our figure."""

    sign: Literal["<=", ">="]
    limit: float
    about: Literal["ratio", "ours"] = "ratio"

    def met(self, value: float) -> bool:
        """Whether it is reached."""
        return value <= self.limit if self.sign == "<=" else value >= self.limit

    def __str__(self) -> str:
        return f"{'ratio ' if self.about == 'ratio' else ''}{self.sign} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One line of the table: a value a round for us and, round by round beside it, for the peer."""

    name: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float] = ()
    target: Target | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """Median of the rounds' own ratios: what slows the machine for a while slows both sides of a round."""
        if not self.peer or not all(self.peer):
            return None
        return median(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one, or when its peer was not there."""
        value = None if self.target is None else self.ratio if self.target.about == "ratio" else median(self.ours)
        return None if self.target is None or value is None else self.target.met(value)

    def named(self, label: str) -> Self:
        """The same figure of a certain server."""
        return replace(self, name=f"{label}.{self.name}")

    def as_json(self) -> dict[str, Any]:
        """{name, ours, peer, unit, ratio, target, met}."""
        return {
            "name": self.name,
            "ours": round(median(self.ours), 4),
            "peer": round(median(self.peer), 4) if self.peer else None,
            "unit": self.unit,
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "target": None if self.target is None else str(self.target),
            "met": self.met,
        }

    def cells(self) -> tuple[str, ...]:
        """As `HEADER` names them."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        met = {None: "", True: "yes", False: "NO"}[self.met]
        return (
            self.name, self.unit, *self._shown(self.ours), *self._shown(self.peer), ratio, str(self.target or ""), met
        )  # fmt: skip

    def _shown(self, values: Sequence[float]) -> tuple[str, str, str]:
        if not values:
            return "", "", ""
        middle = median(values)
        best = max(values) if self.more_is_better else min(values)
        spread = (max(values) - min(values)) / middle * 100 if middle else 0.0
        return short(middle), short(best), f"{spread:.0f}%"


def short(value: float) -> str:
    """Three digits or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percentile(values: Iterable[float], percent: float) -> float:
    """By rank, without interpolation between two: a latency that was really seen."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table that also reads well as text."""
    rows = [HEADER, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(folder: Path, text: str, figures: Sequence[Figure]) -> None:
    """`bench.md` and `bench.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.md").write_text(text)
    listed = json.dumps([figure.as_json() for figure in figures], indent=1)
    (folder / "bench.json").write_text(listed + "\n")
