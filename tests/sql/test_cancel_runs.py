"""A cancelled run ends at once, wherever it is, and is never started again."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import append, everything, finish, line, silence, status, thread_status
from tests.sql.invariants import violations
from tests.sql.scene import Scene


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    scene.worker()
    return scene


def cancel(scene: Scene, *runs: str, **request: object) -> list[dict[str, Any]]:
    ended: list[dict[str, Any]] = scene.call("cancel_runs", {**({"run_ids": list(runs)} if runs else {}), **request})[
        "runs"
    ]
    return ended


def brought_to(scene: Scene, place: str, thread: str | None) -> str:
    """A run that is ready, leased, delayed or backing off."""
    run = scene.run(thread, after_seconds=60 if place == "delayed" else None)
    if place in ("leased", "backing off"):
        [claim] = scene.claim(scene.worker())
        assert claim["run_id"] == run
        if place == "backing off":
            assert finish(scene, claim, "retry", retry_after=60)
    return run


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
@pytest.mark.parametrize("on_thread", [True, False])
@pytest.mark.parametrize("place", ["ready", "leased", "delayed", "backing off"])
def test_a_run_is_cancelled_wherever_it_is(scene: Scene, place: str, on_thread: bool, action: str) -> None:
    thread = scene.thread() if on_thread else None
    run = brought_to(scene, place, thread)
    [ended] = cancel(scene, run, action=action, reason="not needed")
    assert ended["run_id"] == run
    assert (ended["token"] is not None) == (place == "leased")
    assert status(scene, run) == ("interrupted" if action == "interrupt" else None)
    if action == "interrupt":
        assert scene.call("get_run", run)["cancel_reason"] == "not needed"
        assert scene.call("run_output", run)["done"] is True
    if thread:
        assert thread_status(scene, thread) == "idle"
    assert violations(scene.connection) == []
    # And it is never started again.
    silence(scene)
    scene.worker()
    scene.bare("promote_due")
    assert scene.claim(scene.worker(), 9) == []


def test_a_cancelled_run_writes_nothing_more_and_its_worker_hears_of_it(scene: Scene) -> None:
    thread = scene.thread()
    scene.run(thread)
    [claim] = scene.claim(scene.worker())
    [ended] = cancel(scene, claim["run_id"])
    assert (ended["token"], ended["worker_key"], ended["thread_id"]) == (claim["token"], scene.worker(), thread)
    before = everything(scene)
    assert not append(scene, claim, 1, "custom")
    assert not any(finish(scene, claim, end) for end in ("success", "retry", "release"))
    assert everything(scene) == before
    [beat] = scene.bare("heartbeat", [{"worker_key": scene.worker(), "held": [claim["token"]]}])
    assert beat["lost"] == [claim["token"]]


def test_what_a_cancelled_run_committed_stays(scene: Scene) -> None:
    thread = scene.thread()
    claim, made = scene.counted(thread, scene.worker(), end=None)
    cancel(scene, claim["run_id"])
    state = scene.call("get_state", thread)
    assert state["checkpoint"]["checkpoint_id"] == made[-1]
    assert scene.call("get_thread", thread)["values"]["log"] == ["prepare", "increment", "finish"]


def test_a_run_cancelled_half_way_leaves_its_thread_interrupted(scene: Scene) -> None:
    thread = scene.thread()
    scene.run(thread)
    [claim] = scene.claim(scene.worker())
    scene.superstep(claim, None, -1, {"count": {"set": 1}}, "next")
    cancel(scene, claim["run_id"])
    assert thread_status(scene, thread) == "interrupted"


def test_what_an_earlier_attempt_committed_stays_too(scene: Scene) -> None:
    thread = scene.thread()
    claim, made = scene.counted(thread, scene.worker(), end=None)
    assert finish(scene, claim, "retry", retry_after=60)
    cancel(scene, claim["run_id"])
    assert scene.call("get_state", thread)["checkpoint"]["checkpoint_id"] == made[-1]


def test_a_rollback_erases_what_it_committed(scene: Scene) -> None:
    thread = scene.thread()
    scene.counted(thread, scene.worker())
    before, history = everything(scene), scene.call("get_history", thread)
    shown = scene.call("get_thread", thread)
    claim, _ = scene.counted(thread, scene.worker(), end=None)
    cancel(scene, claim["run_id"], action="rollback")
    assert (everything(scene), scene.call("get_history", thread)) == (before, history)
    now = scene.call("get_thread", thread)
    assert [now[name] for name in ("status", "values", "interrupts")] == [
        shown[name] for name in ("status", "values", "interrupts")
    ]
    assert now["error"]["error"] == "UserRollback"


def test_cancelling_the_active_run_starts_the_next(scene: Scene) -> None:
    for place in ("ready", "leased", "backing off"):
        thread = scene.thread()
        active = brought_to(scene, place, thread)
        second, third = scene.run(thread), scene.run(thread)
        assert [e["run_id"] for e in cancel(scene, active)] == [active]
        assert line(scene, thread) == (second, [third], [])
        assert status(scene, active) == "interrupted"
        assert second in [claim["run_id"] for claim in scene.claim(scene.worker(), 9)]
    assert violations(scene.connection) == []


def test_cancelling_one_that_waits_leaves_the_others(scene: Scene) -> None:
    thread = scene.thread()
    active = brought_to(scene, "leased", thread)
    second, third, fourth = (scene.run(thread) for _ in range(3))
    late = scene.run(thread, after_seconds=60)
    assert [e["run_id"] for e in cancel(scene, third)] == [third]
    assert (line(scene, thread), status(scene, active)) == ((active, [second, fourth], [late]), "running")
    assert sorted(e["run_id"] for e in cancel(scene, second, late)) == sorted([second, late])
    assert line(scene, thread) == (active, [fourth], [])
    assert sorted(e["run_id"] for e in cancel(scene, active, fourth)) == sorted([active, fourth])
    assert line(scene, thread) is None
    assert violations(scene.connection) == []


def test_cancelling_the_active_and_keeping_a_delayed_one(scene: Scene) -> None:
    thread = scene.thread()
    active, late = scene.run(thread), scene.run(thread, after_seconds=60)
    cancel(scene, active)
    assert line(scene, thread) == (None, [], [late])
    scene.wait(60)
    assert [claim["run_id"] for claim in scene.claim(scene.worker())] == [late]


def test_all_runs_of_a_thread(scene: Scene) -> None:
    thread, other = scene.thread(), scene.thread()
    runs = [brought_to(scene, "leased", thread), scene.run(thread), scene.run(thread, after_seconds=9)]
    kept = scene.run(other)
    assert sorted(e["run_id"] for e in cancel(scene, thread_id=thread)) == sorted(runs)
    assert (line(scene, thread), line(scene, other)) == (None, (kept, [], []))


@pytest.mark.parametrize(("wanted", "expected"), [("pending", 4), ("running", 2), ("all", 6)])
def test_all_runs_of_a_status(scene: Scene, wanted: str, expected: int) -> None:
    thread = scene.thread()
    brought_to(scene, "leased", thread)
    brought_to(scene, "leased", None)
    brought_to(scene, "backing off", None)
    brought_to(scene, "ready", None)
    brought_to(scene, "delayed", thread)
    scene.run(thread)
    ended = cancel(scene, status=wanted)
    assert len(ended) == expected
    left = scene.rows("select run_id from duragraph.runs where status = 'pending'")
    assert len(left) == 6 - expected
    assert violations(scene.connection) == []


def test_what_has_ended_or_is_not_there_is_404(scene: Scene) -> None:
    run = brought_to(scene, "leased", None)
    cancel(scene, run)
    waiting = scene.run(scene.thread())
    foreign = Scene(scene.connection, tenant=2)
    foreign.worker()
    theirs = foreign.run(foreign.thread())
    before = everything(scene)
    for request in (
        {"run_ids": [run]},
        {"run_ids": [str(uuid4())]},
        {"run_ids": [theirs]},
        {"run_ids": []},
        {"run_ids": [waiting], "thread_id": scene.thread()},
        {"thread_id": str(uuid4())},
        {"status": "running"},
        {},
    ):
        assert scene.refused("cancel_runs", request) == ("DG404", "run_not_found"), request
    assert everything(scene) == before
    assert status(scene, theirs) == "pending"


def test_an_unknown_action_is_refused(scene: Scene) -> None:
    run = scene.run(None)
    assert scene.refused("cancel_runs", {"run_ids": [run], "action": "explode"}) == ("DG422", "invalid_action")
    assert status(scene, run) == "pending"


@pytest.mark.parametrize("place", ["ready", "leased", "delayed", "backing off", "ended"])
@pytest.mark.parametrize("on_thread", [True, False])
def test_a_deleted_run_is_gone_wherever_it_was(scene: Scene, place: str, on_thread: bool) -> None:
    thread = scene.thread() if on_thread else None
    run = brought_to(scene, "leased" if place == "ended" else place, thread)
    if place == "ended":
        scene.bare("cancel_run", run)
    gone = scene.call("delete_run", thread, run)["runs"]
    assert [g["run_id"] for g in gone] == ([] if place == "ended" else [run])
    assert scene.refused("get_run", run) == ("DG404", "run_not_found")
    assert scene.refused("delete_run", thread, run) == ("DG404", "run_not_found")
    assert [name for name, n in everything(scene).items() if n] == []
    if thread:
        assert thread_status(scene, thread) == "idle"


def test_deleting_the_active_run_starts_the_next(scene: Scene) -> None:
    thread = scene.thread()
    active, following = brought_to(scene, "leased", thread), scene.run(thread)
    scene.call("delete_run", thread, active)
    assert line(scene, thread) == (following, [], [])
    assert scene.refused("delete_run", scene.thread(), following) == ("DG404", "run_not_found")


def test_a_run_on_which_another_stands_is_not_deleted_from_under_it(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    first, made = scene.counted(thread, key)
    scene.run(thread)
    [claim] = scene.claim(key)
    assert scene.refused("delete_run", thread, first["run_id"]) == ("DG409", "thread_busy")
    scene.superstep(claim, made[-1], 9, {"log": {"append": ["more"]}}, end={"status": "success"})
    scene.call("delete_run", thread, first["run_id"])
    assert scene.call("get_thread", thread)["values"]["log"] == ["prepare", "increment", "finish", "more"]
    assert violations(scene.connection) == []


def test_deleting_an_old_run_leaves_the_error_of_a_later_one(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    first, _ = scene.counted(thread, key)
    scene.wait(1)
    scene.run(thread)
    [claim] = scene.claim(key)
    assert finish(scene, claim, "error", error={"error": "E", "message": "m"})
    scene.call("delete_run", thread, first["run_id"])
    assert thread_status(scene, thread) == "error"
    scene.call("delete_run", thread, claim["run_id"])
    assert (thread_status(scene, thread), scene.call("get_thread", thread)["error"]) == ("idle", None)
