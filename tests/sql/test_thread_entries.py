"""What happened on a thread, in its order: runs that began, runs that never did, state updates."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.sql.scene import Scene

MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def entries(scene: Scene, thread: str, start: object = "-infinity", limit: int | None = 500) -> list[dict[str, Any]]:
    query = "select * from duragraph.thread_entries(%s, %s, %s, %s)"
    return [row for row in scene.rows(query, scene.tenant, thread, start, limit) if row["entry_id"]]


def end(scene: Scene, claim: dict[str, Any], **end: object) -> None:
    scene.commit(claim, end={"status": "success", **end})


def stamp(scene: Scene, *threads: str) -> list[str]:
    query = "select stamp from duragraph.thread_stamps(%s, %s::uuid[]) order by thread_id"
    return [row["stamp"] for row in scene.rows(query, scene.tenant, list(threads))]


def test_a_run_is_there_from_when_it_begins_and_keeps_its_place(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    first, second = scene.run(thread), scene.run(thread)
    assert entries(scene, thread) == []
    scene.wait(1)
    [claim] = scene.claim(key)
    [begun] = entries(scene, thread)
    assert (str(begun["entry_id"]), begun["status"], begun["graph_id"]) == (first, "running", "counter")
    assert begun["began_at"] == scene.now
    scene.wait(1)
    end(scene, claim)
    scene.claim(key)
    assert [(str(row["entry_id"]), row["status"]) for row in entries(scene, thread)] == [
        *((first, "success"), (second, "running"))
    ]
    assert entries(scene, thread)[0]["began_at"] == begun["began_at"]


def test_a_further_attempt_does_not_move_a_run(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    [begun] = entries(scene, thread)
    scene.wait(1)
    scene.commit(claim, end={"status": "retry", "retry_after": 0})
    [between] = entries(scene, thread)
    assert (between["status"], between["began_at"]) == ("pending", begun["began_at"])
    scene.bare("promote_due")
    scene.claim(key)
    [again] = entries(scene, thread)
    assert (again["status"], again["began_at"]) == ("running", begun["began_at"])


def test_a_run_that_never_began_shows_when_it_ended(scene: Scene) -> None:
    scene.worker()
    thread = scene.thread()
    scene.run(thread)
    waiting = scene.run(thread)
    scene.wait(1)
    scene.call("cancel_runs", {"run_ids": [waiting]})
    [ended] = entries(scene, thread)
    assert (str(ended["entry_id"]), ended["status"], ended["began_at"]) == (waiting, "interrupted", scene.now)


def test_a_state_update_is_an_entry_with_its_checkpoint(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    scene.wait(1)
    made = scene.call("put_state", thread, {"values": {"count": 1}})
    update = entries(scene, thread)[-1]
    assert str(update["checkpoint_id"]) == made["checkpoint_id"]
    assert (update["status"], update["began_at"]) == ("updated", scene.now)
    scene.call("delete_thread", thread)
    assert scene.value("select count(*) from duragraph.state_updates where thread_id = %s", thread) == 0


def test_entries_are_read_from_a_time_on_and_page_by_page(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    for _ in range(3):
        scene.wait(1)
        scene.run(thread)
        end(scene, scene.claim(key)[0])
    times = [row["began_at"] for row in entries(scene, thread)]
    assert times == sorted(set(times))
    assert [row["began_at"] for row in entries(scene, thread, times[1])] == times[1:]
    assert [row["began_at"] for row in entries(scene, thread, times[0], 2)] == times[:2]


def test_where_a_reader_begins(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    assert scene.call("thread_start", thread) == scene.now
    run = scene.run(thread)
    [claim] = scene.claim(key)
    began = scene.now
    scene.wait(5)
    assert scene.call("thread_start", thread) == began
    end(scene, claim)
    assert scene.call("thread_start", thread) == scene.now
    ms = scene.value("select ('x' || left(replace(%s, '-', ''), 12))::bit(48)::bigint", run)
    assert scene.call("thread_start", thread, ms) == began
    assert scene.call("thread_start", thread, None, scene.now) == began
    early = scene.value("select %s::timestamptz - interval '1 hour'", began)
    assert scene.call("thread_start", thread, None, early) == early


def test_an_unknown_thread_is_refused(scene: Scene) -> None:
    assert scene.refused("thread_start", MISSING) == ("DG404", "thread_not_found")
    assert scene.refused("thread_entries", MISSING) == ("DG404", "thread_not_found")


def test_a_stamp_differs_whenever_there_may_be_something_new(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    seen = stamp(scene, thread)
    assert stamp(scene, MISSING) == []

    def changed() -> bool:
        nonlocal seen
        before, seen = seen, stamp(scene, thread)
        scene.wait(1)
        return before != seen

    assert not changed()
    scene.run(thread)
    waiting = scene.run(thread)
    changed()
    [claim] = scene.claim(key)
    assert changed(), "a run began"
    scene.call("cancel_runs", {"run_ids": [waiting]})
    assert changed(), "a run ended before it began"
    end(scene, claim)
    assert changed(), "a run ended"
    scene.run(thread)
    end(scene, scene.claim(key)[0])
    assert changed(), "a run began and ended"
    scene.call("put_state", thread, {"values": {"count": 1}})
    assert changed(), "the state was changed"
    assert not changed()


def test_another_tenants_thread_is_not_there(scene: Scene) -> None:
    thread = scene.thread()
    other = Scene(scene.connection, scene.tenant + 1)
    assert other.refused("thread_entries", thread) == ("DG404", "thread_not_found")
    assert stamp(other, thread) == []
