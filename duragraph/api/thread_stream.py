"""GET /threads/{id}/stream: the events of every run of a thread, and its state updates, without end."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from falcon.asgi import Request, Response

from duragraph.api.http import path_uuid, query_list, watch
from duragraph.api.stream import Modes, Run, answer_events, error_of
from duragraph.deps import Deps
from duragraph.errors import DuragraphError, Invalid
from duragraph.follow import Start, ThreadFollower, made_ms
from duragraph.hub import GONE, Frame, parse_frames
from duragraph.models import STREAM_MODES, THREAD_STREAM_MODES
from duragraph.store import EntryRow

Route = tuple[str, object, str | None]

_EVENT_ID = re.compile(r"(\d{1,14})(?:-(\d{1,12}))?")
_START = frozenset({"-", "0"})
HEARTBEAT = b": heartbeat\r\n\r\n"


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    return [("/threads/{thread_id}/stream", ThreadStream(deps), None)]


@dataclass(frozen=True)
class Cursor:
    """A Last-Event-ID: the millisecond in which a run or a state update was made, and the last frame seen of it."""

    ms: int
    seq: int


class ThreadStream:
    """What happens on a thread."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def on_get(self, req: Request, resp: Response, thread_id: str) -> None:
        """Every run of the thread from now on, or after Last-Event-ID."""
        deps, thread = self._deps, path_uuid(thread_id, "thread_id")
        modes, cursor = parse_modes(req), parse_cursor(req)
        follower = ThreadFollower(deps.hub, deps.store, deps.tenant, thread, deps.settings.heartbeat_seconds)
        if cursor is None:
            start = Start()
        else:
            start = Start(ms=cursor.ms) if cursor.ms else Start(everything=True)
        await follower.begin(start)
        asked = f"?{req.query_string}" if req.query_string else ""
        resp.set_header("Location", f"/threads/{thread}/stream{asked}")
        answer_events(resp, _Shown(deps, modes, cursor, follower).pieces(req))


class ThreadModes:
    """What a reader wants of a thread: its runs' frames, only their beginnings and ends, its state updates."""

    def __init__(self, names: list[str]) -> None:
        runs = [name for name in names if name in STREAM_MODES]
        self.frames: Modes | None = Modes(runs) if runs else None
        if "run_modes" in names:
            self.frames = Modes(None)
        self.runs = self.frames is not None or "lifecycle" in names
        self.updates = "state_update" in names


def parse_modes(req: Request) -> ThreadModes:
    """`stream_modes`, which the reference reads, and `stream_mode`, which the SDKs send. Modes of runs are filters."""
    names: list[str] = []
    for parameter in ("stream_modes", "stream_mode"):
        given = query_list(req, parameter) or []
        if wrong := [name for name in given if name not in (*THREAD_STREAM_MODES, *STREAM_MODES)]:
            raise Invalid(
                f"{parameter}: unknown mode {wrong[0][:80]!r}",
                code="invalid_parameter",
                field=parameter,
                hint=f"use {', '.join(THREAD_STREAM_MODES)}",
            )
        names += given
    return ThreadModes(names or ["run_modes"])


def parse_cursor(req: Request) -> Cursor | None:
    """Last-Event-ID: `<ms>-<seq>` as the frames have it, `-` or `0` for the start; None when there is none."""
    text = (req.get_header("Last-Event-ID") or req.get_param("last_event_id") or "").strip()
    if not text:
        return None
    if text in _START:
        return Cursor(0, 0)
    known = _EVENT_ID.fullmatch(text)
    if known is None:
        raise Invalid(
            f"Last-Event-ID: {text[:80]!r} is not an event id of a thread",
            code="invalid_cursor",
            field="Last-Event-ID",
            hint="send the id of the last event seen, or - for all",
        )
    return Cursor(int(known[1]), min(int(known[2] or 0), 2**31 - 3))


class _Shown:
    """The frames of a thread, rendered for one reader."""

    def __init__(self, deps: Deps, modes: ThreadModes, cursor: Cursor | None, follower: ThreadFollower) -> None:
        self._deps = deps
        self._modes = modes
        self._cursor = cursor
        self._follower = follower

    async def pieces(self, req: Request) -> AsyncGenerator[bytes, None]:
        client = watch(req)
        client.add_done_callback(lambda _: self._follower.stop())
        try:
            with self._follower as follower:
                if self._deps.drain.begun:
                    follower.stop()
                async with aclosing(follower.entries()) as entries:
                    async for entry in entries:
                        if entry is None:
                            yield HEARTBEAT
                            continue
                        async with aclosing(self._entry(entry)) as its:
                            async for piece in its:
                                yield piece
        finally:
            client.cancel()

    def _entry(self, entry: EntryRow) -> AsyncGenerator[bytes, None]:
        return self._run(entry) if entry.checkpoint_id is None else self._update(entry)

    def _seen(self, entry: EntryRow) -> int | None:
        """The last frame of the entry that the reader has seen; None when none, the opening included."""
        if self._cursor is not None:
            return self._cursor.seq if made_ms(entry.entry_id) == self._cursor.ms else None
        # Joined without a cursor: of what was going on already, only what comes from now on.
        return (entry.last_seq or None) if entry.began_at == self._follower.start else None

    async def _run(self, entry: EntryRow) -> AsyncGenerator[bytes, None]:
        if not self._modes.runs:
            return
        run, seen = Run(entry.entry_id, self._follower.thread_id, resumable=True), self._seen(entry)
        if seen is None:
            yield _render(run, 0, b"metadata", b'{"run_id":"%b","attempt":1}' % str(run.run_id).encode())
        seq = seen or 0
        async with aclosing(self._follower.frames(entry, seq)) as frames:
            async for some in frames:
                wanted = [_with_id(run, frame) for frame in some if self._wants(frame)]
                if wanted:
                    yield b"".join(wanted)
                elif not some:
                    yield HEARTBEAT
                seq = some[-1].seq if some else seq
        if not self._follower.stopped and (closing := await self._closing(run, seq)):
            yield closing

    def _wants(self, frame: Frame) -> bool:
        # A further attempt of a run opens it once more.
        return frame.event == "metadata" if self._modes.frames is None else frame in self._modes.frames

    async def _closing(self, run: Run, seq: int) -> bytes:
        """The end of a run, numbered after its last event: its error when no event said it, then `run_done`."""
        status, end = await self._deps.hub.position(run.run_id)
        pieces = []
        if self._modes.frames is not None and status in ("error", "timeout") and seq <= end:
            error = None if await self._said_error(run, end) else await error_of(self._deps, run.run_id)
            if error is not None:
                pieces.append(_render(run, end + 1, b"error", error))
        end = max(end, seq) if status == GONE else end
        if seq <= end + 1:
            done = b'{"status":"run_done","run_id":"%b"}' % str(run.run_id).encode()
            pieces.append(_render(run, end + 2, b"metadata", done))
        return b"".join(pieces)

    async def _said_error(self, run: Run, end: int) -> bool:
        rows = await self._deps.hub.read(run.run_id, end - 1) if end else []
        return any(frame.event == "error" for row in rows for frame in parse_frames(row.frames))

    async def _update(self, entry: EntryRow) -> AsyncGenerator[bytes, None]:
        if not self._modes.updates or self._seen(entry) is not None:
            return
        thread = self._follower.thread_id
        request = orjson.dumps({"checkpoint": {"checkpoint_id": str(entry.checkpoint_id)}})
        try:
            state = await self._deps.store.get_state(self._deps.tenant, thread, request)
        except DuragraphError:
            return
        data = b'{"state":%b,"thread_id":"%b"}' % (state, str(thread).encode())
        run = Run(entry.entry_id, thread, resumable=True)
        yield _render(run, 0, b"state_update", data)


def _render(run: Run, seq: int, event: bytes, data: bytes) -> bytes:
    return _with_id(run, Frame(seq, event, data))


def _with_id(run: Run, frame: Frame) -> bytes:
    return b"%bid: %b\r\n\r\n" % (frame.text, run.event_id(frame.seq).encode())
