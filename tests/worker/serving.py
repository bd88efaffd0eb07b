"""A worker at work on the server's double, and the graphs it serves in tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from duragraph_worker import END, Graph, Worker, entrypoint, node
from tests.waiting import wait_for_async
from tests.worker.doubles import ControlPlaneDouble


@contextlib.asynccontextmanager
async def working(plane: ControlPlaneDouble, *graphs: Any, **options: Any) -> AsyncIterator[Worker]:
    """A worker at work; it must stop within its time when the test is over."""
    worker = Worker(plane.url, graphs=graphs, name=options.pop("name", "w"), **options)
    task = asyncio.create_task(worker.arun())
    try:
        yield worker
    finally:
        worker.stop()
        worker.stop()
        await asyncio.wait_for(task, 15)


async def ended(plane: ControlPlaneDouble, run_id: str) -> dict[str, Any]:
    return await asyncio.to_thread(plane.wait_ended, run_id)


async def until(probe: Any, what: str) -> Any:
    async def ask() -> Any:
        return probe()

    return await wait_for_async(ask, what=what)


@Graph(id="double")
class Double:
    @entrypoint
    @node
    def twice(self, state: Any) -> Any:
        return {"n": state["n"] * 2}

    @node
    async def more(self, state: Any) -> Any:
        return {"n": state["n"] + 1}

    twice >> more >> END


class Gates:
    """What the nodes of a test wait for, and what they saw."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.cancelled: list[Any] = []
        self.open = asyncio.Event()


def waiting_graph(gates: Gates) -> Any:
    @Graph(id="waiting")
    class Waiting:
        @entrypoint
        @node
        async def hold(self, state: Any) -> Any:
            gates.started.append(state["n"])
            try:
                await gates.open.wait()
            except asyncio.CancelledError:
                gates.cancelled.append(state["n"])
                raise
            return {"n": state["n"]}

    return Waiting
