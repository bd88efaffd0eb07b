"""Runs: create, wait, stream, batch, list, get, join, cancel, delete; on a thread and without one."""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from uuid import UUID

import orjson
from falcon import HTTP_200, HTTP_202, HTTP_204
from falcon.asgi import Request, Response

from duragraph.api.http import (
    answer_json,
    check_text,
    parse_json,
    path_uuid,
    query_bool,
    query_choice,
    query_int,
    query_list,
    read_body,
    read_json,
)
from duragraph.api.stream import (
    Cursor,
    Modes,
    Run,
    cancel_runs,
    output_of,
    parse_cursor,
    stream_run,
    wait_for_run,
)
from duragraph.deps import Deps
from duragraph.errors import Invalid, Malformed, NotFound
from duragraph.models import RUN_FIELDS, STREAM_MODES, RunBatch, RunCreate, RunsCancel
from duragraph.resource_models import CronBase
from duragraph.store import Ended

log = logging.getLogger("duragraph.runs")

Route = tuple[str, object, str | None]

_ACTIONS = ("interrupt", "rollback")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_FRESH = Cursor(0, fresh=True)


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    runs, one = Runs(deps), OneRun(deps)
    places: list[Route] = []
    for base in ("/threads/{thread_id}/runs", "/runs"):
        places += [
            (base, runs, None),
            (f"{base}/stream", runs, "stream"),
            (f"{base}/wait", runs, "wait"),
            (f"{base}/{{run_id}}", one, None),
            (f"{base}/{{run_id}}/stream", one, "stream"),
            (f"{base}/{{run_id}}/join", one, "join"),
            (f"{base}/{{run_id}}/wait", one, "join"),
            (f"{base}/{{run_id}}/cancel", one, "cancel"),
        ]
    return [*places, ("/runs/batch", runs, "batch"), ("/runs/cancel", runs, "cancel")]


class Runs:
    """The runs of a thread, or of none."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def on_post(self, req: Request, resp: Response, thread_id: str | None = None) -> None:
        """Create a run and answer it at once."""
        _, run, raw = await self._create(req, thread_id)
        resp.set_header("Content-Location", run.place)
        answer_json(resp, raw)

    async def on_post_stream(self, req: Request, resp: Response, thread_id: str | None = None) -> None:
        """Create a run and answer its events."""
        asked, run, _ = await self._create(req, thread_id, brief=True)
        stream_run(self._deps, req, resp, run, _FRESH, cancel_on_disconnect=asked.on_disconnect == "cancel")

    async def on_post_wait(self, req: Request, resp: Response, thread_id: str | None = None) -> None:
        """Create a run and answer its output."""
        asked, run, _ = await self._create(req, thread_id, brief=True)
        wait_for_run(self._deps, req, resp, run, cancel_on_disconnect=asked.on_disconnect == "cancel")

    async def on_post_batch(self, req: Request, resp: Response) -> None:
        """Create several stateless runs: all or none."""
        raw = await read_body(req)
        for one in parse_json(raw, RunBatch).root:
            check_run(one, stateless=True)
            self._deps.check_webhook(one.webhook)
        requests = [self._request(req, None, one, key=False) for one in split_array(raw)]
        runs = await self._deps.store.create_runs(self._deps.tenant, requests)
        self._deps.hub.ready()
        log.info("runs created", extra={"runs": len(runs)})
        answer_json(resp, b"[" + b",".join(runs) + b"]")

    async def on_get(self, req: Request, resp: Response, thread_id: str | None = None) -> None:
        """Runs, newest first: an array on a thread, else {"runs": [...], "total": how many are shown}."""
        thread = None if thread_id is None else path_uuid(thread_id, "thread_id")
        options: dict[str, Any] = {
            "limit": query_int(req, "limit", 10, 1, 1000),
            "offset": query_int(req, "offset", 0),
            "status": req.get_param("status"),
            "select": query_list(req, "select", RUN_FIELDS),
        }
        asked = orjson.dumps({name: value for name, value in options.items() if value is not None})
        check_text(asked)
        runs = await self._deps.store.list_runs(self._deps.tenant, thread, asked)
        if thread is None:
            runs = b'{"runs":%b,"total":%d}' % (runs, len(orjson.loads(runs)))
        answer_json(resp, runs)

    async def on_post_cancel(self, req: Request, resp: Response) -> None:
        """Cancel many runs."""
        asked, _ = await read_json(req, RunsCancel)
        if (asked.run_ids is None) == (asked.status is None) or (
            asked.status is not None and asked.thread_id is not None
        ):
            raise Invalid(
                "name the runs by run_ids (with thread_id), or by status, not both",
                code="invalid_field",
                field="run_ids",
            )
        action = query_choice(req, "action", _ACTIONS, asked.action or "interrupt")
        request = asked.model_dump(mode="json", exclude_none=True)
        if not await cancel_runs(self._deps, {**request, "action": action, "reason": _reason(req, action)}):
            raise NotFound("No such run is pending or running.", code="run_not_found", hint="they may have ended")
        resp.status = HTTP_204

    async def _create(
        self, req: Request, thread_id: str | None, *, brief: bool = False
    ) -> tuple[RunCreate, Run, bytes]:
        """What was asked, and the new run; its Run object too, unless `brief`."""
        thread = None if thread_id is None else path_uuid(thread_id, "thread_id")
        asked, raw = await read_json(req, RunCreate)
        check_run(asked, stateless=thread is None)
        self._deps.check_webhook(asked.webhook)
        made = await place_run(self._deps, thread, asked, self._request(req, thread, raw, brief=brief))
        ids = orjson.loads(made)
        resumable = bool(asked.stream_resumable)
        run = Run(UUID(ids["run_id"]), UUID(ids["thread_id"]), resumable, stateless=thread is None, new=True)
        return asked, run, made

    def _request(
        self, req: Request, thread: UUID | None, raw: bytes, *, key: bool = True, brief: bool = False
    ) -> bytes:
        """One request of create_runs; the body goes in as it came."""
        known = {
            "thread_id": thread and str(thread),
            "idempotency_key": _idempotency_key(req) if key else None,
            "request_id": req.context.request_id,
            "brief": brief,
        }
        return b'%b,"body":%b}' % (orjson.dumps(known)[:-1], raw)


class OneRun:
    """One run, with its thread in the path or without."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def on_get(self, req: Request, resp: Response, run_id: str, thread_id: str | None = None) -> None:
        """The Run object."""
        answer_json(resp, await self._get(req, run_id, thread_id))

    async def on_delete(self, req: Request, resp: Response, run_id: str, thread_id: str | None = None) -> None:
        """Delete a run and its checkpoints, ending it first."""
        run, thread = _ids(run_id, thread_id)
        ended = await self._deps.store.delete_run(self._deps.tenant, thread, run)
        self._deps.tell_ended(ended)
        self._deps.hub.changed((run,))
        log.info("run deleted", extra={"run_id": str(run)})
        resp.status = HTTP_204

    async def on_get_join(self, req: Request, resp: Response, run_id: str, thread_id: str | None = None) -> None:
        """The run's output, when it has ended."""
        cancel = query_bool(req, "cancel_on_disconnect")
        run = Run.of(await self._get(req, run_id, thread_id))
        wait_for_run(self._deps, req, resp, run, cancel_on_disconnect=cancel)

    on_post_join = on_get_join

    async def on_get_stream(self, req: Request, resp: Response, run_id: str, thread_id: str | None = None) -> None:
        """The run's events: from now on, or after Last-Event-ID."""
        cancel = query_bool(req, "cancel_on_disconnect")
        modes = _stream_modes(req)
        run = Run.of(await self._get(req, run_id, thread_id), stateless=thread_id is None)
        cursor = await self._cursor(req, run)
        stream_run(self._deps, req, resp, run, cursor, modes=modes, cancel_on_disconnect=cancel)

    async def on_post_cancel(self, req: Request, resp: Response, run_id: str, thread_id: str | None = None) -> None:
        """End a run at once; with `wait` answer its output."""
        run, thread = _ids(run_id, thread_id)
        action = query_choice(req, "action", _ACTIONS, "interrupt")
        wait = query_bool(req, "wait")
        request = {"run_ids": [str(run)], "action": action, "reason": _reason(req, action)}
        if thread is not None:
            request["thread_id"] = str(thread)
        if not await cancel_runs(self._deps, request):
            raise NotFound(
                "Run not found or already ended.", code="run_not_found", hint="GET the run to see", field="run_id"
            )
        resp.status = HTTP_202
        if wait:
            place = f"/runs/{run}" if thread is None else f"/threads/{thread}/runs/{run}"
            resp.set_header("Content-Location", place)
            resp.set_header("Location", f"{place}/join")
            answer_json(resp, await output_of(self._deps, run), HTTP_200)

    async def _get(self, req: Request, run_id: str, thread_id: str | None) -> bytes:
        run, thread = _ids(run_id, thread_id)
        return await self._deps.store.get_run(self._deps.tenant, run, thread)

    async def _cursor(self, req: Request, run: Run) -> Cursor:
        last = req.get_header("Last-Event-ID") or req.get_param("last_event_id")
        if last is not None and last.strip():
            return parse_cursor(last.strip(), run)
        _, seq = await self._deps.hub.position(run.run_id)
        return Cursor(seq, fresh=seq == 0)


async def place_run(deps: Deps, thread: UUID | None, asked: RunCreate, request: bytes) -> bytes:
    """Create the run of one request of create_runs, and say so to whom it concerns; what create_runs answers."""
    superseded: list[Ended] = []
    if thread is not None and asked.multitask_strategy in ("interrupt", "rollback"):
        superseded = await deps.store.thread_line(deps.tenant, thread)
    made = await deps.batches.create.add(request)
    if thread is not None and superseded:
        # A repeated Idempotency-Key made nothing and so ended nothing: what is still in line goes on.
        still = await deps.store.thread_line(deps.tenant, thread)
        deps.tell_ended([one for one in superseded if one not in still])
    ids = orjson.loads(made)
    log.info("run created", extra={"run_id": ids["run_id"], "thread_id": ids["thread_id"]})
    return made


def check_context(asked: RunCreate | CronBase) -> None:
    """Refuse a context beside config.configurable."""
    if asked.context and asked.config is not None and asked.config.configurable:
        raise Malformed(
            "Cannot specify both configurable and context.",
            code="context_and_configurable",
            field="context",
            hint="Give one of them: each shows in the other.",
        )


def check_run(asked: RunCreate, *, stateless: bool) -> None:
    """What fits the shape and cannot be meant."""
    check_context(asked)
    if stateless and asked.command is not None and asked.command.resume is not None:
        raise Malformed(
            "A run without a thread has nothing to resume.",
            code="resume_without_thread",
            field="command.resume",
            hint="Send it to the thread that waits.",
        )


def split_array(raw: bytes) -> list[bytes]:
    """The elements of a JSON array, as they came."""
    text = raw.decode()
    decoder = json.JSONDecoder()
    elements: list[bytes] = []
    at = text.index("[") + 1
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return elements
        _, end = decoder.raw_decode(text, at)
        elements.append(text[at:end].encode())
        at = end


def _ids(run_id: str, thread_id: str | None) -> tuple[UUID, UUID | None]:
    return path_uuid(run_id, "run_id"), None if thread_id is None else path_uuid(thread_id, "thread_id")


def _idempotency_key(req: Request) -> str | None:
    key: str | None = req.get_header("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(
            "Idempotency-Key: must be 1 to 255 printable characters", code="invalid_field", field="Idempotency-Key"
        )
    return key


def _stream_modes(req: Request) -> Modes:
    modes = query_list(req, "stream_mode", STREAM_MODES)
    return Modes(modes or None)  # langgraph-sdk sends "stream_mode=" for all


def _reason(req: Request, action: str) -> str:
    return f"{action} requested via {req.method} {req.path}"
