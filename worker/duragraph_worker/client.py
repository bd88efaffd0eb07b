"""The client of the control plane's HTTP API: assistants, threads, runs and their streams.

    async with Client("http://localhost:8081") as client:
        thread = await client.threads.create()
        async for part in client.runs.stream(thread["thread_id"], "my_graph", input={"question": "..."}):
            print(part.event, part.data)

Objects are the API's own, as plain dicts. Nothing is lost to a broken connection: creating a run carries an
idempotency key, so a repeat gives the same run, and a cut stream goes on after the last event that was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from duragraph_worker.backoff import Backoff, retry_after
from duragraph_worker.errors import DuraGraphError
from duragraph_worker.sse import FrameParser, StreamPart, read_lines

Json = dict[str, Any]

_TRIES = 5
_TRY_AGAIN = frozenset({429, 502, 503, 504})


class ApiError(DuraGraphError):
    """The control plane refused a request.

    `status` is the HTTP status, `code` is stable and made for programs, `field` names the part at fault (or is None).
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field


class Unreachable(DuraGraphError):
    """The control plane did not answer (`status` is None), or said that it cannot now.

    `retry_after` is in seconds where it said when to come back.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class RunFailed(DuraGraphError):
    """The run that was waited for ended with an error: `error` is its type's name."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(f"{error}: {message}" if message else error)
        self.error = error
        self.message = message


def check_url(url: str) -> str:
    """`url` if it can be a control plane's address, else ValueError saying what one looks like."""
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f'{url!r} is not the address of a control plane; it looks like "http://localhost:8081"')
    return url


def check_answer(response: httpx.Response) -> None:
    """Raise `Unreachable` where the same request may succeed later, `ApiError` where it will not.

    The body of `response` must have been read.
    """
    if response.is_success:
        return
    body: Any = None
    with contextlib.suppress(ValueError):  # a proxy's page; the status says enough
        body = response.json()
    detail = body if isinstance(body, dict) else {}
    reason = str(detail.get("detail") or response.reason_phrase)
    message = f"{response.request.method} {response.request.url.path}: {response.status_code} {reason}"
    if response.status_code == 429 or response.status_code >= 500:
        raise Unreachable(message, status=response.status_code, retry_after=retry_after(response.headers))
    raise ApiError(response.status_code, message, code=detail.get("code"), field=detail.get("field"))


class Client:
    """An async client of one control plane. `url` may carry a path prefix and credentials (http://user:pw@host/path).

    `timeout` is in seconds, for one request that is not a wait or a stream. Use as an async context manager,
    or `close()` it. Every method raises `ApiError` for a refusal and `Unreachable` after 5 tries without an answer.
    """

    def __init__(self, url: str = "http://localhost:8081", *, timeout: float = 30.0) -> None:
        self._http = httpx.AsyncClient(base_url=check_url(url), timeout=httpx.Timeout(timeout, connect=5.0))
        self.assistants = Assistants(self)
        self.threads = Threads(self)
        self.runs = Runs(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Any:
        """One request, its JSON answer or None where there is no body.

        A GET, or a request with an idempotency `key`, is tried again after any transport error; others only while it is
        certain that nothing was done: the connection was refused, or the server said 429 or 503.
        """
        backoff = Backoff()
        repeatable = method == "GET" or key is not None
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            try:
                response = await self._http.request(
                    method, path, json=body, params=_present(query or {}), headers=headers
                )
                check_answer(response)
            except (httpx.TransportError, Unreachable) as problem:
                if backoff.tries + 1 >= _TRIES or not (repeatable or _nothing_was_done(problem)):
                    raise _as_unreachable(problem) from problem
                await asyncio.sleep(backoff.next(getattr(problem, "retry_after", None)))
            else:
                return response.json() if response.content.strip() else None

    async def follow(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, last_event_id: str | None = None
    ) -> AsyncIterator[StreamPart]:
        """The frames of a stream to its end, over reconnects: each goes to the answer's Location with Last-Event-ID.

        Gives up with `Unreachable` after 5 tries in a row that brought no frame.
        """
        last_id, last_event = last_event_id, ""
        resumable = bool(body and body.get("stream_resumable"))
        backoff = Backoff(first=0.2)
        while True:
            parser = FrameParser()
            try:
                async with self._open(method, path, body, key, last_id) as response:
                    path, method, body = self._reconnect_path(response, path), "GET", None
                    last_id = last_id or ("-1" if resumable else None)
                    async for line in read_lines(response.aiter_text()):
                        if part := parser.feed(line):
                            backoff.reset()
                            last_id, last_event = parser.last_id or last_id, part.event
                            yield part
                if last_event in ("end", "error") or await self._has_ended(path):
                    return
            except (httpx.TransportError, Unreachable) as problem:
                if backoff.tries + 1 >= _TRIES:
                    raise _as_unreachable(problem) from problem
                await asyncio.sleep(backoff.next(getattr(problem, "retry_after", None)))

    async def wait(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """The JSON of an answer that may take as long as the run; a cut one is asked for again at its Location."""
        backoff = Backoff(first=0.2)
        while True:
            try:
                async with self._open(method, path, body, key, None) as response:
                    path, method, body = self._reconnect_path(response, path), "GET", None
                    return _output(json.loads(await response.aread()))
            except (httpx.TransportError, Unreachable, json.JSONDecodeError) as problem:
                if backoff.tries + 1 >= _TRIES:
                    raise _as_unreachable(problem) from problem
                await asyncio.sleep(backoff.next(getattr(problem, "retry_after", None)))

    def _open(self, method: str, path: str, body: Any, key: str | None, last_id: str | None) -> _Opened:
        headers = {"Idempotency-Key": key} if key and method == "POST" else {}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        return _Opened(self._http, method, path, body, headers)

    async def _has_ended(self, stream_path: str) -> bool:
        """Whether the run of a stream that closed without a word is over; a proxy may have closed it."""
        try:
            run = await self.request("GET", stream_path.removesuffix("/stream"))
        except ApiError:
            return True
        return not isinstance(run, dict) or run.get("status") not in ("pending", "running")

    def _reconnect_path(self, response: httpx.Response, path: str) -> str:
        location = response.headers.get("location", "")
        # Only a path: a Location of another origin would carry this client's credentials there.
        return location if location.startswith("/") and not location.startswith("//") else path


class _Opened:
    """A streamed answer whose status was checked; the silence allowed in it is 60 s, as the server sends heartbeats."""

    def __init__(self, http: httpx.AsyncClient, method: str, path: str, body: Any, headers: dict[str, str]) -> None:
        timeout = httpx.Timeout(30.0, connect=5.0, read=60.0)
        request = http.build_request(method, path, json=body, headers=headers, timeout=timeout)
        self._http, self._request = http, request
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> httpx.Response:
        response = self._response = await self._http.send(self._request, stream=True)
        if not response.is_success:
            await response.aread()
            await response.aclose()
            check_answer(response)
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            await self._response.aclose()


class _Resource:
    def __init__(self, client: Client) -> None:
        self._client = client


class Assistants(_Resource):
    """Assistants: a graph with a config and a context. Objects as in the API's `Assistant`."""

    async def create(self, graph_id: str, **fields: Any) -> Json:
        """Fields: assistant_id, name, description, config, context, metadata, if_exists ("raise", "do_nothing")."""
        return _object(await self._client.request("POST", "/assistants", {"graph_id": graph_id, **_present(fields)}))

    async def get(self, assistant_id: str) -> Json:
        """404 where there is none."""
        return _object(await self._client.request("GET", f"/assistants/{assistant_id}"))

    async def delete(self, assistant_id: str) -> None:
        """Delete it; its runs and threads stay."""
        await self._client.request("DELETE", f"/assistants/{assistant_id}")

    async def search(self, **fields: Any) -> list[Json]:
        """Newest first. Fields: graph_id, name, metadata, limit (10), offset (0), sort_by, sort_order, select."""
        return _list(await self._client.request("POST", "/assistants/search", _present(fields)))


class Threads(_Resource):
    """Threads: the state that runs share. Objects as in the API's `Thread` and `ThreadState`."""

    async def create(self, **fields: Any) -> Json:
        """Fields: thread_id, metadata, if_exists ("raise", "do_nothing"), ttl (minutes)."""
        return _object(await self._client.request("POST", "/threads", _present(fields)))

    async def get(self, thread_id: str) -> Json:
        """With `status` (idle, busy, interrupted, error), `values` and `interrupts`."""
        return _object(await self._client.request("GET", f"/threads/{thread_id}"))

    async def update(self, thread_id: str, *, metadata: Json) -> Json:
        """Merge `metadata` into the thread's, top level only."""
        return _object(await self._client.request("PATCH", f"/threads/{thread_id}", {"metadata": metadata}))

    async def delete(self, thread_id: str) -> None:
        """Delete it with its runs and checkpoints; a run in it is stopped."""
        await self._client.request("DELETE", f"/threads/{thread_id}")

    async def search(self, **fields: Any) -> list[Json]:
        """Newest first. Fields: ids, metadata, values, status, limit (10), offset (0), sort_by, sort_order, select."""
        return _list(await self._client.request("POST", "/threads/search", _present(fields)))

    async def state(self, thread_id: str, *, checkpoint_id: str | None = None) -> Json:
        """The newest state, or that of one checkpoint: values, next, tasks, checkpoint, metadata, interrupts."""
        suffix = f"/{checkpoint_id}" if checkpoint_id else ""
        return _object(await self._client.request("GET", f"/threads/{thread_id}/state{suffix}"))

    async def update_state(self, thread_id: str, values: Any, **fields: Any) -> Json:
        """Write `values` through the reducers, as a new checkpoint. Fields: as_node, checkpoint, checkpoint_id."""
        body = {"values": values, **_present(fields)}
        return _object(await self._client.request("POST", f"/threads/{thread_id}/state", body))

    async def history(self, thread_id: str, *, limit: int = 10, **fields: Any) -> list[Json]:
        """States, newest first. Fields: before, metadata, checkpoint."""
        body = {"limit": limit, **_present(fields)}
        return _list(await self._client.request("POST", f"/threads/{thread_id}/history", body))


class Runs(_Resource):
    """Runs, in a thread or without one (`thread_id` None: a temporary thread, gone with the run).

    The `fields` of a new run are the API's: input, command ({"resume": answer}), config, context, metadata,
    stream_mode, stream_subgraphs, interrupt_before, interrupt_after, multitask_strategy, if_not_exists,
    after_seconds, webhook, ...
    """

    async def create(self, thread_id: str | None, assistant_id: str, **fields: Any) -> Json:
        """Queue a run and give it, status "pending"."""
        body = {"assistant_id": assistant_id, **_present(fields)}
        return _object(await self._client.request("POST", _runs(thread_id), body, key=str(uuid.uuid4())))

    async def wait(self, thread_id: str | None, assistant_id: str, **fields: Any) -> Any:
        """Run to the end and give the final values, with "__interrupt__" where it waits for an answer.

        Raises `RunFailed` where the run ended with an error.
        """
        body = {"assistant_id": assistant_id, **_present(fields)}
        return await self._client.wait("POST", f"{_runs(thread_id)}/wait", body, key=str(uuid.uuid4()))

    def stream(self, thread_id: str | None, assistant_id: str, **fields: Any) -> AsyncIterator[StreamPart]:
        """Queue a run and give its events as they happen, to the end; the first is "metadata" with the run_id.

        The run is resumable unless `stream_resumable=False`, so that a cut connection loses no event.
        """
        body = {"assistant_id": assistant_id, "stream_resumable": True, **_present(fields)}
        return self._client.follow("POST", f"{_runs(thread_id)}/stream", body, key=str(uuid.uuid4()))

    async def join(self, thread_id: str, run_id: str) -> Any:
        """Wait for a run to end; as `wait`."""
        return await self._client.wait("GET", f"{_runs(thread_id)}/{run_id}/join")

    def join_stream(
        self, thread_id: str, run_id: str, *, last_event_id: str | None = "-1"
    ) -> AsyncIterator[StreamPart]:
        """A run's events after `last_event_id` and then as they happen; "-1" is from the start, None from now on."""
        return self._client.follow("GET", f"{_runs(thread_id)}/{run_id}/stream", last_event_id=last_event_id)

    async def get(self, thread_id: str, run_id: str) -> Json:
        """With `status`: pending, running, success, error, timeout or interrupted."""
        return _object(await self._client.request("GET", f"{_runs(thread_id)}/{run_id}"))

    async def list(self, thread_id: str, *, limit: int = 10, offset: int = 0, status: str | None = None) -> list[Json]:
        """A thread's runs, newest first."""
        query = {"limit": limit, "offset": offset, "status": status}
        return _list(await self._client.request("GET", _runs(thread_id), query=query))

    async def cancel(self, thread_id: str, run_id: str, *, wait: bool = False, action: str = "interrupt") -> Any:
        """Stop a run. `action` "rollback" also deletes it with its checkpoints; `wait` until it has stopped."""
        query = {"wait": "1" if wait else "0", "action": action}
        return await self._client.request("POST", f"{_runs(thread_id)}/{run_id}/cancel", query=query)


def _runs(thread_id: str | None) -> str:
    return f"/threads/{thread_id}/runs" if thread_id else "/runs"


def _present(fields: Mapping[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _object(answer: Any) -> Json:
    if not isinstance(answer, dict):
        raise ApiError(200, f"the server answered {type(answer).__name__}, not an object; is this a control plane?")
    return answer


def _list(answer: Any) -> list[Json]:
    if not isinstance(answer, list):
        raise ApiError(200, f"the server answered {type(answer).__name__}, not a list; is this a control plane?")
    return answer


def _output(answer: Any) -> Any:
    failure = answer.get("__error__") if isinstance(answer, dict) else None
    if isinstance(failure, dict):
        raise RunFailed(str(failure.get("error")), str(failure.get("message") or ""))
    return answer


def _nothing_was_done(problem: Exception) -> bool:
    if isinstance(problem, Unreachable):
        return problem.retry_after is not None
    return isinstance(problem, (httpx.ConnectError, httpx.ConnectTimeout))


def _as_unreachable(problem: Exception) -> Unreachable:
    if isinstance(problem, Unreachable):
        return problem
    return Unreachable(f"no answer from the control plane: {type(problem).__name__} {problem}".rstrip())
