"""Natural batching: while one round trip is in flight, requests queue up, and the next one carries them all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from duragraph.errors import DuragraphError, Unavailable

T = TypeVar("T")
R = TypeVar("R")


class Batch(Generic[T, R]):
    """Turns many `add(item)` into few calls of `run(items)`, which answers one result an item, in order.

    No timer: an item that comes when a lane is free leaves at once. `max_size` bounds the items of a call, `max_weight`
    their summed `weigh(item)`. A call that fails is repeated one item at a time, so that a caller gets its own error;
    where the database does not answer at all, the error is everybody's.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Awaitable[list[R]]],
        *,
        max_size: int = 256,
        lanes: int = 1,
        max_weight: int = 4 * 2**20,
        weigh: Callable[[T], int] = lambda _: 0,
    ) -> None:
        self._run = run
        self._max_size = max_size
        self._max_weight = max_weight
        self._weigh = weigh
        self._free = lanes
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many items wait for a free lane."""
        return len(self._queue)

    async def add(self, item: T) -> R:
        """The result of this item, or the error it caused."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._send(batch)
        finally:
            self._free += 1

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        weight = 0
        while self._queue and len(batch) < self._max_size:
            item, future = self._queue[0]
            weight += self._weigh(item)
            if batch and weight > self._max_weight:
                break
            self._queue.popleft()
            # A caller that went away before its item left is spared the work.
            if not future.done():
                batch.append((item, future))
        return batch

    async def _send(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
            if len(results) != len(batch):
                raise DuragraphError(f"a batch of {len(batch)} got {len(results)} answers", code="batch_mismatch")
        except Exception as error:
            await self._failed(batch, error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def _failed(self, batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        if len(batch) > 1 and not isinstance(error, Unavailable):
            for one in batch:
                await self._send([one])
            return
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
