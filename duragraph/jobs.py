"""The periodic duties, run by procrastinate from its own schema: each tick is done once, by one of the processes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import orjson
import procrastinate
from procrastinate.schema import SchemaManager

from duragraph.config import Settings
from duragraph.errors import DuragraphError, Invalid
from duragraph.hub import Hub
from duragraph.schedules import parse
from duragraph.store import DueCron, Store
from duragraph.webhooks import Webhooks

log = logging.getLogger("duragraph.jobs")

QUEUE_SCHEMA = "procrastinate"

_LOOK_EVERY = 30.0
_LOOK_EVERY_WITHOUT_LISTEN = 4.0
_BEAT_EVERY = 60.0
_RETRY_AFTER = 30.0
_SWEEP = 1000
_SWEEPS_OF_ITEMS = 100
_CRONS = 200
SWEEP_THREADS = 100


def queue_schema_sql() -> str:
    """The statements that make the queue's tables in the first schema of the search_path. They run once."""
    return SchemaManager.get_schema()


def make_queue(settings: Settings, store: Store, hub: Hub, webhooks: Webhooks) -> procrastinate.App:
    """The queue with its duties: one SQL function each."""
    queue = procrastinate.App(
        connector=procrastinate.PsycopgConnector(
            conninfo=settings.listen_url,
            kwargs={"options": f"-c search_path={QUEUE_SCHEMA}", "application_name": "duragraph jobs"},
            configure=_commit_each,
            min_size=1,
            max_size=2,
        )
    )

    # One job for all that a minute brings: each job costs the database a dozen statements.
    @queue.periodic(cron="* * * * *")
    @queue.task(name="minute", queueing_lock="minute")
    async def each_minute(timestamp: int) -> None:
        webhooks.kick()
        for duty in (partial(fire_crons, store, hub), partial(sweep, store, hub), partial(expire, store)):
            try:
                await duty()
            except DuragraphError as problem:
                log.warning("duty failed", extra={"duty": duty.func.__name__, "problem": problem.message})

    @queue.periodic(cron="7 * * * *")
    @queue.task(name="retain", queueing_lock="retain")
    async def retain_each_hour(timestamp: int) -> None:
        await retain(store)

    return queue


async def _commit_each(connection: Any) -> None:
    """The queue's statements are each whole by themselves: a transaction around one is two more to send."""
    await connection.set_autocommit(True)


async def sweep(store: Store, hub: Hub) -> None:
    """Take back what silent workers hold, and start what is due."""
    released = await store.release_expired_leases(_SWEEP)
    promoted = await store.promote_due(_SWEEP)
    for one in released:
        log.warning("lease expired", extra={"run_id": one["run_id"], "outcome": one["outcome"]})
    hub.changed([one["run_id"] for one in released])
    if released or promoted:
        hub.ready()
    await sweep_items(store)


async def sweep_items(store: Store) -> None:
    """Delete the items of the key-value store whose time is over, in batches."""
    for _ in range(_SWEEPS_OF_ITEMS):
        if await store.sweep_items(_SWEEP) < _SWEEP:
            break


async def fire_crons(store: Store, hub: Hub) -> None:
    """Make the runs of all crons that are due, a batch at a time. Any number of processes may do it at once."""
    while due := await store.due_crons(_CRONS):
        ticks = await asyncio.to_thread(_advanced, due)
        fired = await store.fire_crons(orjson.dumps(ticks))
        for one in fired:
            if "error" in one:
                log.warning("cron refused", extra={"cron_id": one["cron_id"], "problem": one["error"]["message"]})
            else:
                log.info("cron fired", extra={"cron_id": one["cron_id"], "run_id": one["run_id"]})
        if fired:
            hub.ready()
        if not fired or len(due) < _CRONS:
            return  # what is left is being fired by somebody else


def _advanced(due: list[DueCron]) -> list[dict[str, Any]]:
    """The due ticks with those that follow them: the first after now, however many were missed."""
    following: dict[tuple[str, str | None], str | None] = {}
    ticks = []
    for one in due:
        schedule = one["schedule"], one["timezone"]
        if schedule not in following:
            following[schedule] = _next_tick(*schedule, datetime.fromisoformat(one["now"]))
        ticks.append({**one, "next_run_date": following[schedule]})
    return ticks


def _next_tick(schedule: str, timezone: str | None, now: datetime) -> str | None:
    try:
        return parse(schedule, timezone).next_after(now).isoformat()
    except Invalid as problem:
        # It was checked when it came; a zone may have gone from the database of zones since.
        log.warning("cron over", extra={"schedule": schedule, "timezone": timezone, "problem": problem.message})
        return None


async def expire(store: Store) -> None:
    """Prune the threads whose time to live is over, some at a time, until none is left but the busy ones."""
    while swept := await store.sweep_threads(SWEEP_THREADS):
        log.info("threads expired", extra={"threads": swept})


async def retain(store: Store) -> None:
    """Make partitions before they are needed and drop what is past its time."""
    await store.maintain_partitions()
    dropped = _SWEEP
    while dropped >= _SWEEP:
        dropped = await store.sweep_retention(_SWEEP)
        if dropped:
            log.info("retention swept", extra={"dropped": dropped})
    while await store.sweep_webhooks(_SWEEP) == _SWEEP:
        pass


async def run(settings: Settings, store: Store, hub: Hub, webhooks: Webhooks) -> None:
    """Do the duties until cancelled. Where the queue cannot be reached (it needs a direct connection), go without."""
    while True:
        try:
            await retain(store)
            # A tick is to be fired within seconds: woken by a notification, or, where these do not come, by looking.
            look_every = _LOOK_EVERY if hub.listening else _LOOK_EVERY_WITHOUT_LISTEN
            await _work(make_queue(settings, store, hub, webhooks), look_every)
        except (procrastinate.exceptions.ProcrastinateException, DuragraphError, OSError) as problem:
            log.warning("job queue lost, trying again", extra={"problem": str(problem) or repr(problem)})
        with suppress(DuragraphError):
            # Several processes may do this at once: the functions lock what they take.
            await sweep(store, hub)
            await fire_crons(store, hub)
        webhooks.kick()
        await asyncio.sleep(_RETRY_AFTER)


async def _work(queue: procrastinate.App, look_every: float) -> None:
    async with queue.open_async():
        await queue.run_worker_async(
            concurrency=4,
            install_signal_handlers=False,
            listen_notify=True,
            fetch_job_polling_interval=look_every,
            abort_job_polling_interval=_BEAT_EVERY,
            update_heartbeat_interval=_BEAT_EVERY,
            stalled_worker_timeout=3 * _BEAT_EVERY,
            shutdown_graceful_timeout=2.0,
            delete_jobs="always",
        )
