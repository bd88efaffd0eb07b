"""How long a claim takes in a large database, held against the same claim in a small one; and past many dead rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import orjson
import psycopg

from duragraph.config import Settings
from duragraph.store import Store
from tests.bench.engine import register
from tests.bench.figures import Figure, Target, percentile
from tests.bench.machine import Meter, Sample, wait_until_quiet
from tests.bench.scale import Scale
from tests.postgres import Server

_GRAPHS = ("intake", "review", "answer")
_BATCHES = (1, 10)
_ROUNDS = 5
_SLICE = 250_000
_FILL = Path(__file__).with_name("fill.sql")
_TARGET = Target("<=", 5, "ours")


class Claimer:
    """One worker's claims, timed, with the marks that a process remembers between them."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.meter = Meter(dsn)
        self.claimed: list[str] = []
        self._store = Store.of(Settings(database_url=dsn, pool_min=1, pool_max=2))
        self._marks = b"{}"

    async def __aenter__(self) -> Self:
        await self._store.open()
        self._worker_key = await register(self._store, *_GRAPHS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()
        self.meter.close()

    def forget(self) -> None:
        """As a process that has just started."""
        self._marks = b"{}"

    async def claim(self, limit: int) -> float:
        """Milliseconds of one claim, which must give `limit` runs."""
        began = time.perf_counter()
        claimed = await self._store.claim_runs(self._worker_key, limit, self._marks)
        took = (time.perf_counter() - began) * 1000
        assert claimed.count == limit, f"claimed {claimed.count} of {limit}"
        self._marks = claimed.marks
        self.claimed += [run["run_id"] for run in orjson.loads(claimed.runs)]
        return took

    async def claims(self, limit: int, times: int) -> tuple[list[float], Sample]:
        """Milliseconds of each of several claims, and what they cost."""
        self.meter.start()
        took = [await self.claim(limit) for _ in range(times)]
        return took, self.meter.stop(times)


async def measure(server: Server, scale: Scale) -> list[Figure]:
    """p50 and p99 in milliseconds, the commit included."""
    async with AsyncExitStack() as stack:
        small = await _claimer(stack, server, 0, _needed(scale))
        large = await _claimer(stack, server, scale.finished, max(scale.queued, scale.dead + _needed(scale)))
        figures = await _compare("queued", large, small, scale)
        with _dead_rows(large, scale.dead):
            large.forget()
            first = Figure("claim_latency.dead_rows.first", "ms", [await large.claim(1)])
            dead = await _compare("dead_rows", large, small, scale)
        for claimer in (small, large):
            _expect_leased(claimer)
    return [*figures, first, *dead]


def _needed(scale: Scale) -> int:
    return 2 * (_ROUNDS + 1) * scale.claims * sum(_BATCHES) + 100


async def _claimer(stack: AsyncExitStack, server: Server, finished: int, queued: int) -> Claimer:
    dsn = server.dsn(stack.enter_context(server.database(server.template)))
    claimer = await stack.enter_async_context(Claimer(dsn))
    fill(dsn, finished, queued)
    return claimer


def fill(dsn: str, finished: int, queued: int) -> None:
    """Runs of registered graphs; indexes that are not needed to insert are made afterwards."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute(_FILL.read_bytes())
        secondary = connection.execute(
            "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index"
            " where indrelid = 'duragraph.runs'::regclass and not indisunique"
        ).fetchall()
        for name, _ in secondary:
            connection.execute(f"drop index {name}".encode())
        for at in range(0, finished + queued, _SLICE):
            connection.execute(
                "select pg_temp.fill(array(select graph_key from duragraph.graphs), %s, %s, %s, %s)",
                (at, min(at + _SLICE, finished + queued), finished, queued),
            )
        for _, definition in secondary:
            connection.execute(definition.encode())
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


async def _compare(name: str, large: Claimer, small: Claimer, scale: Scale) -> list[Figure]:
    return [figure for limit in _BATCHES for figure in await _rounds(name, limit, large, small, scale)]


async def _rounds(name: str, limit: int, large: Claimer, small: Claimer, scale: Scale) -> list[Figure]:
    rounds: dict[Claimer, list[tuple[list[float], Sample]]] = {large: [], small: []}
    for claimer in rounds:
        await claimer.claims(limit, min(10, scale.claims))  # statements are prepared, caches are warm
    for number in range(_ROUNDS):
        wait_until_quiet(scale.patience)
        for claimer in (large, small) if number % 2 else (small, large):
            rounds[claimer].append(await claimer.claims(limit, scale.claims))

    def figure(what: str, unit: str, read: Callable[[list[float], Sample], float], target: Target | None) -> Figure:
        ours, peer = ([read(*one) for one in rounds[claimer]] for claimer in (large, small))
        return Figure(f"claim_latency.{name}.batch_{limit}.{what}", unit, ours, peer, target)

    return [
        figure("p50", "ms", lambda took, _: percentile(took, 50), None),
        figure("p99", "ms", lambda took, _: percentile(took, 99), _TARGET),
        figure("server_cpu", "us/claim", lambda _, cost: cost.server_us, None),
        figure("other_load", "cores", lambda _, cost: cost.other_cores, None),
    ]


@contextmanager
def _dead_rows(claimer: Claimer, count: int) -> Iterator[None]:
    """The head of the queue is gone, and nothing of it can be vacuumed while somebody's snapshot still sees it."""
    with psycopg.connect(claimer.dsn) as reader, psycopg.connect(claimer.dsn, autocommit=True) as writer:
        reader.execute("set transaction isolation level repeatable read")
        seen = _count(reader)
        writer.execute(
            "delete from duragraph.ready r using ("
            "  select q.ctid from duragraph.ready q order by q.ord limit %s) head where r.ctid = head.ctid",
            (count,),
        )
        assert seen - _count(writer) == count, "the rows are dead"
        yield
        assert _count(reader) == seen, "the snapshot was held to the end"


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("select count(*) from duragraph.ready").fetchone()
    assert row is not None, "count gives a row"
    return int(row[0])


def _expect_leased(claimer: Claimer) -> None:
    with psycopg.connect(claimer.dsn) as connection:
        leased = connection.execute("select run_id::text from duragraph.leases").fetchall()
    assert len(claimer.claimed) == len(set(claimer.claimed)), "no run is claimed twice"
    assert sorted(claimer.claimed) == sorted(run_id for (run_id,) in leased), "what was claimed is leased"
