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
from tests.sql.scene import Scene, step

FULL = 50_000
ROWS = 200

FILL = f"""
with made as (
  select duragraph.make_id(n::smallint) as run_id, n from (select i % 4096 as n from generate_series(1, {FULL}) i) i),
r as (
  insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, temporary, ord, kwargs, metadata)
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
  insert into duragraph.slots (shard, tenant_id, thread_id, active_run_id, waiting) select n, 1, run_id, run_id, 1 from made),
w as (
  insert into duragraph.waiting (shard, tenant_id, thread_id, ord, run_id, graph_key)
    select n, 1, run_id, 1, run_id, 0 from made),
s as (
  insert into duragraph.scheduled (shard, run_id, tenant_id, thread_id, graph_key, ord, holds_slot, due_at)
    select n, run_id, 1, run_id, 0, 1, true, 'infinity' from made),
l as (
  insert into duragraph.leases (shard, run_id, token, worker_key, tenant_id, graph_key, thread_id, temporary, attempt, expires_at)
    select n, run_id, 0, 0, 1, 0, run_id, true, 1, 'infinity' from made),
e as (
  insert into duragraph.events (shard, run_id, seq, tenant_id, event, data) select n, run_id, 1, 1, 'custom', '{{}}' from made),
c as (
  insert into duragraph.checkpoints (shard, tenant_id, thread_id, checkpoint_id, step, source, channels)
    select n, 1, run_id, run_id, 1, 'loop', '{{}}' from made),
v as (
  insert into duragraph.channel_values (shard, tenant_id, thread_id, channel, checkpoint_id, value)
    select n, 1, run_id, 'log', run_id, '[]' from made)
insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, status, temporary, kwargs, ended_at)
  select n, run_id, 1, run_id, run_id, 0, 'success', false, '{{}}', now() from made;
"""


class Engine:
    """One session whose plans were made on empty tables."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.scene = Scene(connection)
        self.key = self.scene.worker()
        self.numbers = 0

    def pages(self, call: Callable[[], object]) -> int:
        """Shared pages that a call hits or reads."""
        count = (
            "select pg_stat_force_next_flush(), pg_stat_clear_snapshot(), "
            "(select blks_hit + blks_read from pg_stat_database where datname = current_database())"
        )
        connection = self.scene.connection
        before = connection.execute(count).fetchone()
        before = connection.execute(count).fetchone()
        call()
        connection.execute(count)
        after = connection.execute(count).fetchone()
        assert before is not None
        assert after is not None
        pages: int = after[2] - before[2]
        return pages

    def create(self, rows: int, *threads: str) -> None:
        ids = list(threads) or [None] * rows
        requests = [{"thread_id": t, "brief": True, "body": {"assistant_id": "counter", "input": {"n": 1}}} for t in ids]
        assert len(self.scene.call("create_runs", requests)) == rows

    def claim(self, rows: int) -> list[dict[str, Any]]:
        claims = self.scene.claim(self.key, rows)
        assert len(claims) == rows
        return claims

    def writes(self, claims: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
        self.numbers += 1
        return [
            {"run_id": c["run_id"], "token": c["token"], "write_no": self.numbers, "events": [{"event": "custom"}], **more}
            for c in claims
        ]

    def append(self, claims: list[dict[str, Any]]) -> None:
        assert self.scene.bare("append_events", self.writes(claims))["refused"] == []

    def commit(self, claims: list[dict[str, Any]]) -> None:
        writes = self.writes(claims)
        for write, claim in zip(writes, claims, strict=True):
            made = str(self.scene.bare("make_id"))
            write["checkpoint_id"] = made
            row = {"checkpoint_id": made, "parent_checkpoint_id": claim.get("head"), "step": 1, "source": "loop"}
            write["checkpoints"] = [{**row, "channels": {"log": {"append": [1]}, "count": {"set": 1}}}]
            write["steps"] = [step(made, "node", 1)]
            claim["head"] = made
        self.scene.bare("write_nothing")
        assert self.scene.bare("commit_steps", writes)["refused"] == []

    def complete(self, claims: list[dict[str, Any]]) -> None:
        ends = [{"run_id": c["run_id"], "token": c["token"], "end": {"status": "success"}} for c in claims]
        assert self.scene.bare("complete_runs", ends)["refused"] == []
