"""What the system does when nobody asks it anything: statements a second, and the CPU of its processes."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import psycopg

from tests.bench.figures import Figure, Target
from tests.bench.machine import Meter, tree_cpu
from tests.bench.processes import System, system
from tests.bench.scale import Scale
from tests.postgres import Server

_TARGET = Target("<=", 1, "ours")
_STATEMENTS = (
    "select s.calls, regexp_replace(s.query, '\\s+', ' ', 'g') from pg_stat_statements s"
    " join pg_database d on d.oid = s.dbid where d.datname = current_database() and s.toplevel"
    " and s.query not like '%pg_stat_statements%' order by 1 desc"
)
_COMMITS = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
_SHOWN = 8


async def measure(server: Server, scale: Scale) -> list[Figure]:
    """With no worker and with three; the statements counted are listed on stderr."""
    return [figure for workers in (0, 3) for figure in await _idle(server, scale, workers)]


async def _idle(server: Server, scale: Scale, workers: int) -> list[Figure]:
    with server.database(server.template) as name:
        dsn = server.dsn(name)
        async with system(dsn, workers) as running:
            await asyncio.sleep(scale.idle_seconds / 6)  # what a start brings with it is over
            queries, api, worker, postgres = await asyncio.to_thread(_watch, dsn, running, scale.idle_seconds)
    prefix = f"idle.{workers}_workers"
    return [
        Figure(f"{prefix}.queries", "1/s", [queries], target=_TARGET),
        Figure(f"{prefix}.api_cpu", "% of a core", [api]),
        Figure(f"{prefix}.workers_cpu", "% of a core", [worker]),
        Figure(f"{prefix}.postgres_cpu", "% of a core", [postgres]),
    ]


def _watch(dsn: str, running: System, seconds: float) -> tuple[float, float, float, float]:
    meter = Meter(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        counts = _Statements(connection) if _has_statements(connection) else _Commits(connection)

        def cpu() -> tuple[float, float, float]:
            return tree_cpu(running.api), sum(map(tree_cpu, running.workers)), meter.server_cpu()

        before, began = cpu(), time.monotonic()
        counts.start()
        time.sleep(seconds)
        took = time.monotonic() - began
        queries = counts.stop() / took
        api, workers, postgres = ((now - then) / took * 100 for now, then in zip(cpu(), before, strict=True))
    meter.close()
    return queries, api, workers, postgres


class _Statements:
    """By pg_stat_statements: what clients sent, functions counted once."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def start(self) -> None:
        self._connection.execute("select pg_stat_statements_reset()")

    def stop(self) -> int:
        rows = self._connection.execute(_STATEMENTS.encode()).fetchall()
        for calls, query in rows[:_SHOWN]:
            print(f"  {calls:5} x {query[:110]}", file=sys.stderr, flush=True)
        return sum(calls for calls, _ in rows)


class _Commits:
    """Where that extension is not loaded: transactions, which sessions report about a second late."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def start(self) -> None:
        self._began = self._read()

    def stop(self) -> int:
        return max(0, self._read() - self._began - 1)

    def _read(self) -> int:
        row = self._connection.execute(_COMMITS).fetchone()
        assert row is not None, "the database has its statistics"
        return int(row[0])


def _has_statements(connection: psycopg.Connection[Any]) -> bool:
    loaded = connection.execute("show shared_preload_libraries").fetchone()
    if loaded is None or "pg_stat_statements" not in loaded[0]:
        return False
    connection.execute("create extension if not exists pg_stat_statements")
    return True
