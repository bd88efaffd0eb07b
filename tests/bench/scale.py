"""How much is measured: at full size, in minutes, or just enough to see that a bench works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of the benches; `patience` is how many seconds each measurement may wait for a quiet machine."""

    rounds: int
    jobs: int
    callers: int
    finished: int
    queued: int
    dead: int
    claims: int
    requests: int
    idle_seconds: float
    """A whole minute, or what is done once a minute is counted twice as often, or not at all."""
    patience: float
    turn: float = 3.0
    """Seconds that each server is asked for, in turns."""


FULL = Scale(
    rounds=5, jobs=24_000, callers=16, finished=5_000_000, queued=1_000_000, dead=500_000, claims=500, requests=300,
    idle_seconds=60, patience=3,
)  # fmt: skip
QUICK = Scale(
    rounds=3, jobs=8_000, callers=16, finished=200_000, queued=50_000, dead=20_000, claims=200, requests=60,
    idle_seconds=60, patience=1, turn=1.5,
)  # fmt: skip
TOY = Scale(
    rounds=2, jobs=64, callers=4, finished=300, queued=300, dead=100, claims=4, requests=3, idle_seconds=0.5,
    patience=0, turn=0,
)  # fmt: skip
