"""POST /threads/{id}/state where only the graph's code can make the change: a worker is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from duragraph.api import updates
from duragraph.hub import Hub
from duragraph_worker import Worker
from tests.api.conftest import Live, Serving
from tests.waiting import wait_for_async
from tests.worker import toy_graphs as toys


@pytest.fixture
def running(serving: Serving) -> Any:
    with serving() as live:
        yield live


@asynccontextmanager
async def working(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    """A client, while a worker serves the counter."""
    worker = Worker(live.url, graphs=[toys.Counter], name="w")
    task = asyncio.create_task(worker.arun())
    try:
        async with httpx.AsyncClient(base_url=live.url, timeout=30) as client:

            async def known() -> bool:
                return (await client.post("/assistants/search", json={"graph_id": "counter"})).status_code == 200

            await wait_for_async(known, what="the worker's registration")
            yield client
    finally:
        worker.stop()
        await asyncio.wait_for(task, 15)


async def thread_after_a_run(client: httpx.AsyncClient) -> str:
    thread = (await client.post("/threads", json={})).json()["thread_id"]
    body = {"assistant_id": "counter", "input": {"target": 1}}
    assert (await client.post(f"/threads/{thread}/runs/wait", json=body)).json()["count"] == 1
    return str(thread)


async def test_a_worker_makes_the_change_and_the_answer_names_the_checkpoint(running: Live) -> None:
    async with working(running) as client:
        thread = await thread_after_a_run(client)
        asked = {"values": {"target": 5}, "as_node": "prepare"}
        made = (await client.post(f"/threads/{thread}/state", json=asked)).json()
        state = (await client.get(f"/threads/{thread}/state")).json()
        assert made["checkpoint"] == state["checkpoint"]
        assert made["configurable"] == made["checkpoint"]
        assert state["next"] == ["increment"]
        assert (await client.get(f"/threads/{thread}")).json()["status"] == "interrupted"
        assert len((await client.get(f"/threads/{thread}/runs")).json()) == 1


async def test_what_the_graph_refuses_is_400_with_its_words(running: Live) -> None:
    async with working(running) as client:
        thread = await thread_after_a_run(client)
        asked = {"values": {"target": "no number"}, "as_node": "prepare"}  # its condition compares it with one
        refused = await client.post(f"/threads/{thread}/state", json=asked)
        assert refused.status_code == 400
        assert refused.json()["code"] == "update_refused"
        assert "TypeError" in refused.json()["detail"]
        assert (await client.get(f"/threads/{thread}")).json()["status"] == "idle"


async def test_supersteps_of_a_new_thread_are_built_by_a_worker_or_leave_no_thread(running: Live) -> None:
    async with working(running) as client:
        steps = [{"updates": [{"values": {"target": 3}, "as_node": "prepare"}]}]
        body = {"graph_id": "counter", "supersteps": steps, "metadata": {"made": "here"}}
        made = (await client.post("/threads", json=body)).json()
        assert made["values"]["target"] == 3
        assert made["metadata"]["made"] == "here"
        wrong = {
            "graph_id": "counter",
            "supersteps": [{"updates": [{"values": {"target": "x"}, "as_node": "prepare"}]}],
        }
        assert (await client.post("/threads", json=wrong)).status_code == 400
        assert (await client.post("/threads/count", json={})).json() == 1


async def test_without_a_worker_it_is_503_and_the_thread_is_free_again(
    running: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(running) as client:
        thread = await thread_after_a_run(client)
    monkeypatch.setattr(updates, "_PATIENCE", 0.3)
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as client:
        before = (await client.get(f"/threads/{thread}/state")).json()
        asked = {"values": {"target": 5}, "as_node": "prepare"}
        refused = await client.post(f"/threads/{thread}/state", json=asked)
        assert (refused.status_code, refused.json()["code"]) == (503, "no_worker")
        assert int(refused.headers["Retry-After"]) > 0
        assert (await client.get(f"/threads/{thread}/state")).json() == before
        assert (await client.get(f"/threads/{thread}")).json()["status"] == "idle"


async def test_a_change_made_just_when_patience_ends_is_no_failure(
    running: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_done = Hub.wait_done

    async def too_late(hub: Hub, run_id: UUID) -> str:
        await wait_done(hub, run_id)
        raise TimeoutError

    async with working(running) as client:
        thread = await thread_after_a_run(client)
        monkeypatch.setattr(Hub, "wait_done", too_late)
        made = await client.post(f"/threads/{thread}/state", json={"values": {"target": 5}, "as_node": "prepare"})
        assert made.status_code == 200, made.text
        state = (await client.get(f"/threads/{thread}/state")).json()
        assert state["checkpoint"]["checkpoint_id"] == made.json()["checkpoint"]["checkpoint_id"]
        assert state["values"]["target"] == 5


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_run_that_puts_an_end_to_the_change_makes_it_409(running: Live, strategy: str) -> None:
    async with working(running) as client:
        thread = await thread_after_a_run(client)
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as client:
        asked = {"values": {"target": 5}, "as_node": "prepare"}
        change = asyncio.create_task(client.post(f"/threads/{thread}/state", json=asked))

        async def busy() -> bool:
            return bool((await client.get(f"/threads/{thread}")).json()["status"] == "busy")

        await wait_for_async(busy, what="the change")
        body = {"assistant_id": "counter", "multitask_strategy": strategy}
        run = (await client.post(f"/threads/{thread}/runs", json=body)).json()
        refused = await change
        assert (refused.status_code, refused.json()["code"]) == (409, "update_failed")
        listed = (await client.get(f"/threads/{thread}/runs")).json()
        assert listed[0]["run_id"] == run["run_id"]
        assert len(listed) == 2
