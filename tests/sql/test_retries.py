"""A failed attempt is followed by another, later, from where it stood, until attempts are used up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.acts import append, events, finish, line, places, silence, status, thread_status
from tests.sql.invariants import violations
from tests.sql.scene import Scene

ERROR = {"error": "ConnectionError", "message": "no route"}


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    scene.worker()
    return scene


def claimed(scene: Scene, thread: str | None = None, **body: object) -> dict[str, Any]:
    scene.run(thread, **body)
    [claim] = scene.claim(scene.worker())
    return claim


def due_in(scene: Scene, run: str) -> float:
    due: timedelta = scene.value(
        "select due_at - duragraph.current_time() from duragraph.scheduled where run_id = %s", run
    )
    return due.total_seconds()


def test_a_retry_waits_and_comes_back(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    assert finish(scene, claim, "retry", error=ERROR, retry_after=20)
    run = claim["run_id"]
    assert (status(scene, run), places(scene, run), due_in(scene, run)) == ("pending", ["scheduled"], 20)
    assert scene.claim(scene.worker()) == []
    reason = scene.value("select reason from duragraph.runs where run_id = %s", run)
    assert reason.startswith("attempt 1 of 3 failed: no route; next at ")
    scene.wait(20)
    [again] = scene.claim(scene.worker())
    assert (again["run_id"], again["attempt"]) == (run, 2)
    assert again["token"] != claim["token"]
    assert violations(scene.connection) == []


def test_the_waits_grow_and_are_bounded(scene: Scene) -> None:
    claim = claimed(scene, max_attempts=14)
    waits = []
    for _ in range(13):
        assert finish(scene, claim, "retry")
        waits.append(due_in(scene, claim["run_id"]))
        scene.wait(300)
        scene.worker()
        [claim] = scene.claim(scene.worker())
    steps = [min(300, 2**n) for n in range(13)]
    assert all(step / 2 <= waited <= step for step, waited in zip(steps, waits, strict=True)), waits


def test_a_run_that_backs_off_keeps_its_thread(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    following = scene.run(thread)
    assert finish(scene, claim, "retry", retry_after=60)
    assert line(scene, thread) == (claim["run_id"], [following], [])
    assert (scene.claim(scene.worker(), 9), thread_status(scene, thread)) == ([], "busy")


def test_used_up_attempts_end_the_run_with_its_last_error(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread, max_attempts=2)
    following = scene.run(thread)
    assert finish(scene, claim, "retry", error=ERROR, retry_after=0)
    [claim] = scene.claim(scene.worker())
    assert append(scene, claim, 1, "custom")
    assert finish(scene, claim, "retry", error=ERROR, retry_after=0)
    run = scene.call("get_run", claim["run_id"])
    assert (run["status"], run["attempt"], run["error"]) == ("error", 2, ERROR)
    assert events(scene, claim["run_id"])[-1] == (3, "error", ERROR)
    assert line(scene, thread) == (following, [], [])
    reason = scene.value("select reason from duragraph.runs where run_id = %s", claim["run_id"])
    assert reason == "no route; all 2 attempts are used"
    assert violations(scene.connection) == []


def test_a_run_that_kills_its_workers_ends(scene: Scene) -> None:
    thread = scene.thread()
    run = scene.run(thread, max_attempts=3)
    outcomes = []
    for _ in range(3):
        scene.worker(lease_seconds=10)
        [claim] = scene.claim(scene.worker(lease_seconds=10))
        assert claim["run_id"] == run
        outcomes += [taken["outcome"] for taken in silence(scene, 60)]
    assert outcomes == ["requeued", "requeued", "failed"]
    ended = scene.call("get_run", run)
    assert (ended["status"], ended["error"]["error"]) == ("error", "AttemptsExhausted")
    assert ended["error"]["message"] == "worker worker-1 stopped answering; all 3 attempts are used"
    assert thread_status(scene, thread) == "error"
    assert [name for _, name, _ in events(scene, run)] == ["metadata", "metadata", "error"]
    assert violations(scene.connection) == []


def test_one_attempt_means_one(scene: Scene) -> None:
    claim = claimed(scene, max_attempts=1)
    assert finish(scene, claim, "retry")
    assert status(scene, claim["run_id"]) == "error"


def test_handing_back_costs_no_attempt(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread, max_attempts=1)
    following = scene.run(thread)
    for _ in range(4):
        assert claim["attempt"] == 1
        assert finish(scene, claim, "release")
        assert line(scene, thread) == (claim["run_id"], [following], [])
        [claim] = scene.claim(scene.worker(), 9)
    assert events(scene, claim["run_id"]) == []
    assert finish(scene, claim)
    assert violations(scene.connection) == []


def test_a_run_that_comes_back_goes_behind_those_of_its_priority(scene: Scene) -> None:
    claim = claimed(scene, priority=3)
    urgent, same, low = (scene.run(None, priority=p) for p in (9, 3, 0))
    assert finish(scene, claim, "release")
    order = [scene.claim(scene.worker())[0]["run_id"] for _ in range(4)]
    assert order == [urgent, same, claim["run_id"], low]


def test_a_batch_may_end_return_and_fail_runs_of_many_threads(scene: Scene) -> None:
    ends = ["success", "retry", "release", "retry", "error"]
    claims = [claimed(scene, scene.thread(), max_attempts=1 if n == 3 else 2) for n in range(5)]
    batch = [
        {"run_id": c["run_id"], "token": c["token"], "write_no": 1, "end": {"status": end, "error": ERROR}}
        for c, end in zip(claims, ends, strict=True)
    ]
    assert scene.bare("commit_steps", batch) == {"refused": [], "ready": True}
    assert [status(scene, c["run_id"]) for c in claims] == ["success", "pending", "pending", "error", "error"]
    assert violations(scene.connection) == []
