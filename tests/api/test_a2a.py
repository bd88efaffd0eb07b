"""A2A over HTTP, in both its versions; the official client is one of the callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.helpers import new_text_message
from a2a.types import AgentCard, CancelTaskRequest, GetTaskRequest, Role, SendMessageRequest, TaskState

from tests.api.conftest import Live
from tests.api.scripted import MISSING, Api, Json, Work, echo
from tests.sql.scene import question, task_id

WORDS = ["you", " said", " hi"]


async def answers(work: Work) -> None:
    """Adds an answer to the conversation, token by token."""
    messages = [*work.values.get("messages", []), *(work.claim["kwargs"]["input"] or {}).get("messages", [])]
    messages = [{**one, "type": "human"} if one.get("role") == "user" else one for one in messages]
    for word in WORDS:
        await work.say(("messages", [{"type": "AIMessageChunk", "id": "lc", "content": word}, {}]))
    spoken = {"type": "ai", "id": str(uuid4()), "content": "".join(WORDS)}
    await work.step({"messages": [*messages, spoken]}, end={"status": "success"})


async def asks(work: Work) -> None:
    """Asks a question, and ends when it is answered."""
    answer = (work.claim["kwargs"].get("command") or {}).get("resume")
    if answer is not None:
        await work.step({"answer": answer}, end={"status": "success"})
        return
    made = work.checkpoint({"asked": True}, ["a"])
    made["tasks"][0]["id"] = task_id(made["checkpoint_id"], "a")
    asked = question(made["checkpoint_id"], "a", "sure?")
    await work.write(checkpoint_id=work.head, checkpoints=[made], interrupts=[asked], end={"status": "success"})


async def fails(work: Work) -> None:
    await work.end("error", error={"error": "ValueError", "message": "kaboom"})


def said(text: str = "hi", **more: object) -> Json:
    """Parameters of message/send."""
    parts = [{"kind": "text", "text": text}]
    return {"message": {"kind": "message", "role": "user", "parts": parts, "messageId": str(uuid4()), **more}}


async def rpc(api: Api, method: str, params: object = None, assistant: str | None = None) -> Json:
    """The whole answer to a call."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    answer: Json = await api.call("POST", f"/a2a/{assistant or api.graph_id}", body)
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 1)
    return answer


async def send(api: Api, params: Json) -> Json:
    task: Json = (await rpc(api, "message/send", params))["result"]
    return task


async def code(api: Api, method: str, params: object = None, assistant: str | None = None) -> int:
    error: int = (await rpc(api, method, params, assistant))["error"]["code"]
    return error


async def card(api: Api, live: Live, http: httpx.AsyncClient) -> AgentCard:
    [assistant] = await api.call("POST", "/assistants/search", {"graph_id": api.graph_id})
    place = f"/.well-known/agent-card.json?assistant_id={assistant['assistant_id']}"
    return await A2ACardResolver(http, live.url, agent_card_path=place).get_agent_card()


@asynccontextmanager
async def official(api: Api, live: Live, version: str, *, streaming: bool) -> AsyncIterator[Client]:
    """The official client, speaking one of the versions that the card names."""
    async with httpx.AsyncClient(timeout=30) as http:
        found = await card(api, live, http)
        kept = [one for one in found.supported_interfaces if one.protocol_version == version]
        del found.supported_interfaces[:]
        found.supported_interfaces.extend(kept)
        client = ClientFactory(ClientConfig(streaming=streaming, httpx_client=http)).create(found)
        yield client


def asked(text: str, **more: Any) -> SendMessageRequest:
    return SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER, **more))


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_official_client_sends_and_reads_again(live: Live, api: Api, version: str) -> None:
    async with api.working(answers), official(api, live, version, streaming=False) as client:
        [event] = [one async for one in client.send_message(asked("hi"))]
        assert event.task.status.state == TaskState.TASK_STATE_COMPLETED
        assert event.task.artifacts[0].parts[0].text == "you said hi"
        assert [one.role for one in event.task.history] == [Role.ROLE_USER, Role.ROLE_AGENT]
        again = await client.get_task(GetTaskRequest(id=event.task.id))
        assert again.artifacts == event.task.artifacts
        # A further message in the context is a task of its own that knows the one before.
        [event] = [one async for one in client.send_message(asked("more", context_id=again.context_id))]
        assert [one.parts[0].text for one in event.task.history] == ["hi", "you said hi", "more", "you said hi"]
        assert event.task.id != again.id


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_official_client_streams(live: Live, api: Api, version: str) -> None:
    async with api.working(answers), official(api, live, version, streaming=True) as client:
        events = [one async for one in client.send_message(asked("hi"))]
    assert events[0].task.history[-1].parts[0].text == "hi"
    chunks = [one.artifact_update for one in events if one.HasField("artifact_update")]
    assert "".join(one.artifact.parts[0].text for one in chunks[:-1]) == chunks[-1].artifact.parts[0].text
    assert (chunks[-1].artifact.parts[0].text, chunks[-1].append, chunks[-1].last_chunk) == ("you said hi", False, True)
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED


async def test_a_stream_ends_with_what_is_final(api: Api) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": said()}
    async with api.working(answers):
        frames = [one.data["result"] for one in await api.frames("POST", f"/a2a/{api.graph_id}", body)]
    assert [one["kind"] for one in frames[:2]] == ["task", "status-update"]
    assert frames[1]["status"]["state"] == "working"
    assert {one["kind"] for one in frames[2:-1]} == {"artifact-update"}
    assert (frames[-1]["kind"], frames[-1]["final"], frames[-1]["status"]["state"]) == (
        "status-update",
        True,
        "completed",
    )
    assert {one.get("taskId") or one["id"] for one in frames} == {frames[0]["id"]}


async def test_a_question_makes_input_required_and_an_answer_goes_on(api: Api) -> None:
    async with api.working(asks):
        # given a task that asks
        task = await send(api, said())
        assert task["status"]["state"] == "input-required"
        assert task["status"]["message"]["parts"][0]["data"]["value"] == "sure?"
        # when it is answered
        done = await send(api, said("yes", taskId=task["id"], contextId=task["contextId"]))
        # then the same task is completed, and takes no further answer
        assert (done["id"], done["status"]["state"]) == (task["id"], "completed")
        assert done["artifacts"][0]["parts"][1]["data"]["answer"] == "yes"
        assert (await rpc(api, "tasks/get", {"id": task["id"]}))["result"] == done
        assert await code(api, "message/send", said("no", taskId=task["id"])) == -32004


async def test_of_two_answers_at_once_one_is_taken(api: Api) -> None:
    async with api.working(asks):
        task = await send(api, said())
    # The worker is gone: the first answer waits, and the second finds nothing to answer.
    first = await rpc(api, "message/send", {**said("a", taskId=task["id"]), "configuration": {"blocking": False}})
    assert first["result"]["status"]["state"] == "submitted"
    assert await code(api, "message/send", said("b", taskId=task["id"])) == -32004


async def test_an_answer_may_be_data(api: Api) -> None:
    async with api.working(asks):
        task = await send(api, said())
        parts = [{"kind": "data", "data": {"approved": True}}]
        done = await send(api, said(taskId=task["id"], parts=parts))
    assert done["artifacts"][0]["parts"][1]["data"]["answer"] == {"approved": True}


async def test_data_is_the_input_of_a_graph(api: Api) -> None:
    async with api.working(echo):
        task = await send(api, said(parts=[{"kind": "data", "data": {"n": 7}}]))
    assert task["artifacts"][0]["parts"][1]["data"] == {"seen": {"n": 7}}
    assert task["history"] == []


async def test_text_needs_a_graph_with_messages(api: Api) -> None:
    worker = await api.worker()
    schemas = {"input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    await worker.register(graphs=[{"graph_id": api.graph_id, "schemas": schemas}])
    assert await code(api, "message/send", said()) == -32602


async def test_a_failure_is_told(api: Api) -> None:
    async with api.working(fails):
        task = await send(api, said())
    assert task["status"]["state"] == "failed"
    assert task["status"]["message"]["parts"][0]["text"] == "ValueError: kaboom"


async def test_a_task_is_cancelled(live: Live, api: Api) -> None:
    await api.worker()
    task = await send(api, {**said(), "configuration": {"blocking": False}})
    async with official(api, live, "1.0", streaming=False) as client:
        gone = await client.cancel_task(CancelTaskRequest(id=task["id"]))
    assert gone.status.state == TaskState.TASK_STATE_CANCELED
    assert await code(api, "tasks/cancel", {"id": task["id"]}) == -32002


async def test_a_task_can_be_followed_later(api: Api) -> None:
    worker = await api.worker()
    task = await send(api, {**said(), "configuration": {"blocking": False}})
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/resubscribe", "params": {"id": task["id"]}}
    async with api.stream("POST", f"/a2a/{api.graph_id}", body) as stream:
        first = await anext(stream)
        assert first.data["result"]["status"]["state"] == "submitted"
        await answers(await worker.claim())
        rest = [one.data["result"] async for one in stream]
    assert rest[-1]["status"]["state"] == "completed"
    assert await code(api, "tasks/resubscribe", {"id": task["id"]}) == -32004


async def test_a_client_that_goes_away_does_not_stop_its_task(live: Live, api: Api) -> None:
    worker = await api.worker()
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": said()}
    async with api.stream("POST", f"/a2a/{api.graph_id}", body) as stream:
        task = (await anext(stream)).data["result"]
    await live.reads(0)
    await answers(await worker.claim())
    assert (await rpc(api, "tasks/get", {"id": task["id"]}))["result"]["status"]["state"] == "completed"


async def test_history_is_as_long_as_asked(api: Api) -> None:
    async with api.working(answers):
        task = await send(api, said())
    for length, texts in ((0, []), (1, ["you said hi"]), (9, ["hi", "you said hi"])):
        seen = (await rpc(api, "tasks/get", {"id": task["id"], "historyLength": length}))["result"]
        assert [one["parts"][0]["text"] for one in seen["history"]] == texts


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("foo/bar", {}, -32601),
        ("message/send", {}, -32602),
        ("message/send", {"message": {"role": "user", "parts": []}}, -32602),
        ("message/send", said(parts=[{"kind": "file", "file": {"uri": "x"}}]), -32005),
        ("message/send", said(parts=[{"kind": "data", "data": 1}]), -32602),
        ("message/send", said(contextId="x"), -32602),
        ("message/send", said(taskId=MISSING), -32001),
        ("message/send", said("\0"), -32602),
        ("message/send", {**said(), "configuration": {"pushNotificationConfig": {"url": "x"}}}, -32003),
        ("tasks/get", {"id": MISSING}, -32001),
        ("tasks/get", {"id": "x"}, -32001),
        ("tasks/get", {}, -32602),
        ("tasks/cancel", {"id": MISSING}, -32001),
        ("tasks/pushNotificationConfig/set", {}, -32003),
        ("agent/getAuthenticatedExtendedCard", {}, -32007),
        ("ListTasks", {}, -32004),
    ],
)
async def test_calls_that_cannot_be_answered(api: Api, method: str, params: Json, expected: int) -> None:
    await api.worker()
    assert await code(api, method, params) == expected


async def test_the_context_has_to_be_that_of_the_task(api: Api) -> None:
    async with api.working(asks):
        task = await send(api, said())
        assert await code(api, "message/send", said(taskId=task["id"], contextId=str(uuid4()))) == -32602


async def test_what_is_no_message_is_refused(api: Api) -> None:
    await api.worker()
    for body, expected in ((b"{nope", -32700), (b"[]", -32600), (b'{"jsonrpc":"2.0","id":1,"result":1}', -32600)):
        answer = await api.call("POST", f"/a2a/{api.graph_id}", content=body)
        assert answer["error"]["code"] == expected
    assert await code(api, "message/send", said(), assistant=MISSING) == -32602
    assert await code(api, "message/send", said(), assistant="no-such-graph") == -32602


async def test_the_card_says_where_the_agent_is(api: Api) -> None:
    await api.worker()
    found = await api.call("GET", "/api/v1/.well-known/agent-card.json", params={"assistant_id": api.graph_id})
    assert "/api/v1/a2a/" in found["url"]
    assert [one["protocolVersion"] for one in found["supportedInterfaces"]] == ["1.0", "0.3"]
    assert found["capabilities"]["streaming"] is True
    place = "/.well-known/agent-card.json"
    assert (await api.refused("GET", place, status=400))[1] == "assistant_id"
    assert (await api.refused("GET", place, status=404, params={"assistant_id": "no-such-graph"}))[0] == (
        "assistant_not_found"
    )


async def test_two_messages_at_once_are_answered_one_after_the_other(api: Api) -> None:
    async with api.working(answers):
        first = await send(api, said())
        both = await asyncio.gather(*(send(api, said(text, contextId=first["contextId"])) for text in ("b", "c")))
    assert {one["status"]["state"] for one in both} == {"completed"}
    assert max(len(one["history"]) for one in both) == 6
