"""The published worker protocol, call by call as its SDK makes them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.api.scripted import MISSING, Api, Json

FLOW = {
    "nodes": [{"id": name, "type": kind, "config": {}} for name, kind in
              (("a", "function"), ("left", "function"), ("pick", "router"), ("right", "function"))],
    "edges": [
        {"source": "a", "target": "pick"},
        {"source": "pick", "target": {"l": "left", "r": "right"}},
    ],
    "entry_point": "a",
}  # fmt: skip
ASKING = {
    "nodes": [{"id": "a", "type": "function", "config": {}}, {"id": "review", "type": "human", "config": {}}],
    "edges": [{"source": "a", "target": "review"}],
    "entry_point": "a",
}


class Published:
    """The SDK's worker, as seen from the server."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.worker_id = f"published-{uuid4().hex[:8]}"
        self.path = f"/api/v1/workers/{self.worker_id}"

    async def register(self, definition: Json) -> Json:
        body = {
            "worker_id": self.worker_id,
            "name": self.worker_id,
            "capabilities": {"graphs": [self.api.graph_id], "max_concurrent_runs": 10},
            "graph_definitions": [
                {"graph_id": self.api.graph_id, "name": self.api.graph_id, "description": "", **definition}
            ],
        }
        answer: Json = await self.api.call("POST", "/api/v1/workers/register", body)
        return answer

    async def poll(self) -> list[Json]:
        answer: Json = await self.api.call("POST", f"{self.path}/poll", {"max_tasks": 1})
        tasks: list[Json] = answer["tasks"]
        return tasks

    async def task(self) -> Json:
        [task] = await self.poll()
        return task

    async def event(self, task: Json, event_type: str, **data: Any) -> None:
        body = {"run_id": task["run_id"], "event_type": event_type, "data": data}
        assert await self.api.call("POST", f"{self.path}/events", body) == {"received": True}

    async def node(self, task: Json, node: str, output: object) -> None:
        await self.event(task, "node_started", node_id=node)
        await self.event(task, "node_completed", node_id=node, output=output)

    async def beat(self, status: str = "ready", active_runs: int = 0) -> None:
        body = {"status": status, "active_runs": active_runs, "total_runs": 1, "failed_runs": 0}
        assert await self.api.call("POST", f"{self.path}/heartbeat", body) == {"acknowledged": True}


@pytest.fixture
async def published(api: Api) -> Published:
    worker = Published(api)
    await worker.register(FLOW)
    return worker


async def test_registration_again_and_again(api: Api, published: Published) -> None:
    told = await asyncio.gather(published.register(FLOW), published.register(FLOW))
    assert told[0]["worker_id"] == published.worker_id
    assert told[0]["registered"] is True
    await published.beat()
    graph = await api.call("GET", f"/api/v1/workers/graphs/{api.graph_id}")
    assert graph["entry_point"] == "a"
    assert {"source": "pick", "target": {"l": "left", "r": "right"}} in graph["edges"]


async def test_a_run_from_poll_to_completion(api: Api, published: Published) -> None:
    thread = await api.thread()
    body = {"assistant_id": api.graph_id, "input": {"q": 1}, "stream_mode": ["values", "updates"]}
    async with api.stream("POST", f"/threads/{thread}/runs/stream", body) as stream:
        task = await published.task()
        assert (task["graph_id"], task["thread_id"], task["input"]) == (api.graph_id, thread, {"q": 1})
        await published.event(task, "run_started", thread_id=thread)
        await published.node(task, "a", {"x": 1})
        await published.node(task, "pick", "r")
        assert (await api.call("GET", f"/threads/{thread}/state"))["next"] == ["right"]
        await published.node(task, "right", {"q": 1, "x": 1, "y": [2]})
        await published.event(task, "run_completed", output={"q": 1, "x": 1, "y": [2], "z": None}, thread_id=thread)
        frames = [(frame.event, frame.data) async for frame in stream]
    assert frames[1:] == [
        ("values", {"q": 1}),
        ("updates", {"a": {"x": 1}}),
        ("values", {"q": 1, "x": 1}),
        ("updates", {"pick": None}),
        ("values", {"q": 1, "x": 1}),
        ("updates", {"right": {"q": 1, "x": 1, "y": [2]}}),
        ("values", {"q": 1, "x": 1, "y": [2]}),
        ("values", {"q": 1, "x": 1, "y": [2], "z": None}),
        ("end", None),
    ]
    state = await api.call("GET", f"/threads/{thread}/state")
    assert (state["values"], state["next"]) == ({"q": 1, "x": 1, "y": [2], "z": None}, [])
    history = await api.call("POST", f"/threads/{thread}/history", {"limit": 20})
    assert [one["metadata"]["step"] for one in history] == [4, 3, 2, 1, 0, -1]
    assert [one["next"] for one in history[1:]] == [[], ["right"], ["pick"], ["a"], ["__start__"]]
    assert (await api.call("GET", f"/threads/{thread}"))["status"] == "idle"
    steps = api.rows("select name, result from duragraph.steps where run_id = %s order by started_at", task["run_id"])
    assert [name for name, _ in steps] == ["a", "pick", "right"]


async def test_the_next_run_of_a_thread_starts_from_its_state(api: Api, published: Published) -> None:
    thread = await api.thread()
    await api.run(thread, input={"q": 1})
    task = await published.task()
    await published.event(task, "run_started")
    await published.node(task, "a", {"x": 1})
    await published.event(task, "run_completed", output={"q": 1, "x": 1})
    await api.run(thread, input={"q": 2})
    task = await published.task()
    assert task["input"] == {"q": 2, "x": 1}
    await published.event(task, "run_started")
    await published.event(task, "run_completed", output={"q": 2, "x": 1})
    assert (await api.call("GET", f"/threads/{thread}/state"))["values"] == {"q": 2, "x": 1}


async def test_a_stateless_run_gives_its_output(api: Api, published: Published) -> None:
    waiting = asyncio.create_task(
        api.call("POST", "/api/v1/runs/wait", {"assistant_id": api.graph_id, "input": {"q": 1}})
    )
    task = await published.task()
    await published.event(task, "run_started")
    await published.node(task, "a", {"x": 1})
    await published.event(task, "run_completed", output={"q": 1, "x": 1})
    assert await waiting == {"q": 1, "x": 1}


async def test_a_failed_run(api: Api, published: Published) -> None:
    thread = await api.thread()
    waiting = asyncio.create_task(api.call("POST", f"/threads/{thread}/runs/wait", {"assistant_id": api.graph_id}))
    task = await published.task()
    await published.event(task, "run_started")
    await published.event(task, "node_started", node_id="a")
    await published.event(task, "run_failed", error="no luck", thread_id=thread)
    assert await waiting == {"__error__": {"error": "Error", "message": "no luck"}}


async def test_a_run_can_fail_before_its_start(api: Api, published: Published) -> None:
    run = await api.run(await api.thread())
    task = await published.task()
    await published.event(task, "run_failed", error="unknown graph")
    assert await api.run_status(run) == "error"


async def test_late_and_repeated_events_change_nothing(api: Api, published: Published) -> None:
    thread = await api.thread()
    run = await api.run(thread)
    task = await published.task()
    for _ in range(2):
        await published.event(task, "run_started")
    await api.call("POST", f"/threads/{thread}/runs/{run['run_id']}/cancel", status=202)
    before = await api.call("GET", f"/threads/{thread}/state")
    await published.node(task, "a", {"x": 1})
    await published.event(task, "run_completed", output={"x": 1})
    await published.event({"run_id": MISSING}, "run_completed", output={})
    await published.event({"run_id": "no uuid"}, "run_completed", output={})
    await published.event(task, "some_new_event")
    assert await api.call("GET", f"/threads/{thread}/state") == before
    assert await api.run_status(run) == "interrupted"


async def test_another_workers_events_change_nothing(api: Api, published: Published) -> None:
    run = await api.run(await api.thread())
    task = await published.task()
    await published.event(task, "run_started")
    stranger = Published(api)
    await stranger.register(FLOW)
    await stranger.event(task, "run_completed", output={})
    assert await api.run_status(run) == "running"


async def test_a_task_whose_start_is_not_reported_is_given_out_again(api: Api, published: Published) -> None:
    run = await api.run(await api.thread())
    await published.task()
    await published.beat()
    api.rows(
        "update duragraph.leases set claimed_at = claimed_at - interval '11 s' where run_id = %s returning 1",
        run["run_id"],
    )
    await published.beat()
    assert (await published.task())["run_id"] == run["run_id"]


async def test_a_lost_ending_is_noticed_when_the_worker_says_twice_that_it_is_idle(
    api: Api, published: Published
) -> None:
    run = await api.run(await api.thread())
    task = await published.task()
    await published.event(task, "run_started")
    api.rows(
        "update duragraph.leases set claimed_at = claimed_at - interval '11 s' where run_id = %s returning 1",
        run["run_id"],
    )
    await published.beat("busy", 1)
    await published.beat()
    assert await api.run_status(run) == "running", "once may be a race with the start"
    await published.beat()
    again = await published.task()
    assert again["run_id"] == run["run_id"]
    assert again["input"] == {"n": 1}
    await published.event(again, "run_started")
    await published.node(again, "a", {"x": 1})
    await published.event(again, "run_completed", output={"n": 1, "x": 1})
    assert await api.call("GET", f"/runs/{run['run_id']}/join") == {"n": 1, "x": 1}


async def ask(api: Api, published: Published, thread: str) -> None:
    """A run up to its human node."""
    await api.run(thread, stream_mode=["updates", "values"])
    task = await published.task()
    await published.event(task, "run_started")
    await published.node(task, "a", {"draft": "d"})
    await published.event(task, "node_started", node_id="review")
    await published.event(
        task, "run_requires_action", action_type="human_review", prompt="fine?", state={"n": 1, "draft": "d"}
    )


async def test_a_human_node_at_the_end_is_answered_by_the_server(api: Api) -> None:
    published = Published(api)
    await published.register(ASKING)
    thread = await api.thread()
    await ask(api, published, thread)
    seen = await api.call("GET", f"/threads/{thread}")
    assert seen["status"] == "interrupted"
    [[question]] = seen["interrupts"].values()
    assert question["value"] == {"action_type": "human_review", "prompt": "fine?"}
    assert (await api.call("GET", f"/threads/{thread}/state"))["next"] == ["review"]
    held = asyncio.create_task(published.poll())
    answer = {"assistant_id": api.graph_id, "command": {"resume": {question["id"]: {"approved": True}}}}
    assert await api.call("POST", f"/threads/{thread}/runs/wait", answer) == {"n": 1, "draft": "d", "approved": True}
    assert (await api.call("GET", f"/threads/{thread}"))["status"] == "idle"
    await api.run(thread, input={"n": 2})
    assert (await held)[0]["input"] == {"n": 2, "draft": "d", "approved": True}, "the poll went on to the next run"


async def test_a_human_node_in_the_middle_cannot_be_resumed_and_says_why(api: Api) -> None:
    published = Published(api)
    onward = [*ASKING["edges"], {"source": "review", "target": "a"}]
    await published.register({**ASKING, "edges": onward})
    thread = await api.thread()
    await ask(api, published, thread)
    held = asyncio.create_task(published.poll())
    answer = await api.call(
        "POST", f"/threads/{thread}/runs/wait", {"assistant_id": api.graph_id, "command": {"resume": "yes"}}
    )
    assert "cannot go on after node review" in answer["__error__"]["message"]
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)


async def test_events_of_a_run_that_was_claimed_by_the_other_protocol_break_nothing(api: Api) -> None:
    worker = await api.worker(definition=FLOW)
    thread = await api.thread()
    run = await api.run(thread)
    work = await worker.claim()
    for event in ("node_completed", "run_requires_action", "run_started", "node_completed", "run_completed"):
        body = {"run_id": work.run_id, "event_type": event, "data": {"node_id": "a", "output": {"n": 2}}}
        assert await api.call("POST", f"{worker.path}/events", body) == {"received": True}
    assert await api.run_status(run) == "success"
    assert (await api.call("GET", f"/threads/{thread}/state"))["values"] == {"n": 2}


async def test_an_unknown_worker_is_told_404(api: Api) -> None:
    for ending in ("poll", "heartbeat", "events"):
        body = {"run_id": MISSING, "event_type": "run_started", "status": "ready"}
        assert (await api.refused("POST", f"/api/v1/workers/nobody/{ending}", body, 404))[0] == "worker_not_found"


async def test_draining_ends_its_claims(api: Api, published: Published) -> None:
    await published.beat("draining")
    seen = await api.call("GET", f"/workers/{published.worker_id}")
    assert seen["status"] == "draining"
    left = await api.call("POST", f"{published.path}/deregister")
    assert (left["worker_id"], left["deregistered"]) == (published.worker_id, True)


async def test_the_published_client_can_read_every_answer(api: Api, published: Published) -> None:
    """It calls .json() on whatever comes, and sends its content type even without a body."""
    headers = {"content-type": "application/json", "user-agent": "python-httpx/0.28.1"}
    thread = await api.thread()
    run = await api.run(thread)
    path = f"/api/v1/threads/{thread}"
    assert await api.call("POST", f"{path}/runs/{run['run_id']}/cancel", headers=headers) == {}
    assert await api.call("DELETE", path, headers=headers) == {}
    for name in ("assistants", "threads", "runs"):
        page = await api.call("GET", f"/api/v1/{name}", headers=headers)
        assert isinstance(page[name], list)
        assert isinstance(page["total"], int)
    other = await api.thread()
    assert await api.call("DELETE", f"/threads/{other}", status=204) is None, "others get what they expect"
