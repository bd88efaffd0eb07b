"""From psql alone: submit a run, cancel it, take it from its worker, retry it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import append, events, finish, line, places, status, thread_status
from tests.sql.invariants import violations
from tests.sql.scene import Scene, step

ERROR = {"error": "ValueError", "message": "kaboom"}


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    scene.worker()
    return scene


def submit(scene: Scene, *arguments: Any) -> str:
    return str(scene.bare("submit_run", "counter", *arguments))


def failed(scene: Scene, thread: str | None = None) -> dict[str, Any]:
    scene.run(thread, max_attempts=1)
    [claim] = scene.claim(scene.worker())
    assert append(scene, claim, 1, "custom")
    assert finish(scene, claim, "error", error=ERROR)
    return claim


def test_submitting_a_run(scene: Scene) -> None:
    run = submit(scene, {"question": "why?"})
    [claim] = scene.claim(scene.worker())
    assert (claim["run_id"], claim["kwargs"]["input"], claim["temporary"]) == (run, {"question": "why?"}, True)
    thread = str(uuid4())
    options = {"after_seconds": 5, "priority": 3, "max_attempts": 9, "idempotency_key": "k"}
    later = submit(scene, {"n": 1}, thread, options)
    assert (places(scene, later), thread_status(scene, thread)) == (["scheduled"], "busy")
    assert submit(scene, {"n": 1}, thread, options) == later
    assert submit(scene) not in (run, later)


def test_submitting_wakes_those_who_wait(fresh_db: str) -> None:
    with psycopg.connect(fresh_db, autocommit=True) as listener, psycopg.connect(fresh_db, autocommit=True) as operator:
        listener.execute("listen duragraph_ready")
        listener.execute("listen duragraph_runs")
        listener.execute("listen duragraph_workers")
        scene = Scene(operator)
        key = scene.worker()
        run = submit(scene)
        heard = {(n.channel, n.payload) for n in listener.notifies(timeout=5, stop_after=2)}
        assert heard == {("duragraph_ready", ""), ("duragraph_runs", run)}
        [claim] = scene.claim(key)
        scene.bare("cancel_run", run)
        heard = {(n.channel, n.payload) for n in listener.notifies(timeout=5, stop_after=3)}
        assert ("duragraph_workers", f"{key}:{claim['token']}") in heard


def test_cancelling_says_what_was_done(scene: Scene) -> None:
    waiting, running, missing = scene.run(None), scene.run(None), str(uuid4())
    scene.bare("cancel_run", waiting)
    scene.claim(scene.worker())
    assert scene.bare("cancel_run", running, "too dear") == f"Run {running} is cancelled; its worker is told to stop."
    assert scene.call("get_run", running)["cancel_reason"] == "too dear"
    assert scene.bare("cancel_run", running) == f"Run {running} has already ended: interrupted."
    assert scene.bare("cancel_run", missing) == f"There is no run {missing}."
    last = scene.run(None)
    assert scene.bare("cancel_run", last) == f"Run {last} is cancelled; it had not started."


def test_taking_a_run_from_its_worker(scene: Scene) -> None:
    thread = scene.thread()
    run, following = scene.run(thread, max_attempts=1), scene.run(thread)
    [claim] = scene.claim(scene.worker())
    said = scene.bare("requeue_run", run)
    assert said == f"Run {run} is back in the queue; what its worker still sends is refused."
    assert not append(scene, claim, 1, "late")
    assert line(scene, thread) == (run, [following], [])
    [again] = scene.claim(scene.worker())
    assert (again["run_id"], again["attempt"]) == (run, 1)
    assert violations(scene.connection) == []


def test_starting_a_delayed_run_now(scene: Scene) -> None:
    thread = scene.thread()
    for run in (scene.run(None, after_seconds=3600), scene.run(thread, after_seconds=3600)):
        assert scene.bare("requeue_run", run) == f"Run {run} need not wait for its time any more."
        assert places(scene, run) == ["ready"]
    behind = scene.run(thread, after_seconds=3600)
    scene.bare("requeue_run", behind)
    assert places(scene, behind) == ["waiting"]
    assert violations(scene.connection) == []


def test_there_is_nothing_to_requeue_about_a_run_that_is_ready(scene: Scene) -> None:
    run = scene.run(None)
    assert scene.bare("requeue_run", run).startswith("It is ready: ")
    assert scene.bare("requeue_run", str(uuid4())).startswith("There is no run ")


@pytest.mark.parametrize("on_thread", [True, False])
def test_retrying_a_failed_run(scene: Scene, on_thread: bool) -> None:
    thread = scene.thread() if on_thread else None
    run = failed(scene, thread)["run_id"]
    assert scene.bare("retry_run", run) == f"Run {run} is queued again: attempt 2, from its last checkpoint."
    assert status(scene, run) == "pending"
    if thread:
        assert (thread_status(scene, thread), scene.call("get_thread", thread)["error"]) == ("busy", None)
    [claim] = scene.claim(scene.worker())
    assert (claim["run_id"], claim["attempt"], claim["max_attempts"]) == (run, 2, 2)
    assert append(scene, claim, 1, "custom")
    assert finish(scene, claim)
    assert [(seq, name) for seq, name, _ in events(scene, run)] == [(1, "custom"), (2, "metadata"), (3, "custom")]
    shown = scene.call("get_run", run)
    assert (shown["status"], shown["error"]) == ("success", None)
    assert violations(scene.connection) == []


def test_a_retry_does_not_repeat_finished_steps(scene: Scene) -> None:
    thread = scene.thread()
    scene.run(thread)
    [claim] = scene.claim(scene.worker())
    head = scene.superstep(claim, None, -1, {"count": {"set": 1}}, "pay", "fail")
    scene.commit(claim, steps=[step(head, "pay", {"paid": True})], end={"status": "error", "error": ERROR})
    scene.bare("retry_run", claim["run_id"])
    [claim] = scene.claim(scene.worker())
    assert (claim["resumed"], claim["checkpoint"]["checkpoint_id"]) == (True, head)
    assert [(entry["name"], entry["result"]) for entry in claim["journal"]] == [("pay", {"paid": True})]


def test_retrying_a_cancelled_run_that_never_started(scene: Scene) -> None:
    run = scene.run(scene.thread())
    scene.bare("cancel_run", run)
    scene.bare("retry_run", run)
    [claim] = scene.claim(scene.worker())
    assert (claim["run_id"], claim["attempt"]) == (run, 1)
    assert finish(scene, claim)
    assert scene.call("get_run", run)["cancel_reason"] is None


def test_what_cannot_be_retried_says_why(scene: Scene) -> None:
    thread = scene.thread()
    run = failed(scene, thread)["run_id"]
    busy = scene.run(thread)
    assert scene.bare("retry_run", run) == f"Thread {thread} is busy; retry run {run} when its other runs have ended."
    assert status(scene, run) == "error"
    assert scene.bare("retry_run", busy).startswith("It is ready: ")
    [claim] = scene.claim(scene.worker())
    assert finish(scene, claim)
    assert scene.bare("retry_run", busy) == f"Run {busy} succeeded; there is nothing to retry."
    assert scene.bare("retry_run", thread) == f"There is no run {thread}."
    scene.bare("retry_run", run)
    assert line(scene, thread) == (run, [], [])
    assert violations(scene.connection) == []
