"""Follows runs for their readers: one LISTEN connection, one query a tick for all that changed, shared frames."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg import sql

from duragraph.errors import DuragraphError
from duragraph.store import EventRow, Store

log = logging.getLogger("duragraph.hub")

TERMINAL = frozenset({"success", "error", "timeout", "interrupted"})
GONE = "gone"
"""The status of a run that is no longer there: deleted or rolled back."""

RUNS, READY, WORKERS, WEBHOOKS = "duragraph_runs", "duragraph_ready", "duragraph_workers", "duragraph_webhooks"
_CHANNELS = (RUNS, READY, WORKERS, WEBHOOKS)

_TICK = 0.01
_PAYLOAD = 7000  # PostgreSQL's limit is 7,999 bytes
_FIRST_LOOK = 0.05
_UNHEARD = 2000
_READ_RUNS = 500
_READ_EVENTS = 500
_RING_FRAMES = 2000
_RING_BYTES = 2**20
_POLL_WITHOUT_LISTEN = 1.0
_POLL_WITH_LISTEN = 5.0
_PROBE_EVERY = 30.0
_PROBE_PATIENCE = 2.0
_RETRY_AFTER = (0.5, 1.0, 2.0, 5.0, 10.0)


class Frame:
    """One event, rendered once for all its readers. `text` lacks the id line and the closing blank line."""

    __slots__ = ("data", "event", "seq", "text")

    def __init__(self, seq: int, event: bytes, data: bytes) -> None:
        if b"\n" in data or b"\r" in data:
            # Inside JSON text a line break is only ever white space.
            data = data.replace(b"\n", b" ").replace(b"\r", b" ")
        self.seq = seq
        self.event = event.replace(b"\n", b" ").replace(b"\r", b" ").decode()
        self.data = data
        self.text = b"event: %b\r\ndata: %b\r\n" % (self.event.encode(), data)


def parse_frames(packed: bytes) -> list[Frame]:
    """The frames of one row of duragraph.read_events."""
    frames: list[Frame] = []
    for one in packed.split(b"\x1e") if packed else ():
        seq, event, data = one.split(b"\x1f", 2)
        frames.append(Frame(int(seq), event, data))
    return frames


class _Run:
    """A run that somebody here follows: its status, and the frames base+1 .. tail."""

    __slots__ = ("base", "bytes", "ended", "known", "readers", "ring", "run_id", "status", "tail")

    def __init__(self, run_id: UUID) -> None:
        self.run_id = run_id
        self.readers: set[Reader] = set()
        self.ring: deque[Frame] = deque()
        self.base = self.tail = self.bytes = 0
        self.known = False
        """Whether the table was read since `base` was only what the first reader said it had seen."""
        self.status = ""
        self.ended = False

    @property
    def wants_frames(self) -> bool:
        return any(reader.wants_frames for reader in self.readers)

    def wake(self) -> None:
        for reader in self.readers:
            reader.wake()

    def start_at(self, seq: int) -> None:
        self.ring.clear()
        self.base = self.tail = seq
        self.bytes = 0
        self.known = False

    def apply(self, row: EventRow, after: int, limit: int) -> bool:
        """Take what was read after `after`, at most `limit` frames; true when there is more to read."""
        frames = parse_frames(row.frames)
        if limit and self.tail == after:
            oldest = frames[0].seq - 1 if frames else row.last_seq
            if oldest != self.tail:
                # Retention has taken what was between, or the first reader's cursor was past the end.
                self.start_at(oldest)
            self.known = True
        for frame in frames:
            if frame.seq == self.tail + 1:
                self.ring.append(frame)
                self.tail = frame.seq
                self.bytes += len(frame.text)
        while len(self.ring) > 1 and (self.bytes > _RING_BYTES or len(self.ring) > _RING_FRAMES):
            self.bytes -= len(self.ring.popleft().text)
            self.base += 1
        self.status = row.status
        behind = self.wants_frames and self.tail < row.last_seq
        self.ended = row.status in TERMINAL and not behind
        return behind


class Reader:
    """A position in one run's events: bounded however slow its client is. Use as an async context.

    `new`: the run was made a moment ago, so there is nothing to read yet but what another process may just have done.
    """

    def __init__(self, hub: Hub, run_id: UUID, after: int, *, frames: bool = True, new: bool = False) -> None:
        self.run_id = run_id
        self.after = after
        self.wants_frames = frames
        self.new = new
        self.stopped = False
        self.status = ""
        self._hub = hub
        self._event = asyncio.Event()
        self._run: _Run | None = None

    async def __aenter__(self) -> Self:
        self._run = self._hub.attach(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.detach(self)

    def wake(self) -> None:
        """Look again."""
        self._event.set()

    def stop(self) -> None:
        """Give no more: the client has gone or the server is about to."""
        self.stopped = True
        self._event.set()

    async def next(self, patience: float) -> list[Frame] | None:
        """New frames; none after `patience` seconds; None when the run has ended (`status`) or `stop` was called."""
        assert self._run is not None, "a reader is used inside its context"
        deadline = asyncio.get_running_loop().time() + patience
        while not self.stopped:
            self._event.clear()
            if frames := await self._take(self._run):
                self.after = frames[-1].seq
                return frames
            if self._run.ended and (not self.wants_frames or self._run.status == GONE or self.after >= self._run.tail):
                self.status = self._run.status
                return None
            try:
                async with asyncio.timeout_at(deadline):
                    await self._event.wait()
            except TimeoutError:
                return []
        return None

    async def _take(self, run: _Run) -> list[Frame]:
        if not self.wants_frames or run.status == GONE or not run.known:
            return []
        if self.after < run.base:
            rows = await self._hub.read(self.run_id, self.after)
            if frames := [frame for row in rows for frame in parse_frames(row.frames)]:
                return frames
            self.after = run.base  # retention has taken what was between
        return list(islice(run.ring, self.after - run.base, self.after - run.base + _READ_EVENTS))


class _Thread:
    """A thread that somebody here follows. Its stamp differs when there may be something new to read of it."""

    __slots__ = ("known", "readers", "stale", "stamp", "thread_id")

    def __init__(self, thread_id: UUID) -> None:
        self.thread_id = thread_id
        self.readers: set[ThreadReader] = set()
        self.stamp: bytes | None = None
        self.known = False
        self.stale = True
        """Whether something was told of its shard that the stamp has not been read for."""

    @property
    def awaited(self) -> bool:
        return any(reader.waiting for reader in self.readers)

    def apply(self, stamp: bytes | None) -> None:
        """Take what was read."""
        if self.known and stamp == self.stamp:
            return
        for reader in self.readers:
            reader.gone = reader.gone or (stamp is None and self.stamp is not None)
            reader.wake()
        self.known, self.stamp = True, stamp


class ThreadReader:
    """Hears when there may be something new on a thread: it subscribes first and reads by itself. Use as a context.

    `gone`: the thread was there and is no more. `stop()` also stops the `Reader` of the run that is read in between.
    """

    def __init__(self, hub: Hub, thread_id: UUID) -> None:
        self.thread_id = thread_id
        self.waiting = False
        self.stopped = False
        self.gone = False
        self._hub = hub
        self._event = asyncio.Event()
        self._run: Reader | None = None

    def __enter__(self) -> Self:
        self._hub.attach_thread(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.detach_thread(self)

    def wake(self) -> None:
        """Look again."""
        self._event.set()

    def stop(self) -> None:
        """Give no more: the client has gone or the server is about to."""
        self.stopped = True
        self._event.set()
        if self._run is not None:
            self._run.stop()

    async def changed(self, patience: float) -> bool:
        """Whether there may be something new; false after `patience` seconds, or at once when `stopped` or `gone`."""
        self.waiting = True
        self._hub.await_thread(self.thread_id)
        try:
            async with asyncio.timeout(None if self._over else patience):
                if not self._over:
                    await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self.waiting = False
        self._event.clear()
        return not self._over

    @property
    def _over(self) -> bool:
        return self.stopped or self.gone

    async def frames(self, run_id: UUID, after: int, patience: float) -> AsyncGenerator[list[Frame], None]:
        """The frames of a run of the thread until it ends; none after each `patience` seconds without."""
        async with self._hub.reader(run_id, after) as reader:
            self._run = reader
            try:
                if self.stopped:
                    reader.stop()
                while (frames := await reader.next(patience)) is not None:
                    yield frames
            finally:
                self._run = None


class Hub:
    """Tells readers what changed. The cursor is `seq`; a notification is only a hint, and without any it still works.

    `ready()`, `lost()` and `changed()` are told by this process after its commits: they take effect here at once and in
    the other processes by one NOTIFY a tick. `on_ready` and `on_lost` are called whoever told it.
    """

    def __init__(self, store: Store, listen_url: str, tenant: int = 1) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_lost: Callable[[int, int], None] = lambda worker_key, token: None
        self.on_webhooks: Callable[[], None] = lambda: None
        """Called when the database says that webhooks are owed."""
        self.listening = False
        self.problem: str | None = "not started"
        self._store = store
        self._listen_url = listen_url
        self._tenant = tenant
        self._origin = secrets.token_hex(4)
        self._runs: dict[UUID, _Run] = {}
        self._dirty: dict[UUID, None] = {}
        self._threads: dict[UUID, _Thread] = {}
        self._by_shard: dict[int, set[_Thread]] = {}
        """A run's id carries the shard of its thread: what is told of a run is a hint for the threads of its shard."""
        self._dirty_threads: dict[UUID, None] = {}
        self._unheard: dict[UUID, str | None] = {}
        """What was lately told of runs that nobody follows: a reader of a new run may be a moment too late for it."""
        self._dirty_event = asyncio.Event()
        self._tell: dict[str, dict[str, None]] = {channel: {} for channel in _CHANNELS}
        self._tell_event = asyncio.Event()
        self._probed = asyncio.Event()
        self._probe_word = ""
        self._notifier: psycopg.AsyncConnection[Any] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen and to read; returns once LISTEN is known to work or not."""
        known = asyncio.Event()
        for work in (self._read_loop(), self._tell_loop(), self._poll_loop(), self._listen_loop(known)):
            self._tasks.append(asyncio.create_task(work))
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_PATIENCE + 3):
                await known.wait()

    async def close(self) -> None:
        """Stop; what was still to be told is told first."""
        with suppress(psycopg.Error, DuragraphError, OSError):
            await self._tell_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._notifier is not None:
            await self._notifier.close()

    # told by this process

    def changed(self, run_ids: Iterable[UUID | str], ended: str | None = None) -> None:
        """Events or the status of these runs changed; with `ended`, to this terminal status."""
        for given in run_ids:
            run_id = given if isinstance(given, UUID) else UUID(given)
            self._say(RUNS, run_id.hex)
            self._mark(run_id, ended)

    def thread_changed(self, thread_id: UUID) -> None:
        """The state of a thread was changed from outside, or it was deleted."""
        self._say(RUNS, thread_id.hex)
        for thread in self._by_shard.get(_shard_of(thread_id), ()):
            self._mark_thread(thread)

    def ready(self) -> None:
        """Something became claimable."""
        self._say(READY, "1")
        self.on_ready()

    def lost(self, worker_key: int, token: int) -> None:
        """A worker holds a lease that is no more."""
        self._say(WORKERS, f"{worker_key}:{token}")
        self.on_lost(worker_key, token)

    # asked by readers

    def reader(self, run_id: UUID, after: int = 0, *, frames: bool = True, new: bool = False) -> Reader:
        """A reader of the events after `after`, or of the ending alone."""
        return Reader(self, run_id, after, frames=frames, new=new)

    async def follow(self, run_id: UUID, after: int = 0) -> AsyncIterator[list[Frame]]:
        """Frames in order until the run has ended and all were given."""
        async with self.reader(run_id, after) as reader:
            while (frames := await reader.next(60)) is not None:
                if frames:
                    yield frames

    async def wait_done(self, run_id: UUID) -> str:
        """The terminal status of a run, when it has ended; "gone" when it was deleted."""
        async with self.reader(run_id, frames=False) as reader:
            while await reader.next(60) is not None:
                pass
            return reader.status

    async def position(self, run_id: UUID) -> tuple[str, int]:
        """(status, number of the last event) of a run now."""
        rows = await self._store.read_events([(run_id, 2**31 - 1, 0)])
        return (rows[0].status, rows[0].last_seq) if rows else (GONE, 0)

    async def read(self, run_id: UUID, after: int) -> list[EventRow]:
        """Straight from the table, for a reader whose position the shared frames no longer cover."""
        return await self._store.read_events([(run_id, after, _READ_EVENTS)])

    def attach(self, reader: Reader) -> _Run:
        """Subscribe first; the read that follows finds whatever came before."""
        run = self._runs.setdefault(reader.run_id, _Run(reader.run_id))
        if reader.wants_frames and not run.wants_frames:
            run.start_at(reader.after)
            run.ended = False
        run.readers.add(reader)
        if reader.new and reader.run_id not in self._unheard:
            asyncio.get_running_loop().call_later(_FIRST_LOOK, self._mark, reader.run_id)
        else:
            told = self._unheard.pop(reader.run_id, None)
            # An old run may have been given another try since: it is looked at.
            self._mark(reader.run_id, told if reader.new else None)
        return run

    def detach(self, reader: Reader) -> None:
        """Forget a reader, and its run when nobody else follows it."""
        run = self._runs.get(reader.run_id)
        if run is not None:
            run.readers.discard(reader)
            if not run.readers:
                del self._runs[reader.run_id]

    def thread_reader(self, thread_id: UUID) -> ThreadReader:
        """Hears of what happens on a thread, there already or not."""
        return ThreadReader(self, thread_id)

    def attach_thread(self, reader: ThreadReader) -> None:
        """Subscribe."""
        thread = self._threads.get(reader.thread_id)
        if thread is None:
            thread = self._threads[reader.thread_id] = _Thread(reader.thread_id)
            self._by_shard.setdefault(_shard_of(reader.thread_id), set()).add(thread)
        thread.readers.add(reader)
        # Its stamp is of an earlier time than what this reader is about to read.
        thread.known, thread.stale = False, True

    def detach_thread(self, reader: ThreadReader) -> None:
        """Forget a reader, and its thread when nobody else follows it."""
        thread = self._threads.get(reader.thread_id)
        if thread is not None:
            thread.readers.discard(reader)
            if not thread.readers:
                del self._threads[reader.thread_id]
                shard = self._by_shard[_shard_of(reader.thread_id)]
                shard.discard(thread)
                if not shard:
                    del self._by_shard[_shard_of(reader.thread_id)]

    def await_thread(self, thread_id: UUID) -> None:
        """A reader has nothing else to read now: what it did not hear meanwhile is caught up with."""
        if self._threads[thread_id].stale:
            self._mark_thread(self._threads[thread_id])

    def stop_readers(self) -> None:
        """End all streams, for the clients to go on elsewhere."""
        for thread in list(self._threads.values()):
            for follower in list(thread.readers):
                follower.stop()
        for run in list(self._runs.values()):
            for reader in list(run.readers):
                reader.stop()

    @property
    def readers(self) -> int:
        """How many readers there are."""
        return sum(len(run.readers) for run in self._runs.values())

    @property
    def thread_readers(self) -> int:
        """How many readers of threads there are."""
        return sum(len(thread.readers) for thread in self._threads.values())

    # reading

    def _mark_thread(self, thread: _Thread) -> None:
        thread.stale = True
        if thread.awaited:
            self._dirty_threads[thread.thread_id] = None
            self._dirty_event.set()

    def _mark(self, run_id: UUID, ended: str | None = None) -> None:
        if self._by_shard:
            for thread in self._by_shard.get(_shard_of(run_id), ()):
                self._mark_thread(thread)
        run = self._runs.get(run_id)
        if run is None:
            self._unheard[run_id] = ended
            if len(self._unheard) > _UNHEARD:
                del self._unheard[next(iter(self._unheard))]
            return
        if ended is not None and not run.wants_frames:
            run.status, run.ended = ended, True
            run.wake()
            return
        self._dirty[run_id] = None
        self._dirty_event.set()

    def _mark_all(self) -> None:
        for run_id in self._runs:
            self._mark(run_id)
        for thread in self._threads.values():
            self._mark_thread(thread)

    async def _read_loop(self) -> None:
        while True:
            await self._dirty_event.wait()
            self._dirty_event.clear()
            while self._dirty or self._dirty_threads:
                await self._read_dirty()
                await self._read_dirty_threads()

    async def _read_dirty_threads(self) -> None:
        """One query for all threads whose readers wait and of which something may have been told."""
        asked = [self._threads[one] for one in islice(self._dirty_threads, _READ_RUNS) if one in self._threads]
        for thread_id in list(islice(self._dirty_threads, _READ_RUNS)):
            del self._dirty_threads[thread_id]
        if not asked:
            return
        for thread in asked:
            thread.stale = False
        try:
            stamps = await self._store.thread_stamps(self._tenant, [thread.thread_id for thread in asked])
        except DuragraphError as error:
            log.warning("threads unreadable, trying again", extra={"problem": error.message})
            self._dirty_threads.update(dict.fromkeys(thread.thread_id for thread in asked))
            await asyncio.sleep(0.5)
            return
        for thread in asked:
            thread.apply(stamps.get(thread.thread_id))

    async def _read_dirty(self) -> None:
        """One query for everything that changed while the last one was under way."""
        runs = [self._runs[run_id] for run_id in islice(self._dirty, _READ_RUNS) if run_id in self._runs]
        for run_id in list(islice(self._dirty, _READ_RUNS)):
            del self._dirty[run_id]
        if not runs:
            return
        asked = {run.run_id: run for run in runs}
        cursors = {run.run_id: (run.tail, _READ_EVENTS if run.wants_frames else 0) for run in runs}
        try:
            rows = await self._store.read_events([(run_id, *cursor) for run_id, cursor in cursors.items()])
        except DuragraphError as error:
            log.warning("events unreadable, trying again", extra={"problem": error.message})
            self._dirty.update(dict.fromkeys(asked))
            await asyncio.sleep(0.5)
            return
        for row in rows:
            run = asked.pop(row.run_id)
            if run.apply(row, *cursors[row.run_id]):
                self._dirty[row.run_id] = None
            run.wake()
        for run in asked.values():
            run.status, run.ended = GONE, True
            run.wake()

    async def _poll_loop(self) -> None:
        """The safety net under the notifications, and all there is without them."""
        while True:
            await asyncio.sleep(_POLL_WITH_LISTEN if self.listening else _POLL_WITHOUT_LISTEN)
            self._mark_all()

    # telling the other processes

    def _say(self, channel: str, word: str) -> None:
        self._tell[channel][word] = None
        self._tell_event.set()

    async def _tell_loop(self) -> None:
        while True:
            await self._tell_event.wait()
            self._tell_event.clear()
            try:
                await self._tell_all()
            except (psycopg.Error, OSError) as error:
                log.warning("notify failed", extra={"problem": str(error)})
            await asyncio.sleep(_TICK)

    async def _tell_all(self) -> None:
        said, self._tell = self._tell, {channel: {} for channel in _CHANNELS}
        for channel, words in said.items():
            for payload in _payloads(f"@{self._origin} ", words):
                await self._notify(channel, payload)

    async def _notify(self, channel: str, payload: str) -> None:
        if self._notifier is None or self._notifier.closed:
            self._notifier = await self._connect()
        try:
            await self._notifier.execute("select pg_notify(%s, %s)", (channel, payload))
        except psycopg.OperationalError:
            self._notifier = await self._connect()
            await self._notifier.execute("select pg_notify(%s, %s)", (channel, payload))

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self._listen_url,
            autocommit=True,
            application_name="duragraph hub",
            prepare_threshold=None,
            connect_timeout=10,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        # A hint need not be on disk before it is heard.
        await connection.execute("set synchronous_commit = off")
        return connection

    # hearing the other processes

    async def _listen_loop(self, known: asyncio.Event) -> None:
        failures = 0
        while True:
            try:
                await self._listen(known)
                failures = 0
            except (psycopg.Error, OSError, TimeoutError) as error:
                failures = 0 if self.listening else failures + 1
                self._polling(str(error) or "LISTEN does not get through")
            known.set()
            await asyncio.sleep(_RETRY_AFTER[min(failures, len(_RETRY_AFTER) - 1)])

    def _polling(self, problem: str) -> None:
        self.problem = problem.splitlines()[0]
        log.warning("listen lost, polling", extra={"problem": self.problem})
        self.listening = False
        self.on_webhooks()

    async def _listen(self, known: asyncio.Event) -> None:
        connection = await self._connect()
        try:
            for channel in _CHANNELS:
                await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
            await self._probe()
            # A pooler in transaction mode loses LISTEN without a word: only an echo proves it.
            await self._hear(connection, _PROBE_PATIENCE)
            if not self._probed.is_set():
                raise TimeoutError("a NOTIFY did not come back: is the URL a pooler? set DURAGRAPH_LISTEN_URL")
            self._listening(known)
            while self._probed.is_set():
                await self._hear(connection, _PROBE_EVERY, until_probed=False)
                await self._probe()
                await self._hear(connection, _PROBE_PATIENCE)
            raise TimeoutError("a NOTIFY did not come back")
        finally:
            await connection.close()

    def _listening(self, known: asyncio.Event) -> None:
        log.info("listening")
        self.listening, self.problem = True, None
        known.set()
        # Whatever was told while nobody listened is caught up with by reading.
        self._mark_all()
        self.on_ready()
        self.on_webhooks()

    async def _probe(self) -> None:
        self._probed.clear()
        self._probe_word = f"probe:{secrets.token_hex(4)}"
        await self._notify(RUNS, f"@{self._origin} {self._probe_word}")

    async def _hear(
        self, connection: psycopg.AsyncConnection[Any], seconds: float, *, until_probed: bool = True
    ) -> None:
        async for notice in connection.notifies(timeout=seconds):
            self._heard(notice.channel, notice.payload)
            if until_probed and self._probed.is_set():
                return

    def _heard(self, channel: str, payload: str) -> None:
        origin, _, words = payload.partition(" ") if payload.startswith("@") else ("", "", payload)
        if origin == f"@{self._origin}":
            if words == self._probe_word:
                self._probed.set()
            return
        if channel == READY:
            self.on_ready()
        if channel == WEBHOOKS:
            self.on_webhooks()
        for word in words.split(",") if words else ():
            with suppress(ValueError):
                if channel == RUNS:
                    self._mark(_run_id(word))
                elif channel == WORKERS:
                    worker_key, _, token = word.partition(":")
                    self.on_lost(int(worker_key), int(token))


def _shard_of(an_id: UUID) -> int:
    """As duragraph.shard_of()."""
    return (an_id.int >> 64) & 0xFFF


def _run_id(word: str) -> UUID:
    """From hex with or without dashes, or from 22 characters of base64."""
    if len(word) == 22:
        return UUID(bytes=base64.b64decode(word.replace("-", "+").replace("_", "/") + "=="))
    return UUID(word)


def _payloads(prefix: str, words: Iterable[str]) -> list[str]:
    payloads: list[str] = []
    line: list[str] = []
    size = 0
    for word in words:
        if size + len(word) > _PAYLOAD:
            payloads.append(prefix + ",".join(line))
            line, size = [], 0
        line.append(word)
        size += len(word) + 1
    return [*payloads, prefix + ",".join(line)] if line else payloads
