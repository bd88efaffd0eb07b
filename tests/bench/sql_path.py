"""Enqueue by concurrent callers and drain of no-op runs by one worker process, round by round against the prototype."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from typing import Protocol

from tests.bench.engine import Engine
from tests.bench.figures import Figure, Target
from tests.bench.machine import Meter, Sample, wait_until_quiet
from tests.bench.scale import Scale
from tests.postgres import Server

_WIDTH = 500
_TARGET = Target(">=", 0.8)


class Contender(Protocol):
    """What is measured."""

    async def close(self) -> None: ...
    async def enqueue(self, jobs: int, callers: int) -> None: ...
    async def drain(self, jobs: int, width: int) -> list[str]: ...
    async def counts(self) -> tuple[int, int, int]: ...


Open = Callable[[str], Awaitable[Contender]]
Round = dict[str, Sample]
"""Phase -> what it cost."""


async def measure(server: Server, scale: Scale) -> list[Figure]:
    """Rates with their target, and CPU and WAL a job, which noise reaches less."""
    contenders: dict[str, tuple[Open, str]] = {"ours": (Engine.open, server.template)}
    if importlib.util.find_spec("asyncpg"):
        from tests.bench.prototype import Prototype

        contenders["peer"] = (Prototype.open, "template0")
    rounds: dict[str, list[Round]] = {name: [] for name in contenders}
    for number in range(scale.rounds):
        for name in sorted(contenders, reverse=bool(number % 2)):
            rounds[name].append(await _round(server, scale, *contenders[name]))
    return [figure for phase in ("enqueue", "drain") for figure in _figures(phase, rounds["ours"], rounds.get("peer"))]


async def _round(server: Server, scale: Scale, open_contender: Open, template: str) -> Round:
    jobs = scale.jobs // scale.callers * scale.callers
    with server.database(template) as name:
        meter = Meter(server.dsn(name))
        contender = await open_contender(server.dsn(name))
        try:
            wait_until_quiet(scale.patience)
            meter.start()
            await contender.enqueue(jobs, scale.callers)
            enqueue = meter.stop(jobs)
            await _expect(contender, (jobs, 0, 0))
            wait_until_quiet(scale.patience)
            meter.start()
            executed = await contender.drain(jobs, _WIDTH)
            drain = meter.stop(jobs)
            await _expect(contender, (0, 0, jobs))
            assert len(executed) == len(set(executed)) == jobs, "each run is executed once"
        finally:
            await contender.close()
            meter.close()
    return {"enqueue": enqueue, "drain": drain}


async def _expect(contender: Contender, counts: tuple[int, int, int]) -> None:
    found = await contender.counts()
    assert found == counts, f"(ready, leased, ended) are {found}, expected {counts}"


def _figures(phase: str, ours: list[Round], peer: list[Round] | None) -> list[Figure]:
    def figure(name: str, unit: str, read: Callable[[Sample], float], target: Target | None = None) -> Figure:
        return Figure(
            f"sql_path.{phase}.{name}",
            unit,
            [read(one[phase]) for one in ours],
            [read(one[phase]) for one in peer or ()],
            target,
            more_is_better=target is not None,
        )

    return [
        figure("rate", "runs/s", lambda one: one.rate, _TARGET),
        figure("server_cpu", "us/run", lambda one: one.server_us),
        figure("client_cpu", "us/run", lambda one: one.client_us),
        figure("wal", "bytes/run", lambda one: one.wal_bytes),
        figure("other_load", "cores", lambda one: one.other_cores),
    ]
