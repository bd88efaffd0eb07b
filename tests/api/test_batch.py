"""Natural batching: what queues while a round trip is in flight leaves together, and errors stay with their cause."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from duragraph.batch import Batch
from duragraph.errors import Conflict, Invalid, Unavailable


class Trips:
    """Round trips that the test lets finish."""

    def __init__(self, *bad: int, error: Exception | None = None) -> None:
        self.sent: list[list[int]] = []
        self.go = asyncio.Event()
        self._bad = set(bad)
        self._error = error or Invalid("bad item")

    async def __call__(self, items: list[int]) -> list[int]:
        self.sent.append(items)
        await self.go.wait()
        if self._bad & set(items):
            raise self._error
        return [item * 10 for item in items]


async def adding(batch: Batch[int, int], items: range) -> list[asyncio.Task[int]]:
    """Items added one by one, the first of them on its way, none answered yet."""
    tasks = [asyncio.create_task(batch.add(items[0]))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(batch.add(item)) for item in items[1:]]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_during_a_round_trip_leaves_with_the_next() -> None:
    trips = Trips()
    batch = Batch(trips)
    first = await adding(batch, range(1))
    rest = [asyncio.create_task(batch.add(item)) for item in range(1, 6)]
    await asyncio.sleep(0)
    assert (trips.sent, batch.waiting) == ([[0]], 5)
    trips.go.set()
    assert await asyncio.gather(*first, *rest) == [0, 10, 20, 30, 40, 50]
    assert trips.sent == [[0], [1, 2, 3, 4, 5]]


async def test_a_lone_item_leaves_at_once() -> None:
    trips = Trips()
    trips.go.set()
    batch = Batch(trips)
    assert [await batch.add(n) for n in range(3)] == [0, 10, 20]
    assert trips.sent == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (lambda: Batch[int, int], [1, 9]),
        (lambda: lambda run: Batch(run, max_size=4), [1, 4, 4, 1]),
        (lambda: lambda run: Batch(run, max_weight=30, weigh=lambda _: 10), [1, 3, 3, 3]),
        (lambda: lambda run: Batch(run, max_weight=5, weigh=lambda _: 10), [1] * 10),
    ],
    ids=["none", "size", "weight", "heavier than the limit"],
)
async def test_a_batch_is_bounded(limits: Callable[[], Callable[[Trips], Batch[int, int]]], sizes: list[int]) -> None:
    trips = Trips()
    batch = limits()(trips)
    tasks = await adding(batch, range(10))
    trips.go.set()
    assert await asyncio.gather(*tasks) == [n * 10 for n in range(10)]
    assert [len(items) for items in trips.sent] == sizes


async def test_two_lanes_travel_side_by_side() -> None:
    trips = Trips()
    tasks = await adding(Batch(trips, lanes=2), range(6))
    await asyncio.sleep(0)
    assert trips.sent == [[0], [1, 2, 3, 4, 5]]
    trips.go.set()
    await asyncio.gather(*tasks)


async def test_a_callers_error_is_its_own() -> None:
    trips = Trips(3)
    tasks = await adding(Batch(trips), range(6))
    trips.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[3], Invalid)
    assert answers[:3] + answers[4:] == [0, 10, 20, 40, 50]


async def test_a_database_that_does_not_answer_is_not_asked_again_for_each() -> None:
    trips = Trips(3, error=Unavailable("gone"))
    tasks = await adding(Batch(trips), range(6))
    trips.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[0] == 0
    assert all(isinstance(answer, Unavailable) for answer in answers[1:])
    assert len(trips.sent) == 2


async def test_a_caller_that_went_away_in_the_queue_is_not_sent() -> None:
    trips = Trips()
    tasks = await adding(Batch(trips), range(4))
    tasks[2].cancel()
    await asyncio.sleep(0)
    trips.go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert trips.sent == [[0], [1, 3]]


async def test_the_lane_is_free_again_after_an_error() -> None:
    calls = 0

    async def run(items: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Conflict("once")
        return items

    batch: Batch[int, int] = Batch(run)
    with pytest.raises(Conflict):
        await batch.add(1)
    assert await batch.add(2) == 2


async def test_a_wrong_number_of_answers_is_an_error() -> None:
    answers: Callable[[list[int]], Awaitable[list[int]]] = lambda items: asyncio.sleep(0, result=[1, 2])  # noqa: E731  # a name for its type
    with pytest.raises(Exception, match="got 2 answers"):
        await Batch(answers).add(1)
