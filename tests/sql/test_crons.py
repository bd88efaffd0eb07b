"""Crons: one tick makes one run, whoever fires it and however often; what is refused is told and stops nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.acts import create, finish, weaken
from tests.sql.scene import COUNTER, Scene
from tests.waiting import wait_for

MISSING = "00000000-0000-4000-8000-000000000000"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.worker()
    return scene


def cron(scene: Scene, thread: str | None = None, due: timedelta = MINUTE, **body: object) -> dict[str, Any]:
    """A cron whose next tick is so far away."""
    timing = {
        "schedule": body.setdefault("schedule", "* * * * *"),
        "timezone": body.get("timezone"),
        "end_time": body.get("end_time"),
        "next_run_date": (scene.now + due).isoformat(),
    }
    made: dict[str, Any] = scene.call("create_cron", thread, {"assistant_id": "counter", **body}, timing)
    return made


def update(scene: Scene, made: dict[str, Any], due: timedelta = MINUTE, **body: object) -> dict[str, Any] | None:
    timing = {
        "schedule": body.get("schedule", made["schedule"]),
        "timezone": body.get("timezone", made["timezone"]),
        "end_time": body.get("end_time"),
        "next_run_date": (scene.now + due).isoformat(),
    }
    changed: dict[str, Any] | None = scene.call("update_cron", made["cron_id"], body, timing)
    return changed


def due(scene: Scene, limit: int = 200) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scene.bare("due_crons", limit)
    return found


def fire(scene: Scene, *ticks: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Fire these ticks, or all that are due, as a control plane would: the answers, by cron."""
    now = scene.now.replace(second=0, microsecond=0) + MINUTE
    asked = [{**tick, "next_run_date": now.isoformat()} for tick in ticks or due(scene)]
    fired: list[dict[str, Any]] = scene.bare("fire_crons", json.dumps(asked))
    return {one["cron_id"]: one for one in fired}


def row(scene: Scene, made: dict[str, Any]) -> dict[str, Any]:
    [found] = scene.rows("select * from duragraph.crons where cron_id = %s", made["cron_id"])
    return found


def runs_of(scene: Scene, made: dict[str, Any]) -> list[dict[str, Any]]:
    return scene.rows("select * from duragraph.runs where metadata ->> 'cron_id' = %s order by run_id", made["cron_id"])


# made, changed, found


def test_a_cron_shows_what_was_asked_and_what_was_resolved(scene: Scene) -> None:
    made = cron(scene, input={"target": 1}, metadata={"tag": "x"}, config={"recursion_limit": 7})
    assert scene.call("get_cron", made["cron_id"]) == made
    assert (made["thread_id"], made["user_id"], made["timezone"], made["end_time"]) == (None, "", None, None)
    assert (made["on_run_completed"], made["enabled"], made["metadata"]) == ("delete", True, {"tag": "x"})
    assert made["payload"] == {
        "schedule": "* * * * *",
        "input": {"target": 1},
        "assistant_id": made["assistant_id"],
        "metadata": {"tag": "x"},
        "config": {"recursion_limit": 7, "configurable": {"cron_id": made["cron_id"]}},
    }
    assert made["next_run_date"].endswith("+00:00")
    assert made["created_at"] == made["updated_at"]


def test_what_a_cron_needs_must_be_there(scene: Scene) -> None:
    def refused(thread: str | None, assistant: str) -> tuple[str, str | None]:
        body = {"assistant_id": assistant, "schedule": "* * * * *"}
        return scene.refused("create_cron", thread, body, {"schedule": "* * * * *", "next_run_date": None})

    assert refused(None, "nope") == ("DG404", "assistant_not_found")
    assert refused(None, MISSING) == ("DG404", "assistant_not_found")
    assert refused(MISSING, "counter") == ("DG404", "thread_not_found")
    for function, *arguments in (("get_cron",), ("delete_cron",), ("cron_timing",), ("update_cron", {}, {})):
        assert scene.refused(str(function), MISSING, *arguments) == ("DG404", "cron_not_found")
    assert scene.value("select count(*) from duragraph.crons") == 0


def test_an_update_changes_what_is_sent_and_merges_metadata(scene: Scene) -> None:
    made = cron(scene, input={"target": 1}, metadata={"a": 1}, end_time="2100-01-01T00:00:00Z", webhook="http://x.y/")
    changed = update(scene, made, schedule="0 12 * * *", enabled=False, metadata={"b": 2}, due=2 * MINUTE)
    assert changed is not None
    assert (changed["schedule"], changed["enabled"], changed["metadata"]) == ("0 12 * * *", False, {"a": 1, "b": 2})
    assert changed["end_time"] == "2100-01-01T00:00:00.000000+00:00"
    assert changed["payload"]["input"] == {"target": 1}
    assert changed["payload"]["config"] == {"configurable": {"cron_id": made["cron_id"]}}
    assert changed["next_run_date"] > made["next_run_date"]
    cleared = update(scene, changed, end_time=None, config={"configurable": {"z": 1}})
    assert cleared is not None
    assert cleared["end_time"] is None
    assert cleared["payload"]["config"] == {"configurable": {"z": 1, "cron_id": made["cron_id"]}}


def test_a_tick_computed_for_another_schedule_is_not_taken(scene: Scene) -> None:
    made = cron(scene)
    assert update(scene, made, schedule="0 12 * * *", timezone="Europe/Berlin") is not None
    assert update(scene, made, enabled=False) is None
    assert scene.call("get_cron", made["cron_id"])["enabled"] is True


def test_there_is_no_tick_after_the_end(scene: Scene) -> None:
    end = (scene.now + MINUTE).isoformat()
    assert cron(scene, end_time=end)["next_run_date"] is not None
    assert cron(scene, end_time=end, due=2 * MINUTE)["next_run_date"] is None


def test_a_search_finds_pages_sorts_and_counts(scene: Scene) -> None:
    thread = scene.thread()
    first = cron(scene, metadata={"tag": "x"}, due=3 * MINUTE)
    second = cron(scene, thread, metadata={"tag": "y"}, due=2 * MINUTE)
    ids = [first["cron_id"], second["cron_id"]]

    def found(**request: object) -> list[str]:
        return [one["cron_id"] for one in scene.page("search_crons", **request)[0]]

    assert sorted(found()) == sorted(ids)
    assert found(sort_by="next_run_date", sort_order="asc") == ids[::-1]
    assert found(thread_id=thread) == [second["cron_id"]]
    assert found(metadata={"tag": "x"}) == [first["cron_id"]]
    assert found(assistant_id=first["assistant_id"], enabled=False) == []
    assert scene.page("search_crons", limit=1, select=["schedule"]) == ([{"schedule": "* * * * *"}], 2, 1)
    assert scene.call("count_crons", {"thread_id": thread}) == 1
    assert scene.refused("search_crons", {"sort_by": "payload"}) == ("DG422", "invalid_sort")


def test_crons_go_with_their_thread_and_their_assistant(scene: Scene) -> None:
    thread = scene.thread()
    cron(scene, thread)
    own = scene.call("create_assistant", {"graph_id": "counter"})["assistant_id"]
    cron(scene, assistant_id=own)
    stays = cron(scene)
    scene.call("delete_thread", thread)
    scene.call("delete_assistant", own)
    assert scene.rows("select cron_id::text from duragraph.crons") == [{"cron_id": stays["cron_id"]}]
    scene.call("delete_cron", stays["cron_id"])
    assert scene.call("count_crons") == 0


# firing


def test_a_tick_makes_one_run_and_advances_the_cron(scene: Scene) -> None:
    thread = scene.thread()
    made = cron(scene, thread, input={"target": 1}, metadata={"m": 1}, webhook="http://example.com/hook")
    assert due(scene) == []
    scene.wait(60)
    [tick] = due(scene)
    assert fire(scene, tick)[made["cron_id"]]["run_id"]
    assert fire(scene, tick) == {}, "the tick is gone"
    assert due(scene) == []
    [run] = runs_of(scene, made)
    shown = scene.call("get_run", run["run_id"], thread)
    assert shown["metadata"]["m"] == 1
    assert shown["kwargs"]["config"]["configurable"]["cron_id"] == made["cron_id"]
    assert (shown["kwargs"]["input"], shown["kwargs"]["webhook"]) == ({"target": 1}, "http://example.com/hook")
    assert (row(scene, made)["last_run_id"], row(scene, made)["last_error"]) == (run["run_id"], None)


def test_a_context_does_not_hide_the_cron_from_the_run(scene: Scene) -> None:
    made = cron(scene, scene.thread(), context={"user": "ann"})
    scene.wait(60)
    fire(scene)
    [run] = runs_of(scene, made)
    configurable = scene.call("get_run", run["run_id"], None)["kwargs"]["config"]["configurable"]
    assert (configurable["user"], configurable["cron_id"]) == ("ann", made["cron_id"])


def test_a_stateless_cron_makes_a_thread_each_time_and_keeps_it_when_asked(scene: Scene) -> None:
    kept, gone = cron(scene, on_run_completed="keep"), cron(scene)
    for _ in range(2):
        scene.wait(60)
        fire(scene)
    first, second = runs_of(scene, kept)
    assert first["thread_id"] != second["thread_id"]
    assert not first["temporary"]
    assert scene.call("get_thread", first["thread_id"])["status"] == "busy"
    assert [run["temporary"] for run in runs_of(scene, gone)] == [True, True]


def test_after_an_outage_there_is_one_run_for_all_missed_ticks(scene: Scene) -> None:
    made = cron(scene)
    scene.wait(3600)
    fire(scene)
    assert len(runs_of(scene, made)) == 1
    assert row(scene, made)["next_run_date"] > scene.now
    assert due(scene) == []


def test_a_disabled_cron_does_not_fire(scene: Scene) -> None:
    made = cron(scene)
    scene.wait(60)
    [tick] = due(scene)
    update(scene, made, enabled=False, due=timedelta(0))
    assert due(scene) == []
    assert fire(scene, {**tick, "tick": scene.now.isoformat()}) == {}
    assert runs_of(scene, made) == []


def test_a_cron_that_has_fired_for_the_last_time_is_over(scene: Scene) -> None:
    made = cron(scene, end_time=(scene.now + MINUTE).isoformat())
    scene.wait(90)
    fire(scene)
    assert len(runs_of(scene, made)) == 1
    assert scene.call("get_cron", made["cron_id"])["next_run_date"] is None
    assert scene.rows("select state from duragraph.cron_overview") == [{"state": "over"}]


def test_a_refused_firing_is_told_advances_and_stops_nobody(scene: Scene) -> None:
    thread = scene.thread()
    busy = cron(scene, thread, multitask_strategy="reject")
    lost = cron(scene)
    good = [cron(scene) for _ in range(5)]
    create(scene, {"thread_id": thread})
    # Whatever way it may have gone, the assistant is not there.
    scene.connection.execute(
        "update duragraph.crons set assistant_id = %s where cron_id = %s", (MISSING, lost["cron_id"])
    )
    scene.wait(60)
    fired = fire(scene)
    assert fired[busy["cron_id"]]["error"]["error"] == "thread_busy"
    assert fired[lost["cron_id"]]["error"]["error"] == "assistant_not_found"
    assert [len(runs_of(scene, one)) for one in (busy, lost, *good)] == [0, 0, 1, 1, 1, 1, 1]
    assert due(scene) == [], "they wait for their next tick"
    shown = scene.rows("select cron_id::text, state, last_error from duragraph.cron_overview where state = 'failing'")
    assert {one["cron_id"]: one["last_error"][:6] for one in shown} == {
        busy["cron_id"]: "Thread",
        lost["cron_id"]: "Thread",
    }
    scene.wait(60)
    finish(scene, scene.claim(scene.worker())[0])
    while claims := scene.claim(scene.worker()):
        finish(scene, claims[0])
    fire(scene)
    assert len(runs_of(scene, busy)) == 1
    assert row(scene, busy)["last_error"] is None


def test_two_crons_that_reject_on_one_thread_do_not_lose_both(scene: Scene) -> None:
    thread = scene.thread()
    both = [cron(scene, thread, multitask_strategy="reject") for _ in range(2)]
    scene.wait(60)
    fire(scene)
    assert sorted(len(runs_of(scene, one)) for one in both) == [0, 1]


def test_a_cron_that_interrupts_takes_its_thread_over(scene: Scene) -> None:
    thread = scene.thread()
    [before] = create(scene, {"thread_id": thread})
    made = cron(scene, thread, multitask_strategy="interrupt")
    scene.wait(60)
    fire(scene)
    assert scene.call("get_run", before, None)["status"] == "interrupted"
    assert len(runs_of(scene, made)) == 1


def test_tenants_fire_together_and_see_only_their_own(db: psycopg.Connection[Any]) -> None:
    db.execute("insert into duragraph.tenants (tenant_id, name) values (2, 'two')")
    ours, theirs = Scene(db, 1), Scene(db, 2)
    ours.worker()
    theirs.worker("worker-2")
    mine, other = cron(ours), cron(theirs)
    ours.wait(60)
    assert set(fire(ours)) == {mine["cron_id"], other["cron_id"]}
    assert ours.rows("select tenant_id from duragraph.runs where metadata ? 'cron_id' order by 1") == [
        {"tenant_id": 1},
        {"tenant_id": 2},
    ]
    assert ours.refused("get_cron", other["cron_id"]) == ("DG404", "cron_not_found")
    assert ours.refused("delete_cron", other["cron_id"]) == ("DG404", "cron_not_found")


def test_many_due_crons_are_given_in_bounded_batches(scene: Scene) -> None:
    for n in range(7):
        cron(scene, due=timedelta(seconds=n))
    scene.wait(60)
    sizes = []
    while batch := due(scene, 3):
        sizes.append(len(fire(scene, *batch)))
    assert sizes == [3, 3, 1]


# races


class Race:
    """Two control planes that saw the same due cron."""

    def __init__(self, one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
        self.one, self.other = Scene(one), Scene(other)
        self.key = self.one.worker()
        self.thread = self.one.thread()
        self.made = cron(self.one, self.thread, due=-MINUTE)
        [self.tick] = due(self.one)

    def fire_both(self) -> tuple[int, int]:
        """The first fires and keeps its transaction open, the second fires; how many each made."""
        with ThreadPoolExecutor(1) as pool:
            with self.one.connection.transaction():
                first = fire(self.one, self.tick)
                late = pool.submit(fire, self.other, self.tick)
                wait_for(lambda: late.done() or self.waits(), what="the second to be done, or to wait")
            return len(first), len(late.result(timeout=10))

    def waits(self) -> bool:
        return bool(
            self.one.value(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
        )

    def waits_elsewhere(self) -> bool:
        """Asked inside a transaction, whose view of the activity would otherwise stay as it was."""
        self.one.value("select 1 from pg_stat_clear_snapshot()")
        return self.waits()


@pytest.fixture
def race(two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> Iterator[Race]:
    return Race(*two)


def test_two_processes_fire_a_tick_once(race: Race) -> None:
    assert race.fire_both() == (1, 0)
    assert fire(race.other, race.tick) == {}
    assert len(runs_of(race.one, race.made)) == 1


def test_without_the_tick_in_the_condition_it_would_fire_twice(race: Race) -> None:
    weaken(race.one.connection, "fire_crons", "and c.next_run_date = t.tick")
    race.fire_both()
    fire(race.other, race.tick)
    assert len(runs_of(race.one, race.made)) == 2


def test_without_the_row_lock_it_would_fire_twice(race: Race) -> None:
    weaken(race.one.connection, "fire_crons", "for update of c skip locked")
    race.fire_both()
    assert len(runs_of(race.one, race.made)) == 2


def test_a_failed_firing_leaves_the_tick_to_others(race: Race) -> None:
    with race.one.connection.transaction(force_rollback=True):
        fire(race.one, race.tick)
    assert len(fire(race.other, race.tick)) == 1
    assert len(runs_of(race.one, race.made)) == 1


def test_a_thread_deleted_while_its_cron_is_made_takes_the_cron_with_it(race: Race) -> None:
    with ThreadPoolExecutor(1) as pool:
        with race.one.connection.transaction():
            cron(race.one, race.thread)
            late = pool.submit(race.other.call, "delete_thread", race.thread)
            wait_for(lambda: late.done() or race.waits(), what="the deletion to wait for the cron")
        late.result(timeout=10)
    assert race.one.call("count_crons") == 0


def test_an_assistant_deleted_while_its_cron_is_made_takes_the_cron_with_it(race: Race) -> None:
    own = race.one.call("create_assistant", {"graph_id": COUNTER["graph_id"]})["assistant_id"]
    with ThreadPoolExecutor(1) as pool:
        with race.one.connection.transaction():
            made = cron(race.one, assistant_id=own)
            late = pool.submit(race.other.call, "delete_assistant", own)
            wait_for(lambda: late.done() or race.waits(), what="the deletion to wait for the cron")
        late.result(timeout=10)
    assert race.one.refused("get_cron", made["cron_id"]) == ("DG404", "cron_not_found")


def test_deleting_a_thread_and_firing_its_cron_never_deadlock(race: Race) -> None:
    race.other.connection.execute("set deadlock_timeout = '50ms'")
    with ThreadPoolExecutor(1) as pool:
        with race.one.connection.transaction():
            assert len(fire(race.one, race.tick)) == 1
            late = pool.submit(race.other.call, "delete_thread", race.thread)
            wait_for(lambda: late.done() or race.waits(), what="the deletion to wait for the firing")
        late.result(timeout=10)
    assert runs_of(race.one, race.made) == []


def test_without_the_first_deletion_a_thread_and_its_cron_would_deadlock(race: Race) -> None:
    first = "delete from duragraph.crons c where c.tenant_id = p_tenant and c.thread_id = p_thread;\n  v_ended"
    weaken(race.one.connection, "delete_thread", first, "v_ended")
    race.other.connection.execute("set deadlock_timeout = '50ms'")
    race.one.connection.execute("set deadlock_timeout = '10s'")
    taking = "select from duragraph.crons where cron_id = %s for update"

    def fire_late() -> None:
        with race.one.connection.transaction():
            race.one.connection.execute(taking, (race.made["cron_id"],))
            held.set()
            wait_for(race.waits_elsewhere, what="the deletion to wait for the cron")
            fire(race.one, race.tick)

    held = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        firing = pool.submit(fire_late)
        assert held.wait(10)
        with pytest.raises(psycopg.errors.DeadlockDetected):
            race.other.call("delete_thread", race.thread)
        firing.result(timeout=10)


def test_the_clock_of_the_database_decides(scene: Scene) -> None:
    made = cron(scene)
    now = scene.call("cron_timing", made["cron_id"])["now"]
    assert datetime.fromisoformat(now) == scene.now
