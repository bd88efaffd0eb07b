"""The Model Context Protocol: each assistant is a tool. Stateless: one JSON-RPC call a POST, no session, no stream.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import orjson
from falcon import HTTP_200, HTTP_202, HTTP_307, HTTP_400, HTTP_404, HTTP_405
from falcon.asgi import Request, Response
from pydantic import Field

from duragraph import __version__
from duragraph.api.http import answer_json, read_body
from duragraph.api.jsonrpc import (
    INVALID_PARAMS,
    Call,
    RpcError,
    failure,
    from_ours,
    parse,
    read_params,
    result,
    unknown,
)
from duragraph.api.stream import Run, answer_when_ended, output_of
from duragraph.deps import Deps
from duragraph.errors import DuragraphError
from duragraph.models import Object, Shape

log = logging.getLogger("duragraph.mcp")

Route = tuple[str, object, str | None]

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
_PAGE = 1000
_HINTS = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": True}


class Initialize(Shape):
    """Parameters of `initialize`."""

    version: str | None = Field(default=None, alias="protocolVersion")


class ListTools(Shape):
    """Parameters of `tools/list`."""

    cursor: str | None = Field(default=None, pattern=r"^[0-9]{1,9}$")


class CallTool(Shape):
    """Parameters of `tools/call`."""

    name: str
    arguments: Object | None = None


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    return [("/mcp", Mcp(deps), None)]


class Mcp:
    """Assistants as tools."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def on_post(self, req: Request, resp: Response) -> None:
        """Call a method of the Model Context Protocol: initialize, ping, tools/list, tools/call."""
        if req.scope["path"].endswith("/"):
            # Relative, so that it is right below any prefix.
            resp.status = HTTP_307
            resp.set_header("Location", "../mcp")
            return
        raw = await read_body(req)
        try:
            call = parse(raw)
        except RpcError as error:
            answer_json(resp, failure(None, error), HTTP_200 if error.code == INVALID_PARAMS else HTTP_400)
            return
        if call is None or call.notification:
            resp.status = HTTP_202
            return
        try:
            await self._answer(req, resp, call)
        except RpcError as error:
            answer_json(resp, failure(call.id, error))
        except DuragraphError as problem:
            answer_json(resp, failure(call.id, from_ours(problem)))

    async def on_get(self, req: Request, resp: Response) -> None:
        """Refused: there is no stream from the server."""
        answer_json(resp, b'{"detail":"Method Not Allowed","code":"method_not_allowed"}', HTTP_405)
        resp.set_header("Allow", "POST")

    async def on_delete(self, req: Request, resp: Response) -> None:
        """Refused: there is no session to end."""
        answer_json(resp, b'{"detail":"There are no sessions.","code":"not_found"}', HTTP_404)

    async def _answer(self, req: Request, resp: Response, call: Call) -> None:
        match call.method:
            case "initialize":
                answer_json(resp, result(call.id, _about(read_params(call, Initialize))))
            case "ping":
                answer_json(resp, result(call.id, {}))
            case "tools/list":
                answer_json(resp, result(call.id, await self._tools(read_params(call, ListTools))))
            case "tools/call":
                await self._call(req, resp, call)
            case _:
                unknown(call)

    async def _tools(self, asked: ListTools) -> dict[str, Any]:
        begin = int(asked.cursor or 0)
        tools = orjson.loads(await self._deps.store.list_tools(self._deps.tenant))
        page: dict[str, Any] = {"tools": [_tool(one) for one in tools[begin : begin + _PAGE]]}
        if len(tools) > begin + _PAGE:
            page["nextCursor"] = str(begin + _PAGE)
        return page

    async def _call(self, req: Request, resp: Response, call: Call) -> None:
        """Run the assistant without a thread. A client that goes away does not stop it: MCP has it so."""
        asked = read_params(call, CallTool)
        tools = orjson.loads(await self._deps.store.list_tools(self._deps.tenant))
        found = next((one for one in tools if one["name"] == asked.name), None)
        if found is None:
            raise RpcError(INVALID_PARAMS, f"Unknown tool: {asked.name[:200]}")
        body = {"assistant_id": found["assistant_id"], "input": call.params.get("arguments") or {}}
        request = {"thread_id": None, "request_id": req.context.request_id, "brief": True, "body": body}
        made = orjson.loads(await self._deps.batches.create.add(orjson.dumps(request)))
        log.info("tool called", extra={"run_id": made["run_id"], "tool": asked.name})
        run = Run(UUID(made["run_id"]), UUID(made["thread_id"]), resumable=False, stateless=True, new=True)

        async def finish() -> bytes:
            return result(call.id, _outcome(await output_of(self._deps, run.run_id)))

        answer_when_ended(self._deps, req, resp, run, finish)


def _about(asked: Initialize) -> dict[str, Any]:
    version = asked.version if asked.version in VERSIONS else VERSIONS[-1]
    return {
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "DuraGraph", "version": __version__},
    }


def _tool(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": found["name"],
        "title": found["title"],
        "description": found["description"],
        "inputSchema": found["input_schema"],
        "annotations": _HINTS,
    }


def _outcome(output: bytes) -> dict[str, Any]:
    """The output as text and, when it is an object, as it is. What went wrong in the graph is for the model to read."""
    value = orjson.loads(output)
    if isinstance(value, dict) and isinstance(error := value.get("__error__"), dict):
        return {"isError": True, "content": [_text(f"{error.get('error')}: {error.get('message')}")]}
    outcome: dict[str, Any] = {"content": [_text(orjson.dumps(value).decode())]}
    if isinstance(value, dict):
        outcome["structuredContent"] = value
    return outcome


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
