"""Follows a thread: what happened on it, entry by entry, in the order in which it began, without end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

from duragraph.errors import NotFound, Unavailable
from duragraph.hub import Frame, Hub
from duragraph.store import EntryRow, Store

log = logging.getLogger("duragraph.follow")

_PAGE = 500
_AGAIN_AFTER = 0.5
_OVERLAP = timedelta(seconds=10)
"""What begins in one transaction may be seen after what begins a little later in another."""

BEGINNING = datetime.min.replace(tzinfo=UTC)


def made_ms(an_id: UUID) -> int:
    """The millisecond in which a UUIDv7 was made."""
    return an_id.int >> 80


@dataclass(frozen=True)
class Start:
    """Where to begin: with everything, at the entry made in a millisecond, at what was going on at a time, or now."""

    everything: bool = False
    ms: int | None = None
    at: datetime | None = None


class ThreadFollower:
    """Gives each entry of a thread once: what is stored, then what begins. Use as a context and iterate over `entries`.

    An iteration gives None after each `patience` seconds in which nothing began. It ends when the thread is deleted or
    `stop` was called. `born_at` is when the thread was made, `start` when what is given first began. With `expected`
    a thread that is not there yet is waited for; otherwise `begin` raises `NotFound`.
    """

    def __init__(
        self, hub: Hub, store: Store, tenant: int, thread_id: UUID, patience: float, *, expected: bool = False
    ) -> None:
        self.thread_id = thread_id
        self.born_at = BEGINNING
        self._patience = patience
        self._store = store
        self._tenant = tenant
        self._reader = hub.thread_reader(thread_id)
        self._expected = expected
        self.there = False
        self.start = BEGINNING
        self._from = BEGINNING
        self._given: dict[UUID, datetime] = {}

    async def begin(self, start: Start) -> None:
        """Find the place to begin at. Raises `NotFound`."""
        try:
            if not start.everything:
                self.start = await self._store.thread_start(self._tenant, self.thread_id, start.ms, start.at)
                self._from = self.start
            self.born_at, _ = await self._store.thread_entries(self._tenant, self.thread_id, datetime.now(UTC), 0)
            self.there = True
        except NotFound:
            if not self._expected:
                raise

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, trace)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._reader.stopped

    def stop(self) -> None:
        """Give no more."""
        self._reader.stop()

    def frames(self, entry: EntryRow, after: int) -> AsyncGenerator[list[Frame], None]:
        """The frames of a run until it ends; none after each `patience` seconds without."""
        return self._reader.frames(entry.entry_id, after, self._patience)

    async def entries(self) -> AsyncGenerator[EntryRow | None, None]:
        """See the class."""
        while True:
            try:
                page = await self._page()
            except Unavailable as problem:
                if self.stopped:
                    return
                log.warning("thread unreadable, trying again", extra={"problem": problem.message})
                yield None
                await asyncio.sleep(_AGAIN_AFTER)
                continue
            if page is None:
                return
            for entry in page:
                if self.stopped:
                    return
                yield entry
            # After a page there may be another; without one there is nothing to ask before something changes.
            while not page and not await self._reader.changed(self._patience):
                if self._reader.gone or self.stopped:
                    return
                yield None

    async def _page(self) -> list[EntryRow] | None:
        """What has not been given yet; None when the thread is no more."""
        start, limit = self._from, _PAGE
        while True:
            try:
                self.born_at, rows = await self._store.thread_entries(self._tenant, self.thread_id, start, limit)
            except NotFound:
                return None if self.there else []
            self.there = True
            fresh = [row for row in rows if row.entry_id not in self._given]
            if fresh:
                self._note(fresh)
                return fresh
            if len(rows) < limit:
                return []
            # A whole line may have been cancelled in one moment.
            limit = limit * 2 if rows[-1].began_at == start else limit
            start = rows[-1].began_at

    def _note(self, rows: list[EntryRow]) -> None:
        """Remember what is given for as long as the next page may hold it again."""
        self._given.update({row.entry_id: row.began_at for row in rows})
        horizon = max(self._from, rows[-1].began_at - _OVERLAP)
        self._from = horizon
        self._given = {entry: began for entry, began in self._given.items() if began >= horizon}
