"""Threads whose time is over, and what pruning leaves of a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import weaken
from tests.sql.scene import Scene, question, task_id
from tests.waiting import wait_for

WAITERS = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def there(scene: Scene, thread: str) -> bool:
    return bool(scene.value("select count(*) from duragraph.threads where thread_id = %s", thread))


def rows(scene: Scene, table: str, thread: str) -> int:
    count: int = scene.value(f"select count(*) from duragraph.{table} where thread_id = %s", thread)  # a fixed word
    return count


def test_a_thread_is_swept_when_its_time_is_over(scene: Scene) -> None:
    thread, other = scene.thread(ttl={"ttl": 1}), scene.thread()
    scene.wait(59)
    assert scene.bare("sweep_threads") == 0
    scene.wait(2)
    assert scene.bare("sweep_threads") == 1
    assert (there(scene, thread), there(scene, other)) == (False, True)
    assert scene.bare("sweep_threads") == 0


def test_a_swept_thread_leaves_nothing(scene: Scene) -> None:
    thread = scene.thread(ttl={"ttl": 1})
    scene.counted(thread, scene.worker())
    scene.wait(61)
    assert scene.bare("sweep_threads") == 1
    for table in ("threads", "runs", "checkpoints", "channel_values", "steps", "interrupts", "slots"):
        assert rows(scene, table, thread) == 0, table


def test_a_busy_thread_is_swept_when_it_has_come_to_rest(scene: Scene) -> None:
    key = scene.worker()
    thread = scene.thread(ttl={"ttl": 1})
    scene.run(thread)
    scene.wait(61)
    assert scene.bare("sweep_threads") == 0
    [claim] = scene.claim(key)
    scene.commit(claim, end={"status": "success"})
    assert scene.bare("sweep_threads") == 1
    assert not there(scene, thread)


def test_busy_threads_do_not_stand_in_the_way_of_others(scene: Scene) -> None:
    scene.worker()
    scene.run(scene.thread(ttl={"ttl": 1}))
    idle = scene.thread(ttl={"ttl": 2})
    scene.wait(121)
    assert scene.bare("sweep_threads", 1) == 1
    assert not there(scene, idle)


def test_a_sweep_takes_so_many_and_the_oldest_first(scene: Scene) -> None:
    threads = [scene.thread(ttl={"ttl": minutes}) for minutes in (3, 1, 2)]
    scene.wait(181)
    assert scene.bare("sweep_threads", 2) == 2
    assert [there(scene, thread) for thread in threads] == [True, False, False]


def test_a_time_to_live_may_be_set_anew(scene: Scene) -> None:
    thread = scene.thread(ttl={"ttl": 1})
    scene.wait(59)
    scene.call("update_thread", thread, {"ttl": {"ttl": 1}})
    scene.wait(59)
    assert scene.bare("sweep_threads") == 0


def test_what_is_kept_is_the_latest_state(scene: Scene) -> None:
    key = scene.worker()
    thread = scene.thread(ttl={"ttl": 1, "strategy": "keep_latest"})
    for _ in range(3):
        claim, made = scene.counted(thread, key)
    before = scene.call("get_state", thread, {})
    scene.wait(61)
    assert scene.bare("sweep_threads") == 1
    after = scene.call("get_state", thread, {})
    assert after["values"] == before["values"]
    assert after["values"]["log"] == ["prepare", "increment", "finish"] * 3
    assert (after["checkpoint_id"], after["parent_checkpoint"]) == (made[-1], None)
    assert [one["checkpoint_id"] for one in scene.call("get_history", thread, {"limit": 10})] == [made[-1]]
    assert scene.call("get_thread", thread)["values"] == before["values"]
    assert len(scene.call("list_runs", thread, {})) == 3
    assert scene.call("run_output", claim["run_id"])["output"] == before["values"]


def test_a_thread_kept_at_its_latest_goes_on_and_is_pruned_again(scene: Scene) -> None:
    key = scene.worker()
    thread = scene.thread(ttl={"ttl": 1, "strategy": "keep_latest"})
    scene.counted(thread, key)
    scene.wait(61)
    assert scene.bare("sweep_threads") == 1
    assert scene.bare("sweep_threads") == 0
    scene.counted(thread, key)
    assert scene.call("get_state", thread, {})["values"]["log"] == ["prepare", "increment", "finish"] * 2
    scene.wait(61)
    assert scene.bare("sweep_threads") == 1
    assert rows(scene, "checkpoints", thread) == 1


def test_what_waits_for_an_answer_still_waits_after_pruning(scene: Scene) -> None:
    key = scene.worker()
    thread = scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    first = scene.superstep(claim, None, 0, {"count": {"set": 1}}, "prepare")
    second = scene.superstep(claim, first, 1, {}, "increment")
    scene.commit(claim, interrupts=[question(second, "increment", "sure?")])
    scene.commit(claim, end={"status": "success"})
    before = scene.call("get_state", thread, {"subgraphs": True})
    assert scene.call("prune_threads", {"thread_ids": [thread], "strategy": "keep_latest"}) == {"pruned_count": 1}
    after = scene.call("get_state", thread, {"subgraphs": True})
    assert (after["interrupts"], after["next"], after["tasks"]) == (
        before["interrupts"],
        ["increment"],
        before["tasks"],
    )
    assert scene.call("get_thread", thread)["status"] == "interrupted"


def test_the_state_of_a_subgraph_that_waits_is_kept(scene: Scene) -> None:
    # given a thread whose next task is a subgraph that has made steps of its own, and an older such task
    key = scene.worker()
    thread = scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    head = None
    for step_no in range(2):
        head = scene.superstep(claim, head, step_no, {"count": {"set": step_no}}, "increment")
        child = {
            "checkpoint_id": str(scene.bare("make_id")),
            "parent_checkpoint_id": None,
            "checkpoint_ns": f"increment:{task_id(head, 'increment')}",
            "step": 0,
            "source": "loop",
            "channels": {"inner": {"set": step_no}},
            "next": ["deep"],
            "tasks": [],
        }
        scene.commit(claim, checkpoints=[child])
    scene.commit(claim, end={"status": "success"})
    assert rows(scene, "checkpoints", thread) == 4
    # when the thread is pruned
    scene.call("prune_threads", {"thread_ids": [thread], "strategy": "keep_latest"})
    # then what waits is still there, and what is done is not
    [task] = scene.call("get_state", thread, {"subgraphs": True})["tasks"]
    assert (task["state"] or {}).get("values") == {"inner": 1}
    assert rows(scene, "checkpoints", thread) == 2


def test_pruning_frees_what_no_state_shows_any_more(scene: Scene) -> None:
    key = scene.worker()
    thread = scene.thread()
    for _ in range(3):
        scene.counted(thread, key)
    full = scene.call("thread_storage", thread)
    scene.call("prune_threads", {"thread_ids": [thread], "strategy": "keep_latest"})
    left = scene.call("thread_storage", thread)
    assert left["checkpoints"]["count"] == 1
    assert left["channel_values"]["by_channel"]["count"]["versions"] == 1
    assert left["pending_writes"]["count"] == 0
    assert left["total_bytes"] < full["total_bytes"]


def test_pruning_deletes_what_is_there_and_not_busy(scene: Scene) -> None:
    scene.worker()
    idle, busy = scene.thread(), scene.thread()
    scene.run(busy)
    pruned = scene.call("prune_threads", {"thread_ids": [idle, idle, busy, str(uuid4())]})
    assert pruned == {"pruned_count": 1}
    assert (there(scene, idle), there(scene, busy)) == (False, True)
    assert scene.call("prune_threads", {"thread_ids": []}) == {"pruned_count": 0}


def test_threads_of_another_tenant_are_not_pruned(scene: Scene) -> None:
    thread = scene.thread()
    assert Scene(scene.connection, tenant=2).call("prune_threads", {"thread_ids": [thread]}) == {"pruned_count": 0}
    assert there(scene, thread)


def test_an_unknown_strategy_is_refused(scene: Scene) -> None:
    refused = scene.refused("prune_threads", {"thread_ids": [], "strategy": "forget"})
    assert refused == ("DG422", "invalid_strategy")


def test_storage_of_a_thread(scene: Scene) -> None:
    thread = scene.thread()
    nothing = {"count": 0, "bytes": 0}
    assert scene.call("thread_storage", thread) == {
        "thread_id": thread,
        "total_bytes": 0,
        "checkpoints": nothing,
        "channel_values": {**nothing, "by_channel": {}},
        "pending_writes": nothing,
    }
    scene.counted(thread, scene.worker())
    taken = scene.call("thread_storage", thread)
    assert taken["checkpoints"]["count"] == 5
    assert taken["channel_values"]["by_channel"]["log"]["versions"] == 3
    parts = [taken[part]["bytes"] for part in ("checkpoints", "channel_values", "pending_writes")]
    assert taken["total_bytes"] == sum(parts)
    assert all(parts)
    assert scene.refused("thread_storage", str(uuid4())) == ("DG404", "thread_not_found")


# races


def test_a_thread_that_gets_a_run_just_then_is_not_swept(
    two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]],
) -> None:
    # given a thread whose time is over, and a run that is being created on it
    one, other = Scene(two[0]), Scene(two[1])
    one.worker()
    thread = one.thread(ttl={"ttl": 0})
    with two[0].transaction():
        one.run(thread)
        # when a sweep that has not seen that run comes to the thread, and the creation commits
        two[1].execute("set statement_timeout = '20s'")
        swept: list[int] = []
        sweeping = threading.Thread(target=lambda: swept.append(other.bare("sweep_threads")))
        sweeping.start()
        wait_for(lambda: bool(one.rows(WAITERS)), what="the sweep at the slot")
    sweeping.join(20)
    # then the thread is busy and stays
    assert swept == [0]
    assert there(one, thread)
    assert len(one.call("list_runs", thread, {})) == 1


def test_a_thread_that_is_given_more_time_just_then_stays(
    two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]],
) -> None:
    # given a sweep that has found an expired thread and waits for another session at its slot
    one, other = Scene(two[0]), Scene(two[1])
    thread = one.thread(ttl={"ttl": 0})
    swept: list[int] = []
    with two[0].transaction():
        one.call("hold_thread", thread)
        sweeping = threading.Thread(target=lambda: swept.append(other.bare("sweep_threads")))
        sweeping.start()
        wait_for(lambda: bool(one.rows(WAITERS)), what="the sweep at the slot")
        # when that session gives the thread more time
        one.call("update_thread", thread, {"ttl": {"ttl": 60}})
        one.connection.execute("delete from duragraph.slots")
    sweeping.join(20)
    # then it stays
    assert swept == [0]
    assert there(one, thread)


def test_a_run_that_comes_while_its_thread_is_swept_is_refused(
    two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]],
) -> None:
    one, other = Scene(two[0]), Scene(two[1])
    one.worker()
    thread = one.thread(ttl={"ttl": 0})
    refused: list[tuple[str, str | None]] = []
    with two[0].transaction():
        assert one.bare("sweep_threads") == 1
        request = {"thread_id": thread, "body": {"assistant_id": "counter"}}
        creating = threading.Thread(target=lambda: refused.append(other.refused("create_runs", [request])))
        creating.start()
        wait_for(lambda: bool(one.rows(WAITERS)), what="the creation at the slot")
    creating.join(20)
    assert refused == [("DG404", "thread_not_found")]


def test_a_second_sweep_does_not_wait_for_the_first(
    two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]],
) -> None:
    one, other = Scene(two[0]), Scene(two[1])
    one.thread(ttl={"ttl": 0})
    with two[0].transaction():
        assert one.bare("sweep_threads") == 1
        assert other.bare("sweep_threads") == 0


Two = tuple[psycopg.Connection[Any], psycopg.Connection[Any]]


@pytest.mark.parametrize(
    ("subject", "function", "guard", "instead"),
    [
        (test_a_thread_that_gets_a_run_just_then_is_not_swept, "prune_thread", "if not found then", "if false then"),
        (test_a_second_sweep_does_not_wait_for_the_first, "sweep_threads", "if not pg_try", "if false and pg_try"),
        (
            test_a_thread_that_is_given_more_time_just_then_stays,
            "prune_thread",
            "t.expires_at <= duragraph",
            "true or t.expires_at <= duragraph",
        ),
    ],
    ids=["slot", "one-sweep", "time"],
)
def test_without_its_guard_the_race_is_lost(
    two: Two, subject: Callable[[Two], None], function: str, guard: str, instead: str
) -> None:
    weaken(two[0], function, guard, instead)
    two[1].execute("set lock_timeout = '2s'")
    with pytest.raises((AssertionError, psycopg.Error)):
        subject(two)


@pytest.mark.parametrize(
    ("subject", "function", "guard", "instead"),
    [
        (
            test_busy_threads_do_not_stand_in_the_way_of_others,
            "sweep_threads",
            "and not exists (",
            "and exists (select) or exists (",
        ),
        (
            test_the_state_of_a_subgraph_that_waits_is_kept,
            "keep_latest",
            "and not exists (",
            "and true or false and not exists (",
        ),
    ],
    ids=["busy", "subgraph"],
)
def test_without_its_guard_the_test_fails(
    scene: Scene, subject: Callable[[Scene], None], function: str, guard: str, instead: str
) -> None:
    weaken(scene.connection, function, guard, instead)
    with pytest.raises((AssertionError, psycopg.Error)):
        subject(scene)
