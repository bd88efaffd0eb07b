"""Hands runs to workers: one dispatcher a process serves all held polls, and claims when something may be there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from duragraph.errors import DuragraphError, Unavailable
from duragraph.store import Claimed, Store, WorkerRow, sleep_or

log = logging.getLogger("duragraph.claims")

LOOK_EVERY = 5.0
LOOK_EVERY_WITHOUT_LISTEN = 1.0
_GROUPS_A_LOOK = 4
_GROUPS_KEPT = 1000
_FORGET_LOST_AFTER = 600.0
_RELEASE_AT_ONCE = 100

Graphs = tuple[int, ...]


@dataclass(eq=False)
class _Poll:
    """A worker's request for runs, held until there is an answer."""

    worker: WorkerRow
    limit: int
    held: frozenset[int]
    answer: asyncio.Future[tuple[bytes, int]]
    unclaimed: asyncio.Event = field(default_factory=asyncio.Event)
    """Unset while a claim for it is under way: what that gives is this worker's, whatever happens meanwhile."""

    hurried: bool = False

    def __post_init__(self) -> None:
        self.unclaimed.set()

    def hurry(self) -> None:
        """Answer without runs; but what a claim under way gives comes first."""
        self.hurried = True
        if self.unclaimed.is_set() and not self.answer.done():
            self.answer.set_result((b"[]", 0))


@dataclass(eq=False)
class _Group:
    """Workers that serve the same graphs: when the queue is empty for one, it is for all."""

    polls: list[_Poll] = field(default_factory=list)
    marks: bytes = b"{}"
    due_at: float | None = None
    looked_at: float = 0.0
    busy: bool = False
    again: bool = False
    kicks: int = 0
    empty: bool = False
    """The last look found nothing, and nobody said since that there is something."""

    @property
    def first(self) -> _Poll | None:
        """Who waits longest for runs; a worker that is full waits only to hear what it lost."""
        return next((poll for poll in self.polls if poll.limit > 0 and not poll.answer.done()), None)


class Claims:
    """`poll` waits for runs, `kick` says that there may be some, `lost` that a worker must stop one."""

    def __init__(self, store: Store, *, lanes: int = 4) -> None:
        self.look_every: Callable[[], float] = lambda: LOOK_EVERY
        self._store = store
        self._lanes = asyncio.Semaphore(lanes)
        self._groups: dict[Graphs, _Group] = {}
        self._kicked: set[Graphs] = set()
        self._event = asyncio.Event()
        self._lost: dict[int, dict[int, float]] = {}
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> int:
        """How many polls are held."""
        return sum(len(group.polls) for group in self._groups.values())

    def kick(self) -> None:
        """Something may be claimable."""
        for graphs, group in self._groups.items():
            group.kicks += 1
            group.empty = False
            if group.polls:
                self._kicked.add(graphs)
        self._event.set()

    def lost(self, worker_key: int, token: int) -> None:
        """A worker's lease is no more: say so in its held poll, or in the next answer it gets."""
        tokens = self._lost.setdefault(worker_key, {})
        tokens[token] = time.monotonic()
        for group in self._groups.values():
            for poll in group.polls:
                if poll.worker.worker_key == worker_key and token in poll.held:
                    poll.hurry()

    def lost_among(self, worker_key: int, held: Sequence[int] | frozenset[int]) -> list[int]:
        """Which of the tokens that a worker holds are lost, as far as this process was told."""
        tokens = self._lost.get(worker_key)
        if not tokens:
            return []
        old = time.monotonic() - _FORGET_LOST_AFTER
        for token in [token for token, at in tokens.items() if at < old]:
            del tokens[token]
        if not tokens:
            del self._lost[worker_key]
        return [token for token in held if token in tokens]

    def stop(self) -> None:
        """Answer every held poll with nothing and claim no more."""
        self._stopping = True
        for group in self._groups.values():
            for poll in group.polls:
                poll.hurry()

    async def poll(
        self, worker: WorkerRow, limit: int, wait: float, held: frozenset[int], gone: asyncio.Future[None] | None
    ) -> tuple[bytes, int]:
        """(Claims as a JSON array, how many). None after `wait` seconds, when a held run was lost, or when stopping.

        `gone` completes when the client has gone: what was claimed for it meanwhile is handed back. `NotFound`: the
        worker is no longer registered.
        """
        if self._stopping or self.lost_among(worker.worker_key, held) or (limit < 1 and not held):
            return b"[]", 0
        poll = _Poll(worker, limit, held, asyncio.get_running_loop().create_future())
        group = self._groups.setdefault(worker.graphs, _Group())
        group.polls.append(poll)
        if not group.empty or group.looked_at < time.monotonic() - self.look_every():
            self._kicked.add(worker.graphs)
        self._event.set()
        try:
            either: set[asyncio.Future[Any]] = {poll.answer, gone} if gone else {poll.answer}
            await asyncio.wait(either, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            await poll.unclaimed.wait()
        finally:
            self._forget(poll)
        return await self._answer(poll, gone)

    def _forget(self, poll: _Poll) -> None:
        self._groups[poll.worker.graphs].polls.remove(poll)
        if len(self._groups) > _GROUPS_KEPT:
            self._groups = {graphs: group for graphs, group in self._groups.items() if group.polls or group.busy}

    async def _answer(self, poll: _Poll, gone: asyncio.Future[None] | None) -> tuple[bytes, int]:
        if not poll.answer.done():
            poll.answer.cancel()
            return b"[]", 0
        runs, count = poll.answer.result()
        if count and gone and gone.done():
            await self._give_back(runs)
            return b"[]", 0
        return runs, count

    async def _give_back(self, runs: bytes) -> None:
        """The client hung up while its claim was under way: others may have the runs, and no attempt is spent."""
        claims = orjson.loads(runs)
        log.info("claim handed back", extra={"runs": len(claims)})
        ends = [
            orjson.dumps({"run_id": one["run_id"], "token": one["token"], "write_no": 1, "end": {"status": "release"}})
            for one in claims
        ]
        await self._store.complete_runs(ends)
        self.kick()

    async def run(self) -> None:
        """The dispatcher: until cancelled."""
        while True:
            now = time.monotonic()
            kicked = await sleep_or(self._event, self._next_look(now))
            self._event.clear()
            if not kicked:
                self._kick_quiet(time.monotonic())
            graphs, self._kicked = self._kicked, set()
            for one in graphs:
                group = self._groups.get(one)
                if group is not None and not self._stopping:
                    self._start(group)

    def _next_look(self, now: float) -> float | None:
        waiting = [group for group in self._groups.values() if group.first]
        if not waiting:
            return None
        due = min((group.due_at for group in waiting if group.due_at is not None), default=now + 3600)
        return max(0.0, min(due - now, self.look_every()))

    def _kick_quiet(self, now: float) -> None:
        """Nothing was said for a while: look for what is due, and at some of the others all the same."""
        waiting = [(graphs, group) for graphs, group in self._groups.items() if group.first]
        due = [graphs for graphs, group in waiting if group.due_at is not None and group.due_at <= now]
        quiet = sorted((group.looked_at, graphs) for graphs, group in waiting if group.looked_at <= now - 1)
        self._kicked.update(due, (graphs for _, graphs in quiet[:_GROUPS_A_LOOK]))

    def _start(self, group: _Group) -> None:
        if group.busy:
            group.again = True
            return
        group.busy = True
        task = asyncio.create_task(self._serve(group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, group: _Group) -> None:
        """Claim for the polls that wait longest until the queue is empty for them."""
        try:
            async with self._lanes:
                group.again = True
                while group.again and not self._stopping:
                    group.again = False
                    while (poll := group.first) and await self._claim(group, poll):
                        pass
        finally:
            group.busy = False

    async def _claim(self, group: _Group, poll: _Poll) -> bool:
        """Claim for one poll; true when there may be more in the queue."""
        # Runs are shared out over the workers that wait, for the next poll of each comes soon.
        waiting = sum(1 for one in group.polls if one.limit > 0 and not one.answer.done())
        limit = -(-poll.limit // waiting)
        group.looked_at, kicks = time.monotonic(), group.kicks
        poll.unclaimed.clear()
        try:
            claimed = await self._store.claim_runs(poll.worker.worker_key, limit, group.marks)
        except DuragraphError as error:
            _fail(poll, error)
            return not isinstance(error, Unavailable)
        finally:
            poll.unclaimed.set()
        group.marks = claimed.marks
        group.empty = not claimed.count and group.kicks == kicks
        group.due_at = None if claimed.next_due is None else time.monotonic() + max(0.005, claimed.next_due)
        if group.due_at is not None:
            # The dispatcher may sleep past it: let it reckon anew.
            self._event.set()
        if claimed.count:
            _give(poll, claimed)
        elif poll.hurried:
            poll.hurry()
        else:
            # The next look begins with another worker: this one may be draining without our knowing.
            group.polls.sort(key=lambda one: one is poll)
        return claimed.count == limit


def _give(poll: _Poll, claimed: Claimed) -> None:
    if not poll.answer.done():
        poll.answer.set_result((claimed.runs, claimed.count))


def _fail(poll: _Poll, error: DuragraphError) -> None:
    if not poll.answer.done():
        poll.answer.set_exception(error)
