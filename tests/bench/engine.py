"""The engine as the product calls it: the store's methods, batched as the API batches them."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import orjson

from duragraph.batch import Batch
from duragraph.config import Settings
from duragraph.store import Store

GRAPH = "noop"
_TENANT = 1
_BATCH = 1000
_REQUEST = orjson.dumps({"thread_id": None, "brief": True, "body": {"assistant_id": GRAPH, "input": {}}})
_COUNTS = (
    "select (select count(*) from duragraph.ready), (select count(*) from duragraph.leases),"
    " (select count(*) from duragraph.runs where status = 'success' and attempt = 1 and ended_at is not null)"
)


class Engine:
    """A contender of the SQL path: `enqueue`, `drain`, and what the database then holds."""

    def __init__(self, store: Store, worker_key: int) -> None:
        self._store = store
        self._worker_key = worker_key

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """In a migrated database."""
        store = Store.of(Settings(database_url=dsn, pool_min=4, pool_max=16))
        await store.open()
        await store.maintain_partitions()
        return cls(store, await register(store, GRAPH))

    async def close(self) -> None:
        """Hang up."""
        await self._store.close()

    async def enqueue(self, jobs: int, callers: int) -> None:
        """Each caller creates one run after another; those that come while a call is under way share the next."""

        async def create(requests: list[bytes]) -> list[bytes]:
            return await self._store.create_runs(_TENANT, requests)

        batch: Batch[bytes, bytes] = Batch(create, max_size=_BATCH, lanes=2)

        async def caller(runs: int) -> None:
            for _ in range(runs):
                await batch.add(_REQUEST)

        await asyncio.gather(*(caller(jobs // callers) for _ in range(callers)))

    async def drain(self, jobs: int, width: int) -> list[str]:
        """The ids of the runs that were executed, `width` at once."""
        worker = _Worker(self._store, self._worker_key, jobs, width)
        async with asyncio.timeout(300):
            await worker.run()
        return worker.executed

    async def counts(self) -> tuple[int, int, int]:
        """(claimable, leased, ended well at their first attempt)."""
        async with self._store.pool.connection() as connection:
            row = await (await connection.execute(_COUNTS)).fetchone()
        assert row is not None, "counts give a row"
        return row[0], row[1], row[2]


class _Worker:
    """Claims when half of its width is free; what ends while a call is under way shares the next."""

    def __init__(self, store: Store, worker_key: int, jobs: int, width: int) -> None:
        self.executed: list[str] = []
        self._store = store
        self._worker_key = worker_key
        self._jobs = jobs
        self._width = width
        self._running = 0
        self._ended: list[bytes] = []
        self._some_ended = asyncio.Event()
        self._finished = False

    async def run(self) -> None:
        await asyncio.gather(self._claim_on(), self._complete_on())

    async def _claim_on(self) -> None:
        marks = b"{}"
        while not self._finished:
            room = self._width - self._running
            if room < max(1, self._width // 2):
                await asyncio.sleep(0.0005 if self._running > self._width // 2 else 0)
                continue
            claimed = await self._store.claim_runs(self._worker_key, room, marks)
            marks = claimed.marks
            self._running += claimed.count
            self._tasks = [asyncio.create_task(self._execute(run)) for run in orjson.loads(claimed.runs)]
            if not claimed.count:
                await asyncio.sleep(0.005)

    async def _execute(self, run: dict[str, Any]) -> None:
        await _nothing(run["kwargs"])
        self.executed.append(run["run_id"])
        self._running -= 1
        end = f'{{"run_id":"{run["run_id"]}","token":{run["token"]},"write_no":1,"end":{{"status":"success"}}}}'
        self._ended.append(end.encode())
        self._some_ended.set()

    async def _complete_on(self) -> None:
        done = 0
        while done < self._jobs:
            await self._some_ended.wait()
            self._some_ended.clear()
            while self._ended:
                batch, self._ended = self._ended[:_BATCH], self._ended[_BATCH:]
                await self._store.complete_runs(batch)
                done += len(batch)
        self._finished = True


async def register(store: Store, *graphs: str) -> int:
    """The key of a worker for these graphs."""
    request = {"worker_id": "bench", "capacity": 1000, "graphs": [{"graph_id": graph} for graph in graphs]}
    registered = await store.register_worker(_TENANT, orjson.dumps(request))
    key: int = orjson.loads(registered)["worker_key"]
    return key


async def _nothing(given: object) -> None:
    return None
