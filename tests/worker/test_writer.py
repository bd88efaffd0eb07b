"""The writer: in order, merged, acknowledged or sent again under the same number, and bounded in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from duragraph_worker import writer as writer_module
from duragraph_worker.client import ApiError
from duragraph_worker.errors import LeaseLost, StateError
from duragraph_worker.worker_client import WorkerClient
from duragraph_worker.writer import RunJournal, Writer, WriteRefused
from tests.worker.doubles import Answer, ControlPlaneDouble

Json = dict[str, Any]


class Gate:
    """A transport that keeps each request until the test lets it through."""

    def __init__(self) -> None:
        self.requests: list[list[Json]] = []
        self.arrived = asyncio.Condition()
        self.open = asyncio.Event()
        self.result: Json = {"ok": True}
        self.refusal: ApiError | None = None

    async def write(self, writes: Sequence[bytes]) -> dict[int, Json]:
        self.requests.append([json.loads(write) for write in writes])
        async with self.arrived:
            self.arrived.notify_all()
        await self.open.wait()
        if self.refusal is not None and len(writes) > 1:
            raise self.refusal
        return {write["token"]: self.result for write in self.requests[-1]}

    async def wait_for_requests(self, count: int) -> None:
        async with asyncio.timeout(5), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)


@contextlib.asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[Writer]:
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def nothing() -> None: ...


def event(number: int) -> Json:
    return {"event": "custom", "data": number}


def numbers(write: Json) -> list[int]:
    return [one["data"] for one in write.get("events", ())]


async def test_what_a_run_writes_while_a_request_is_in_flight_becomes_one_write() -> None:
    gate = Gate()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 7, nothing)
        first = asyncio.create_task(journal.commit({"events": [event(1)], "checkpoint_id": "a"}))
        await gate.wait_for_requests(1)
        await journal.write({"events": [event(2)], "checkpoint_id": "b", "steps": [{"name": "x"}]}, flush=True)
        await journal.write({"events": [event(3)]})
        last = asyncio.create_task(
            journal.commit({"checkpoint_id": "c", "steps": [{"name": "y"}], "end": {"status": "success"}})
        )
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, last)

    assert gate.requests == [
        [{"run_id": "r", "token": 7, "write_no": 1, "checkpoint_id": "a", "events": [event(1)]}],
        [
            {
                "run_id": "r",
                "token": 7,
                "write_no": 2,
                "checkpoint_id": "c",
                "events": [event(2), event(3)],
                "steps": [{"name": "x"}, {"name": "y"}],
                "end": {"status": "success"},
            }
        ],
    ]


async def test_writes_of_many_runs_share_a_request_and_a_run_is_in_one_request_at_a_time() -> None:
    gate = Gate()
    async with running(Writer(gate, lanes=2)) as writer:
        journals = [writer.journal(f"r{token}", token, nothing) for token in range(5)]
        commits = [asyncio.create_task(journal.commit({"events": [event(1)]})) for journal in journals]
        await gate.wait_for_requests(1)
        commits += [asyncio.create_task(journal.commit({"events": [event(2)]})) for journal in journals]
        await asyncio.sleep(0)
        in_flight = [write["token"] for request in gate.requests for write in request]
        gate.open.set()
        await asyncio.gather(*commits)

    assert len(in_flight) == len(set(in_flight)) == 5
    assert sum(len(request) for request in gate.requests) == 10
    assert len(gate.requests) <= 4


async def test_two_attempts_at_one_run_are_never_in_one_request() -> None:
    gate = Gate()
    gate.open.set()
    async with running(Writer(gate)) as writer:
        attempts = [writer.journal("r", token, nothing) for token in (1, 2)]
        await asyncio.gather(*(journal.commit({"events": [event(1)]}) for journal in attempts))

    assert [[write["token"] for write in request] for request in gate.requests] == [[1], [2]]


async def test_tokens_are_sliced_by_time_and_by_count_and_a_commit_takes_them_along() -> None:
    gate = Gate()
    gate.open.set()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, nothing)
        for number in range(3):
            await journal.write({"events": [event(number)]})
        assert gate.requests == []
        await gate.wait_for_requests(1)
        for number in range(writer_module.SLICE_EVENTS):
            await journal.write({"events": [event(number)]})
        await gate.wait_for_requests(2)
        await journal.write({"events": [event(1)]})
        await journal.commit({"events": [event(2)]})

    assert [len(request[0]["events"]) for request in gate.requests] == [3, writer_module.SLICE_EVENTS, 2]


async def test_order_holds_over_ten_thousand_events() -> None:
    gate = Gate()
    gate.open.set()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, nothing)
        for number in range(10_000):
            await journal.write({"events": [event(number)]})
            if number % 97 == 0:
                await asyncio.sleep(0)
        await journal.commit({"end": {"status": "success"}})

    assert [number for request in gate.requests for number in numbers(request[0])] == list(range(10_000))
    assert [request[0]["write_no"] for request in gate.requests] == list(range(1, len(gate.requests) + 1))


async def test_a_lost_lease_stops_the_run_and_drops_what_it_had_queued() -> None:
    gate = Gate()
    gate.result = {"ok": False, "reason": "lease_lost"}
    lost: list[int] = []
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, lambda: lost.append(1))
        first = asyncio.create_task(journal.commit({"events": [event(1)]}))
        await gate.wait_for_requests(1)
        second = asyncio.create_task(journal.commit({"events": [event(2)]}))
        await asyncio.sleep(0)
        gate.open.set()
        results = await asyncio.gather(first, second, return_exceptions=True)
        with pytest.raises(LeaseLost):
            await journal.write({"events": [event(3)]})

    assert [type(result) for result in results] == [LeaseLost, LeaseLost]
    assert lost == [1]
    assert writer.queued_bytes == 0
    assert len(gate.requests) == 1


async def test_a_loss_heard_of_elsewhere_frees_a_commit_that_waits_for_an_answer() -> None:
    gate = Gate()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, nothing)
        commit = asyncio.create_task(journal.commit({"events": [event(1)]}))
        await gate.wait_for_requests(1)
        journal.lose()
        with pytest.raises(LeaseLost):
            await commit


async def test_a_heartbeat_that_crossed_the_last_write_does_not_undo_the_end() -> None:
    gate = Gate()
    lost: list[int] = []
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, lambda: lost.append(1))
        commit = asyncio.create_task(journal.commit({"end": {"status": "success"}}))
        await gate.wait_for_requests(1)
        journal.lose()
        gate.open.set()
        await commit

    assert journal.ended
    assert lost == []


async def test_a_refused_write_fails_its_run_and_what_was_built_on_it_but_lets_it_end() -> None:
    gate = Gate()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, nothing)
        await journal.write({"events": [event(1)]}, flush=True)
        await gate.wait_for_requests(1)
        await journal.write({"events": [event(2)]}, flush=True)
        gate.result = {"ok": False, "reason": "invalid", "message": "events.0.data holds NUL"}
        gate.open.set()
        while not journal._refusal:
            await asyncio.sleep(0)
        with pytest.raises(WriteRefused, match="events.0.data holds NUL"):
            await journal.commit({"events": [event(3)]})
        gate.result = {"ok": True}
        await journal.commit({"end": {"status": "error"}})

    assert [(numbers(request[0]), request[0].get("end")) for request in gate.requests] == [
        ([1], None),
        ([], {"status": "error"}),
    ]


async def test_a_run_that_has_ended_is_not_handed_back_behind_its_end() -> None:
    gate = Gate()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, nothing)
        await journal.write({"events": [event(1)]}, flush=True)
        await gate.wait_for_requests(1)
        end = asyncio.create_task(journal.commit({"end": {"status": "success"}}))
        await asyncio.sleep(0)
        assert journal.ending
        release = asyncio.create_task(journal.commit({"end": {"status": "release"}}))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(end, release)

    assert [request[0].get("end") for request in gate.requests] == [None, {"status": "success"}]


async def test_one_write_that_spoils_a_request_does_not_spoil_the_others() -> None:
    gate = Gate()
    gate.refusal = ApiError(413, "the body is too large")
    async with running(Writer(gate, lanes=1)) as writer:
        blocker = asyncio.create_task(writer.journal("r0", 9, nothing).commit({"events": [event(0)]}))
        await gate.wait_for_requests(1)
        commits = [
            asyncio.create_task(writer.journal(f"r{token}", token, nothing).commit({"events": [event(token)]}))
            for token in (1, 2)
        ]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(blocker, *commits)

    assert [[write["token"] for write in request] for request in gate.requests] == [[9], [1, 2], [1], [2]]


async def test_a_value_that_is_no_json_fails_where_it_is_written_and_nothing_is_sent() -> None:
    gate = Gate()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, nothing)
        for bad in (object(), float("nan"), "\ud800"):
            with pytest.raises(StateError, match="events cannot be written as JSON"):
                await journal.write({"events": [{"event": "custom", "data": bad}]})

    assert gate.requests == []


async def test_a_run_that_writes_while_the_control_plane_is_away_waits_when_its_queue_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer_module, "RUN_QUEUE_BYTES", 100_000)
    gate = Gate()
    async with running(Writer(gate)) as writer:
        journal = writer.journal("r", 1, nothing)
        written = 0

        async def produce() -> None:
            nonlocal written
            for number in range(1000):
                await journal.write({"events": [{"event": "custom", "data": "x" * 1000}]})
                written = number + 1

        producer = asyncio.create_task(produce())
        await gate.wait_for_requests(1)
        for _ in range(1000):
            await asyncio.sleep(0)
        held_at = written
        peak = writer.queued_bytes
        gate.open.set()
        await producer
        await journal.commit({})

    assert held_at < 150
    assert peak < 150_000
    assert written == 1000
    assert sum(len(request[0].get("events", ())) for request in gate.requests) == 1000
    assert writer.queued_bytes == 0


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[ControlPlaneDouble, Writer, RunJournal]]:
    """A writer that speaks real HTTP, and the journal of a claimed run."""
    plane = ControlPlaneDouble()
    registration = {"worker_id": "w 1", "lease_seconds": 30, "graphs": []}
    client = WorkerClient(plane.url, registration)
    await client.register()
    plane.submit("g")
    claimed = await client.claim(1, 0, [])
    try:
        async with running(Writer(client)) as writer:
            yield plane, writer, writer.journal(claimed.runs[0]["run_id"], claimed.runs[0]["token"], nothing)
    finally:
        await client.close()
        plane.stop()


async def test_a_write_whose_answer_was_lost_is_sent_again_under_its_number_and_counts_once() -> None:
    async with connected() as (plane, _, journal):
        plane.drop_answer("writes", times=2)
        await journal.commit({"events": [event(1)]})
        await journal.commit({"events": [event(2)]})

    assert [request.body["writes"][0]["write_no"] for request in plane.requests("writes")] == [1, 1, 1, 2]
    assert [numbers(write) for write in plane.writes] == [[1], [2]]


async def test_a_server_that_says_later_is_asked_later_and_no_sooner() -> None:
    async with connected() as (plane, _, journal):
        plane.before("writes", Answer(503, {"detail": "not now"}, headers={"Retry-After": "0.3"}))
        started = asyncio.get_running_loop().time()
        await journal.commit({"events": [event(1)]})
        assert asyncio.get_running_loop().time() - started >= 0.3

    assert len(plane.writes) == 1


async def test_a_worker_that_was_forgotten_registers_again_and_the_write_goes_through() -> None:
    async with connected() as (plane, _, journal):
        plane.forget()
        await journal.commit({"events": [event(1)]})
        assert list(plane.workers) == ["w 1"]

    assert len(plane.requests("/workers")) == 2
    assert [numbers(write) for write in plane.writes] == [[1]]


async def test_writes_go_on_where_they_stopped_when_the_server_comes_back() -> None:
    async with connected() as (plane, _, journal):
        await journal.commit({"events": [event(0)]})
        plane.http.stop()
        commit = asyncio.create_task(journal.commit({"events": [event(1)]}))
        await asyncio.sleep(0)
        for number in range(2, 50):
            await journal.write({"events": [event(number)]})
        plane.http.start()
        await commit
        await journal.commit({"end": {"status": "success"}})

    assert [number for write in plane.writes for number in numbers(write)] == list(range(50))


async def test_a_write_that_the_server_fails_on_again_and_again_is_given_up_and_said_so() -> None:
    async with connected() as (plane, _, journal):
        plane.before("writes", Answer(500, {"detail": "internal error"}), times=5)
        with pytest.raises(WriteRefused, match="internal error"):
            await journal.commit({"events": [event(1)]})
        await journal.commit({"end": {"status": "error"}})

    assert [write["end"] for write in plane.writes] == [{"status": "error"}]
