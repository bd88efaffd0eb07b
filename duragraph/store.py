"""The only SQL text of the control plane: one method a SQL function, same name; JSON goes through unparsed."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NotRequired, Self, TypedDict, cast
from uuid import UUID

import orjson
import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import ConnStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from duragraph.config import Settings
from duragraph.errors import DuragraphError, Invalid, Unavailable, from_sqlstate

log = logging.getLogger("duragraph.store")

Connection = psycopg.AsyncConnection[Any]
Row = tuple[Any, ...]
Parameters = Sequence[object] | Mapping[str, object]

# Nothing was done: serialization failure, deadlock, and a backend told to go, which first aborts what it is at.
_AGAIN = frozenset({"40001", "40P01", "57P01"})
_POOL_PATIENCE = 10.0


class Beat(TypedDict):
    """The answer to one beat: `known` false means that the worker must register again."""

    worker_key: int
    known: bool
    lost: list[int]
    status: str


class Ended(TypedDict):
    """A run that was ended, or is about to be, and the lease it had, if any."""

    run_id: str
    worker_key: int | None
    token: int | None


class CronTiming(TypedDict):
    """What a cron's next tick is computed from; `now` is the database's, in ISO 8601."""

    schedule: str
    timezone: str | None
    now: str


class DueCron(CronTiming):
    """A cron whose tick has come."""

    tenant_id: int
    cron_id: str
    tick: str


class FiredCron(TypedDict):
    """What became of a tick: a run, or why not."""

    cron_id: str
    run_id: NotRequired[str]
    error: NotRequired[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Writes:
    """The Writes of one request: their JSON texts with commas between, their runs, and the status each ends in."""

    text: bytes
    run_ids: list[str]
    ends: list[str | None]


Written = list[str | None]
"""One result a Write, in order: None when it is committed (or was before), else why it was refused."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What claim_runs gave: the Claims as a JSON array, how many, the marks for next time, seconds to the next due."""

    runs: bytes
    count: int
    marks: bytes
    next_due: float | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a search: the rows as a JSON array, how many match in all, and the offset of the next page, if any."""

    items: bytes
    total: int
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook to be sent: its attempt, from 1, and the body as JSON."""

    delivery_id: UUID
    attempt: int
    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class EventRow:
    """The events of one run after a cursor. `frames` is as duragraph.read_events packs them."""

    run_id: UUID
    status: str
    last_seq: int
    frames: bytes


@dataclass(frozen=True, slots=True)
class EntryRow:
    """What happened on a thread: a run that began (or ended before it could), or with a checkpoint a state update."""

    entry_id: UUID
    began_at: datetime
    status: str
    last_seq: int
    graph_id: str
    checkpoint_id: UUID | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """Where a worker's key leads."""

    worker_key: int
    protocol: int
    status: str
    lease_seconds: int
    graphs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LegacyLease:
    """What the published protocol leaves to the server to know about a run in progress."""

    token: int
    write_no: int
    started: bool
    worker_key: int
    temporary: bool
    graph_id: str
    checkpoint: dict[str, Any] | None
    kwargs: dict[str, Any]
    definition: dict[str, Any]


class Json:
    """JSON text on its way to PostgreSQL, as it came."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


class _JsonDumper(Dumper):
    """Of no type, so that PostgreSQL takes it for json or jsonb, as the function wants."""

    oid = 0

    def dump(self, obj: Json) -> Buffer:
        return obj.text


class _BytesLoader(Loader):
    """Text and JSON come as the bytes they are: most of them go straight into an answer."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


async def _configure(connection: Connection) -> None:
    connection.adapters.register_dumper(Json, _JsonDumper)
    for kind in ("text", "json", "jsonb"):
        connection.adapters.register_loader(kind, _BytesLoader)


def make_pool(settings: Settings) -> AsyncConnectionPool[Connection]:
    """A closed pool: each call is its own transaction. Without prepared statements behind a PgBouncer."""
    timeout_ms = round(settings.statement_timeout * 1000)

    async def configure(connection: Connection) -> None:
        await _configure(connection)
        # Not as a start-up option: PgBouncer refuses those.
        await connection.execute("select set_config('statement_timeout', %s, false)", (str(timeout_ms),))

    return AsyncConnectionPool(
        settings.database_url,
        connection_class=psycopg.AsyncConnection[Any],
        kwargs={
            "autocommit": True,
            "application_name": "duragraph",
            "prepare_threshold": 5 if settings.prepare else None,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "connect_timeout": 10,
        },
        configure=configure,
        min_size=settings.pool_min,
        max_size=settings.pool_max,
        timeout=_POOL_PATIENCE,
        open=False,
        name="duragraph",
    )


class Store:
    """The SQL functions as methods. A `DuragraphError` tells what went wrong; bytes are JSON as PostgreSQL wrote it."""

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self.pool = pool

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """A store with a pool of its own, not yet open."""
        return cls(make_pool(settings))

    async def open(self) -> None:
        """Open the pool; its connections are made in the background."""
        await self.pool.open()

    async def close(self) -> None:
        """Close the pool."""
        await self.pool.close(timeout=5)

    # runs

    async def create_runs(self, tenant: int, requests: Sequence[bytes]) -> list[bytes]:
        """Requests as JSON -> Run objects as JSON, in order. All or nothing."""
        rows = await self._rows(
            "select r.value::text from json_array_elements(duragraph.create_runs(%s, %s::json)) r(value)",
            (tenant, _array(requests)),
        )
        return [row[0] for row in rows]

    async def get_run(self, tenant: int, run_id: UUID, thread_id: UUID | None = None) -> bytes:
        """A Run object."""
        return await self._read("select duragraph.get_run(%s, %s, %s)::text", (tenant, run_id, thread_id))

    async def list_runs(self, tenant: int, thread_id: UUID | None, options: bytes) -> bytes:
        """An array of Run objects, newest first."""
        return await self._read("select duragraph.list_runs(%s, %s, %s)::text", (tenant, thread_id, Json(options)))

    async def delete_run(self, tenant: int, thread_id: UUID | None, run_id: UUID) -> list[Ended]:
        """Delete a run and its checkpoints; a running one is ended first and given."""
        answer = await self._object("select duragraph.delete_run(%s, %s, %s)::text", (tenant, thread_id, run_id))
        return cast("list[Ended]", answer["runs"])

    async def cancel_runs(self, tenant: int, request: bytes) -> list[Ended]:
        """What was ended at once; `NotFound` when nothing matched."""
        answer = await self._object("select duragraph.cancel_runs(%s, %s)::text", (tenant, Json(request)))
        return cast("list[Ended]", answer["runs"])

    async def thread_line(self, tenant: int, thread_id: UUID, *, updates: bool = True) -> list[Ended]:
        """The runs of a thread that have not ended, with the leases of those that run; `updates`: state changes too."""
        rows = await self._rows(
            "select x.run_id, l.worker_key, l.token from ("
            "   select shard, active_run_id as run_id from duragraph.slots"
            "     where shard = duragraph.shard_of(%(thread)s) and tenant_id = %(tenant)s and thread_id = %(thread)s"
            "   union all select shard, run_id from duragraph.waiting"
            "     where shard = duragraph.shard_of(%(thread)s) and tenant_id = %(tenant)s and thread_id = %(thread)s"
            " ) x join duragraph.runs r on r.shard = x.shard and r.run_id = x.run_id"
            " left join duragraph.leases l on l.shard = x.shard and l.run_id = x.run_id"
            " where r.kind = 'run' or %(updates)s",
            {"tenant": tenant, "thread": thread_id, "updates": updates},
            again=True,
        )
        return [Ended(run_id=str(run), worker_key=key, token=token) for run, key, token in rows]

    async def run_output(self, tenant: int, run_id: UUID) -> tuple[str, bool, bytes]:
        """(status, done, what wait and join answer)."""
        rows = await self._rows(
            "select o ->> 'status', (o ->> 'done')::boolean, coalesce((o -> 'output')::text, 'null')"
            " from duragraph.run_output(%s, %s) o",
            (tenant, run_id),
            again=True,
        )
        status, done, output = rows[0]
        return status.decode(), done, output

    async def read_events(self, cursors: Sequence[tuple[UUID, int, int]]) -> list[EventRow]:
        """Events after (run, seq), at most so many each: one row a run that is still there."""
        request = orjson.dumps([{"run_id": str(run), "after": after, "limit": limit} for run, after, limit in cursors])
        rows = await self._rows(
            "select run_id, status, last_seq, frames from duragraph.read_events(%s)", (Json(request),), again=True
        )
        return [EventRow(run, status.decode(), last_seq, frames or b"") for run, status, last_seq, frames in rows]

    # what happens on threads

    async def thread_entries(
        self, tenant: int, thread_id: UUID, start: datetime, limit: int
    ) -> tuple[datetime, list[EntryRow]]:
        """(when the thread was made, its entries from that time on, in order). `NotFound` without the thread."""
        rows = await self._rows(
            "select born_at, entry_id, began_at, status, last_seq, graph_id, checkpoint_id"
            " from duragraph.thread_entries(%s, %s, %s, %s)",
            (tenant, thread_id, start, limit),
            again=True,
        )
        return rows[0][0], [
            EntryRow(entry, began, status.decode(), seq, (graph or b"").decode(), checkpoint)
            for _, entry, began, status, seq, graph, checkpoint in rows
            if entry is not None
        ]

    async def thread_start(
        self, tenant: int, thread_id: UUID, ms: int | None = None, at: datetime | None = None
    ) -> datetime:
        """Where to begin: at the entry made in that millisecond, the last that began by `at`, or what runs now."""
        rows = await self._rows(
            "select duragraph.thread_start(%s, %s, %s, %s)", (tenant, thread_id, ms, at), again=True
        )
        return cast("datetime", rows[0][0])

    async def thread_stamps(self, tenant: int, thread_ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """A text a thread that differs when something began or ended there; none for what is not there."""
        rows = await self._rows(
            "select thread_id, stamp from duragraph.thread_stamps(%s, %s)", (tenant, list(thread_ids)), again=True
        )
        return dict(rows)

    # what workers do

    async def register_worker(self, tenant: int, request: bytes) -> bytes:
        """{"worker_key", "worker_id", "lease_seconds", "graph_ids"}."""
        return await self._one("select duragraph.register_worker(%s, %s)::text", (tenant, Json(request)))

    async def drain_worker(self, tenant: int, worker_id: str) -> bytes:
        """From now on the worker's claims give nothing."""
        return await self._one("select duragraph.drain_worker(%s, %s)::text", (tenant, worker_id))

    async def deregister_worker(self, tenant: int, worker_id: str) -> bytes:
        """The worker goes; its leases are handed back at once."""
        return await self._one("select duragraph.deregister_worker(%s, %s)::text", (tenant, worker_id))

    async def find_worker(self, tenant: int, worker_id: str) -> WorkerRow | None:
        """The key of a registered worker."""
        rows = await self._rows(
            "select worker_key, protocol, status, lease_seconds, graph_keys from duragraph.workers"
            " where tenant_id = %s and worker_id = %s",
            (tenant, worker_id),
            again=True,
        )
        if not rows:
            return None
        key, protocol, status, lease_seconds, graphs = rows[0]
        return WorkerRow(key, protocol, status.decode(), lease_seconds, tuple(sorted(graphs)))

    async def heartbeat(self, beats: Sequence[bytes]) -> list[Beat]:
        """One answer a beat, in order."""
        answers = await self._one("select duragraph.heartbeat(%s)::text", (_array(beats),))
        return cast("list[Beat]", orjson.loads(answers))

    async def claim_runs(self, worker_key: int, limit: int, marks: bytes) -> Claimed:
        """Up to `limit` runs for a worker, each with a new token."""
        rows = await self._rows(
            "select runs, given, marks::text, next_due from duragraph.lease_runs(%s, %s, %s)",
            (worker_key, limit, Json(marks)),
        )
        return Claimed(*rows[0])

    async def append_events(self, writes: Sequence[bytes]) -> dict[str, Any]:
        """{"refused": [{"n", "reason"}], "ready"} for Writes that hold only events."""
        return await self._object("select duragraph.append_events(%s)::text", (_array(writes),))

    async def commit_steps(self, writes: Sequence[bytes]) -> dict[str, Any]:
        """{"refused": [{"n", "reason"}], "ready"} for any Writes."""
        return await self._object("select duragraph.commit_steps(%s)::text", (_array(writes),))

    async def complete_runs(self, writes: Sequence[bytes]) -> dict[str, Any]:
        """{"refused": [{"n", "reason"}], "ready"} for Writes that hold only an end."""
        return await self._object("select duragraph.complete_runs(%s)::text", (_array(writes),))

    async def read_checkpoints(self, tenant: int, run_id: UUID, token: int, request: bytes) -> bytes:
        """[[saved checkpoint]], an array for each of the request's reads."""
        return await self._read(
            "select duragraph.read_checkpoints(%s, %s, %s, %s::json -> 'reads')::text",
            (tenant, run_id, token, Json(request)),
        )

    async def release_expired_leases(self, limit: int = 100) -> list[dict[str, Any]]:
        """Runs taken back from silent workers: [{"run_id", "outcome": "requeued" | "failed"}]."""
        answer = await self._one("select duragraph.release_expired_leases(%s)::text", (limit,))
        return cast("list[dict[str, Any]]", orjson.loads(answer))

    async def promote_due(self, limit: int = 1000) -> int:
        """How many delayed runs became claimable or joined their thread's line."""
        return cast("int", (await self._rows("select duragraph.promote_due(%s)", (limit,)))[0][0])

    async def maintain_partitions(self) -> int:
        """How many partitions of events were made."""
        return cast("int", (await self._rows("select duragraph.maintain_partitions()", ()))[0][0])

    async def sweep_retention(self, limit: int = 1000) -> int:
        """How many partitions and runs were dropped."""
        query: LiteralString = "select duragraph.sweep_retention(p_limit => %s)"
        return cast("int", (await self._rows(query, (limit,)))[0][0])

    # the published worker protocol, which leaves to the server what our workers say

    async def legacy_lease(self, tenant: int, run_id: UUID) -> LegacyLease | None:
        """The lease of a run in progress, with the checkpoint it stands on: before its start the thread's head."""
        rows = await self._rows(
            "select l.token, l.last_write, s.started, l.worker_key, l.temporary, g.graph_id,"
            "   duragraph.checkpoint_document(l.shard, l.tenant_id, l.thread_id,"
            "     case when s.started then l.checkpoint_id"
            "       else coalesce((r.kwargs ->> 'checkpoint_id')::uuid, t.checkpoint_id) end)::text,"
            "   r.kwargs, g.definition::text"
            " from duragraph.leases l"
            # A lease that was claimed by the other protocol counts as started before it has a checkpoint.
            " cross join lateral (select l.started and l.checkpoint_id is not null as started) s"
            " join duragraph.runs r on r.shard = l.shard and r.run_id = l.run_id"
            " join duragraph.graphs g on g.graph_key = l.graph_key"
            " left join duragraph.threads t"
            "   on not l.temporary and t.shard = l.shard and t.tenant_id = l.tenant_id and t.thread_id = l.thread_id"
            " where l.shard = duragraph.shard_of(%(run)s) and l.run_id = %(run)s and l.tenant_id = %(tenant)s",
            {"tenant": tenant, "run": run_id},
            again=True,
        )
        if not rows:
            return None
        token, write_no, started, worker_key, temporary, graph_id, *texts = rows[0]
        checkpoint, kwargs, definition = (orjson.loads(text or b"null") for text in texts)
        return LegacyLease(
            token, write_no, started, worker_key, temporary, graph_id.decode(), checkpoint, kwargs, definition
        )

    async def legacy_started(self, worker_key: int) -> list[int]:
        """The tokens of a worker's leases whose start it reported."""
        rows = await self._rows(
            "select token from duragraph.leases where worker_key = %s and started", (worker_key,), again=True
        )
        return [row[0] for row in rows]

    # assistants, threads, state

    async def create_assistant(self, tenant: int, request: bytes) -> bytes:
        """An Assistant."""
        return await self._one("select duragraph.create_assistant(%s, %s)::text", (tenant, Json(request)))

    async def get_assistant(self, tenant: int, assistant_id: UUID) -> bytes:
        """An Assistant."""
        return await self._read("select duragraph.get_assistant(%s, %s)::text", (tenant, assistant_id))

    async def update_assistant(self, tenant: int, assistant_id: UUID, request: bytes) -> bytes:
        """The Assistant with a new version."""
        return await self._one(
            "select duragraph.update_assistant(%s, %s, %s)::text",
            (tenant, assistant_id, Json(request)),
        )

    async def delete_assistant(self, tenant: int, assistant_id: UUID, delete_threads: bool = False) -> list[Ended]:
        """Delete an assistant; with `delete_threads` its threads go too, and the runs that this ended are given."""
        answer = await self._object(
            "select duragraph.delete_assistant(%s, %s, %s)::text",
            (tenant, assistant_id, delete_threads),
        )
        return cast("list[Ended]", answer["runs"])

    async def count_assistants(self, tenant: int, request: bytes) -> bytes:
        """A number."""
        return await self._read("select duragraph.count_assistants(%s, %s)::text", (tenant, Json(request)))

    async def list_assistant_versions(self, tenant: int, assistant_id: UUID, request: bytes) -> bytes:
        """An array, newest first."""
        return await self._read(
            "select duragraph.list_assistant_versions(%s, %s, %s)::text",
            (tenant, assistant_id, Json(request)),
        )

    async def set_latest_assistant(self, tenant: int, assistant_id: UUID, version: int) -> bytes:
        """The Assistant at that version."""
        return await self._one(
            "select duragraph.set_latest_assistant(%s, %s, %s)::text",
            (tenant, assistant_id, version),
        )

    async def assistant_graph(self, tenant: int, assistant: str, depth: int) -> bytes:
        """{nodes, edges}, subgraphs opened to that depth; the assistant may be a graph name."""
        return await self._read("select duragraph.assistant_graph(%s, %s, %s)::text", (tenant, assistant, depth))

    async def assistant_schemas(self, tenant: int, assistant_id: UUID) -> bytes:
        """The JSON schemas of its graph."""
        return await self._read("select duragraph.assistant_schemas(%s, %s)::text", (tenant, assistant_id))

    async def assistant_subgraphs(self, tenant: int, assistant_id: UUID, namespace: str | None, recurse: bool) -> bytes:
        """Subgraphs by namespace."""
        return await self._read(
            "select duragraph.assistant_subgraphs(%s, %s, %s, %s)::text",
            (tenant, assistant_id, namespace, recurse),
        )

    async def list_tools(self, tenant: int) -> bytes:
        """Each assistant as a tool."""
        return await self._read("select duragraph.list_tools(%s)::text", (tenant,))

    async def find_task(self, tenant: int, task_id: UUID) -> dict[str, Any]:
        """A run as a task of A2A."""
        return await self._object("select duragraph.find_task(%s, %s)::text", (tenant, task_id))

    async def create_thread(self, tenant: int, request: bytes) -> bytes:
        """A Thread."""
        return await self._one("select duragraph.create_thread(%s, %s)::text", (tenant, Json(request)))

    async def get_thread(self, tenant: int, thread_id: UUID, include: list[str]) -> bytes:
        """A Thread."""
        return await self._read("select duragraph.get_thread(%s, %s, %s)::text", (tenant, thread_id, include))

    async def update_thread(self, tenant: int, thread_id: UUID, request: bytes) -> bytes:
        """The Thread, changed."""
        return await self._one("select duragraph.update_thread(%s, %s, %s)::text", (tenant, thread_id, Json(request)))

    async def delete_thread(self, tenant: int, thread_id: UUID) -> list[Ended]:
        """Delete a thread; the runs that this ended are given."""
        answer = await self._object("select duragraph.delete_thread(%s, %s)::text", (tenant, thread_id))
        return cast("list[Ended]", answer["runs"])

    async def copy_thread(self, tenant: int, thread_id: UUID) -> bytes:
        """The new Thread."""
        return await self._one("select duragraph.copy_thread(%s, %s)::text", (tenant, thread_id))

    async def prune_threads(self, tenant: int, request: bytes) -> bytes:
        """{"pruned_count"}."""
        return await self._one("select duragraph.prune_threads(%s, %s)::text", (tenant, Json(request)))

    async def sweep_threads(self, limit: int = 100) -> int:
        """How many threads whose time was over were pruned."""
        return cast("int", (await self._rows("select duragraph.sweep_threads(%s)", (limit,)))[0][0])

    async def thread_storage(self, tenant: int, thread_id: UUID) -> bytes:
        """Bytes of its state, by kind."""
        return await self._read("select duragraph.thread_storage(%s, %s)::text", (tenant, thread_id))

    async def patch_state(self, tenant: int, thread_id: UUID, request: bytes) -> None:
        """Merge metadata into the thread's and its config's."""
        await self._rows("select duragraph.patch_state(%s, %s, %s)", (tenant, thread_id, Json(request)))

    async def count_threads(self, tenant: int, request: bytes) -> bytes:
        """A number."""
        return await self._read("select duragraph.count_threads(%s, %s)::text", (tenant, Json(request)))

    async def get_state(self, tenant: int, thread_id: UUID, request: bytes) -> bytes:
        """A ThreadState."""
        return await self._read("select duragraph.get_state(%s, %s, %s)::text", (tenant, thread_id, Json(request)))

    async def put_state(self, tenant: int, thread_id: UUID, request: bytes) -> bytes:
        """The new checkpoint."""
        return await self._one("select duragraph.put_state(%s, %s, %s)::text", (tenant, thread_id, Json(request)))

    async def begin_update(self, tenant: int, thread_id: UUID, supersteps: bytes, point: bytes) -> UUID:
        """The run that makes the change, when a worker has claimed it."""
        query: LiteralString = "select duragraph.begin_update(%s, %s, %s, %s)"
        return cast("UUID", (await self._rows(query, (tenant, thread_id, Json(supersteps), Json(point))))[0][0])

    async def get_history(self, tenant: int, thread_id: UUID, request: bytes) -> bytes:
        """ThreadStates, newest first."""
        return await self._read("select duragraph.get_history(%s, %s, %s)::text", (tenant, thread_id, Json(request)))

    async def list_workers(self, tenant: int, healthy: bool | None = None) -> bytes:
        """{workers, total}."""
        return await self._read("select duragraph.list_workers(%s, %s)::text", (tenant, healthy))

    async def get_worker(self, tenant: int, worker_id: str) -> bytes:
        """A worker."""
        return await self._read("select duragraph.get_worker(%s, %s)::text", (tenant, worker_id))

    async def get_graph(self, tenant: int, graph_id: str) -> bytes:
        """A graph as its workers registered it."""
        return await self._read("select duragraph.get_graph(%s, %s)::text", (tenant, graph_id))

    # crons

    async def now(self) -> datetime:
        """The time by the database's clock."""
        return cast("datetime", (await self._rows("select duragraph.current_time()", (), again=True))[0][0])

    async def create_cron(self, tenant: int, thread_id: UUID | None, request: bytes, timing: bytes) -> bytes:
        """A Cron. The timing is what was read out of the request: {schedule, timezone, end_time, next_run_date}."""
        return await self._one(
            "select duragraph.create_cron(%s, %s, %s, %s)::text", (tenant, thread_id, Json(request), Json(timing))
        )

    async def get_cron(self, tenant: int, cron_id: UUID) -> bytes:
        """A Cron."""
        return await self._read("select duragraph.get_cron(%s, %s)::text", (tenant, cron_id))

    async def cron_timing(self, tenant: int, cron_id: UUID) -> CronTiming:
        """What a cron's next tick is computed from."""
        answer = await self._read("select duragraph.cron_timing(%s, %s)::text", (tenant, cron_id))
        return cast("CronTiming", orjson.loads(answer))

    async def update_cron(self, tenant: int, cron_id: UUID, request: bytes, timing: bytes) -> bytes | None:
        """The changed Cron; None when the timing was computed from what is no longer the cron's."""
        rows = await self._rows(
            "select duragraph.update_cron(%s, %s, %s, %s)::text", (tenant, cron_id, Json(request), Json(timing))
        )
        return cast("bytes | None", rows[0][0])

    async def delete_cron(self, tenant: int, cron_id: UUID) -> None:
        """Delete a cron."""
        await self._rows("select duragraph.delete_cron(%s, %s)", (tenant, cron_id))

    async def count_crons(self, tenant: int, request: bytes) -> bytes:
        """A number."""
        return await self._read("select duragraph.count_crons(%s, %s)::text", (tenant, Json(request)))

    async def search_crons(self, tenant: int, request: bytes) -> Page:
        """Crons that match."""
        return await self._page("select items, total, next_offset from duragraph.search_crons(%s, %s)", tenant, request)

    async def due_crons(self, limit: int) -> list[DueCron]:
        """Crons of all tenants whose tick has come."""
        return cast("list[DueCron]", orjson.loads(await self._read("select duragraph.due_crons(%s)::text", (limit,))))

    async def fire_crons(self, ticks: bytes) -> list[FiredCron]:
        """Fire the ticks that nobody has fired yet: [{tenant_id, cron_id, tick, next_run_date}]."""
        return cast(
            "list[FiredCron]", orjson.loads(await self._one("select duragraph.fire_crons(%s)::text", (Json(ticks),)))
        )

    # webhooks

    async def claim_webhooks(self, limit: int, seconds: float) -> list[Delivery]:
        """Deliveries whose time has come, taken for so many seconds."""
        rows = await self._rows(
            "select delivery_id, attempt, url, body from duragraph.claim_webhooks(%s, %s)", (limit, seconds)
        )
        return [Delivery(delivery_id, attempt, url.decode(), body) for delivery_id, attempt, url, body in rows]

    async def settle_webhook(self, delivery_id: UUID, attempt: int, error: str | None, final: bool) -> float | None:
        """What became of an attempt; the seconds to the next one, if there is one."""
        rows = await self._rows(
            "select duragraph.settle_webhook(%s, %s::smallint, %s, %s)",
            (delivery_id, attempt, error, final),
            again=True,
        )
        return cast("float | None", rows[0][0])

    async def sweep_webhooks(self, limit: int = 1000) -> int:
        """How many settled deliveries were forgotten."""
        query: LiteralString = "select duragraph.sweep_webhooks(p_limit => %s)"
        return cast("int", (await self._rows(query, (limit,)))[0][0])

    # searches

    async def search_assistants(self, tenant: int, request: bytes) -> Page:
        """Assistants that match."""
        return await self._page(
            "select items, total, next_offset from duragraph.search_assistants(%s, %s)", tenant, request
        )

    async def search_threads(self, tenant: int, request: bytes) -> Page:
        """Threads that match."""
        return await self._page(
            "select items, total, next_offset from duragraph.search_threads(%s, %s)", tenant, request
        )

    # the key-value store

    async def put_item(self, tenant: int, op: bytes) -> None:
        """Write an item, whole, and have it indexed."""
        await self._rows(
            "select duragraph.store_batch(%s, json_build_array(%s::jsonb || jsonb_build_object('op', 'put')))",
            (tenant, Json(op)),
        )

    async def get_item(self, tenant: int, op: bytes) -> bytes:
        """An item or null."""
        return await self._read("select coalesce(duragraph.get_item(%s, %s)::text, 'null')", (tenant, Json(op)))

    async def delete_item(self, tenant: int, op: bytes) -> None:
        """Delete an item, if it is there."""
        await self._rows("select duragraph.delete_item(%s, %s)", (tenant, Json(op)))

    async def search_items(self, tenant: int, op: bytes, vector: bytes = b"null") -> bytes:
        """An array of items; with the `vector` of the query, those that fit best first."""
        return await self._read(
            "select duragraph.search_items(%s, %s::jsonb || jsonb_build_object('vector', %s::jsonb))::text",
            (tenant, Json(op), Json(vector)),
        )

    async def list_namespaces(self, tenant: int, op: bytes) -> bytes:
        """An array of namespaces."""
        return await self._read("select duragraph.list_namespaces(%s, %s)::text", (tenant, Json(op)))

    async def embed_texts(self, tenant: int, texts: bytes) -> UUID | None:
        """The run that embeds these; None where nobody would."""
        return cast(
            "UUID | None", (await self._rows("select duragraph.embed_texts(%s, %s)", (tenant, Json(texts))))[0][0]
        )

    async def run_store_batch(
        self, run_id: UUID, token: int, request: bytes, vectors: Mapping[int, bytes | None] | None = None
    ) -> bytes:
        """The results of the request's `ops`, in order; `LeaseLost` when the worker holds the run no longer.

        `vectors`: what the queries of some of them mean, by their places.
        """
        if not vectors:
            return await self._one(
                "select duragraph.run_store_batch(%s, %s, %s::json -> 'ops')::text", (run_id, token, Json(request))
            )
        meant = {str(place): orjson.Fragment(vector or b"null") for place, vector in vectors.items()}
        return await self._one(
            "select duragraph.run_store_batch(%s, %s, duragraph.with_vectors(%s::json -> 'ops', %s))::text",
            (run_id, token, Json(request), Json(orjson.dumps(meant))),
        )

    async def sweep_items(self, limit: int = 1000) -> int:
        """How many items, whose time is over, were deleted."""
        return cast("int", (await self._rows("select duragraph.sweep_items(%s)", (limit,)))[0][0])

    # what operators see

    async def metrics(self, tenant: int) -> bytes:
        """{queue, workers, graphs}: counted now."""
        return await self._read("select duragraph.metrics(%s)::text", (tenant,))

    async def schema_version(self) -> int:
        """The version of the schema that is installed."""
        rows = await self._rows("select coalesce(max(version), 0) from duragraph.migrations", (), again=True)
        return cast("int", rows[0][0])

    # plumbing

    async def _page(self, query: LiteralString, tenant: int, request: bytes) -> Page:
        rows = await self._rows(query, (tenant, Json(request)), again=True)
        return Page(*rows[0])

    async def _one(self, query: LiteralString, parameters: Parameters, *, again: bool = False) -> bytes:
        rows = await self._rows(query, parameters, again=again)
        return cast("bytes", rows[0][0])

    async def _read(self, query: LiteralString, parameters: Parameters) -> bytes:
        return await self._one(query, parameters, again=True)

    async def _object(self, query: LiteralString, parameters: Parameters) -> dict[str, Any]:
        return cast("dict[str, Any]", orjson.loads(await self._one(query, parameters)))

    async def _rows(self, query: LiteralString, parameters: Parameters, *, again: bool = False) -> list[Row]:
        """Rows of one statement, a transaction of its own. `again`: it may be repeated even if it was carried out."""
        try:
            return await self._send(query, parameters)
        except psycopg.Error as error:
            if not (error.sqlstate in _AGAIN or (again and isinstance(error, psycopg.OperationalError))):
                raise _as_ours(error) from error
        try:
            return await self._send(query, parameters)
        except psycopg.Error as error:
            raise _as_ours(error) from error

    async def _send(self, query: LiteralString, parameters: Parameters) -> list[Row]:
        connection = await self._alive()
        try:
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall()
        finally:
            await self.pool.putconn(connection)

    async def _alive(self) -> Connection:
        """A connection that has not died in the pool: what is sent on it was surely not sent before."""
        for _ in range(self.pool.max_size + 1):
            try:
                connection = await self.pool.getconn()
            except (PoolTimeout, PoolClosed) as error:
                raise Unavailable(
                    "no database connection is free", code="database_unavailable", hint="send it again"
                ) from error
            if not _died(connection):
                return connection
            await connection.close()
            await self.pool.putconn(connection)
        raise Unavailable("the database cannot be reached", code="database_unavailable", hint="send it again")


def _died(connection: Connection) -> bool:
    """Whether the server has said something to an idle connection: it only ever says goodbye."""
    if connection.pgconn.status != ConnStatus.OK:
        return True
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def _array(items: Sequence[bytes]) -> Json:
    return Json(b"[" + b",".join(items) + b"]")


def _as_ours(error: psycopg.Error) -> DuragraphError:
    if isinstance(error, psycopg.DataError) and error.sqlstate is None:
        # psycopg itself refuses a NUL or a lone surrogate in a parameter.
        return Invalid("a text holds a NUL or a lone surrogate", code="invalid_text", hint="remove it")
    diagnosis = error.diag
    ours = from_sqlstate(
        error.sqlstate or ("08006" if isinstance(error, psycopg.OperationalError) else None),
        diagnosis.message_primary or str(error),
        diagnosis.message_hint,
        diagnosis.message_detail,
    )
    if ours.status >= 500:
        log.error("database refused", extra={"sqlstate": error.sqlstate, "problem": str(error).splitlines()[0]})
    return ours


async def sleep_or(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits for the event, at most so long; true when it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


# -- for commands: one connection, no pool ----------------------------------------------------------------------------


@contextmanager
def explained(name: str = "the database") -> Iterator[None]:
    """What psycopg raises inside, as a `DuragraphError` for the owner of the server: with PostgreSQL's own words."""
    try:
        yield
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:
            # libpq's own words would repeat the DSN, and with it a password.
            raise _unreadable(name) from None
        raise _refused(error) from error
    except psycopg.OperationalError as error:
        if error.sqlstate is None or error.sqlstate[:2] in ("08", "28", "3D", "53", "57"):
            raise _unreachable(name, error) from error
        raise _refused(error) from error
    except psycopg.Error as error:
        raise _refused(error) from error


class Session:
    """One connection of a command; rows are dicts."""

    def __init__(self, dsn: str, name: str = "the database") -> None:
        self._name = name
        with explained(name):
            self._connection = psycopg.connect(
                dsn, autocommit=True, application_name="duragraph command", prepare_threshold=None, connect_timeout=10
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def rows(self, query: LiteralString, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """The rows of one statement."""
        with explained(self._name):
            return self._connection.cursor(row_factory=dict_row).execute(query, parameters or None).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The statements inside happen together or not at all."""
        with explained(self._name), self._connection.transaction():
            yield

    def listen(self, channel: str) -> None:
        """From now on `hears` is told what is said on the channel."""
        with explained(self._name):
            self._connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))

    def hears(self, words: Sequence[str], seconds: float) -> bool:
        """Whether a notification that holds one of the words came within so many seconds."""
        deadline = time.monotonic() + seconds
        with explained(self._name):
            while (left := deadline - time.monotonic()) > 0:
                for notice in self._connection.notifies(timeout=left, stop_after=1):
                    if any(word in notice.payload for word in words):
                        return True
        return False


def _unreadable(name: str) -> DuragraphError:
    hint = 'it must look like "postgresql://user:password@host:5432/database"'
    return Invalid(f"the address of {name} cannot be read", code="invalid_dsn", hint=hint)


def _unreachable(name: str, error: psycopg.Error) -> DuragraphError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].strip().removeprefix("connection failed: ")
    hint = "check that it runs, and its address and password in DATABASE_URL"
    return Unavailable(f"cannot reach {name}: {reason}", code="database_unreachable", hint=hint)


def _refused(error: psycopg.Error) -> DuragraphError:
    if (error.sqlstate or "").startswith("DG"):
        return _as_ours(error)
    said = error.diag.message_primary or str(error)
    return DuragraphError(f"PostgreSQL refused: {said}", code="database_error", hint=error.diag.message_hint)
