"""What a person at a terminal asks: the SQL of `duragraph runs`, `top` and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, Self, cast
from uuid import UUID

import orjson

from duragraph.errors import NotFound
from duragraph.store import EventRow, Parameters, Session

Row = dict[str, Any]

_COLUMNS: LiteralString = (
    "select o.run_id, o.status, o.graph_id, o.thread_id, o.worker_id, o.attempt, o.max_attempts, o.age, o.lease_age,"
    " o.took, o.last_step, o.reason, o.created_at, o.ended_at, o.kind"
)
_QUEUED: LiteralString = (
    " and o.run_id in (select a.run_id from duragraph.active_runs a where a.tenant_id = %(tenant)s)"
)


@dataclass(frozen=True, slots=True)
class Ordered:
    """What an order to one run came to: whether it was carried out, the run's status since, and that in a sentence."""

    run_id: UUID
    done: bool
    status: str | None
    message: str


class Desk:
    """One connection to a migrated database, one tenant. Use as a context; spans of time are timedeltas."""

    def __init__(self, dsn: str, tenant: int = 1) -> None:
        self._tenant = tenant
        self._session = Session(dsn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    # runs

    def list_runs(self, *, status: str | None, graph_id: str | None, thread_id: UUID | None, limit: int) -> list[Row]:
        """Rows of run_overview, newest first."""
        # What is pending or running is found in the queue, however long the history is.
        queued: LiteralString = _QUEUED if status in ("pending", "running") else ""
        return self._session.rows(
            _COLUMNS + " from duragraph.run_overview o where o.tenant_id = %(tenant)s and o.kind = 'run'"
            " and (%(status)s::text is null or o.status = %(status)s)"
            " and (%(graph)s::text is null or o.graph_id = %(graph)s)"
            " and (%(thread)s::uuid is null or o.thread_id = %(thread)s)" + queued + " order by o.run_id desc"
            " limit %(limit)s",
            {"tenant": self._tenant, "status": status, "graph": graph_id, "thread": thread_id, "limit": limit},
        )

    def find_run(self, run_id: UUID) -> Row:
        """A row of run_overview, and `why`: in a sentence, why the run does what it does. Raises `NotFound`."""
        rows = self._session.rows(
            _COLUMNS + ", duragraph.why_not_running(o.run_id) as why from duragraph.run_overview o"
            " where o.shard = duragraph.shard_of(%(run)s) and o.tenant_id = %(tenant)s and o.run_id = %(run)s",
            {"tenant": self._tenant, "run": run_id},
        )
        if not rows:
            raise no_such_run(run_id)
        return rows[0]

    def run_ledger(self, run_id: UUID) -> list[Row]:
        """What a run completed, in order."""
        return self._session.rows(
            "select n, what, kind, step_key, started_at, took, worker_id, attempt, details from duragraph.run_ledger"
            " where tenant_id = %s and run_id = %s and shard = duragraph.shard_of(%s) order by n",
            (self._tenant, run_id, run_id),
        )

    def run_output(self, run_id: UUID) -> Row:
        """{"status", "done", "output"}: the output is what wait and join answer."""
        rows = self._session.rows("select duragraph.run_output(%s, %s) as answer", (self._tenant, run_id))
        return cast("Row", rows[0]["answer"])

    def read_events(self, run_id: UUID, after: int, limit: int = 500) -> EventRow:
        """The events of a run after `after`. Raises `NotFound`."""
        cursor = orjson.dumps([{"run_id": str(run_id), "after": after, "limit": limit}]).decode()
        rows = self._session.rows(
            "select e.run_id, e.status, e.last_seq, e.frames from duragraph.read_events(%s::json) e", (cursor,)
        )
        if not rows:
            raise no_such_run(run_id)
        row = rows[0]
        return EventRow(row["run_id"], row["status"], row["last_seq"], (row["frames"] or "").encode())

    def cancel_run(self, run_id: UUID, reason: str) -> Ordered:
        """End a run now."""
        live = frozenset({"pending", "running"})
        return self._order("select duragraph.cancel_run(%s, %s) as said", (run_id, reason), run_id, live)

    def retry_run(self, run_id: UUID) -> Ordered:
        """Queue a failed or cancelled run again."""
        failed = frozenset({"error", "timeout", "interrupted"})
        return self._order("select duragraph.retry_run(%s) as said", (run_id,), run_id, failed)

    def _order(self, query: LiteralString, parameters: Parameters, run_id: UUID, can: frozenset[str]) -> Ordered:
        with self._session.transaction():
            before = self._status(run_id)
            said = self._session.rows(query, parameters)[0]["said"]
            after = self._status(run_id)
        return Ordered(run_id, before in can and after != before, after, said)

    def _status(self, run_id: UUID) -> str | None:
        rows = self._session.rows("select duragraph.run_status(duragraph.shard_of(%s), %s) as status", (run_id, run_id))
        return cast("str | None", rows[0]["status"])

    # the queue

    def queue_depth(self) -> list[Row]:
        """One row a graph."""
        return self._session.rows(
            "select graph_id, ready, waiting, scheduled, running, oldest_age, workers_alive, capacity"
            " from duragraph.queue_depth where tenant_id = %s order by graph_id",
            (self._tenant,),
        )

    def worker_health(self) -> list[Row]:
        """One row a worker that has not stopped."""
        return self._session.rows(
            "select worker_id, status, graphs, running, capacity, oldest_lease, last_beat, build_id, protocol"
            " from duragraph.worker_health where tenant_id = %s and status <> 'stopped' order by worker_id",
            (self._tenant,),
        )


class Examination:
    """What the doctor asks of a server, migrated or not. Use as a context."""

    def __init__(self, dsn: str) -> None:
        self._session = Session(dsn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def condition(self) -> Row:
        """How the server is set, and who is connected."""
        return self._session.rows(_CONDITION)[0]

    def snapshots(self, older_than: float) -> list[Row]:
        """What has kept vacuum from removing rows for so many seconds: {"holder", "age", "remedy"}."""
        return self._session.rows(_SNAPSHOTS, {"seconds": older_than})

    def partitions(self) -> Row:
        """{"past": how many should have been dropped, "this_week", "next_week": there or not, "strays": any}."""
        return self._session.rows(_PARTITIONS)[0]

    def clock(self) -> datetime:
        """The database's time."""
        return cast("datetime", self._session.rows("select clock_timestamp() as now")[0]["now"])

    def notify(self, channel: str, payload: str) -> None:
        """Tell whoever listens."""
        self._session.rows("select pg_notify(%s, %s)", (channel, payload))


def no_such_run(run_id: UUID) -> NotFound:
    """What is said of an unknown run."""
    return NotFound(f"there is no run {run_id}", code="run_not_found", hint='see "duragraph runs list"')


_CONDITION: LiteralString = """
select current_setting('server_version') as version, current_setting('server_version_num')::integer as version_number,
  pg_is_in_recovery() as standby, pg_encoding_to_char(d.encoding) as encoding,
  current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,
  current_setting('synchronous_commit') as synchronous_commit,
  current_setting('autovacuum') as autovacuum, current_setting('track_counts') as track_counts,
  current_setting('max_connections')::integer as max_connections,
  current_setting('superuser_reserved_connections')::integer
    + coalesce(current_setting('reserved_connections', true)::integer, 0) as reserved,
  (select count(*) from pg_stat_activity a
    where a.datid is not null and a.application_name not like 'duragraph%') as others,
  (select count(*) from pg_stat_activity a
    where a.datname = current_database() and a.application_name = 'duragraph hub'
      and a.query ilike 'listen%') as processes,
  pg_has_role(current_user, 'pg_read_all_stats', 'member') as sees_all
from pg_database d
where d.datname = current_database()
"""
_SNAPSHOTS: LiteralString = """
select
  format('session %%s (%%s, %%s)', a.pid, coalesce(nullif(a.application_name, ''), a.usename::text), a.state) as holder,
  clock_timestamp() - a.xact_start as age, format('select pg_terminate_backend(%%s)', a.pid) as remedy
from pg_stat_activity a
where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
  and (a.backend_xmin is not null or a.backend_xid is not null)
  and a.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
union all
select format('prepared transaction %%L', p.gid), clock_timestamp() - p.prepared, format('rollback prepared %%L', p.gid)
from pg_prepared_xacts p
where p.database = current_database() and p.prepared < clock_timestamp() - make_interval(secs => %(seconds)s)
union all
select format('unused replication slot %%L', s.slot_name), null,
  format('select pg_drop_replication_slot(%%L)', s.slot_name)
from pg_replication_slots s
where not s.active and (s.xmin is not null or s.catalog_xmin is not null)
order by age desc nulls last
"""
_PARTITIONS: LiteralString = """
select
  count(*) filter (where to_date(substr(c.relname, 8), 'IYYY"w"IW') + 7 < t.now::date - 32) as past,
  coalesce(bool_or(c.relname = 'events_' || to_char(t.now, 'IYYY"w"IW')), false) as this_week,
  coalesce(bool_or(c.relname = 'events_' || to_char(t.now + interval '1 week', 'IYYY"w"IW')), false) as next_week,
  exists (select from duragraph.events_default) as strays
from (select now() at time zone 'utc') t(now)
cross join pg_inherits i
join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'duragraph.events'::regclass and c.relname ~ '^events_[0-9]{4}w[0-9]{2}$'
"""
