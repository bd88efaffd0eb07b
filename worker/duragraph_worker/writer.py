"""Brings what the runs of one worker write to the control plane, in order, in as few requests as will do.

Natural batching, no timer on the way of a commit: while a request is in flight, what other runs write queues up and
goes out together in the next. Of one run at most one Write is in flight; what it writes meanwhile is merged into its
next. Token and custom events wait until about 25 ms after the request before, or for 64 of them, so that a stream of
tokens does not become one of requests; after a silence they go out almost at once. A Write whose answer was lost goes
out again under the same write_no until acknowledged, or the lease is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from duragraph_worker.client import ApiError
from duragraph_worker.errors import DuraGraphError, LeaseLost, StateError, StoreError
from duragraph_worker.journal import Write

SLICE_SECONDS = 0.025
FIRST_SECONDS = 0.002
"""What is written after a silence waits this long: enough for a quick node to be done and share the request."""
SLICE_EVENTS = 64
MERGE_BYTES = 2 * 2**20
"""A Write this large is not merged with the next."""
REQUEST_BYTES = 8 * 2**20
"""A request carries more than this only where one Write alone does; the control plane's limit is 16 MiB."""
REQUEST_WRITES = 256
RUN_QUEUE_BYTES = 4 * 2**20
ALL_QUEUE_BYTES = 64 * 2**20
"""Over either, a run that writes waits: a control plane that is away must not fill the worker's memory."""

LISTS = ("events", "checkpoints", "steps", "interrupts", "answers", "writes")

Json = dict[str, Any]
Meaning = Callable[[Sequence[Json]], Awaitable[list[Json]]]

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class WriteRefused(DuraGraphError):
    """The control plane refused a Write as malformed or too large; nothing of it was stored, and the run fails."""


class Transport(Protocol):
    """What the writer needs of `WorkerClient`."""

    async def write(self, writes: Sequence[bytes]) -> dict[int, Json]:
        """Send Writes, at most one a run, until they are answered; the results by token. Raises ApiError if refused."""
        ...

    async def store(self, run_id: str, token: int, ops: Sequence[Json]) -> list[Any]:
        """Do operations of the key-value store for a held run. Raises ApiError if refused."""
        ...

    async def read_checkpoints(self, run_id: str, token: int, reads: Sequence[Json]) -> list[list[Json]]:
        """What a hosted graph saved on the run's thread. Raises ApiError if refused."""
        ...


class _Write:
    """One Write being put together: its lists as JSON fragments, encoded once however often they are sent."""

    __slots__ = ("acknowledged", "awaited", "body", "events", "lists", "scalars", "size", "write_no")

    def __init__(self, write_no: int) -> None:
        self.write_no = write_no
        self.lists: dict[str, list[bytes]] = {}
        self.scalars: dict[str, bytes] = {}
        self.events = 0
        self.size = 0
        self.body: bytes | None = None
        self.awaited = False
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def merge(self, lists: dict[str, bytes], scalars: dict[str, bytes], events: int) -> int:
        """Add a Write's fragments; gives the bytes added. The last scalar (checkpoint_id, end) wins."""
        for name, fragment in lists.items():
            self.lists.setdefault(name, []).append(fragment)
        self.scalars.update(scalars)
        self.events += events
        added = sum(map(len, lists.values())) + sum(map(len, scalars.values()))
        self.size += added
        return added

    def seal(self, head: str) -> bytes:
        """The Write as JSON, the same bytes each time."""
        if self.body is None:
            parts = [f'{head},"write_no":{self.write_no}'.encode()]
            parts += [b'"%b":%b' % (name.encode(), text) for name, text in self.scalars.items()]
            parts += [b'"%b":[%b]' % (name.encode(), b",".join(items)) for name, items in self.lists.items()]
            self.body = b",".join(parts) + b"}"
            self.lists.clear()
        return self.body


class RunJournal:
    """One run's ordered queue of Writes: what the executor writes through.

    `on_lost` is called once, at the moment it is known that the lease is gone.
    """

    def __init__(self, writer: Writer, run_id: str, token: int, on_lost: Callable[[], None]) -> None:
        self.run_id = run_id
        self.token = token
        self.lost = False
        self.ended = False
        self._writer = writer
        self._on_lost = on_lost
        self._head = f'{{"run_id":{json.dumps(run_id)},"token":{token}'
        self._queue: deque[_Write] = deque()
        self._sent: _Write | None = None
        self._written = 0
        self._bytes = 0
        self._refusal: WriteRefused | None = None
        self._slice: asyncio.TimerHandle | None = None
        self._due = False
        self._last_sent = -SLICE_SECONDS

    async def write(self, write: Write, *, flush: bool = False) -> None:
        """Queue a Write (the contract's, without run_id, token and write_no); `flush` sends it as soon as may be.

        Returns when it is queued, which waits while too much is queued already. Raises `LeaseLost`, `WriteRefused` for
        an earlier Write of this run, `StateError` for a value that is no JSON.
        """
        self._add(write, flush)
        while self._bytes > RUN_QUEUE_BYTES or self._writer.queued_bytes > ALL_QUEUE_BYTES:
            self._make_due()
            await self._writer.room()
            self._check()

    async def commit(self, write: Write) -> None:
        """Queue a Write, send it as soon as may be, and return when it is stored. Raises as `write`.

        Behind a Write that ends the run nothing is queued: the end stands, and it is that which is waited for.
        """
        queued = self._end() or self._add(write, flush=True)
        queued.awaited = True
        # Shielded: a cancelled run must not take the acknowledgement away from the Writes merged with this one.
        await asyncio.shield(queued.acknowledged)

    async def store(self, ops: Sequence[Json]) -> list[Any]:
        """Do operations of the key-value store; they pass by what is queued. Raises `LeaseLost`, `StoreError`."""
        try:
            return await self._leased(self._store(ops))
        except ApiError as refusal:
            raise StoreError(str(refusal), field=refusal.field) from refusal

    async def _store(self, ops: Sequence[Json]) -> list[Any]:
        if self._writer.meaning is not None:
            ops = await self._writer.meaning(ops)
        return await self._writer.transport.store(self.run_id, self.token, ops)

    async def read_checkpoints(self, reads: Sequence[Json]) -> list[list[Json]]:
        """What a hosted graph saved on the run's thread; what is queued is not among it. Raises `LeaseLost`."""
        return await self._leased(self._writer.transport.read_checkpoints(self.run_id, self.token, reads))

    async def _leased(self, asking: Coroutine[Any, Any, list[Any]]) -> list[Any]:
        """What only the holder of the lease is told."""
        try:
            self._check()
        except BaseException:
            asking.close()
            raise
        try:
            return await asking
        except ApiError as refusal:
            if refusal.code == "lease_lost":
                self.lose()
                raise LeaseLost(f"the lease of run {self.run_id} is lost") from None
            raise

    @property
    def ending(self) -> bool:
        """The run's end is written, if not acknowledged yet."""
        return self._end() is not None

    def _end(self) -> _Write | None:
        writes = [*self._queue, *([self._sent] if self._sent else [])]
        return next((write for write in writes if "end" in write.scalars), None)

    def lose(self) -> None:
        """The lease is gone: drop what is queued, refuse what comes."""
        if self.lost or self.ended or (self._sent and "end" in self._sent.scalars):
            return  # the answer to the last Write says more than a heartbeat that crossed it
        self.lost = True
        self._fail(LeaseLost(f"the lease of run {self.run_id} is lost"))
        self._on_lost()

    def _add(self, write: Write, flush: bool) -> _Write:
        self._check()
        lists, scalars, events = _fragments(write)
        if not self._queue or self._queue[-1].size > MERGE_BYTES:
            self._written += 1
            self._queue.append(_Write(self._written))
        tail = self._queue[-1]
        added = tail.merge(lists, scalars, events)
        self._bytes += added
        self._writer.queued_bytes += added
        if flush or tail.events >= SLICE_EVENTS or len(self._queue) > 1:
            self._make_due()
        elif not self._due and self._slice is None:
            loop = asyncio.get_running_loop()
            patience = max(FIRST_SECONDS, self._last_sent + SLICE_SECONDS - loop.time())
            self._slice = loop.call_later(patience, self._make_due)
        return tail

    def _check(self) -> None:
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        if self.lost:
            raise LeaseLost(f"the lease of run {self.run_id} is lost")
        if self.ended:
            raise LeaseLost(f"run {self.run_id} has ended; nothing can be written to it")

    def _make_due(self) -> None:
        if self._slice is not None:
            self._slice.cancel()
            self._slice = None
        if self._queue:
            self._due = True
            if self._sent is None:
                self._writer.ready(self)

    def _next(self) -> bytes:
        """Take the head of the queue into flight."""
        self._sent = self._queue.popleft()
        self._due = bool(self._queue)
        self._last_sent = asyncio.get_running_loop().time()
        return self._sent.seal(self._head)

    @property
    def _next_size(self) -> int:
        return self._queue[0].size

    def _take_result(self, result: Json | None) -> None:
        """What came of the Write in flight; None: the control plane did not say, which is as a refusal."""
        sent, self._sent = self._sent, None
        assert sent is not None
        self._release(sent)
        if result is not None and result.get("ok"):
            self.ended = "end" in sent.scalars
            _resolve(sent.acknowledged)
        elif result is not None and result.get("reason") == "lease_lost":
            _reject(sent.acknowledged, LeaseLost(f"the lease of run {self.run_id} is lost"))
            self.lose()
        else:
            message = str((result or {}).get("message") or "the control plane gave no result for it")
            self._refuse(sent, WriteRefused(f"write {sent.write_no} of run {self.run_id} was refused: {message}"))
        if self._due and self._queue:
            self._writer.ready(self)

    def _refuse(self, sent: _Write, refusal: WriteRefused) -> None:
        """What was queued behind a refused Write builds on it and falls with it; a later one may still end the run."""
        heard = sent.awaited or any(write.awaited for write in self._queue)
        self._refusal = None if heard else refusal
        _reject(sent.acknowledged, refusal)
        self._fail(refusal)

    def _release(self, write: _Write) -> None:
        self._bytes -= write.size
        self._writer.queued_bytes -= write.size
        self._writer.freed()

    def _fail(self, error: Exception) -> None:
        if self._slice is not None:
            self._slice.cancel()
            self._slice = None
        while self._queue:
            write = self._queue.popleft()
            self._release(write)
            _reject(write.acknowledged, error)
        if self._sent is not None:
            _reject(self._sent.acknowledged, error)
        self._due = False


class Writer:
    """Sends the Writes of all runs; `lanes` requests at most are in flight, never two with the same run.

    `meaning` is asked first what the queries among operations of the store mean.
    """

    def __init__(self, transport: Transport, *, lanes: int = 2, meaning: Meaning | None = None) -> None:
        self.queued_bytes = 0
        self.transport = transport
        self.meaning = meaning
        self._lanes = lanes
        self._ready: dict[RunJournal, None] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sending = 0

    def journal(self, run_id: str, token: int, on_lost: Callable[[], None]) -> RunJournal:
        """The journal of one claimed run."""
        return RunJournal(self, run_id, token, on_lost)

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(self._lanes):
                lanes.create_task(self._lane())

    async def drained(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all that is due to be acknowledged; whether it was."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)
        return self._idle.is_set()

    async def room(self) -> None:
        """Wait until something was acknowledged or dropped."""
        self._room.clear()
        await self._room.wait()

    def freed(self) -> None:
        """Something was acknowledged or dropped."""
        self._room.set()

    def ready(self, journal: RunJournal) -> None:
        """`journal` has something to send and nothing in flight."""
        self._ready[journal] = None
        self._idle.clear()
        self._wake.set()

    async def _lane(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._sending += 1
            try:
                await self._deliver(batch)
            finally:
                self._sending -= 1
                if not self._ready and not self._sending:
                    self._idle.set()

    def _take(self) -> list[tuple[RunJournal, bytes]]:
        batch: list[tuple[RunJournal, bytes]] = []
        runs: set[str] = set()
        size = 0
        for journal in list(self._ready):
            if not journal._queue:  # its lease was lost meanwhile
                del self._ready[journal]
                continue
            if journal.run_id in runs:  # claimed here twice; a request has one Write of a run
                continue
            size += journal._next_size
            if batch and (size > REQUEST_BYTES or len(batch) == REQUEST_WRITES):
                break
            del self._ready[journal]
            runs.add(journal.run_id)
            batch.append((journal, journal._next()))
        if not self._ready and not batch and not self._sending:
            self._idle.set()
        return batch

    async def _deliver(self, batch: list[tuple[RunJournal, bytes]]) -> None:
        try:
            results = await self.transport.write([body for _, body in batch])
        except ApiError as refusal:
            if len(batch) > 1:
                # One of them spoils the request; each gets its own answer.
                for one in batch:
                    await self._deliver([one])
                return
            results = {batch[0][0].token: {"ok": False, "message": str(refusal)}}
        for journal, _ in batch:
            journal._take_result(results.get(journal.token))


def _fragments(write: Write) -> tuple[dict[str, bytes], dict[str, bytes], int]:
    lists: dict[str, bytes] = {}
    scalars: dict[str, bytes] = {}
    for name, value in write.items():
        if name not in LISTS:
            scalars[name] = _encode(name, value)
        elif value:
            lists[name] = _encode(name, value)[1:-1]
    return lists, scalars, len(write.get("events") or ())


def _encode(name: str, value: Any) -> bytes:
    """JSON text. A value that is none fails here, at its writer, and not later in the request of all."""
    try:
        return _JSON.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise StateError(f"{name} cannot be written as JSON: {problem}") from problem


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _reject(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as seen: a Write that nobody waits for is no unhandled error
