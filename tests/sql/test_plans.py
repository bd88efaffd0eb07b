"""What a call reads is bounded by its own rows, however full the tables have become since its plans were made.

Plans are made when everything is empty, the worst time there is; then the tables fill. Nothing here looks at a clock:
what is counted are the pages that a call touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.sql.acts import weaken
from tests.sql.scene import Scene, question, step

FULL = 50_000
ROWS = 200

FILL = f"""
with made as (
  select duragraph.make_id(n::smallint) as run_id, n from (select i % 4096 as n from generate_series(1, {FULL}) i) i),
r as (
  insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, temporary, ord, kwargs,
      metadata)
    select m.n, m.run_id, 1, duragraph.make_id(m.n::smallint), g.assistant_id, g.graph_key, true, duragraph.queue_ord(),
      '{{"input": null, "config": {{}}}}', '{{"graph_id": "counter"}}'
    from made m, duragraph.graphs g
  returning shard, run_id, graph_key, ord)
insert into duragraph.ready (graph_key, ord, shard, run_id, tenant_id) select graph_key, ord, shard, run_id, 1 from r;
with made as (
  select duragraph.make_id(n::smallint) as run_id, n from (select i % 4096 as n from generate_series(1, {FULL}) i) i),
t as (
  insert into duragraph.threads (shard, tenant_id, thread_id) select n, 1, run_id from made),
b as (
  insert into duragraph.slots (shard, tenant_id, thread_id, active_run_id, waiting)
    select n, 1, run_id, run_id, 1 from made),
w as (
  insert into duragraph.waiting (shard, tenant_id, thread_id, ord, run_id, graph_key)
    select n, 1, run_id, 1, run_id, 0 from made),
s as (
  insert into duragraph.scheduled (shard, run_id, tenant_id, thread_id, graph_key, ord, holds_slot, due_at)
    select n, run_id, 1, run_id, 0, 1, true, now() + interval '1 year' from made),
l as (
  insert into duragraph.leases (shard, run_id, token, worker_key, tenant_id, graph_key, thread_id, temporary, attempt,
      expires_at)
    select n, run_id, 0, 0, 1, 0, run_id, true, 1, 'infinity' from made),
e as (
  insert into duragraph.events (shard, run_id, seq, tenant_id, event, data)
    select n, run_id, 1, 1, 'custom', '{{}}' from made),
c as (
  insert into duragraph.checkpoints (shard, tenant_id, thread_id, checkpoint_id, step, source, channels)
    select n, 1, run_id, run_id, 1, 'loop', '{{}}' from made),
v as (
  insert into duragraph.channel_values (shard, tenant_id, thread_id, channel, checkpoint_id, value)
    select n, 1, run_id, 'log', run_id, '[]' from made)
insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, status, temporary, kwargs,
    ended_at)
  select n, run_id, 1, run_id, run_id, 0, 'success', false, '{{}}', now() from made;
"""


class Engine:
    """One session whose plans were made on empty tables."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.scene = Scene(connection)
        self.cursor = psycopg.ClientCursor(connection)
        self.key = self.scene.worker(lease_seconds=3600)  # however slow the machine is, nothing expires meanwhile
        self.number = 0
        self.threads: list[str] = []
        self.claims: list[dict[str, Any]] = []

    def pages(self, function: str, *arguments: object) -> int:
        """Shared pages that a call touches."""
        sent = [json.dumps(a) if isinstance(a, list | dict) else a for a in arguments]
        places = ", ".join(["%s"] * len(sent))
        query = f"explain (analyze, buffers, format json) select duragraph.{function}({places})"
        [(plan,)] = self.cursor.execute(query, sent).fetchall()
        top = plan[0]["Plan"]
        found: int = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
        return found

    # Each call gives the pages that it touched.

    def create(self, rows: int) -> int:
        body = {"assistant_id": "counter", "input": {"n": 1}, "priority": 5}
        return self.pages("create_runs", 1, [{"brief": True, "body": body}] * rows)

    def create_on_threads(self, rows: int) -> int:
        ids = [
            str(i) for (i,) in self.cursor.execute("select duragraph.make_id() from generate_series(1, %s)", (rows,))
        ]
        self.threads += ids
        return self.enqueue(ids, if_not_exists="create")

    def create_behind_others(self, rows: int) -> int:
        return self.enqueue(self.threads[-rows:])

    def interrupt(self, rows: int) -> int:
        self.enqueue(self.threads[-rows:])
        self.enqueue(self.threads[-rows:])
        return self.enqueue(self.threads[-rows:], multitask_strategy="interrupt")

    def cancel(self, rows: int) -> int:
        runs = "select active_run_id::text from duragraph.slots where thread_id = any(%s::uuid[])"
        active = [run for (run,) in self.cursor.execute(runs, (self.threads[-rows:],))]
        assert len(active) == rows
        return self.pages("cancel_runs", 1, {"run_ids": active})

    def enqueue(self, threads: list[str], **more: str) -> int:
        body = {"assistant_id": "counter", "input": {"n": 1}, "priority": 5, **more}
        return self.pages("create_runs", 1, [{"thread_id": thread, "brief": True, "body": body} for thread in threads])

    def claim(self, rows: int, marks: dict[str, Any] | None = None) -> int:
        found = self.pages("claim_runs", self.key, rows, marks or {})
        held = "select run_id::text, token from duragraph.leases where worker_key = %s order by token"
        held_now = [{"run_id": run, "token": token} for run, token in self.cursor.execute(held, (self.key,))]
        new = held_now[len(self.claims) :]
        assert len(new) == rows
        self.claims = held_now
        return found

    def append(self, rows: int) -> int:
        return self.pages("append_events", self.writes(rows))

    def commit(self, rows: int) -> int:
        writes = self.writes(rows)
        made = [
            str(i) for (i,) in self.cursor.execute("select duragraph.make_id() from generate_series(1, %s)", (rows,))
        ]
        for write, claim, checkpoint in zip(writes, self.claims, made, strict=False):
            row = {"checkpoint_id": checkpoint, "parent_checkpoint_id": claim.get("head"), "step": 1, "source": "loop"}
            write["checkpoint_id"] = checkpoint
            write["checkpoints"] = [
                {**row, "channels": {"log": {"append": [1]}, "count": {"set": 1}}, "next": ["node"]}
            ]
            write["steps"] = [step(checkpoint, "node", 1)]
            write["interrupts"] = [question(checkpoint, "node", "sure?")]
            claim["head"] = checkpoint
        return self.pages("commit_steps", writes)

    def complete(self, rows: int) -> int:
        ends = [{**claim, "end": {"status": "success"}} for claim in self.claims[:rows]]
        found = self.pages("complete_runs", ends)
        left = self.scene.value("select count(*) from duragraph.leases where worker_key = %s", self.key)
        assert left == len(self.claims) - rows
        self.claims = self.claims[rows:]
        return found

    def retry(self, rows: int) -> int:
        ends = [{**claim, "end": {"status": "retry", "retry_after": 0}} for claim in self.claims[:rows]]
        found = self.pages("complete_runs", ends)
        self.claims = self.claims[rows:]
        return found

    def writes(self, rows: int) -> list[dict[str, Any]]:
        self.number += 1
        events = [{"event": "custom", "data": {}}, {"event": "custom", "data": {}}]
        known = ({"run_id": claim["run_id"], "token": claim["token"]} for claim in self.claims[:rows])
        return [{**one, "write_no": self.number, "events": events} for one in known]

    def heartbeat(self, rows: int) -> int:
        return self.pages("heartbeat", [{"worker_key": self.key, "held": [c["token"] for c in self.claims]}])

    def release(self, rows: int) -> int:
        return self.pages("release_expired_leases", rows)

    def promote(self, rows: int) -> int:
        return self.pages("promote_due", rows)

    def read(self, rows: int) -> int:
        cursors = [{"run_id": claim["run_id"], "after": 0} for claim in self.claims[:rows]]
        return self.explained("select * from duragraph.read_events(%s)", json.dumps(cursors))

    def stamps(self, rows: int) -> int:
        return self.explained("select * from duragraph.thread_stamps(1, %s::uuid[])", self.threads[-rows:])

    def entries(self, rows: int) -> int:
        each = "select e.* from unnest(%s::uuid[]) t, lateral duragraph.thread_entries(1, t) e"
        return self.explained(each, self.threads[-rows:])

    def explained(self, query: str, *parameters: object) -> int:
        [(plan,)] = self.cursor.execute(f"explain (analyze, buffers, format json) {query}", parameters).fetchall()
        found: int = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
        return found

    def all(self, rows: int) -> dict[str, float]:
        """Pages a row of each call, over the life of `rows` runs on as many threads."""
        calls: list[tuple[str, Callable[[int], int]]] = [
            ("create", self.create),
            ("claim stateless", self.claim),
            ("complete stateless", self.complete),
            ("create on threads", self.create_on_threads),
            ("create behind others", self.create_behind_others),
            ("claim", self.claim),
            ("append", self.append),
            ("first commit", self.commit),
            ("commit", self.commit),
            ("read", self.read),
            ("stamps", self.stamps),
            ("entries", self.entries),
            ("heartbeat", self.heartbeat),
            ("release", self.release),
            ("retry", self.retry),
            ("promote", self.promote),
            ("claim again", self.claim),
            ("complete", self.complete),
            ("claim the next", self.claim),
            ("complete the last", self.complete),
            ("interrupt", self.interrupt),
            ("cancel", self.cancel),
        ]
        return {name: call(rows) / rows for name, call in calls}


# Pages a row. What a row costs with its indexes, checkpoint, events, thread and slot; no more when tables are full.
BOUNDS = {
    "create": 30,
    "claim stateless": 30,
    "complete stateless": 35,
    "create on threads": 80,
    "create behind others": 70,
    "claim": 40,
    "append": 25,
    "first commit": 60,
    "commit": 70,
    "read": 30,
    "stamps": 15,
    "entries": 30,
    "heartbeat": 10,
    "release": 1,
    "retry": 60,
    "promote": 50,
    "claim again": 100,
    "complete": 150,
    "claim the next": 100,
    "complete the last": 90,
    "interrupt": 400,
    "cancel": 250,
}


@pytest.fixture
def connection(fresh_db: str) -> Iterator[psycopg.Connection[Any]]:
    """To a database that is empty, was analyzed so, and is not analyzed again."""
    with psycopg.connect(fresh_db, autocommit=True) as connection:
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relnamespace = 'duragraph'::regnamespace and relkind = 'r'"
        )
        for (table,) in tables.fetchall():
            connection.execute(f"alter table {table} set (autovacuum_enabled = off)")
        connection.execute("vacuum analyze")
        yield connection


def filled(connection: psycopg.Connection[Any], dsn: str) -> Engine:
    """A session with plans for empty tables, which somebody else then fills."""
    engine = Engine(connection)
    for _ in range(6):
        engine.all(3)
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(FILL)
    return engine


def over(measured: dict[str, float]) -> dict[str, float]:
    return {name: pages for name, pages in measured.items() if pages > BOUNDS[name]}


def test_a_call_reads_what_its_rows_need_however_full_the_tables_are(
    connection: psycopg.Connection[Any], fresh_db: str
) -> None:
    engine = filled(connection, fresh_db)
    assert over(engine.all(ROWS)) == {}
    assert over(engine.all(20)) == {}


# What holds the plans: without one of these the same test fails.
TWINS = [
    ("drop index duragraph.threads_by_update; create index on duragraph.threads (tenant_id, updated_at)", ()),
    ("", ("enter_threads", "t.tenant_id = u.tenant_id", "t.tenant_id = p_tenant")),
]


@pytest.mark.parametrize(("statements", "guard"), TWINS, ids=["index", "enter_threads"])
def test_without_what_holds_the_plans_calls_read_whole_tables(
    connection: psycopg.Connection[Any], fresh_db: str, statements: str, guard: tuple[str, str, str] | tuple[()]
) -> None:
    if statements:
        connection.execute(statements)
    if guard:
        weaken(connection, *guard)
    assert over(filled(connection, fresh_db).all(20)) != {}


def test_claims_do_not_walk_over_the_dead(connection: psycopg.Connection[Any], fresh_db: str) -> None:
    """Claimed rows stay in the index while anybody holds an old snapshot: the marks lead past them."""
    engine = filled(connection, fresh_db)
    scene = engine.scene
    with psycopg.connect(fresh_db) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("select count(*) from duragraph.ready")
        marks: dict[str, Any] = {}
        scene.wait(0)  # so long no time passes, nobody looks from the start
        for limit in [2000] * 20 + [20]:
            marks = scene.bare("claim_runs", engine.key, limit, marks)["marks"]
        with_marks = engine.pages("claim_runs", engine.key, 20, marks)
        without = engine.pages("claim_runs", engine.key, 20, {})
    assert with_marks / 20 < 40
    assert without > 2 * with_marks


@pytest.mark.parametrize("function", ["resolve_runs", "new_config", "new_kwargs", "current_time", "shard_of"])
def test_requests_are_resolved_within_the_statement_that_asks(
    connection: psycopg.Connection[Any], function: str
) -> None:
    """A function that is called, and not made part of the plan, is planned and set up anew for each run."""
    lines = connection.execute("explain (verbose) select * from duragraph.resolve_runs(1, '[]')").fetchall()
    plan = "\n".join(line for (line,) in lines)
    assert "json_to_recordset" in plan
    assert f"{function}(" not in plan


@pytest.mark.parametrize(("fillfactor", "spared"), [(None, True), (100, False)], ids=["ours", "without room"])
def test_the_end_of_a_run_is_written_beside_its_beginning(
    connection: psycopg.Connection[Any], fillfactor: int | None, spared: bool
) -> None:
    """The page has room for it, so that no index is touched: a HOT update."""
    if fillfactor:
        connection.execute(f"alter table duragraph.runs set (fillfactor = {fillfactor})")
    engine = Engine(connection)
    for call in (engine.create, engine.claim, engine.complete):
        call(ROWS)
    connection.execute("select pg_stat_force_next_flush()")
    counts = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = 'duragraph.runs'::regclass"
    [(updated, hot)] = connection.execute(counts).fetchall()
    assert updated == ROWS
    assert (hot == ROWS) is spared
