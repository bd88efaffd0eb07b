"""What is deleted is gone from every table: which there are is asked of the database, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.sql.scene import Scene, question, task_id

OF_A_THREAD = """
select distinct c.table_name
from information_schema.columns c
join pg_class p on p.relnamespace = 'duragraph'::regnamespace and p.relname = c.table_name
where c.table_schema = 'duragraph' and p.relkind in ('r', 'p') and not p.relispartition
  and c.column_name in ('thread_id', 'run_id')
"""
EVERY_TABLE = """
select p.relname as table_name from pg_class p
where p.relnamespace = 'duragraph'::regnamespace and p.relkind in ('r', 'p') and not p.relispartition
"""


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def mentions(scene: Scene, table: str, ids: Iterable[str]) -> int:
    """In how many rows of a table one of the ids stands, in whatever column."""
    query = sql.SQL("select count(*) from duragraph.{} x where x::text ~ any(%s)").format(sql.Identifier(table))
    row = scene.connection.execute(query, (list(ids),)).fetchone()
    assert row is not None
    return int(row[0])


def tables(scene: Scene, query: str) -> list[str]:
    return sorted(row["table_name"] for row in scene.rows(query))


def everywhere(scene: Scene, ids: Iterable[str]) -> dict[str, int]:
    """The tables in which one of the ids stands."""
    found = {table: mentions(scene, table, ids) for table in tables(scene, EVERY_TABLE)}
    return {table: count for table, count in found.items() if count}


def deliver(scene: Scene) -> None:
    [delivery] = scene.rows("select * from duragraph.claim_webhooks()")
    scene.bare("settle_webhook", delivery["delivery_id"], delivery["attempt"])


def keyed(scene: Scene, thread: str | None) -> str:
    body = {"assistant_id": "counter", "webhook": "https://example.com/told"}
    run: str = scene.call("create_runs", [{"thread_id": thread, "idempotency_key": "k", "body": body}])[0]["run_id"]
    return run


def ask(scene: Scene, claim: dict[str, Any]) -> str:
    """One superstep with something in every table of state; its checkpoint."""
    at = scene.superstep(claim, None, 0, {"target": {"set": 1}}, "ask", events=[{"event": "custom", "data": 1}])
    task = task_id(at, "ask")
    write = {"checkpoint_id": at, "checkpoint_ns": "", "task_id": task, "task_path": "", "idx": 0}
    scene.commit(
        claim,
        interrupts=[question(at, "ask", "?")],
        writes=[{**write, "channel": "target", "saved": {"v": 1}}],
        steps=[{"checkpoint_id": at, "task_id": task, "key": "0", "kind": "tool", "name": "t", "duration_ms": 1}],
    )
    return at


def told(scene: Scene, thread: str | None) -> dict[str, Any]:
    """The claim of a run that has ended, with a key and a webhook that heard of it."""
    key = scene.worker()
    keyed(scene, thread)
    [claim] = scene.claim(key)
    ask(scene, claim)
    scene.commit(claim, end={"status": "success"})
    deliver(scene)
    return claim


def full(scene: Scene) -> tuple[str, list[str]]:
    """A thread that stands in every table which can know it, with runs at every place; its runs."""
    key, thread = scene.worker(), scene.thread()
    ended = told(scene, thread)["run_id"]
    scene.call("put_state", thread, {"values": {"target": 2}, "as_node": "prepare"})
    timing = {"schedule": "* * * * *", "next_run_date": scene.now.isoformat()}
    cron = scene.call("create_cron", thread, {"assistant_id": "counter", "schedule": "* * * * *"}, timing)
    tick = {"tenant_id": 1, "cron_id": cron["cron_id"], "tick": timing["next_run_date"], "next_run_date": None}
    fired = scene.bare("fire_crons", [tick])[0]["run_id"]
    waits = scene.run(thread, webhook="https://example.com/owed")
    [running] = scene.claim(key)
    assert running["run_id"] == fired
    more = [scene.run(thread), scene.run(thread, after_seconds=60)]
    return thread, [ended, fired, waits, *more]


def test_a_deleted_thread_is_gone_from_every_table(scene: Scene) -> None:
    # given a thread that stands in every table with a column for threads or runs
    thread, runs = full(scene)
    ready = scene.run(scene.thread())
    before = everywhere(scene, [thread, *runs])
    assert set(tables(scene, OF_A_THREAD)) - set(before) == {"ready"}, "fill the new table in full()"
    # when it is deleted
    scene.call("delete_thread", thread)
    # then nothing speaks of it but what is still owed to a webhook
    assert everywhere(scene, [thread, *runs]) == {"webhook_deliveries": 1}
    [owed] = scene.rows("select url, status from duragraph.webhook_deliveries")
    assert owed == {"url": "https://example.com/owed", "status": "pending"}
    assert everywhere(scene, [ready])["ready"] == 1


def test_a_deleted_run_is_gone_from_every_table_and_its_key_is_free(scene: Scene) -> None:
    thread = scene.thread()
    run = told(scene, thread)["run_id"]
    scene.call("delete_run", thread, run)
    assert everywhere(scene, [run]) == {}
    assert keyed(scene, thread) != run


@pytest.mark.parametrize("on_thread", [True, False], ids=["of a thread", "stateless"])
def test_a_run_that_is_rolled_back_leaves_only_that_its_webhook_is_owed(scene: Scene, on_thread: bool) -> None:
    key, thread = scene.worker(), scene.thread() if on_thread else None
    run = keyed(scene, thread)
    [claim] = scene.claim(key)
    ask(scene, claim)
    scene.call("cancel_runs", {"run_ids": [run], "action": "rollback"})
    assert everywhere(scene, [run]) == {"idempotency_keys": 1, "webhook_deliveries": 1}


def test_a_stateless_run_is_swept_out_of_every_table(scene: Scene) -> None:
    claim = told(scene, None)
    run = claim["run_id"]
    scene.wait(32 * 86400)
    scene.bare("sweep_retention")
    assert everywhere(scene, [run, claim["thread_id"]]) == {}


def test_a_copy_and_its_original_leave_nothing_of_each_other(scene: Scene) -> None:
    thread = scene.thread()
    run = told(scene, thread)["run_id"]
    scene.call("put_state", thread, {"values": {"target": 2}, "as_node": "prepare"})
    original = everywhere(scene, [thread, run])
    copy = scene.call("copy_thread", thread)["thread_id"]
    state = scene.call("get_state", copy)["values"]
    # when the copy is made and deleted, the original is what it was
    other = scene.call("copy_thread", thread)["thread_id"]
    scene.call("delete_thread", other)
    assert everywhere(scene, [other]) == {}
    assert everywhere(scene, [thread]) == {name: original[name] for name in everywhere(scene, [thread])}
    # and when the original is deleted, the copy is
    scene.call("delete_thread", thread)
    assert everywhere(scene, [thread]) == {}
    assert scene.call("get_state", copy)["values"] == state


def test_a_thread_that_is_pruned_by_deletion_is_gone_from_every_table(scene: Scene) -> None:
    thread = scene.thread()
    run = told(scene, thread)["run_id"]
    assert scene.call("prune_threads", {"thread_ids": [thread]}) == {"pruned_count": 1}
    assert everywhere(scene, [thread, run]) == {}


def test_no_row_names_a_checkpoint_that_was_pruned(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    gone = [ask(scene, claim)]
    scene.commit(claim, end={"status": "success"})
    state = scene.call("put_state", thread, {"values": {"target": 2}, "as_node": "prepare"})
    gone.append(state["checkpoint_id"])
    scene.call("cancel_runs", {"run_ids": [scene.run(thread, checkpoint_id=gone[0])]})
    scene.call("put_state", thread, {"values": {"target": 3}, "as_node": "prepare"})
    assert scene.call("prune_threads", {"thread_ids": [thread], "strategy": "keep_latest"}) == {"pruned_count": 1}
    # Content is stored once, under the checkpoint that wrote it; events and what a run was asked are what happened.
    assert set(everywhere(scene, gone)) <= {"channel_values", "checkpoints", "events", "runs"}
    for table, columns in (
        ("checkpoints", "checkpoint_id, parent_checkpoint_id"),
        ("runs", "checkpoint_id, start_checkpoint_id"),
    ):
        for row in scene.rows(f"select {columns} from duragraph.{table}"):  # fixed words
            assert not set(gone) & {str(value) for value in row.values()}, table


def test_a_deleted_assistant_is_gone_with_its_crons_and_threads(scene: Scene) -> None:
    scene.worker()
    made = scene.call("create_assistant", {"graph_id": "counter"})
    assistant = made["assistant_id"]
    thread = scene.thread()
    scene.run(thread, graph=assistant)
    timing = {"schedule": "* * * * *", "next_run_date": scene.now.isoformat()}
    scene.call("create_cron", None, {"assistant_id": assistant, "schedule": "* * * * *"}, timing)
    scene.call("create_cron", scene.thread(), {"assistant_id": assistant, "schedule": "* * * * *"}, timing)
    scene.call("delete_assistant", assistant, True)
    assert everywhere(scene, [assistant, thread]) == {}
