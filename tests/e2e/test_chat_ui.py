"""What the stock chat front end asks (docs/chat-ui.md), request for request, of a server with a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from duragraph_worker import Graph, MessagesState, Worker, entrypoint, interrupt, llm_node, node
from duragraph_worker.testing import ScriptedProvider
from tests.api.conftest import Live, start
from tests.postgres import Server
from tests.waiting import wait_for_async

MODES = ["values", "messages-tuple", "custom"]
MAY = {f"allow_{what}": True for what in ("accept", "edit", "respond", "ignore")}


@Graph(id="chat_ui", state=MessagesState)
class Chat:
    @entrypoint
    @llm_node("any", provider=ScriptedProvider(lambda asked: f"about {asked.messages[-1]['content']}"))
    async def answer(self, state: Any) -> None:
        """The state's messages are the prompt."""


@Graph(id="review_ui", state=MessagesState)
class Review:
    @entrypoint
    @node()
    async def review(self, state: Any) -> Any:
        action = {"action": "send", "args": {"to": "ada"}}
        answer = interrupt([{"action_request": action, "config": MAY, "description": "Send it?"}])[0]
        return {"messages": {"role": "assistant", "content": answer["type"]}}


@pytest.fixture
async def ui(server: Server) -> AsyncIterator[LangGraphClient]:
    """The front end's client, of a server whose worker serves both graphs."""
    with server.database(server.template) as name, start(server.dsn(name)) as live:
        async with at_work(live), get_client(url=live.url) as client:
            yield client


@asynccontextmanager
async def at_work(live: Live) -> AsyncIterator[None]:
    worker = Worker(live.url, graphs=[Chat, Review], name="ui")
    task = asyncio.create_task(worker.arun())

    async def registered() -> bool:
        async with get_client(url=live.url) as client:
            return await client.assistants.count() == 2

    try:
        await wait_for_async(registered, what="the worker's registration")
        yield
    finally:
        worker.stop()
        worker.stop()
        await asyncio.wait_for(task, 15)


async def submit(ui: LangGraphClient, thread: str, graph: str, **body: Any) -> list[Any]:
    asked = {"assistant_id": graph, "stream_mode": MODES, "on_disconnect": "cancel", **body}
    parts = ui.http.stream(f"/threads/{thread}/runs/stream", "POST", json=asked)
    found = [part async for part in parts]
    assert "error" not in [part.event for part in found], found
    return found


def says(text: str) -> dict[str, Any]:
    return {"messages": [{"type": "human", "content": text}]}


def texts(state: Any) -> list[str]:
    return [message["content"] for message in state["values"].get("messages", [])]


def at(checkpoint: Any) -> dict[str, Any]:
    """As the front end sends one: without its thread."""
    return {"checkpoint_id": checkpoint["checkpoint_id"], "checkpoint_ns": checkpoint["checkpoint_ns"]}


def first_seen(history: list[Any], text: str) -> Any:
    return next(state for state in reversed(history) if text in texts(state))


async def test_a_message_is_edited_and_an_answer_asked_for_again_by_forking(ui: LangGraphClient):
    thread = (await ui.threads.create())["thread_id"]
    await submit(ui, thread, "chat_ui", input=says("tea"))
    before = await ui.threads.get_history(thread, limit=1000)

    parent = first_seen(before, "tea")["parent_checkpoint"]
    await submit(ui, thread, "chat_ui", input=says("coffee"), checkpoint=at(parent))
    edited = await ui.threads.get_history(thread, limit=1000)
    assert texts(edited[0]) == ["coffee", "about coffee"]
    assert first_seen(edited, "coffee")["parent_checkpoint"] is not None

    parent = first_seen(edited, "about coffee")["parent_checkpoint"]
    await submit(ui, thread, "chat_ui", checkpoint=at(parent))
    again = await ui.threads.get_history(thread, limit=1000)
    assert texts(again[0]) == ["coffee", "about coffee"]
    answers = {state["values"]["messages"][-1]["id"] for state in again if texts(state)[-1:] == ["about coffee"]}
    assert len(answers) == 2
    assert "about tea" in [texts(state)[-1] for state in again if texts(state)]


async def test_a_person_answers_with_an_empty_input_beside_the_command(ui: LangGraphClient):
    thread = (await ui.threads.create())["thread_id"]
    asked = await submit(ui, thread, "review_ui", input=says("the budget"))
    assert asked[-2].data["__interrupt__"][0]["value"][0]["config"] == MAY
    head = (await ui.threads.get_history(thread, limit=1000))[0]
    assert head["tasks"][-1]["interrupts"][-1]["value"][0]["action_request"]["action"] == "send"

    resume = {"resume": [{"type": "accept", "args": None}]}
    await submit(ui, thread, "review_ui", input={}, command=resume, checkpoint=at(head["checkpoint"]))
    assert texts(await ui.threads.get_state(thread)) == ["the budget", "accept"]


async def test_the_sidebar_finds_the_threads_of_a_graph_with_what_was_said_first(ui: LangGraphClient):
    thread = (await ui.threads.create())["thread_id"]
    await submit(ui, thread, "chat_ui", input=says("tea"))
    found = await ui.threads.search(metadata={"graph_id": "chat_ui"}, limit=100)
    assert [texts(t)[0] for t in found if t["thread_id"] == thread] == ["tea"]
    assert thread not in [t["thread_id"] for t in await ui.threads.search(metadata={"graph_id": "review_ui"})]
