"""What all walks of one run share: the claim, the way to the journal, and the counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from duragraph_worker.journal import Claim, EventItem, Journal, Write, join_writes, run_config

RECURSION_LIMIT = 25
"""Supersteps that a run may take unless `config.recursion_limit` says otherwise."""


class RunState:
    """One claimed run while it runs here."""

    def __init__(self, claim: Claim, journal: Journal) -> None:
        self.claim = claim
        self.journal = journal
        self.kwargs: dict[str, Any] = claim.get("kwargs") or {}
        self.config = run_config(claim)
        self.durable = self.kwargs.get("durability") != "exit" and self.kwargs.get("checkpoint_during") is not False
        self.at: str | None = None  # the checkpoint the run stands on
        self.nodes_executed: list[str] = []
        self.tokens: Counter[str] = Counter()
        self._events: list[EventItem] = []
        self._pump: asyncio.Task[None] | None = None
        self._problem: Exception | None = None

    def emit(self, events: Sequence[EventItem]) -> None:
        """Send events soon, in order with all else."""
        self._events.extend(events)
        if self._pump is None and self._events:
            self._pump = asyncio.get_running_loop().create_task(self._send_events())

    async def send(self, write: Write, *, commit: bool = False) -> None:
        """Write, behind everything emitted before; with `commit`, return when it is stored."""
        if self._problem is not None:
            raise self._problem
        if self._events:
            write = join_writes([Write(events=self._taken()), write])
        if self.durable and self.at is not None:
            write.setdefault("checkpoint_id", self.at)
        await (self.journal.commit(write) if commit else self.journal.write(write))

    def close(self) -> None:
        """Stop sending."""
        if self._pump is not None:
            self._pump.cancel()

    async def _send_events(self) -> None:
        try:
            while self._events:
                await self.journal.write(Write(events=self._taken()))
        except Exception as problem:  # raised by the next send
            self._problem = problem
        finally:
            self._pump = None

    def _taken(self) -> list[EventItem]:
        events, self._events = self._events, []
        return events
