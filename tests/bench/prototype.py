"""The prototype's client: asyncpg, ids made here, rows instead of JSON, at most a thousand runs a call."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import asyncpg

_SCHEMA = Path(__file__).with_name("prototype.sql")
_ENQUEUE = "select prototype.enqueue($1, $2, 1, 0::smallint, $3)"
_CLAIM = "select run_id, token, input from prototype.claim(1, array[1], $1, interval '60 s')"
_COMPLETE = "select prototype.complete($1, $2, $3, $4)"
_BATCH = 1000
_DONE = 2


class Prototype:
    """A contender of the SQL path: `enqueue`, `drain`, and what the database then holds."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._queue: list[asyncio.Future[None]] = []
        self._free = 2

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """In an empty database."""
        connection = await asyncpg.connect(dsn)
        await connection.execute(_SCHEMA.read_text())
        await connection.close()
        return cls(await asyncpg.create_pool(dsn, min_size=4, max_size=16))

    async def close(self) -> None:
        """Hang up."""
        await self._pool.close()

    async def enqueue(self, jobs: int, callers: int) -> None:
        """Each caller creates one run after another; those that come while a call is under way share the next."""

        async def caller(runs: int) -> None:
            for _ in range(runs):
                await self._add()

        await asyncio.gather(*(caller(jobs // callers) for _ in range(callers)))

    async def drain(self, jobs: int, width: int) -> list[str]:
        """The ids of the runs that were executed, `width` at once."""
        worker = _Worker(self._pool, jobs, width)
        async with asyncio.timeout(300):
            await worker.run()
        return worker.executed

    async def counts(self) -> tuple[int, int, int]:
        """(claimable, leased, ended well at their first attempt)."""
        row = await self._pool.fetchrow(
            "select (select count(*) from prototype.ready), (select count(*) from prototype.leases),"
            " (select count(*) from prototype.runs where status = $1 and attempt = 1)",
            _DONE,
        )
        return row[0], row[1], row[2]

    def _add(self) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        self._queue.append(future)
        if self._free:
            self._free -= 1
            self._task = asyncio.create_task(self._send())
        return future

    async def _send(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
            async with self._pool.acquire() as connection:
                ids = [_make_id() for _ in batch]
                await connection.execute(_ENQUEUE, ids, [None] * len(batch), ["{}"] * len(batch))
            for future in batch:
                future.set_result(None)
        self._free += 1


class _Worker:
    def __init__(self, pool: asyncpg.Pool, jobs: int, width: int) -> None:
        self.executed: list[str] = []
        self._pool = pool
        self._jobs = jobs
        self._width = width
        self._running = 0
        self._ended: list[tuple[UUID, int]] = []
        self._some_ended = asyncio.Event()
        self._finished = False

    async def run(self) -> None:
        async with self._pool.acquire() as one, self._pool.acquire() as other:
            await asyncio.gather(self._claim_on(one), self._complete_on(other))

    async def _claim_on(self, connection: Any) -> None:
        statement = await connection.prepare(_CLAIM)
        while not self._finished:
            room = self._width - self._running
            if room < max(1, self._width // 2):
                await asyncio.sleep(0.0005 if self._running > self._width // 2 else 0)
                continue
            rows = await statement.fetch(room)
            self._running += len(rows)
            tasks = [asyncio.create_task(self._execute(row[0], row[1], row[2])) for row in rows]
            if not tasks:
                await asyncio.sleep(0.005)

    async def _execute(self, run_id: UUID, token: int, given: str) -> None:
        await _nothing(given)
        self.executed.append(str(run_id))
        self._running -= 1
        self._ended.append((run_id, token))
        self._some_ended.set()

    async def _complete_on(self, connection: Any) -> None:
        statement = await connection.prepare(_COMPLETE)
        done = 0
        while done < self._jobs:
            await self._some_ended.wait()
            self._some_ended.clear()
            while self._ended:
                batch, self._ended = self._ended[:_BATCH], self._ended[_BATCH:]
                n = len(batch)
                ids, tokens = [one[0] for one in batch], [one[1] for one in batch]
                done += await statement.fetchval(ids, tokens, [_DONE] * n, [None] * n)
        self._finished = True


async def _nothing(given: str) -> None:
    return None


def _make_id() -> UUID:
    random = os.urandom(10)
    at = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    return UUID(bytes=at + bytes([0x70 | random[0] & 15, random[1], 0x80 | random[2] & 63]) + random[3:])
