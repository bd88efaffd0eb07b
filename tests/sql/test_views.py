"""What an operator asks: the views, and that a reader may ask them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.scene import COUNTER, Scene, step, task_id


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def overview(scene: Scene, run_id: str) -> dict[str, Any]:
    [row] = scene.rows("select * from duragraph.run_overview where tenant_id = 1 and run_id = %s", run_id)
    return row


def test_the_overview_follows_a_run(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    run = scene.run(thread)
    scene.wait(5)
    row = overview(scene, run)
    assert (row["status"], row["graph_id"], str(row["thread_id"]), row["worker_id"]) == (
        "pending",
        "counter",
        thread,
        None,
    )
    assert (row["age"], row["lease_age"], row["attempt"]) == (timedelta(seconds=5), None, 0)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "prepare")
    scene.commit(claim, steps=[step(at, "prepare", None)])
    scene.wait(2)
    row = overview(scene, run)
    assert (row["status"], row["worker_id"], row["attempt"], row["last_step"]) == ("running", "worker-1", 1, "prepare")
    assert (row["age"], row["lease_age"], row["took"]) == (timedelta(seconds=7), timedelta(seconds=2), None)
    scene.commit(claim, end={"status": "error", "error": {"error": "ValueError", "message": "kaboom"}})
    row = overview(scene, run)
    assert (row["status"], row["lease_age"], row["took"]) == ("error", None, timedelta(seconds=2))
    assert "kaboom" in row["reason"]


def test_the_overview_of_a_stateless_run_has_no_thread(scene: Scene) -> None:
    scene.worker()
    assert overview(scene, scene.run(None))["thread_id"] is None


def active(scene: Scene) -> dict[str, str]:
    return {str(row["run_id"]): row["state"] for row in scene.rows("select run_id, state from duragraph.active_runs")}


def test_active_runs_are_those_that_have_not_ended(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    running = scene.run(thread)
    waits = scene.run(thread)
    [claim] = scene.claim(key)
    failing = scene.run(None)
    [retried] = scene.claim(key)
    scene.commit(retried, end={"status": "retry", "retry_after": 30})
    ready, delayed = scene.run(None), scene.run(None, after_seconds=60)
    assert active(scene) == {
        running: "running",
        waits: "waiting",
        failing: "backing off",
        ready: "ready",
        delayed: "delayed",
    }
    scene.commit(claim, end={"status": "success"})
    assert active(scene)[waits] == "ready"
    assert running not in active(scene)


def stuck(scene: Scene) -> dict[str, dict[str, Any]]:
    return {str(row["run_id"]): row for row in scene.rows("select * from duragraph.stuck_runs")}


def test_a_run_nobody_starts_is_stuck_after_a_minute(scene: Scene) -> None:
    scene.worker()
    run = scene.run(None)
    delayed = scene.run(None, after_seconds=3600)
    scene.wait(59)
    assert stuck(scene) == {}
    scene.wait(2)
    row = stuck(scene)[run]
    assert (row["state"], row["graph_id"], row["stuck_for"]) == ("ready", "counter", timedelta(seconds=61))
    assert row["reason"].startswith("It is ready: no live worker serves graph counter")
    assert delayed not in stuck(scene)


def test_a_run_of_a_silent_worker_is_stuck(scene: Scene) -> None:
    key = scene.worker(lease_seconds=20)
    run = scene.run(None)
    scene.claim(key)
    scene.wait(19)
    assert stuck(scene) == {}
    scene.wait(15)
    row = stuck(scene)[run]
    assert (row["state"], row["worker_id"]) == ("running", "worker-1")
    assert "silent since" in row["reason"]


def test_a_run_without_progress_is_stuck_after_ten_minutes(scene: Scene) -> None:
    key = scene.worker(lease_seconds=86400)
    run = scene.run(None)
    [claim] = scene.claim(key)
    scene.wait(500)
    scene.commit(claim, events=[{"event": "custom", "data": {}}])
    scene.wait(599)
    assert stuck(scene) == {}
    scene.wait(2)
    row = stuck(scene)[run]
    assert (row["stuck_for"], row["worker_id"]) == (timedelta(seconds=601), "worker-1")
    assert "No event and no step since" in row["reason"]


def test_the_depth_of_the_queue(scene: Scene) -> None:
    key, thread = scene.worker(capacity=7), scene.thread()
    other = {**COUNTER, "graph_id": "other"}
    scene.worker("worker-2", other, capacity=3)
    for _ in range(3):
        scene.run(thread)
    scene.claim(key)
    scene.run(None)
    scene.wait(10)
    scene.run(None)
    scene.run(None, after_seconds=60)
    rows = {row["graph_id"]: row for row in scene.rows("select * from duragraph.queue_depth")}
    counter = rows["counter"]
    assert (counter["ready"], counter["waiting"], counter["scheduled"], counter["running"]) == (2, 2, 1, 1)
    assert (counter["oldest_age"], counter["workers_alive"], counter["capacity"]) == (timedelta(seconds=10), 1, 7)
    assert (rows["other"]["ready"], rows["other"]["oldest_age"], rows["other"]["capacity"]) == (0, None, 3)
    scene.wait(100)
    assert {row["workers_alive"] for row in scene.rows("select * from duragraph.queue_depth")} == {0}


def test_the_health_of_workers(scene: Scene) -> None:
    key = scene.worker(capacity=4, build_id="b1")
    scene.worker("worker-2")
    scene.call("drain_worker", "worker-2")
    scene.run(None)
    scene.claim(key)
    scene.wait(3)
    rows = {row["worker_id"]: row for row in scene.rows("select * from duragraph.worker_health")}
    one = rows["worker-1"]
    assert (one["status"], one["graphs"], one["running"], one["capacity"], one["build_id"]) == (
        "active",
        ["counter"],
        1,
        4,
        "b1",
    )
    assert (one["oldest_lease"], one["last_beat"]) == (timedelta(seconds=3), timedelta(seconds=3))
    assert (rows["worker-2"]["status"], rows["worker-2"]["running"]) == ("draining", 0)
    scene.wait(60)
    rows = {row["worker_id"]: row for row in scene.rows("select * from duragraph.worker_health")}
    assert (rows["worker-1"]["status"], rows["worker-2"]["status"]) == ("silent", "draining")
    shown = {w["worker_id"]: w for w in scene.call("list_workers")["workers"]}
    assert {name: w["status"] for name, w in shown.items()} == {"worker-1": "silent", "worker-2": "draining"}


def test_workers_are_listed_and_shown(scene: Scene) -> None:
    key = scene.worker(capacity=4, build_id="b1", details={"host": "h"})
    scene.worker("worker-2")
    scene.wait(20)
    scene.bare("heartbeat", [{"worker_key": key, "active_runs": 0, "details": {"total_runs": 9, "failed_runs": 1}}])
    scene.wait(20)
    worker = scene.call("get_worker", "worker-1")
    assert (worker["name"], worker["graphs"], worker["capacity"]) == ("worker-1", ["counter"], 4)
    assert (worker["total_runs"], worker["failed_runs"], worker["details"]["host"]) == (9, 1, "h")
    assert worker["healthy"] is True
    assert scene.call("list_workers")["total"] == 2
    assert [w["worker_id"] for w in scene.call("list_workers", True)["workers"]] == ["worker-1"]
    assert [w["worker_id"] for w in scene.call("list_workers", False)["workers"]] == ["worker-2"]
    assert scene.refused("get_worker", "nobody") == ("DG404", "worker_not_found")


def test_the_line_of_a_thread(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    first = scene.run(thread)
    second, third = scene.run(thread), scene.run(thread)
    later = scene.run(thread, after_seconds=60)

    def line() -> list[tuple[int | None, str, str]]:
        found = scene.rows("select * from duragraph.thread_line where thread_id = %s order by place nulls last", thread)
        return [(row["place"], str(row["run_id"]), row["state"]) for row in found]

    behind = [(1, second, "waiting"), (2, third, "waiting"), (None, later, "delayed")]
    assert line() == [(0, first, "ready"), *behind]
    [claim] = scene.claim(key)
    assert line() == [(0, first, "running"), *behind]
    scene.commit(claim, end={"status": "retry", "retry_after": 30})
    assert line() == [(0, first, "backing off"), *behind]


def test_the_ledger_of_a_run(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    run = scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "digest")
    scene.wait(1)
    call = {**step(at, "digest", "text"), "key": "ask:1", "kind": "llm", "name": "ask", "details": {"tokens": 12}}
    scene.commit(claim, steps=[call])
    scene.commit(claim, end={"status": "release"})
    scene.wait(1)
    [claim] = scene.claim(scene.worker("worker-2"))
    scene.commit(claim, checkpoint_id=at, steps=[step(at, "digest", {})], end={"status": "success"})
    rows = scene.rows("select * from duragraph.run_ledger where tenant_id = 1 and run_id = %s order by n", run)
    assert [(r["n"], r["what"], r["kind"], r["step_key"], r["worker_id"]) for r in rows] == [
        (1, "ask", "llm", "ask:1", "worker-1"),
        (2, "digest", "node", None, "worker-2"),
    ]
    assert (rows[0]["took"], rows[0]["details"], str(rows[0]["task_id"])) == (
        timedelta(milliseconds=5),
        {"tokens": 12},
        task_id(at, "digest"),
    )


def act_as(scene: Scene, role: str, statement: str) -> None:
    """Carry out a statement in a role; nothing of it stays."""
    with scene.connection.transaction(force_rollback=True):
        scene.connection.execute(f"set local role {role}")
        scene.connection.execute(statement)


VIEWS = ["run_overview", "active_runs", "stuck_runs", "queue_depth", "worker_health", "thread_line", "run_ledger"]


@pytest.mark.parametrize("view", VIEWS)
def test_a_reader_may_ask(scene: Scene, view: str) -> None:
    scene.worker()
    scene.run(None)
    scene.wait(100)
    act_as(scene, "duragraph_reader", f"select * from duragraph.{view}")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("duragraph_reader", "delete from duragraph.runs"),
        ("duragraph_reader", "select duragraph.cancel_run(gen_random_uuid())"),
        ("duragraph_worker", "select * from duragraph.runs"),
        ("duragraph_worker", "select duragraph.submit_run('counter')"),
    ],
)
def test_a_role_may_do_no_more_than_its_own(scene: Scene, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        act_as(scene, role, statement)


def test_a_worker_role_works_through_functions_alone(scene: Scene) -> None:
    key = scene.worker()
    scene.run(None)
    with scene.connection.transaction(force_rollback=True):
        scene.connection.execute("set local role duragraph_worker")
        claim = scene.bare("claim_runs", key, 1)["runs"][0]
        done = {"run_id": claim["run_id"], "token": claim["token"], "write_no": 1, "end": {"status": "success"}}
        assert scene.bare("commit_steps", [done])["refused"] == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            scene.connection.execute("select * from duragraph.leases")


def test_nobody_else_may_do_anything(scene: Scene) -> None:
    scene.connection.execute("create role duragraph_stranger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        act_as(scene, "duragraph_stranger", "select duragraph.current_time()")


def test_the_api_role_can_do_the_api(scene: Scene) -> None:
    scene.worker()
    with scene.connection.transaction(force_rollback=True):
        scene.connection.execute("set local role duragraph_api")
        thread = scene.thread(graph_id="counter")
        scene.call("put_state", thread, {"values": {"count": 1}})
        scene.run(thread)
        scene.call("delete_thread", thread)


def test_the_longest_wait_is_that_of_all_and_of_those_that_may_start(scene: Scene) -> None:
    # given a run at work for a minute, one behind it for half of that, and one that came just now and may start
    key = scene.worker()
    thread = scene.thread()
    scene.run(thread)
    scene.claim(key)
    scene.wait(30)
    scene.run(thread)
    scene.wait(30)
    scene.run(None)
    scene.wait(5)
    queue = scene.call("metrics")["queue"]
    waits = [queue[f"pending_{which}runs_wait_time_max_secs"] for which in ("", "unblocked_")]
    assert [round(float(wait)) for wait in waits] == [35, 5]
