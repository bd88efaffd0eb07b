"""Threads: made, found, changed, copied, deleted."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.scene import Scene, question
from tests.waiting import wait_for

MISSING = str(uuid4())
WAITERS = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def test_a_new_thread_is_idle_and_empty(scene: Scene) -> None:
    made = scene.call("create_thread", {"metadata": {"k": 1}})
    assert (made["status"], made["values"], made["metadata"], made["interrupts"]) == ("idle", None, {"k": 1}, {})
    assert datetime.fromisoformat(made["created_at"]) == scene.now
    assert made["created_at"] == made["updated_at"]
    assert scene.call("get_thread", made["thread_id"]) == made


def test_an_id_of_the_callers_own(scene: Scene) -> None:
    made = scene.call("create_thread", {"thread_id": MISSING, "metadata": {"n": 1}})
    assert made["thread_id"] == MISSING
    assert scene.refused("create_thread", {"thread_id": MISSING}) == ("DG409", "thread_exists")
    again = scene.call("create_thread", {"thread_id": MISSING, "metadata": {"n": 2}, "if_exists": "do_nothing"})
    assert again == made


def test_a_thread_names_its_graph(scene: Scene) -> None:
    made = scene.call("create_thread", {"graph_id": "counter", "metadata": {"a": 1}})
    assert made["metadata"] == {"graph_id": "counter", "a": 1}


def test_an_update_merges_the_top_level(scene: Scene) -> None:
    thread = scene.thread(metadata={"keep": 1, "deep": {"a": 1, "b": 2}})
    scene.wait(1)
    changed = scene.call("update_thread", thread, {"metadata": {"deep": {"c": 3}, "new": None}})
    assert changed["metadata"] == {"keep": 1, "deep": {"c": 3}, "new": None}
    assert changed["updated_at"] > changed["created_at"]


def test_time_to_live(scene: Scene) -> None:
    thread = scene.thread(ttl={"ttl": 1.5})
    shown = scene.call("get_thread", thread, ["ttl"])["ttl"]
    assert (shown["strategy"], shown["ttl_minutes"]) == ("delete", 1.5)
    assert (datetime.fromisoformat(shown["expires_at"]) - scene.now).total_seconds() == 90
    assert "ttl" not in scene.call("get_thread", thread)
    scene.wait(10)
    scene.call("update_thread", thread, {"ttl": {"ttl": 1, "strategy": "keep_latest"}})
    shown = scene.call("get_thread", thread, ["ttl"])["ttl"]
    assert (datetime.fromisoformat(shown["expires_at"]) - scene.now).total_seconds() == 60
    assert shown["strategy"] == "keep_latest"


@pytest.mark.parametrize("ttl", [5, "x", {"ttl": "5"}, {"ttl": -1}, {"ttl": 1e12}, {"ttl": 1, "strategy": "burn"}, [1]])
def test_a_bad_time_to_live_is_refused(scene: Scene, ttl: object) -> None:
    assert scene.refused("create_thread", {"ttl": ttl})[0] in ("DG422", "22023")
    thread = scene.thread()
    assert scene.refused("update_thread", thread, {"ttl": ttl})[0] in ("DG422", "22023")


def test_a_run_makes_the_thread_busy_until_it_ends(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    assert scene.call("get_thread", thread)["status"] == "busy"
    [claim] = scene.claim(key)
    assert scene.call("get_thread", thread)["status"] == "busy"
    scene.commit(claim, end={"status": "success"})
    assert scene.call("get_thread", thread)["status"] == "idle"


def test_values_are_those_of_the_ended_run(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    claim, _ = scene.counted(thread, key, end=None)
    assert scene.call("get_thread", thread)["values"] is None
    scene.commit(claim, end={"status": "success"})
    shown = scene.call("get_thread", thread)
    assert shown["values"] == {"target": 1, "count": 1, "log": ["prepare", "increment", "finish"]}
    assert shown["metadata"]["graph_id"] == "counter"
    assert shown["metadata"]["assistant_id"]


def test_open_questions_by_task(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {"target": {"set": 1}}, "ask", "tell")
    ask, tell = question(at, "ask", {"q": 1}), question(at, "tell", "sure?")
    scene.commit(claim, interrupts=[ask, tell], end={"status": "success"})
    shown = scene.call("get_thread", thread)
    assert shown["status"] == "interrupted"
    assert shown["interrupts"] == {
        ask["task_id"]: [{"id": ask["interrupt_id"], "value": {"q": 1}}],
        tell["task_id"]: [{"id": tell["interrupt_id"], "value": "sure?"}],
    }
    scene.run(thread, command={"resume": {ask["interrupt_id"]: "yes"}})
    [claim] = scene.claim(key)
    answer = {"checkpoint_id": at, "task_id": ask["task_id"], "ordinal": 0, "answer": "yes"}
    scene.commit(claim, checkpoint_id=at, answers=[answer], end={"status": "success"})
    assert list(scene.call("get_thread", thread)["interrupts"]) == [tell["task_id"]]


def test_a_failed_run_shows_its_error_until_the_next(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    scene.commit(claim, end={"status": "error", "error": {"error": "ValueError", "message": "kaboom"}})
    shown = scene.call("get_thread", thread)
    assert (shown["status"], shown["error"]) == ("error", {"error": "ValueError", "message": "kaboom"})
    scene.counted(thread, key)
    shown = scene.call("get_thread", thread)
    assert (shown["status"], shown["error"]) == ("idle", None)


def found(scene: Scene, **request: object) -> list[str]:
    return [thread["thread_id"] for thread in scene.page("search_threads", **request)[0]]


def test_search_by_metadata_newest_first(scene: Scene) -> None:
    made = []
    for n in range(3):
        scene.wait(1)
        made.append(scene.thread(metadata={"tag": {"deep": [1, 2]}, "n": n}))
    assert found(scene, metadata={"tag": {"deep": [2]}}) == made[::-1]
    assert found(scene, metadata={"tag": {"deep": [2]}, "n": 1}) == [made[1]]
    assert found(scene, metadata={"tag": "other"}) == []
    assert found(scene, sort_by="created_at", sort_order="asc") == made
    assert found(scene, sort_by="thread_id") == sorted(made, reverse=True)
    scene.wait(1)
    scene.call("update_thread", made[0], {"metadata": {}})
    assert found(scene)[0] == made[0]


def test_search_by_status(scene: Scene) -> None:
    key = scene.worker()
    threads = {name: scene.thread() for name in ("idle", "busy", "error", "interrupted")}
    for name in ("error", "interrupted"):
        scene.run(threads[name])
        [claim] = scene.claim(key)
        scene.superstep(claim, None, -1, {}, "ask")
        end = {"status": "error", "error": {"error": "E", "message": "m"}} if name == "error" else {"status": "success"}
        scene.commit(claim, end=end)
    scene.run(threads["busy"])
    for name, thread in threads.items():
        assert found(scene, status=name) == [thread]
    assert len(found(scene, sort_by="status", sort_order="asc")) == 4


def test_search_by_values(scene: Scene) -> None:
    key, threads = scene.worker(), [scene.thread() for _ in range(3)]
    scene.counted(threads[0], key)
    scene.call("put_state", threads[0], {"values": {"count": 4}})
    scene.counted(threads[1], key)
    assert found(scene, values={"count": 1}) == [threads[1]]
    assert found(scene, values={"count": 5, "log": ["prepare"]}) == [threads[0]]
    assert found(scene, values={}) != []
    assert scene.call("count_threads", {"values": {"target": 1}}) == 2


def test_search_by_ids_pages_and_selects(scene: Scene) -> None:
    made = [scene.thread() for _ in range(3)]
    scene.thread()
    items, total, following = scene.page("search_threads", ids=made, limit=2, select=["thread_id", "status"])
    assert (len(items), total, following) == (2, 3, 2)
    assert all(set(item) == {"thread_id", "status"} for item in items)
    items, total, following = scene.page("search_threads", ids=made, limit=2, offset=2)
    assert (len(items), total, following) == (1, 3, None)
    assert scene.page("search_threads", ids=made, limit=2, offset=9) == ([], 3, None)
    assert scene.call("count_threads", {"ids": made}) == 3


def test_search_extracts(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread(metadata={"who": {"name": "ann"}})
    scene.counted(thread, key)
    extract = {"last": "values.log[-1]", "who": "metadata.who.name", "none": "values.absent[3]"}
    [item], _, _ = scene.page("search_threads", extract=extract, select=["thread_id"])
    assert item == {"thread_id": thread, "extracted": {"last": "finish", "who": "ann", "none": None}}
    for path in ("secrets.x", "values.a'b[", "", "values[99999999999]"):
        assert scene.refused("search_threads", {"extract": {"x": path}}) == ("DG422", "invalid_path")


def test_search_cannot_be_told_what_to_execute(scene: Scene) -> None:
    hostile = "thread_id; drop table duragraph.threads"
    assert scene.refused("search_threads", {"sort_by": hostile}) == ("DG422", "invalid_sort")
    scene.thread()
    assert found(scene, status=hostile, select=[hostile], metadata={hostile: hostile}, sort_order=hostile) == []


def test_a_copy_has_the_history_but_its_own_life(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread(metadata={"k": 1})
    scene.counted(thread, key)
    copy = scene.call("copy_thread", thread)
    assert (copy["status"], copy["values"]["count"], copy["metadata"]["k"]) == ("idle", 1, 1)
    history = scene.call("get_history", copy["thread_id"])
    original = scene.call("get_history", thread)
    assert [s["checkpoint_id"] for s in history] == [s["checkpoint_id"] for s in original]
    assert {s["checkpoint"]["thread_id"] for s in history} == {copy["thread_id"]}
    assert {s["metadata"]["thread_id"] for s in history} == {copy["thread_id"]}
    assert [s["tasks"][0]["result"] for s in history[1:-2]] == [s["tasks"][0]["result"] for s in original[1:-2]]
    assert scene.call("list_runs", copy["thread_id"], {}) == []
    scene.counted(copy["thread_id"], key)
    assert scene.call("get_thread", copy["thread_id"])["values"]["log"] == ["prepare", "increment", "finish"] * 2
    assert scene.call("get_thread", thread)["values"]["log"] == ["prepare", "increment", "finish"]


def test_a_copy_asks_the_same_questions(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "ask")
    scene.commit(claim, interrupts=[question(at, "ask", "?")], end={"status": "success"})
    copy = scene.call("copy_thread", thread)
    assert (copy["status"], copy["interrupts"]) == ("interrupted", scene.call("get_thread", thread)["interrupts"])


def test_a_copy_of_a_busy_thread_rests_where_its_run_is(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    scene.run(thread)
    [claim] = scene.claim(key)
    scene.superstep(claim, claim["checkpoint"]["checkpoint_id"], 4, {"target": {"set": 9}}, "prepare")
    copy = scene.call("copy_thread", thread)
    assert (copy["status"], copy["values"]["target"]) == ("interrupted", 9)


def test_delete_takes_all_there_is(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    scene.run(thread, input={"target": 2})
    [running] = scene.claim(key)
    at = scene.superstep(running, running["checkpoint"]["checkpoint_id"], 4, {}, "ask")
    scene.commit(running, interrupts=[question(at, "ask", "?")], events=[{"event": "custom", "data": {}}])
    scene.run(thread)
    scene.run(thread, after_seconds=60)
    gone = scene.call("delete_thread", thread)["runs"]
    assert [run["token"] for run in gone if run["token"]] == [running["token"]]
    assert len(gone) == 3
    assert scene.refused("get_thread", thread) == ("DG404", "thread_not_found")
    for table in (
        "runs",
        "ready",
        "slots",
        "waiting",
        "scheduled",
        "leases",
        "events",
        "checkpoints",
        "channel_values",
        "steps",
        "interrupts",
        "threads",
    ):
        assert scene.value(f"select count(*) from duragraph.{table}") == 0, table


def test_the_worker_of_a_deleted_thread_is_told(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    scene.call("delete_thread", thread)
    late = {
        "run_id": claim["run_id"],
        "token": claim["token"],
        "write_no": 1,
        "events": [{"event": "custom", "data": 1}],
    }
    assert scene.bare("commit_steps", [late])["refused"] == [{"n": 0, "reason": "lease_lost"}]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("get_thread", []),
        ("update_thread", [{"metadata": {}}]),
        ("delete_thread", []),
        ("copy_thread", []),
        ("get_state", []),
        ("get_history", []),
        ("put_state", [{"values": {}}]),
    ],
)
def test_a_missing_thread_is_404(scene: Scene, function: str, arguments: list[object]) -> None:
    assert scene.refused(function, MISSING, *arguments) == ("DG404", "thread_not_found")
    foreign = Scene(scene.connection, tenant=2).thread()
    assert scene.refused(function, foreign, *arguments) == ("DG404", "thread_not_found")


def test_another_tenant_finds_nothing(scene: Scene) -> None:
    scene.thread(metadata={"k": 1})
    other = Scene(scene.connection, tenant=2)
    assert other.page("search_threads") == ([], 0, None)
    assert other.call("count_threads") == 0


Two = tuple[psycopg.Connection[Any], psycopg.Connection[Any]]


def test_a_run_that_meets_a_deletion_is_refused(fresh_db: str, two: Two) -> None:
    one, other = Scene(two[0]), Scene(two[1])
    one.worker()
    thread = one.thread()
    request = json.dumps([{"thread_id": thread, "body": {"assistant_id": "counter"}}])
    with ThreadPoolExecutor(1) as pool:
        with two[0].transaction():
            one.call("delete_thread", thread)
            late = pool.submit(two[1].execute, "select duragraph.create_runs(1, %s::json)", (request,))
            with psycopg.connect(fresh_db, autocommit=True) as watcher:
                wait_for(lambda: watcher.execute(WAITERS).fetchone(), what="the new run at the thread's slot")
        error = late.exception(timeout=10)
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == "DG404"
    assert other.rows("select * from duragraph.runs") == other.rows("select * from duragraph.slots") == []


def test_two_creations_of_one_id_make_one_thread(fresh_db: str, two: Two) -> None:
    one, other = Scene(two[0]), Scene(two[1])
    with ThreadPoolExecutor(1) as pool:
        with two[0].transaction():
            one.call("create_thread", {"thread_id": MISSING, "metadata": {"by": "one"}})
            late = pool.submit(other.call, "create_thread", {"thread_id": MISSING, "if_exists": "do_nothing"})
            with psycopg.connect(fresh_db, autocommit=True) as watcher:
                wait_for(lambda: watcher.execute(WAITERS).fetchone(), what="the second creation")
        assert late.result(timeout=10)["metadata"] == {"by": "one"}
