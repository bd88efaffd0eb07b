"""The Agent2Agent protocol: an assistant is an agent, a thread a context, a run (with those that answer it) a task."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import orjson
from falcon.asgi import Request, Response

from duragraph import __version__
from duragraph.api.a2a_shapes import (
    EXTENDED_CARD_NOT_CONFIGURED,
    PUSH_NOT_SUPPORTED,
    TASK_NOT_CANCELABLE,
    TASK_NOT_FOUND,
    UNSUPPORTED_OPERATION,
    Dialect,
    Json,
    Message,
    SendMessage,
    TaskQuery,
    artifact_of,
    message,
    task_of,
    text_of,
    text_part,
)
from duragraph.api.http import answer, answer_json, check_text, read_body
from duragraph.api.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    Call,
    RpcError,
    failure,
    from_ours,
    parse,
    read_params,
    result,
    unknown,
)
from duragraph.api.stream import Run, Watched, answer_events, answer_when_ended, cancel_runs
from duragraph.deps import Deps
from duragraph.errors import Conflict, DuragraphError, Malformed, NotFound
from duragraph.hub import Frame

log = logging.getLogger("duragraph.a2a")

Route = tuple[str, object, str | None]

_V03, _V1 = Dialect.V03, Dialect.V1
_METHODS = {
    "message/send": ("send", _V03), "SendMessage": ("send", _V1),
    "message/stream": ("stream", _V03), "SendStreamingMessage": ("stream", _V1),
    "tasks/get": ("get", _V03), "GetTask": ("get", _V1),
    "tasks/cancel": ("cancel", _V03), "CancelTask": ("cancel", _V1),
    "tasks/resubscribe": ("subscribe", _V03), "SubscribeToTask": ("subscribe", _V1),
}  # fmt: skip
_REFUSED = {
    "agent/getAuthenticatedExtendedCard": (EXTENDED_CARD_NOT_CONFIGURED, "There is no extended card"),
    "GetExtendedAgentCard": (EXTENDED_CARD_NOT_CONFIGURED, "There is no extended card"),
    "ListTasks": (
        UNSUPPORTED_OPERATION,
        "Tasks are not listed: GET /threads/{thread_id}/runs lists those of a context",
    ),
    "tasks/list": (
        UNSUPPORTED_OPERATION,
        "Tasks are not listed: GET /threads/{thread_id}/runs lists those of a context",
    ),
}
_GRAPHS = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
_MODES = ["text/plain", "application/json"]


@dataclass(frozen=True)
class Started:
    """A run that goes on with a task."""

    run: Run
    task_id: str
    said: Message


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    a2a = A2a(deps)
    return [("/a2a/{assistant_id}", a2a, None), ("/.well-known/agent-card.json", a2a, "card")]


class A2a:
    """Assistants as agents."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def on_post(self, req: Request, resp: Response, assistant_id: str) -> None:
        """Call a method of the Agent2Agent protocol, 0.3 or 1.0: send or stream a message, get or cancel a task."""
        raw = await read_body(req)
        call_id = None
        try:
            call = parse(raw)
            if call is None:
                raise RpcError(INVALID_REQUEST, "This is an answer, and nothing was asked")
            call_id = call.id
            await self._answer(req, resp, call, await self._agent(assistant_id))
        except RpcError as error:
            answer_json(resp, failure(call_id, error))
        except DuragraphError as problem:
            answer_json(resp, failure(call_id, from_ours(problem)))

    async def on_get_card(self, req: Request, resp: Response) -> None:
        """Get the card of the agent that `assistant_id` names."""
        given = req.get_param("assistant_id")
        if not given:
            raise Malformed("assistant_id is missing", code="missing_parameter", field="assistant_id")
        prefix = req.path.removesuffix("/.well-known/agent-card.json")
        agent = await self._find(given)
        url = f"{req.forwarded_scheme}://{req.forwarded_host}{req.root_path}{prefix}/a2a/{agent['assistant_id']}"
        answer(resp, _card(agent, url))

    async def _find(self, assistant: str) -> Json:
        """An Assistant, by its id or its graph's name."""
        check_text(orjson.dumps(assistant))
        try:
            known = UUID(assistant)
        except ValueError:
            known = uuid5(_GRAPHS, assistant)
        found: Json = orjson.loads(await self._deps.store.get_assistant(self._deps.tenant, known))
        return found

    async def _agent(self, assistant: str) -> Json:
        try:
            return await self._find(assistant)
        except NotFound:
            raise RpcError(INVALID_PARAMS, f"Assistant '{assistant[:200]}' not found") from None

    async def _answer(self, req: Request, resp: Response, call: Call, agent: Json) -> None:
        if call.method in _REFUSED:
            raise RpcError(*_REFUSED[call.method])
        if "ushNotificationConfig" in call.method:
            raise RpcError(PUSH_NOT_SUPPORTED, "Push notifications are not sent; a run's webhook is")
        verb, dialect = _METHODS.get(call.method, (None, _V03))
        match verb:
            case "send":
                await self._send(req, resp, call, dialect, agent)
            case "stream":
                started = await self._start(req, read_params(call, SendMessage), agent, stream=True)
                self._stream(req, resp, call, dialect, started.run, started.task_id, started.said)
            case "get":
                asked = read_params(call, TaskQuery)
                found = await self._task(asked.id)
                answer_json(resp, result(call.id, dialect.task(task_of(found, asked.history_length))))
            case "cancel":
                found = await self._cancel(req, read_params(call, TaskQuery).id)
                answer_json(resp, result(call.id, dialect.task(task_of(found, None))))
            case "subscribe":
                await self._subscribe(req, resp, call, dialect)
            case _:
                unknown(call)

    async def _send(self, req: Request, resp: Response, call: Call, dialect: Dialect, agent: Json) -> None:
        asked = read_params(call, SendMessage)
        started = await self._start(req, asked, agent)
        length = asked.configuration.history_length

        async def finish() -> bytes:
            try:
                found = await self._task(started.task_id)
            except RpcError as error:
                return failure(call.id, error)
            return result(call.id, dialect.sent(task_of(found, length)))

        if asked.configuration.blocking is False or asked.configuration.at_once:
            answer_json(resp, await finish())
        else:
            answer_when_ended(self._deps, req, resp, started.run, finish)

    async def _start(self, req: Request, asked: SendMessage, agent: Json, *, stream: bool = False) -> Started:
        """Make the run that a message asks for: the first of a new task, or one that answers a task's question."""
        if asked.configuration.push is not None:
            raise RpcError(PUSH_NOT_SUPPORTED, "Push notifications are not sent; a run's webhook is")
        said = asked.message
        body: Json = {"assistant_id": agent["assistant_id"], "if_not_exists": "create"}
        if stream:
            body["stream_mode"] = ["messages-tuple"]
        thread = _uuid(said.context_id, "contextId")
        if said.task_id is not None:
            task = await self._task(said.task_id)
            if thread is not None and str(thread) != task["context_id"]:
                raise RpcError(INVALID_PARAMS, "contextId is not that of the task")
            thread = UUID(task["context_id"])
            state = task_of(task, 0)["status"]["state"]
            if state != "input-required":
                raise RpcError(UNSUPPORTED_OPERATION, f"The task is {state}: it takes no further message")
            body |= {"command": {"resume": _answer_of(said)}, "strict_resume": True}
            body["metadata"] = {"a2a_task_id": said.task_id}
        else:
            body["input"] = await self._input(said, agent)
        if thread is None:
            made = orjson.loads(await self._deps.store.create_thread(self._deps.tenant, b"{}"))
            thread = UUID(made["thread_id"])
        request = {"thread_id": str(thread), "request_id": req.context.request_id, "brief": True, "body": body}
        try:
            created = orjson.loads(await self._deps.batches.create.add(orjson.dumps(request)))
        except Conflict as problem:
            raise RpcError(UNSUPPORTED_OPERATION, problem.message, {"code": problem.code}) from None
        task_id = said.task_id or created["run_id"]
        log.info("task goes on", extra={"run_id": created["run_id"], "task_id": task_id})
        return Started(Run(UUID(created["run_id"]), thread, resumable=False, new=True), task_id, said)

    async def _input(self, said: Message, agent: Json) -> Json:
        """Data is the graph's input, text a message in it."""
        given = dict(said.data or {})
        if said.text is None:
            return given
        known = orjson.loads(await self._deps.store.assistant_schemas(self._deps.tenant, UUID(agent["assistant_id"])))
        fields = (known["input_schema"] or {}).get("properties")
        if fields is not None and "messages" not in fields:
            raise RpcError(
                INVALID_PARAMS,
                f"Graph '{agent['graph_id']}' has no messages in its input, so it takes no text; send a data part",
                {"fields": sorted(fields)},
            )
        message = {"role": "user", "content": said.text, "id": said.message_id}
        before = given.get("messages")
        return {**given, "messages": [*(before if isinstance(before, list) else []), message]}

    async def _task(self, task_id: str) -> Json:
        known = _uuid(task_id, "id")
        try:
            return await self._deps.store.find_task(self._deps.tenant, known)
        except NotFound as problem:
            raise RpcError(TASK_NOT_FOUND, problem.message) from None

    async def _cancel(self, req: Request, task_id: str) -> Json:
        found = await self._task(task_id)
        request = {
            "run_ids": [found["run_id"]],
            "thread_id": found["context_id"],
            "reason": f"task {task_id} cancelled",
        }
        if not await cancel_runs(self._deps, request):
            raise RpcError(TASK_NOT_CANCELABLE, "The task is not running")
        return await self._task(task_id)

    async def _subscribe(self, req: Request, resp: Response, call: Call, dialect: Dialect) -> None:
        """Follow a task from now on."""
        task_id = read_params(call, TaskQuery).id
        found = await self._task(task_id)
        if (state := task_of(found, 0)["status"]["state"]) not in ("submitted", "working"):
            raise RpcError(UNSUPPORTED_OPERATION, f"The task is {state}: there is nothing to follow")
        run = Run(UUID(found["run_id"]), UUID(found["context_id"]), resumable=False)
        _, after = await self._deps.hub.position(run.run_id)
        self._stream(req, resp, call, dialect, run, task_id, None, after)

    def _stream(
        self,
        req: Request,
        resp: Response,
        call: Call,
        dialect: Dialect,
        run: Run,
        task_id: str,
        said: Message | None,
        after: int = 0,
    ) -> None:
        answer_events(resp, _rendered(call, dialect, self._updates(req, run, task_id, said, after)))

    async def _updates(
        self, req: Request, run: Run, task_id: str, said: Message | None, after: int
    ) -> AsyncGenerator[Json | None, None]:
        """The task, what it says as it comes, and how it ended; None is a heartbeat."""
        about = {"task_id": task_id, "context_id": str(run.thread_id), "run_id": str(run.run_id)}
        async with Watched(self._deps, req, run, after, frames=True, cancel=False) as reader:
            found = await self._task(task_id)
            task = task_of(found, None)
            if said is not None and said.text and said.message_id not in [one["messageId"] for one in task["history"]]:
                task["history"].append(message(about, "user", [text_part(said.text)], said.message_id))
            yield task
            begun = False
            while (frames := await reader.next(self._deps.settings.heartbeat_seconds)) is not None:
                texts = [text for frame in frames if (text := _said(frame))]
                if not texts:
                    yield None
                    continue
                if not begun:
                    yield _status(about, {**task["status"], "state": "working"}, final=False)
                yield _artifact(about, {"parts": [text_part("".join(texts))]}, append=begun, last=False)
                begun = True
            if reader.stopped:
                return
        found = await self._task(task_id)
        task = task_of(found, 0)
        if task["status"]["state"] == "completed":
            # The whole in place of its pieces: what several models said side by side may have been mixed.
            yield _artifact(about, artifact_of(found), append=False, last=True)
        yield _status(about, task["status"], final=True)


async def _rendered(
    call: Call, dialect: Dialect, updates: AsyncGenerator[Json | None, None]
) -> AsyncGenerator[bytes, None]:
    try:
        async for one in updates:
            if one is None:
                yield b": heartbeat\r\n\r\n"
            else:
                yield b"data: %b\r\n\r\n" % result(call.id, dialect.event(one))
    except RpcError as error:
        yield b"data: %b\r\n\r\n" % failure(call.id, error)
    finally:
        await updates.aclose()


def _status(about: Json, status: Json, *, final: bool) -> Json:
    about = {"kind": "status-update", "taskId": about["task_id"], "contextId": about["context_id"]}
    return {**about, "status": status, "final": final}


def _artifact(about: Json, artifact: Json, *, append: bool, last: bool) -> Json:
    return {
        "kind": "artifact-update",
        "taskId": about["task_id"],
        "contextId": about["context_id"],
        "artifact": {"artifactId": about["run_id"], "name": "Assistant Response", **artifact},
        "append": append,
        "lastChunk": last,
    }


def _said(frame: Frame) -> str:
    """The text of a token's frame."""
    if frame.event.partition("|")[0] != "messages":
        return ""
    data = orjson.loads(frame.data)
    chunk = data[0] if isinstance(data, list) and data else None
    if not isinstance(chunk, dict) or chunk.get("type") != "AIMessageChunk":
        return ""
    return text_of(chunk.get("content"))


def _answer_of(said: Message) -> object:
    """What a question is answered with: data as it is, else the text."""
    return said.text if said.data is None else said.data


def _uuid(text: str | None, name: str) -> Any:
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        code = TASK_NOT_FOUND if name == "id" else INVALID_PARAMS
        raise RpcError(code, f"{name} must be a UUID", {"field": name}) from None


def _card(agent: Json, url: str) -> Json:
    about = agent["description"] or f"The assistant {agent['name']} of the graph {agent['graph_id']}."
    skill = {"id": agent["graph_id"], "name": agent["name"], "description": about, "tags": ["langgraph"]}
    versions = (_V1.value, _V03.value)
    return {
        "protocolVersion": "0.3.0",
        "name": agent["name"],
        "description": about,
        "url": url,
        "preferredTransport": "JSONRPC",
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": version} for version in versions
        ],
        "version": __version__,
        "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": False},
        "defaultInputModes": _MODES,
        "defaultOutputModes": _MODES,
        "skills": [skill],
    }
