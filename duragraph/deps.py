"""What the API's resources are given: the settings, the store, the hub, the claims and the batches of one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from duragraph.batch import Batch
from duragraph.claims import Claims
from duragraph.config import Settings
from duragraph.egress import Egress
from duragraph.hub import TERMINAL, Hub
from duragraph.store import Beat, Ended, Store, Writes, Written
from duragraph.webhooks import Webhooks

log = logging.getLogger("duragraph.runs")


class Drain:
    """Says that this process is about to stop: no more claims, streams are closed, requests are finished."""

    def __init__(self) -> None:
        self.begun = False
        self._event = asyncio.Event()
        self._then: list[Callable[[], None]] = []

    def when_begun(self, do: Callable[[], None]) -> None:
        """Call `do` when draining begins."""
        self._then.append(do)

    def begin(self) -> None:
        """From now on this process only finishes what it has."""
        if not self.begun:
            self.begun = True
            self._event.set()
            for do in self._then:
                do()

    async def wait(self) -> None:
        """Returns when draining has begun."""
        await self._event.wait()


@dataclass(frozen=True)
class Batches:
    """The operations that concurrent requests share round trips for."""

    create: Batch[bytes, bytes]
    """A request of create_runs -> the Run object, both as JSON."""
    events: Batch[Writes, Written]
    steps: Batch[Writes, Written]
    ends: Batch[Writes, Written]
    """Arrays of Writes, by what they hold: events only, anything, ends only."""
    beats: Batch[bytes, Beat]
    """A beat as JSON -> its answer."""


@dataclass(frozen=True)
class Deps:
    """Everything a resource may use. `tenant` is the first argument of every SQL function."""

    settings: Settings
    store: Store
    hub: Hub
    claims: Claims
    batches: Batches
    webhooks: Webhooks
    drain: Drain = field(default_factory=Drain)
    tenant: int = 1

    def check_webhook(self, url: str | None) -> None:
        """Refuse an address that may plainly not be called."""
        if url is not None:
            Egress.of(self.settings).check(url)

    def tell_ended(self, ended: Iterable[Ended], status: str | None = None) -> None:
        """Runs were ended by a request: readers see it, workers stop, and the next runs of their threads start."""
        runs = list(ended)
        self.hub.changed((one["run_id"] for one in runs), status)
        for one in runs:
            if one["worker_key"] is not None and one["token"] is not None:
                self.hub.lost(one["worker_key"], one["token"])
        if runs:
            self.hub.ready()


def make_batches(store: Store, hub: Hub, tenant: int) -> Batches:
    """The batches of a process; after each commit of theirs the hub is told."""

    async def create(requests: list[bytes]) -> list[bytes]:
        runs = await store.create_runs(tenant, requests)
        hub.ready()
        return runs

    def written(send: Callable[[Sequence[bytes]], Awaitable[dict[str, Any]]]) -> Batch[Writes, Written]:
        async def run(writes: list[Writes]) -> list[Written]:
            answer = await send([one.text for one in writes])
            refused = {one["n"]: one["reason"] for one in answer["refused"]}
            reasons = map(refused.get, count())
            split = [list(islice(reasons, len(one.run_ids))) for one in writes]
            for one, its in zip(writes, split, strict=True):
                _tell_written(hub, one, its)
            if answer["ready"]:
                hub.ready()
            return split

        return Batch(run, max_size=200, lanes=2, weigh=lambda one: len(one.text))

    return Batches(
        create=Batch(create, max_size=200, lanes=2, weigh=len),
        events=written(store.append_events),
        steps=written(store.commit_steps),
        ends=written(store.complete_runs),
        beats=Batch(store.heartbeat, max_size=200),
    )


def _tell_written(hub: Hub, writes: Writes, results: Written) -> None:
    for run_id, end, refused in zip(writes.run_ids, writes.ends, results, strict=True):
        if refused is None:
            hub.changed((run_id,), end if end in TERMINAL else None)
            if end:
                log.info("run ended", extra={"run_id": run_id, "status": end})
