"""The worker against the protocol's server end: many runs at once, and nothing lost to faults."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from duragraph_worker import Graph, Worker, entrypoint, node
from duragraph_worker.client import ApiError
from duragraph_worker.errors import DuraGraphError, GraphError
from tests.worker.doubles import Answer, ControlPlaneDouble
from tests.worker.serving import Double, Gates, ended, until, waiting_graph, working


@pytest.fixture
def plane() -> Iterator[ControlPlaneDouble]:
    plane = ControlPlaneDouble()
    yield plane
    plane.stop()


async def test_a_run_is_claimed_executed_and_ended(plane: ControlPlaneDouble) -> None:
    run_id = plane.submit("double", {"n": 20}, temporary=True)

    async with working(plane, Double):
        end = await ended(plane, run_id)

    assert end == {"status": "success", "output": {"n": 41}}
    assert [write["write_no"] for write in plane.writes] == list(range(1, len(plane.writes) + 1))


async def test_registration_says_what_the_worker_can_do(plane: ControlPlaneDouble) -> None:
    async with working(plane, Double, name="blue-1", max_concurrent_runs=3, lease_seconds=60, build_id="b7"):
        registered = await until(lambda: plane.workers.get("blue-1"), "the registration")

    assert (registered["capacity"], registered["lease_seconds"], registered["build_id"]) == (3, 60, "b7")
    assert registered["protocol"] == 2
    assert [graph["graph_id"] for graph in registered["graphs"]] == ["double"]
    assert [one["id"] for one in registered["graphs"][0]["definition"]["nodes"]] == ["twice", "more"]
    assert "input_schema" in registered["graphs"][0]["schemas"]
    assert plane.deregistered == ["blue-1"]


async def test_many_runs_go_on_at_once_and_never_more_than_there_are_slots(plane: ControlPlaneDouble) -> None:
    gates = Gates()
    runs = [plane.submit("waiting", {"n": n}) for n in range(7)]

    async with working(plane, waiting_graph(gates), max_concurrent_runs=5):
        await until(lambda: len(gates.started) == 5, "five runs at work")
        assert len(plane.held) == 5
        gates.open.set()
        for run_id in runs:
            await ended(plane, run_id)

    assert sorted(gates.started) == list(range(7))


async def test_plain_functions_of_many_runs_run_side_by_side(plane: ControlPlaneDouble) -> None:
    together = threading.Barrier(4)

    @Graph(id="blocking")
    class Blocking:
        @entrypoint
        @node
        def meet(self, state: Any) -> Any:
            together.wait(timeout=10)
            return {}

    runs = [plane.submit("blocking", {"n": n}) for n in range(4)]
    async with working(plane, Blocking):
        ends = [await ended(plane, run_id) for run_id in runs]

    assert [end["status"] for end in ends] == ["success"] * 4


async def test_a_cancelled_run_stops_at_once_through_the_held_poll(plane: ControlPlaneDouble) -> None:
    plane.lease_seconds = 3000  # no heartbeat tells
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates)):
        await until(lambda: plane.writes, "the run at work, its start written")
        plane.cancel(run_id)
        await until(lambda: gates.cancelled == [1], "the run's code to be cancelled")

    assert run_id not in plane.ended


async def test_a_cancelled_run_stops_when_all_slots_are_taken(plane: ControlPlaneDouble) -> None:
    plane.lease_seconds = 3000  # no heartbeat tells
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates), max_concurrent_runs=1):
        await until(lambda: [r for r in plane.requests("claim") if r.body["max_runs"] == 0], "a poll for news")
        assert plane.writes, "nothing that is written later tells"
        plane.cancel(run_id)
        await until(lambda: gates.cancelled == [1], "the run's code to be cancelled")
        second = plane.submit("waiting", {"n": 2})
        gates.open.set()
        assert (await ended(plane, second))["status"] == "success"


async def test_a_cancelled_run_stops_when_only_a_heartbeat_tells(plane: ControlPlaneDouble) -> None:
    plane.lease_seconds = 0.15
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates)):
        await until(lambda: plane.writes, "the run at work, its start written")
        plane.cancel(run_id, tell=False)
        await until(lambda: gates.cancelled == [1], "the run's code to be cancelled")


async def test_a_run_that_comes_back_to_its_worker_stops_the_attempt_that_still_runs(
    plane: ControlPlaneDouble,
) -> None:
    plane.lease_seconds = 3000  # no heartbeat tells
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates)):
        await until(lambda: plane.writes, "the first attempt at work, its start written")
        claim = next(iter(plane.held.values())).claim
        plane.cancel(run_id, tell=False)
        plane.submit("waiting", **{name: claim[name] for name in ("run_id", "kwargs")}, attempt=2)
        await until(lambda: gates.cancelled == [1], "the first attempt to be cancelled")
        gates.open.set()
        assert (await ended(plane, run_id))["status"] == "success"

    assert gates.started == [1, 1]
    assert [write["token"] for write in plane.writes if "end" in write] == [2]


async def test_a_write_that_is_refused_stops_the_run_that_lost_its_lease(plane: ControlPlaneDouble) -> None:
    stopped = asyncio.Event()

    @Graph(id="chatty")
    class Chatty:
        @entrypoint
        @node
        async def talk(self, state: Any, ctx: Any) -> Any:
            try:
                while True:
                    ctx.emit({"still": "here"})
                    await asyncio.sleep(0.01)
            finally:
                stopped.set()

    run_id = plane.submit("chatty", {"n": 1})
    plane.queue[0]["kwargs"]["stream_mode"] = ["custom"]
    async with working(plane, Chatty):
        await until(lambda: plane.writes, "the first events")
        plane.cancel(run_id, tell=False)
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_worker_comes_back_after_the_control_plane_was_away_and_loses_nothing(
    plane: ControlPlaneDouble,
) -> None:
    plane.lease_seconds = 0.15
    plane.take_back_after = 0.1
    gates = Gates()
    first = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates)):
        await until(lambda: gates.started, "the run at work")
        plane.http.stop()
        gates.open.set()
        second = plane.submit("waiting", {"n": 2})
        plane.http.start()
        assert (await ended(plane, first))["status"] == "success"
        assert (await ended(plane, second))["status"] == "success"


async def test_a_run_whose_claim_never_arrived_is_given_out_again(plane: ControlPlaneDouble) -> None:
    plane.lease_seconds = 0.15
    plane.take_back_after = 0.1
    plane.drop_answer("claim")
    run_id = plane.submit("double", {"n": 1})

    async with working(plane, Double):
        assert (await ended(plane, run_id))["status"] == "success"

    assert plane.writes[0]["token"] == 2


async def test_a_worker_waits_for_a_control_plane_that_is_not_there_yet(plane: ControlPlaneDouble) -> None:
    plane.http.stop()
    run_id = plane.submit("double", {"n": 1})

    async with working(plane, Double):
        plane.http.start()
        assert (await ended(plane, run_id))["status"] == "success"


async def test_a_worker_that_was_forgotten_registers_again(plane: ControlPlaneDouble) -> None:
    async with working(plane, Double):
        await until(lambda: plane.requests("claim"), "the first poll")
        plane.forget()
        run_id = plane.submit("double", {"n": 1})
        await ended(plane, run_id)

    assert len(plane.requests("/workers")) >= 2


async def test_a_lost_answer_to_a_write_is_made_up_for_and_the_step_counts_once(plane: ControlPlaneDouble) -> None:
    plane.drop_answer("writes", times=3)
    run_id = plane.submit("double", {"n": 1})

    async with working(plane, Double) as worker:
        await ended(plane, run_id)
        await until(lambda: not worker.active_runs, "the run to be let go")

    sent = [request.body["writes"][0]["write_no"] for request in plane.requests("writes")]
    assert len(sent) >= len(plane.writes) + 3
    assert [write["write_no"] for write in plane.writes] == sorted({*sent})


async def test_heartbeats_go_on_while_a_node_blocks_the_loop_and_say_what_is_held(plane: ControlPlaneDouble) -> None:
    beats: list[int] = []

    @Graph(id="rude")
    class Rude:
        @entrypoint
        @node
        async def block(self, state: Any) -> Any:
            before = len(plane.requests("heartbeat"))
            deadline = time.monotonic() + 5
            while len(plane.requests("heartbeat")) < before + 3 and time.monotonic() < deadline:
                threading.Event().wait(0.01)  # in the event loop, which nobody should do
            beats.append(len(plane.requests("heartbeat")) - before)
            return {}

    plane.lease_seconds = 0.15
    run_id = plane.submit("rude", {"n": 1})
    async with working(plane, Rude):
        await ended(plane, run_id)

    assert beats[0] >= 3
    assert [1] in [request.body["held"] for request in plane.requests("heartbeat")]


async def test_a_failing_node_ends_its_run_and_the_worker_goes_on(plane: ControlPlaneDouble) -> None:
    @Graph(id="failing")
    class Failing:
        @entrypoint
        @node
        def burst(self, state: Any) -> Any:
            raise ValueError("kaboom")

    bad, good = plane.submit("failing", {}), plane.submit("double", {"n": 1})
    async with working(plane, Failing, Double):
        assert await ended(plane, bad) == {"status": "error", "error": {"error": "ValueError", "message": "kaboom"}}
        assert (await ended(plane, good))["status"] == "success"


async def test_a_write_the_control_plane_cannot_store_fails_its_run_alone(plane: ControlPlaneDouble) -> None:
    plane.invalid = lambda write: "channels.n: too clever" if write.get("checkpoints") else None
    run_id = plane.submit("double", {"n": 1})

    async with working(plane, Double):
        end = await ended(plane, run_id)

    assert end["status"] == "error"
    assert "too clever" in end["error"]["message"]


async def test_a_run_of_a_graph_the_worker_does_not_have_fails_and_says_so(plane: ControlPlaneDouble) -> None:
    run_id = plane.submit("unheard_of", {})

    async with working(plane, Double):
        end = await ended(plane, run_id)

    assert end["status"] == "error"
    assert 'no graph "unheard_of"' in end["error"]["message"]


async def test_a_fast_run_costs_few_requests(plane: ControlPlaneDouble) -> None:
    runs = [plane.submit("double", {"n": n}) for n in range(20)]

    async with working(plane, Double, max_concurrent_runs=20):
        for run_id in runs:
            await ended(plane, run_id)

    # Its start (unless its first step is done within 25 ms), its first step, and its last with its end.
    assert len(plane.writes) <= 3 * len(runs)
    assert len(plane.requests("writes")) < len(plane.writes)


async def test_a_server_that_never_waits_is_not_asked_in_a_tight_loop(plane: ControlPlaneDouble) -> None:
    plane.before("claim", Answer(body={"runs": [], "lost": []}), times=5)
    started = time.monotonic()

    async with working(plane, Double):
        await until(lambda: len(plane.requests("claim")) > 4, "five polls")

    assert time.monotonic() - started > 0.7


async def test_a_refused_registration_is_raised(plane: ControlPlaneDouble) -> None:
    plane.before("workers", Answer(422, {"detail": "graphs.0.graph_id: too long"}))

    with pytest.raises(ApiError, match="graph_id: too long"):
        await Worker(plane.url, graphs=[Double], name="w").arun()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"max_concurrent_runs": 0}, "at least 1"),
        ({"lease_seconds": 0}, "at least 1"),
        ({"name": "a/b"}, "cannot name a worker"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Worker("http://localhost:1", graphs=[Double], **options)


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(GraphError, match="is no graph"):
        Worker("http://localhost:1").register(dict)


async def test_a_worker_without_a_graph_says_so() -> None:
    with pytest.raises(DuraGraphError, match="no graph"):
        await Worker("http://localhost:1").arun()


async def test_each_change_of_a_run_is_one_line_with_both_ids(
    plane: ControlPlaneDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "duragraph_worker")
    run_id = plane.submit("double", {"n": 1})

    async with working(plane, Double) as worker:
        await ended(plane, run_id)
        await until(lambda: not worker.active_runs, "the run to be let go")

    of_run = [record for record in caplog.records if getattr(record, "run_id", None) == run_id]
    assert [record.getMessage() for record in of_run] == ["run claimed", "run ended"]
    assert {record.__dict__["worker_id"] for record in of_run} == {"w"}
    assert of_run[1].__dict__["status"] == "success"
