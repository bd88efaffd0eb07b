"""The worker's end: it claims no more, lets its runs end or hands them back, and leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.worker.doubles import ControlPlaneDouble
from tests.worker.serving import Gates, ended, until, waiting_graph, working


@pytest.fixture
def plane() -> Iterator[ControlPlaneDouble]:
    plane = ControlPlaneDouble()
    yield plane
    plane.stop()


async def test_a_drain_lets_runs_end_and_then_leaves(plane: ControlPlaneDouble) -> None:
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates), shutdown_timeout=10) as worker:
        await until(lambda: gates.started, "the run at work")
        worker.stop()
        await until(lambda: plane.drained == {"w"}, "the drain")
        late = plane.submit("waiting", {"n": 2})
        gates.open.set()
        assert (await ended(plane, run_id))["status"] == "success"
        await until(lambda: plane.deregistered == ["w"], "the worker to leave")

    assert late not in plane.ended
    assert gates.started == [1]


async def test_a_drain_hands_back_what_does_not_end_in_time(plane: ControlPlaneDouble) -> None:
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates), shutdown_timeout=0.2) as worker:
        await until(lambda: gates.started, "the run at work")
        worker.stop()
        assert await ended(plane, run_id) == {"status": "release"}

    assert gates.cancelled == [1]
    assert plane.deregistered == ["w"]


async def test_an_end_whose_answer_was_lost_is_not_undone_by_a_drain(plane: ControlPlaneDouble) -> None:
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates)) as worker:
        await until(lambda: gates.started, "the run at work")
        plane.drop_answer("writes", times=3)
        gates.open.set()
        await ended(plane, run_id)
        worker.stop()
        worker.stop()
        await until(lambda: not worker.active_runs, "the run to be let go")

    assert [write["end"] for write in plane.writes if "end" in write] == [{"status": "success"}]


async def test_a_worker_that_has_left_does_not_come_back_by_a_late_heartbeat(plane: ControlPlaneDouble) -> None:
    plane.lease_seconds = 0.006
    for _ in range(10):
        async with working(plane, waiting_graph(Gates())):
            await until(lambda: plane.requests("claim"), "the worker at work")
        assert plane.workers == {}
        plane.http.requests.clear()
        plane.drained.clear()


async def test_a_second_stop_hands_back_at_once(plane: ControlPlaneDouble) -> None:
    gates = Gates()
    run_id = plane.submit("waiting", {"n": 1})

    async with working(plane, waiting_graph(gates), shutdown_timeout=600) as worker:
        await until(lambda: gates.started, "the run at work")
        worker.stop()
        worker.stop()
        assert await ended(plane, run_id) == {"status": "release"}


SCRIPT = """
import threading
from duragraph_worker import Graph, Worker, entrypoint, node

@Graph(id="stuck")
class Stuck:
    @entrypoint
    @node
    def hang(self, state):
        print("hanging", flush=True)
        threading.Event().wait(3600)

Worker("{url}", graphs=[Stuck], name="w", shutdown_timeout=0.3).run()
print("drained", flush=True)
import os; os._exit(0)
"""


def test_sigterm_drains_a_worker_whose_code_hangs_in_a_thread(plane: ControlPlaneDouble) -> None:
    run_id = plane.submit("stuck", {})
    script = SCRIPT.format(url=plane.url)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hanging\n"
        os.kill(process.pid, signal.SIGTERM)
        assert plane.wait_ended(run_id) == {"status": "release"}
        assert process.stdout.readline() == "drained\n"
        assert process.wait(10) == 0
