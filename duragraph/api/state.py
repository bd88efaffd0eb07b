"""The state of a thread: read, changed, and its history."""

from __future__ import annotations

from uuid import UUID

import orjson
from falcon import HTTP_204
from falcon.asgi import Request, Response

from duragraph.api.http import (
    answer,
    answer_json,
    check_text,
    parse_json,
    path_uuid,
    query_bool,
    query_int,
    query_list,
    read_json,
)
from duragraph.api.updates import update_by_worker
from duragraph.deps import Deps
from duragraph.errors import DuragraphError
from duragraph.resource_models import StateAt, StatePatch, StateSearch, StateUpdate

Route = tuple[str, object, str | None]

_MAX_LIMIT = 1000


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    state = State(deps)
    base = "/threads/{thread_id}"
    return [
        (f"{base}/state", state, None),
        (f"{base}/state/checkpoint", state, "checkpoint"),
        (f"{base}/state/{{checkpoint_id}}", state, "at"),
        (f"{base}/history", state, "history"),
    ]


class State:
    """What a thread's runs have come to, now and at each of their steps."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._store = deps.store
        self._hub = deps.hub
        self._tenant = deps.tenant

    async def on_get(self, req: Request, resp: Response, thread_id: str) -> None:
        """Get the state; `subgraphs` nests the states of subgraphs."""
        request: dict[str, object] = {
            "subgraphs": query_bool(req, "subgraphs"),
            "checkpoint": _namespace(req),
            "select": query_list(req, "select"),
        }
        await self._answer_state(resp, thread_id, request)

    async def on_get_at(self, req: Request, resp: Response, thread_id: str, checkpoint_id: str) -> None:
        """Get the state at a checkpoint."""
        checkpoint = str(path_uuid(checkpoint_id, "checkpoint_id"))
        request: dict[str, object] = {
            "subgraphs": query_bool(req, "subgraphs"),
            "checkpoint": {"checkpoint_id": checkpoint, **(_namespace(req) or {})},
            "select": query_list(req, "select"),
        }
        await self._answer_state(resp, thread_id, request)

    async def on_post_checkpoint(self, req: Request, resp: Response, thread_id: str) -> None:
        """Get the state at a checkpoint or in a namespace."""
        thread = _id(thread_id)
        _, raw = await read_json(req, StateAt)
        answer_json(resp, await self._store.get_state(self._tenant, thread, raw))

    async def on_post(self, req: Request, resp: Response, thread_id: str) -> None:
        """Change the state, or fork it at an older checkpoint."""
        thread = _id(thread_id)
        _, raw = await read_json(req, StateUpdate)
        try:
            answer_json(resp, await self._store.put_state(self._tenant, thread, raw))
        except DuragraphError as problem:
            if problem.code != "worker_needed":
                raise
            asked = orjson.loads(raw)
            point = asked.get("checkpoint") or asked.get("checkpoint_id")
            update = {"values": asked.get("values"), "as_node": asked.get("as_node")}
            made = await update_by_worker(self._deps, thread, [{"updates": [update]}], point)
            place = {"thread_id": str(thread), "checkpoint_ns": "", "checkpoint_id": made}
            answer(resp, {"checkpoint": place, "configurable": place, "checkpoint_id": made})
        self._hub.thread_changed(thread)

    async def on_patch(self, req: Request, resp: Response, thread_id: str) -> None:
        """Merge metadata into that of the thread and of its config; the values stay."""
        thread = _id(thread_id)
        _, raw = await read_json(req, StatePatch)
        await self._store.patch_state(self._tenant, thread, raw)
        resp.status = HTTP_204

    async def on_get_history(self, req: Request, resp: Response, thread_id: str) -> None:
        """The states of a thread, newest first; `before` is a checkpoint's id."""
        request = {
            "limit": query_int(req, "limit", 1, 1, _MAX_LIMIT),
            "before": req.get_param("before"),
            "checkpoint": _namespace(req),
            "select": query_list(req, "select"),
        }
        raw = orjson.dumps({name: value for name, value in request.items() if value is not None})
        parse_json(raw, StateSearch)
        answer_json(resp, await self._store.get_history(self._tenant, _id(thread_id), raw))

    async def on_post_history(self, req: Request, resp: Response, thread_id: str) -> None:
        """The states of a thread, newest first; `before` is an id, a checkpoint or a config."""
        thread = _id(thread_id)
        asked, raw = await read_json(req, StateSearch)
        if asked.limit is None:
            raw = orjson.dumps({**orjson.loads(raw), "limit": 1})
        answer_json(resp, await self._store.get_history(self._tenant, thread, raw))

    async def _answer_state(self, resp: Response, thread_id: str, request: dict[str, object]) -> None:
        raw = orjson.dumps(request)
        check_text(raw)
        if request["checkpoint"] is not None:
            parse_json(raw, StateAt)
        answer_json(resp, await self._store.get_state(self._tenant, _id(thread_id), raw))


def _namespace(req: Request) -> dict[str, str] | None:
    namespace = req.get_param("checkpoint_ns")
    return None if namespace is None else {"checkpoint_ns": namespace}


def _id(thread_id: str) -> UUID:
    return path_uuid(thread_id, "thread_id")
