"""Server-sent events of a run, and answers that wait for its end: rendering, resuming, heartbeats, disconnects."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from uuid import UUID

import orjson
from falcon import HTTP_200
from falcon.asgi import Request, Response

from duragraph.api.http import JSON, watch
from duragraph.deps import Deps
from duragraph.errors import DuragraphError, Invalid, NotFound
from duragraph.hub import TERMINAL, Frame, Reader

log = logging.getLogger("duragraph.stream")

_EVENT_ID = re.compile(r"(?:(\d{1,15})-)?(\d{1,12})")
_START = frozenset({"-1", "-", "0"})
_ALWAYS = frozenset({"metadata", "error", "end"})
_EVENTS_OF_MODE = {
    "messages": ("messages/partial", "messages/complete", "messages/metadata"),
    "messages-tuple": ("messages",),
}


class Cut(Exception):
    """The process is stopping: the answer breaks off, so that its client asks again elsewhere."""


@dataclass(frozen=True)
class Run:
    """What an answer needs to know of the run it shows."""

    run_id: UUID
    thread_id: UUID
    resumable: bool
    stateless: bool = False
    new: bool = False
    ended: bool = False

    @classmethod
    def of(cls, raw: bytes, *, stateless: bool = False) -> Self:
        """From a Run object."""
        run: dict[str, Any] = orjson.loads(raw)
        return cls(
            UUID(run["run_id"]),
            UUID(run["thread_id"]),
            bool(run["kwargs"].get("resumable")),
            stateless,
            ended=run["status"] in TERMINAL,
        )

    @property
    def path(self) -> str:
        """Below the base URL, never with the prefix that the API is mounted at: clients put their own before it."""
        return f"/threads/{self.thread_id}/runs/{self.run_id}"

    @property
    def place(self) -> str:
        """As `path`; the thread of a stateless run is nobody's concern."""
        return f"/runs/{self.run_id}" if self.stateless else self.path

    def event_id(self, seq: int) -> str:
        """Rises strictly, as text too, over the events of a run and over the runs of a thread; survives any restart."""
        return f"{self.run_id.int >> 80}-{seq:08d}"


@dataclass(frozen=True)
class Cursor:
    """Where a reader begins: after event `seq`; `fresh` when it wants everything, the opening frame included."""

    seq: int
    fresh: bool


def parse_cursor(text: str, run: Run) -> Cursor:
    """A Last-Event-ID: `<ms>-<seq>` as we give it, a bare seq, or `-1`, `0`, `-` for the start."""
    if text in _START:
        return Cursor(0, fresh=True)
    known = _EVENT_ID.fullmatch(text)
    if known is None:
        raise Invalid(
            f"Last-Event-ID: {text[:80]!r} is not an event id of a run",
            code="invalid_cursor",
            field="Last-Event-ID",
            hint="send the id of the last event seen, or -1 for all",
        )
    born, seq = known[1], min(int(known[2]), 2**31 - 1)
    ours = run.run_id.int >> 80
    if born is not None and int(born) not in (0, ours):
        # An id of another run of the thread: everything of a later run is new, nothing of an earlier one.
        return Cursor(0, fresh=True) if int(born) < ours else Cursor(2**31 - 1, fresh=False)
    return Cursor(seq, fresh=seq == 0 and born in (None, "0"))


class Modes:
    """Which frames a joiner asked for; a mode lets the frames of subgraphs through too."""

    def __init__(self, modes: Iterable[str] | None) -> None:
        self._names = None
        if modes is not None:
            self._names = _ALWAYS.union(*(_EVENTS_OF_MODE.get(mode, (mode,)) for mode in modes))

    def __contains__(self, frame: Frame) -> bool:
        return self._names is None or frame.event.partition("|")[0] in self._names


class Answer:
    """A body sent piece by piece; falcon calls `close` whatever happens.

    An error of ours breaks it off: the client asks again from where it was.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._pieces.__anext__()
        except DuragraphError as error:
            log.warning("answer broken off", extra={"problem": error.message})
            raise Cut from error

    async def close(self) -> None:
        """End the generator, so that what it holds is let go."""
        await self._pieces.aclose()


def stream_run(
    deps: Deps,
    req: Request,
    resp: Response,
    run: Run,
    cursor: Cursor,
    *,
    modes: Modes | None = None,
    cancel_on_disconnect: bool = False,
) -> None:
    """Answer with the run's events from the cursor on, until its end."""
    resp.status = HTTP_200
    resp.set_header("Content-Location", run.place)
    resp.set_header("Location", f"{run.place}/stream")
    answer_events(resp, _events(deps, req, run, cursor, modes or Modes(None), cancel_on_disconnect))


def answer_events(resp: Response, pieces: AsyncGenerator[bytes, None]) -> None:
    """Answer with server-sent events."""
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.set_header("Cache-Control", "no-store")
    resp.set_header("X-Accel-Buffering", "no")
    resp.stream = Answer(pieces)


async def _events(
    deps: Deps, req: Request, run: Run, cursor: Cursor, modes: Modes, cancel_on_disconnect: bool
) -> AsyncGenerator[bytes, None]:
    last = ""
    async with Watched(deps, req, run, cursor.seq, frames=True, cancel=cancel_on_disconnect) as reader:
        if cursor.fresh:
            yield _render(run, Frame(0, b"metadata", orjson.dumps({"run_id": str(run.run_id), "attempt": 1})))
        while (frames := await reader.next(deps.settings.heartbeat_seconds)) is not None:
            wanted = [frame for frame in frames if frame in modes]
            last = frames[-1].event if frames else last
            if wanted:
                yield b"".join([_render(run, frame) for frame in wanted])
            elif not frames:
                yield b": heartbeat\r\n\r\n"
        if not reader.stopped:
            yield await _closing(deps, run, reader.status, last)


def _render(run: Run, frame: Frame) -> bytes:
    if run.resumable:
        return b"%bid: %b\r\n\r\n" % (frame.text, run.event_id(frame.seq).encode())
    return frame.text + b"\r\n"


async def _closing(deps: Deps, run: Run, status: str, last: str) -> bytes:
    """The last frame: `end`, unless `error` was. A run that no worker could end has no error event of its own."""
    if status not in ("error", "timeout"):
        return b"event: end\r\ndata: null\r\n\r\n"
    if last == "error":
        return b""
    error = await error_of(deps, run.run_id)
    if error is None:
        return b"event: end\r\ndata: null\r\n\r\n"
    return b"event: error\r\ndata: %b\r\n\r\n" % error


async def error_of(deps: Deps, run_id: UUID) -> bytes | None:
    """{"error", "message"} of a run that ended in one."""
    try:
        _, _, output = await deps.store.run_output(deps.tenant, run_id)
        return orjson.dumps(orjson.loads(output)["__error__"])
    except (DuragraphError, KeyError, TypeError):
        return None


def wait_for_run(deps: Deps, req: Request, resp: Response, run: Run, *, cancel_on_disconnect: bool = False) -> None:
    """Answer 200 at once, and with the run's output when it has ended."""
    resp.set_header("Content-Location", run.path)
    resp.set_header("Location", f"{run.path}/join")
    finish = partial(output_of, deps, run.run_id)
    answer_when_ended(deps, req, resp, run, finish, cancel_on_disconnect=cancel_on_disconnect)


def answer_when_ended(
    deps: Deps,
    req: Request,
    resp: Response,
    run: Run,
    finish: Callable[[], Awaitable[bytes]],
    *,
    cancel_on_disconnect: bool = False,
) -> None:
    """Answer what `finish` gives when the run has ended; line breaks before it keep proxies awake."""
    resp.status = HTTP_200
    resp.content_type = JSON
    resp.set_header("Cache-Control", "no-store")
    resp.stream = Answer(_ended(deps, req, run, finish, cancel_on_disconnect))


async def _ended(
    deps: Deps, req: Request, run: Run, finish: Callable[[], Awaitable[bytes]], cancel: bool
) -> AsyncGenerator[bytes, None]:
    if run.ended:
        yield await finish()
        return
    async with Watched(deps, req, run, 0, frames=False, cancel=cancel) as reader:
        while await reader.next(deps.settings.heartbeat_seconds) is not None:
            yield b"\n"
        if reader.stopped:
            raise Cut
    yield await finish()


async def output_of(deps: Deps, run_id: UUID) -> bytes:
    """What wait and join answer; `{}` for a run that was rolled back."""
    try:
        _, _, output = await deps.store.run_output(deps.tenant, run_id)
    except NotFound:
        return b"{}"
    return output


class Watched:
    """A reader that stops when its client goes; then the run is cancelled if that was asked."""

    def __init__(self, deps: Deps, req: Request, run: Run, after: int, *, frames: bool, cancel: bool) -> None:
        self._deps = deps
        self._run = run
        self._cancel = cancel
        self._reader = deps.hub.reader(run.run_id, after, frames=frames, new=run.new)
        self._client = watch(req)
        self._client.add_done_callback(lambda _: self._reader.stop())

    async def __aenter__(self) -> Reader:
        if self._deps.drain.begun:
            self._reader.stop()
        return await self._reader.__aenter__()

    async def __aexit__(self, *problem: Any) -> None:
        await self._reader.__aexit__(*problem)
        gone = self._client.done() and not self._client.cancelled()
        self._client.cancel()
        if gone and self._cancel and not self._reader.status:
            await cancel_runs(self._deps, {"run_ids": [str(self._run.run_id)], "reason": "client disconnected"})


async def cancel_runs(deps: Deps, request: dict[str, Any]) -> int:
    """Cancel what matches and say so to whom it concerns; how many it was, 0 when nothing matched."""
    try:
        ended = await deps.store.cancel_runs(deps.tenant, orjson.dumps(request))
    except NotFound:
        return 0
    deps.tell_ended(ended, "interrupted")
    for one in ended:
        log.info("run cancelled", extra={"run_id": one["run_id"], "reason": request.get("reason")})
    return len(ended)
