"""MCP over HTTP: each assistant is a tool; the official client is one of the callers."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import mcp
import pytest

from tests.api.conftest import Live
from tests.api.scripted import Api, Json, Work, echo

ASK = {"accept": "application/json, text/event-stream"}


async def rpc(api: Api, method: str, params: object = None, status: int = 200) -> Json:
    """The whole answer to a call."""
    body = {"jsonrpc": "2.0", "id": "one", "method": method, **({} if params is None else {"params": params})}
    answer: Json = await api.call("POST", "/mcp", body, status, headers=ASK)
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", "one")
    return answer


async def fails(work: Work) -> None:
    await work.end("error", error={"error": "ValueError", "message": "kaboom"})


async def asks(work: Work) -> None:
    await work.end(output={"n": 1, "__interrupt__": [{"id": "0" * 32, "value": "sure?"}]})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_lists_and_calls_tools(live: Live, api: Api, mode: str) -> None:
    # given a worker that echoes
    async with api.working(echo):
        # when the official client connects, looks and calls
        async with mcp.Client(f"{live.url}/mcp", mode=mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            called = await client.call_tool(api.graph_id, {"n": 7})
        # then the tool is the graph, and the answer is its output, as text and as it is
        assert tools[api.graph_id].input_schema["type"] == "object"
        assert called.structured_content == {"seen": {"n": 7}}
        assert json.loads(called.content[0].text) == {"seen": {"n": 7}}
        assert not called.is_error


async def test_the_official_client_is_told_what_went_wrong(live: Live, api: Api) -> None:
    async with api.working(fails), mcp.Client(f"{live.url}/mcp") as client:
        called = await client.call_tool(api.graph_id, {})
        assert called.is_error
        assert called.content[0].text == "ValueError: kaboom"
        with pytest.raises(mcp.MCPError, match="Unknown tool"):
            await client.call_tool("no-such-tool", {})


async def test_a_tool_that_asks_a_person_shows_the_question(api: Api) -> None:
    async with api.working(asks):
        outcome = (await rpc(api, "tools/call", {"name": api.graph_id, "arguments": {}}))["result"]
    assert outcome["structuredContent"]["__interrupt__"][0]["value"] == "sure?"


async def test_no_arguments_are_an_empty_input(api: Api) -> None:
    async with api.working(echo):
        outcome = (await rpc(api, "tools/call", {"name": api.graph_id}))["result"]
    assert outcome["structuredContent"] == {"seen": {}}


@pytest.mark.parametrize(
    ("asked", "given"),
    [("2024-11-05", "2024-11-05"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25"), (None, "2025-11-25")],
)
async def test_the_version_is_the_clients_if_it_is_known(api: Api, asked: str | None, given: str) -> None:
    result = (await rpc(api, "initialize", {"protocolVersion": asked} if asked else None))["result"]
    assert result["protocolVersion"] == given
    assert result["capabilities"] == {"tools": {"listChanged": False}}
    assert result["serverInfo"]["name"] == "DuraGraph"


async def test_tools_have_valid_names_of_their_own(api: Api) -> None:
    # given two assistants of one name, which no tool may have
    await api.worker()
    name = f"Ask {uuid4().hex} (über)!"
    made = [
        await api.call("POST", "/assistants", {"graph_id": api.graph_id, "name": name, "description": text})
        for text in ("the first", "the second")
    ]
    tools = (await rpc(api, "tools/list"))["result"]["tools"]
    ours = {tool["description"]: tool for tool in tools if tool["title"] == name}
    # then both are listed under names that differ, made of letters that are allowed
    assert set(ours) == {"the first", "the second"}
    names = [tool["name"] for tool in tools]
    assert len(names) == len(set(names))
    assert all(len(one) <= 64 and one.replace("_", "").replace("-", "").isalnum() and one.isascii() for one in names)
    assert ours["the second"]["name"].endswith(made[1]["assistant_id"][-12:])


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("prompts/list", None, -32601),
        ("tools/call", {"name": "no-such-tool", "arguments": {}}, -32602),
        ("tools/call", {"arguments": {}}, -32602),
        ("tools/call", {"name": "x", "arguments": [1]}, -32602),
        ("tools/call", {"name": "x", "arguments": {"a": "\0"}}, -32602),
        ("tools/list", {"cursor": "nowhere"}, -32602),
        ("ping", [1], -32602),
    ],
)
async def test_calls_that_cannot_be_answered(api: Api, method: str, params: Any, code: int) -> None:
    assert (await rpc(api, method, params))["error"]["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{nope", -32700),
        (b"", -32700),
        (b'{"a": 1}', -32600),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600),
    ],
)
async def test_what_is_no_message_is_refused(api: Api, body: bytes, code: int) -> None:
    answer = await api.call("POST", "/mcp", status=400, content=body)
    assert answer["error"]["code"] == code


@pytest.mark.parametrize(
    "body",
    [{"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": 1, "result": {}}],
    ids=["notification", "answer"],
)
async def test_what_wants_no_answer_gets_none(api: Api, body: Json) -> None:
    response = await api.http.post("/mcp", json=body)
    assert (response.status_code, response.content) == (202, b"")


async def test_there_is_no_stream_and_no_session(api: Api) -> None:
    assert (await api.http.get("/mcp")).status_code == 405
    assert (await api.http.delete("/mcp")).status_code == 404


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_slash_at_the_end_leads_on(api: Api, prefix: str) -> None:
    response = await api.http.post(f"{prefix}/mcp/", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert response.status_code == 307
    assert str(response.next_request.url).endswith(f"{prefix}/mcp") if response.next_request else False
