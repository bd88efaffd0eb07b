"""Protocol v2: commands to a thread, and its events by channel, as server-sent events or over a WebSocket."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import orjson
from falcon import HTTP_400, WebSocketDisconnected
from falcon.asgi import Request, Response, WebSocket
from falcon.errors import PayloadTypeError
from pydantic import BaseModel

from duragraph.api.http import answer, check_text, parse_json, path_uuid, read_body, watch
from duragraph.api.runs import check_run, place_run
from duragraph.api.stream import answer_events, cancel_runs, error_of
from duragraph.api.thread_stream import HEARTBEAT
from duragraph.deps import Deps
from duragraph.errors import DuragraphError, Invalid, Malformed, NotFound
from duragraph.follow import Start, ThreadFollower
from duragraph.hub import parse_frames
from duragraph.models import EventStreamRequest, InputRespond, InterruptResponse, ProtocolCommand, RunCreate
from duragraph.protocol_v2 import CHANNELS, RUN_MODES, Event, Filter, Translator, tree, unknown_channels
from duragraph.store import EntryRow

log = logging.getLogger("duragraph.protocol")

Route = tuple[str, object, str | None]
Json = dict[str, Any]
M = TypeVar("M", bound=BaseModel)

_PER_MICROSECOND = 4
_SUBSCRIPTIONS = 100
_RESTARTING = 1012
_STARTED = (
    *("assistant_id", "input", "command", "config", "context", "metadata", "multitask_strategy", "durability"),
    *("interrupt_before", "interrupt_after", "webhook", "checkpoint_id", "checkpoint", "after_seconds", "priority"),
)


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    return [
        ("/threads/{thread_id}/commands", Commands(deps), None),
        ("/threads/{thread_id}/stream/events", Events(deps), None),
    ]


class Refused(Exception):
    """A command that is answered with an error of the protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Commands:
    """What is asked of a thread."""

    def __init__(self, deps: Deps) -> None:
        self._desk = CommandDesk(deps)

    async def on_post(self, req: Request, resp: Response, thread_id: str) -> None:
        """Start, answer, cancel or look at runs by a command of protocol v2."""
        thread, raw = _thread(thread_id), await read_body(req)
        try:
            command = parse_json(raw, ProtocolCommand)
        except Invalid as problem:
            error = {**malformed(raw, problem), "detail": problem.message, "code": problem.code, "field": problem.field}
            answer(resp, error, HTTP_400)
            return
        answer(resp, await self._desk.answer(thread, command, req.context.request_id))


class CommandDesk:
    """Carries out the commands that need no connection."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._known: dict[str, Callable[[UUID, Json, str], Awaitable[Json]]] = {
            "run.start": self._start,
            "run.cancel": self._cancel,
            "run.attach": self._attach,
            "input.respond": self._respond,
            "agent.getTree": self._tree,
        }

    async def answer(self, thread: UUID, command: ProtocolCommand, request_id: str) -> Json:
        """The answer to a command, an error too. What is the server's fault is raised."""
        try:
            known = self._known.get(command.method)
            if known is None:
                raise Refused(*_elsewhere(command.method))
            return success(command.id, await known(thread, command.params or {}, request_id))
        except Refused as problem:
            return refusal(command.id, problem.code, problem.message)
        except DuragraphError as problem:
            if problem.status >= 500:
                raise
            return refusal(command.id, "unknown_error", f"{problem.status}: {problem}")

    async def _start(self, thread: UUID, params: Json, request_id: str) -> Json:
        if not isinstance(params.get("assistant_id"), str) or not params["assistant_id"]:
            raise Refused("invalid_argument", "run.start requires an assistant_id.")
        if params.get("multitaskStrategy") is not None:
            params = {"multitask_strategy": params["multitaskStrategy"], **params}
        body = {name: params[name] for name in _STARTED if params.get(name) is not None}
        run = await self._place(thread, {**body, "if_not_exists": "create"}, request_id)
        return {"run_id": run}

    async def _respond(self, thread: UUID, params: Json, request_id: str) -> Json:
        asked = _parse(params, InputRespond)
        responses = asked.responses or []
        if asked.interrupt_id:
            responses = [InterruptResponse(interrupt_id=asked.interrupt_id, response=asked.response), *responses]
        if not responses:
            raise Refused("invalid_argument", "input.respond requires an interrupt_id.")
        waiting, assistant = await self._questions(thread)
        if strange := [one.interrupt_id for one in responses if one.interrupt_id not in waiting]:
            raise Refused("no_such_interrupt", f"Unknown or already-consumed interrupt: {strange[0]}")
        command: Json = {"resume": {one.interrupt_id: one.response for one in responses}}
        command |= {name: params[name] for name in ("update", "goto") if params.get(name) is not None}
        body = {"assistant_id": assistant, "command": command, "config": asked.config, "metadata": asked.metadata}
        try:
            run = await self._place(thread, {**body, "multitask_strategy": "reject"}, request_id)
        except DuragraphError as problem:
            if problem.code != "thread_busy":
                raise
            # A run is on the way already: of two answers to a question the first counts.
            consumed = responses[0].interrupt_id
            raise Refused("no_such_interrupt", f"Unknown or already-consumed interrupt: {consumed}") from None
        return {"run_id": run}

    async def _questions(self, thread: UUID) -> tuple[set[str], str]:
        """The ids of the questions on which the thread waits, and its assistant."""
        try:
            seen = orjson.loads(await self._deps.store.get_thread(self._deps.tenant, thread, []))
        except NotFound:
            return set(), ""
        questions = {one["id"] for asked in seen["interrupts"].values() for one in asked}
        return questions if seen["status"] == "interrupted" else set(), seen["metadata"].get("assistant_id", "")

    async def _place(self, thread: UUID, body: Json, request_id: str) -> str:
        """Create a run that streams what every channel is made of."""
        body = _forked({name: value for name, value in body.items() if value is not None})
        body |= {"stream_mode": RUN_MODES, "stream_subgraphs": True, "stream_resumable": True}
        raw = _dumps(body)
        try:
            asked = parse_json(raw, RunCreate)
            check_run(asked, stateless=False)
            self._deps.check_webhook(asked.webhook)
        except (Invalid, Malformed) as problem:
            raise Refused("invalid_argument", str(problem)) from None
        known = {"thread_id": str(thread), "request_id": request_id, "brief": True}
        made = await place_run(self._deps, thread, asked, b'%b,"body":%b}' % (orjson.dumps(known)[:-1], raw))
        run_id: str = orjson.loads(made)["run_id"]
        return run_id

    async def _cancel(self, thread: UUID, params: Json, request_id: str) -> Json:
        runs = await self._line(thread, params)
        action = params.get("action") or "interrupt"
        if action not in ("interrupt", "rollback"):
            raise Refused("invalid_argument", "action must be interrupt or rollback.")
        request = {"run_ids": runs, "thread_id": str(thread), "action": action, "reason": f"{action} requested"}
        if not await cancel_runs(self._deps, request):
            raise Refused("no_such_run", "No active run is bound to this thread.")
        return {"run_ids": runs}

    async def _attach(self, thread: UUID, params: Json, request_id: str) -> Json:
        return {"run_id": (await self._run(thread, params))["run_id"]}

    async def _tree(self, thread: UUID, params: Json, request_id: str) -> Json:
        run = await self._run(thread, params)
        run_id, graph = UUID(run["run_id"]), run["metadata"].get("graph_id", "")
        translator = Translator(run_id, graph)
        events, after = translator.begin(), 0
        while rows := await self._deps.hub.read(run_id, after):
            frames = parse_frames(rows[0].frames)
            events += [event for frame in frames for event in translator.take(frame)]
            if not frames:
                if run["status"] not in ("pending", "running"):
                    events += translator.end(rows[0].status)
                break
            after = frames[-1].seq
        return {"tree": tree(events, graph)}

    async def _run(self, thread: UUID, params: Json) -> Json:
        """The run that is named, or the active one."""
        if params.get("run_id") is None:
            run_id = (await self._line(thread, params))[0]
        else:
            run_id = _uuid(params["run_id"])
        try:
            run: Json = orjson.loads(await self._deps.store.get_run(self._deps.tenant, UUID(run_id), thread))
        except NotFound:
            raise Refused("no_such_run", f"Run {run_id} is not of this thread.") from None
        return run

    async def _line(self, thread: UUID, params: Json) -> list[str]:
        """The run that is named, if it has not ended, else all that have not, the active one first."""
        named = None if params.get("run_id") is None else _uuid(params["run_id"])
        found = await self._deps.store.thread_line(self._deps.tenant, thread, updates=False)
        line = [str(one["run_id"]) for one in found if named in (None, str(one["run_id"]))]
        if not line:
            raise Refused("no_such_run", "No active run is bound to this thread.")
        return line


class Events:
    """What happens on a thread, by channel."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def on_post(self, req: Request, resp: Response, thread_id: str) -> None:
        """The events of a thread, there already or not, after `since` or Last-Event-ID; stays open over its runs."""
        thread, raw = _thread(thread_id), await read_body(req)
        try:
            asked = parse_json(raw, EventStreamRequest)
        except Invalid as problem:
            raise Malformed(problem.message, code=problem.code, field=problem.field, hint=problem.hint) from None
        wanted = filter_of(asked)
        since = asked.since if asked.since is not None else _last_seen(req)
        answer_events(resp, self._pieces(req, thread, wanted, since))

    async def _pieces(self, req: Request, thread: UUID, wanted: Filter, since: int) -> AsyncGenerator[bytes, None]:
        follower = follow(self._deps, thread)
        client = watch(req)
        client.add_done_callback(lambda _: follower.stop())
        try:
            async with aclosing(events_of(self._deps, follower, wanted, since)) as some:
                async for events in some:
                    yield b"".join([_sse(seq, event) for seq, event in events]) or HEARTBEAT
        finally:
            client.cancel()

    async def on_websocket(self, req: Request, ws: WebSocket, thread_id: str) -> None:
        """Commands and events over one connection."""
        await ws.accept()
        await Conversation(self._deps, ws, _thread(thread_id)).hold()


def follow(deps: Deps, thread: UUID) -> ThreadFollower:
    """A follower of a thread that a command may be about to make."""
    patience = deps.settings.heartbeat_seconds
    return ThreadFollower(deps.hub, deps.store, deps.tenant, thread, patience, expected=True)


async def events_of(
    deps: Deps, follower: ThreadFollower, wanted: Filter, since: int
) -> AsyncGenerator[list[tuple[int, Event]], None]:
    """Numbered events after `since`, as they come; an empty list when nothing came for a while."""
    await follower.begin(Start(everything=True))
    if since > 0 and follower.there:
        age = timedelta(microseconds=min(since // _PER_MICROSECOND, 2**52))
        await follower.begin(Start(at=follower.born_at + age))
    with follower:
        if deps.drain.begun:
            follower.stop()
        async with aclosing(follower.entries()) as entries:
            async for entry in entries:
                if entry is None:
                    yield []
                elif entry.checkpoint_id is None:
                    async with aclosing(_of_run(deps, follower, entry)) as its:
                        async for events in its:
                            found = [(seq, event) for seq, event in events if seq > since and event in wanted]
                            if found or not events:
                                yield found


async def _of_run(
    deps: Deps, follower: ThreadFollower, entry: EntryRow
) -> AsyncGenerator[list[tuple[int, Event]], None]:
    """All events of a run, numbered: after the moment it began, in microseconds of its thread's age, times four.

    So they rise over the runs of a thread, of which one is at work at a time and none makes four events a microsecond,
    and are the same at every reading, whatever became of the runs before.
    """
    base = max((entry.began_at - follower.born_at) // timedelta(microseconds=1), 0) * _PER_MICROSECOND
    translator = Translator(entry.entry_id, entry.graph_id)

    def numbered(events: Iterable[Event]) -> list[tuple[int, Event]]:
        return [(base + event.n, event) for event in events]

    yield numbered(translator.begin())
    async with aclosing(follower.frames(entry, 0)) as some:
        async for frames in some:
            yield numbered(event for frame in frames for event in translator.take(frame))
    if not follower.stopped:
        status, _ = await deps.hub.position(entry.entry_id)
        error = await error_of(deps, entry.entry_id) if status in ("error", "timeout") else None
        yield numbered(translator.end(status, orjson.loads(error)["message"] if error else None))


class Conversation:
    """A WebSocket: commands come in, their answers and the events of each subscription go out."""

    def __init__(self, deps: Deps, ws: WebSocket, thread: UUID) -> None:
        self._deps = deps
        self._ws = ws
        self._thread = thread
        self._desk = CommandDesk(deps)
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()

    async def hold(self) -> None:
        """Until the client goes, or the server is about to."""
        draining = asyncio.create_task(self._deps.drain.wait())
        talking = asyncio.create_task(self._talk())
        try:
            await asyncio.wait([draining, talking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks = [draining, *self._subscriptions.values(), *([] if talking.done() else [talking])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if talking.done() and not talking.cancelled():
            talking.result()
        elif not self._ws.closed:
            await self._ws.close(_RESTARTING)

    async def _talk(self) -> None:
        try:
            while True:
                await self._send(await self._hear())
        except WebSocketDisconnected:
            return

    async def _hear(self) -> Json:
        """The answer to the next command."""
        try:
            raw = (await self._ws.receive_text()).encode()
        except PayloadTypeError:
            return refusal(None, "invalid_argument", "Send commands as text.")
        except UnicodeEncodeError:
            return refusal(None, "invalid_argument", "A lone surrogate cannot be stored.")
        try:
            command = parse_json(raw, ProtocolCommand)
        except Invalid as problem:
            return malformed(raw, problem)
        try:
            if command.method == "subscription.subscribe":
                return success(command.id, self._subscribe(command.params or {}))
            if command.method == "subscription.unsubscribe":
                return success(command.id, await self._unsubscribe(command.params or {}))
            return await self._desk.answer(self._thread, command, secrets.token_hex(8))
        except Refused as problem:
            return refusal(command.id, problem.code, problem.message)
        except DuragraphError as problem:
            return refusal(command.id, "unknown_error", f"{problem.status}: {problem}")

    def _subscribe(self, params: Json) -> Json:
        asked = _parse(params, EventStreamRequest)
        try:
            wanted = filter_of(asked)
        except Malformed as problem:
            raise Refused("invalid_argument", problem.message) from None
        if len(self._subscriptions) >= _SUBSCRIPTIONS:
            raise Refused("invalid_argument", f"There are {_SUBSCRIPTIONS} subscriptions already; end one.")
        name = str(uuid4())
        self._subscriptions[name] = asyncio.create_task(self._give(name, wanted, asked.since or 0))
        return {"subscription_id": name, "replayed_events": 0}

    async def _unsubscribe(self, params: Json) -> Json:
        name = params.get("subscription_id")
        if not isinstance(name, str):
            raise Refused("invalid_argument", "subscription.unsubscribe requires a subscription_id.")
        task = self._subscriptions.pop(name, None)
        if task is None:
            raise Refused("no_such_subscription", f"There is no subscription {name}.")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return {}

    async def _give(self, name: str, wanted: Filter, since: int) -> None:
        """The events of one subscription, at the pace of the client."""
        follower = follow(self._deps, self._thread)
        try:
            async with aclosing(events_of(self._deps, follower, wanted, since)) as some:
                async for events in some:
                    for seq, event in events:
                        await self._send_text(event.render(seq, _now()).decode())
        except WebSocketDisconnected:
            pass
        except DuragraphError as problem:
            log.warning("subscription ended", extra={"problem": problem.message})
        finally:
            self._subscriptions.pop(name, None)

    async def _send(self, message: Json) -> None:
        await self._send_text(orjson.dumps(message).decode())

    async def _send_text(self, text: str) -> None:
        async with self._sending:
            await self._ws.send_text(text)


def filter_of(asked: EventStreamRequest) -> Filter:
    """What is asked for. Raises `Malformed` for a channel that there is not."""
    if strange := unknown_channels(asked.channels):
        raise Malformed(
            f"channels contains unsupported entries: {', '.join(strange)[:200]}",
            code="unknown_channel",
            field="channels",
            hint=f"there are {', '.join(CHANNELS)}, and custom:<name>",
        )
    namespaces = tuple(tuple(one) for one in asked.namespaces or ())
    return Filter(frozenset(asked.channels), namespaces, asked.depth)


def success(command: int, result: Json) -> Json:
    """The answer to a command that was carried out. Events are replayed from the beginning: none counts as applied."""
    return {"type": "success", "id": command, "result": result, "meta": {"applied_through_seq": 0}}


def refusal(command: object, code: str, message: str) -> Json:
    """The answer to a command that was not."""
    return {"type": "error", "id": command, "error": code, "message": message}


def malformed(raw: bytes, problem: Invalid) -> Json:
    """The answer to what is no command; with its id, if it has one."""
    try:
        given = orjson.loads(raw)
    except ValueError:
        given = None
    command = given.get("id") if isinstance(given, dict) else None
    known = isinstance(command, int | str) and not isinstance(command, bool)
    return refusal(command if known else None, "invalid_argument", str(problem))


def _elsewhere(method: str) -> tuple[str, str]:
    if method.startswith("subscription."):
        return "not_supported", "Subscribe over the WebSocket, or POST to stream/events."
    return "unknown_command", f"Unknown protocol command: {method}"


def _forked(body: Json) -> Json:
    """A checkpoint to fork from is given in the config."""
    config = body.get("config")
    if not isinstance(config, dict):
        return body
    configurable = config.get("configurable")
    if not isinstance(configurable, dict) or "checkpoint_id" not in configurable:
        return body
    rest = {name: value for name, value in configurable.items() if name != "checkpoint_id"}
    return {**body, "config": {**config, "configurable": rest}, "checkpoint_id": configurable["checkpoint_id"]}


def _dumps(body: Json) -> bytes:
    try:
        raw = orjson.dumps(body)
    except TypeError as problem:  # a number beyond 64 bits
        raise Refused("invalid_argument", str(problem)) from None
    return raw


def _parse(params: Json, model: type[M]) -> M:
    raw = _dumps(params)
    try:
        check_text(raw)
        return parse_json(raw, model)
    except Invalid as problem:
        raise Refused("invalid_argument", str(problem)) from None


def _uuid(text: object) -> str:
    try:
        return str(UUID(str(text)))
    except ValueError:
        raise Refused("invalid_argument", "run_id: must be a UUID.") from None


def _thread(thread_id: str) -> UUID:
    try:
        return path_uuid(thread_id, "thread_id")
    except Invalid as problem:
        raise Malformed(problem.message, code=problem.code, field=problem.field) from None


def _sse(seq: int, event: Event) -> bytes:
    return b"event: %b\r\ndata: %b\r\nid: %d\r\n\r\n" % (event.method.encode(), event.render(seq, _now()), seq)


def _last_seen(req: Request) -> int:
    """The Last-Event-ID that a client of server-sent events sends by itself when it comes back."""
    text = (req.get_header("Last-Event-ID") or "0").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Malformed("Last-Event-ID: not an event's number", code="invalid_cursor", field="Last-Event-ID")
    return int(text)


def _now() -> int:
    return time.time_ns() // 1_000_000
