"""A run ends once, in one state, and its thread goes on."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.sql.acts import everything, finish, line, places, status, thread_status
from tests.sql.invariants import violations
from tests.sql.scene import Scene, question

ERROR = {"error": "ValueError", "message": "kaboom"}


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    scene.worker()
    return scene


def claimed(scene: Scene, thread: str | None) -> dict[str, Any]:
    scene.run(thread)
    [claim] = scene.claim(scene.worker())
    return claim


@pytest.mark.parametrize(
    ("ended", "thread_is"),
    [("success", "idle"), ("error", "error"), ("timeout", "error"), ("interrupted", "idle")],
)
def test_the_thread_shows_how_its_run_ended(scene: Scene, ended: str, thread_is: str) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    scene.wait(2)
    assert finish(scene, claim, ended, error=ERROR if ended == "error" else None)
    assert (status(scene, claim["run_id"]), thread_status(scene, thread)) == (ended, thread_is)
    shown = scene.call("get_thread", thread, ["error"])
    assert bool(shown["error"]) == (thread_is == "error")
    run = scene.call("get_run", claim["run_id"])
    assert (run["error"] == ERROR) == (ended == "error")
    assert run["updated_at"] > run["created_at"]
    assert (places(scene, claim["run_id"]), line(scene, thread)) == ([], None)


def test_a_later_success_clears_the_error_of_the_thread(scene: Scene) -> None:
    thread = scene.thread()
    assert finish(scene, claimed(scene, thread), "error", error=ERROR)
    assert finish(scene, claimed(scene, thread))
    assert (thread_status(scene, thread), scene.call("get_thread", thread)["error"]) == ("idle", None)


def test_an_error_without_a_reason_gets_one(scene: Scene) -> None:
    claim = claimed(scene, scene.thread())
    assert finish(scene, claim, "error")
    assert scene.call("get_run", claim["run_id"])["error"]["message"] == "no reason given"


def test_a_run_ends_only_once(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    assert finish(scene, claim)
    before, shown = everything(scene), scene.call("get_run", claim["run_id"])
    assert finish(scene, claim), "a repeat of the same ending is answered as done"
    assert finish(scene, claim, "error", error=ERROR)
    assert not finish(scene, {**claim, "token": claim["token"] + 1}, "error", error=ERROR)
    assert (everything(scene), scene.call("get_run", claim["run_id"])) == (before, shown)


def test_an_attempt_that_was_superseded_cannot_end_the_run(scene: Scene) -> None:
    claim = claimed(scene, scene.thread())
    scene.bare("requeue_run", claim["run_id"])
    assert not finish(scene, claim)
    assert status(scene, claim["run_id"]) == "pending"
    [successor] = scene.claim(scene.worker())
    assert not finish(scene, claim)
    write = {"run_id": claim["run_id"], "end": {"status": "success"}}
    both = [{**write, "token": claim["token"]}, {**write, "token": successor["token"]}]
    assert scene.bare("complete_runs", both)["refused"] == [{"n": 0, "reason": "lease_lost"}]
    assert status(scene, claim["run_id"]) == "success"
    assert not finish(scene, claim)


def test_an_unknown_ending_is_refused(scene: Scene) -> None:
    claim = claimed(scene, None)
    for wrong in ("done", "pending", "running", "", None):
        with pytest.raises(psycopg.Error) as caught, scene.connection.transaction():
            finish(scene, claim, wrong)  # type: ignore[arg-type]  # that is the point
        assert caught.value.sqlstate == "DG422"
    assert status(scene, claim["run_id"]) == "running"


def test_a_batch_ends_runs_of_many_threads_and_starts_the_next_of_each(scene: Scene) -> None:
    threads = [scene.thread() for _ in range(4)]
    claims = [claimed(scene, thread) for thread in threads] + [claimed(scene, None)]
    following = [[scene.run(thread) for _ in range(n)] for n, thread in enumerate(threads)]
    late = scene.run(threads[0], after_seconds=60)
    ends = ["success", "error", "retry", "interrupted", "success"]
    batch = [
        {"run_id": c["run_id"], "token": c["token"], "end": {"status": e, "error": ERROR, "retry_after": 60}}
        for c, e in zip(claims, ends, strict=True)
    ]
    assert scene.bare("complete_runs", batch) == {"refused": [], "ready": True}
    assert [line(scene, thread) for thread in threads] == [
        (None, [], [late]),
        (following[1][0], [], []),
        (claims[2]["run_id"], following[2], []),
        (following[3][0], following[3][1:], []),
    ]
    assert [status(scene, claim["run_id"]) for claim in claims] == [
        "success",
        "error",
        "pending",
        "interrupted",
        "success",
    ]
    assert sorted(c["run_id"] for c in scene.claim(scene.worker(), 99)) == sorted([following[1][0], following[3][0]])
    assert violations(scene.connection) == []


def test_only_what_becomes_claimable_is_called_ready(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    end = {"run_id": claim["run_id"], "token": claim["token"], "end": {"status": "success"}}
    assert scene.bare("complete_runs", [end])["ready"] is False
    claim = claimed(scene, thread)
    scene.run(thread, after_seconds=60)
    end = {"run_id": claim["run_id"], "token": claim["token"], "end": {"status": "success"}}
    assert scene.bare("complete_runs", [end])["ready"] is False


def test_the_output_of_a_stateless_run_is_kept(scene: Scene) -> None:
    claim = claimed(scene, None)
    asked = {"count": 1, "__interrupt__": [{"value": "sure?", "id": "x"}]}
    assert finish(scene, claim, output=asked)
    assert scene.call("run_output", claim["run_id"]) == {"status": "success", "done": True, "output": asked}
    quiet = claimed(scene, None)
    assert finish(scene, quiet)
    assert scene.call("run_output", quiet["run_id"]) == {"status": "success", "done": True, "output": {}}


def test_what_a_caller_who_waits_is_told(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    values = scene.call("get_thread", thread)["values"]
    run = scene.run(thread)
    told = [scene.call("run_output", run)]
    [claim] = scene.claim(key)
    told.append(scene.call("run_output", run))
    assert finish(scene, claim, "retry", retry_after=9)
    told.append(scene.call("run_output", run))
    assert [(t["status"], t["done"], t["output"]) for t in told] == [
        ("pending", False, values),
        ("running", False, values),
        ("pending", False, values),
    ]
    scene.wait(9)
    [claim] = scene.claim(key)
    assert finish(scene, claim, "error", error=ERROR)
    assert scene.call("run_output", run) == {"status": "error", "done": True, "output": {"__error__": ERROR}}
    assert scene.refused("run_output", thread) == ("DG404", "run_not_found")
    assert Scene(scene.connection, tenant=2).refused("run_output", run) == ("DG404", "run_not_found")


def test_questions_are_told_in_the_order_of_their_tasks(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    run = scene.run(thread)
    [claim] = scene.claim(key)
    nodes = ["delta", "charlie", "bravo", "alpha"]  # their ids sort the other way round
    at = scene.superstep(claim, None, -1, {}, *nodes)
    scene.commit(claim, interrupts=[question(at, node, node) for node in sorted(nodes)], end={"status": "success"})
    asked = scene.call("run_output", run)["output"]["__interrupt__"]
    assert [one["value"] for one in asked] == nodes


def test_an_old_run_still_tells_its_own_output(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    first, _ = scene.counted(thread, key)
    second, _ = scene.counted(thread, key)
    logs = [scene.call("run_output", c["run_id"])["output"]["log"] for c in (first, second)]
    assert logs == [["prepare", "increment", "finish"], ["prepare", "increment", "finish"] * 2]


def test_an_end_may_name_the_checkpoint_that_the_run_reached(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    claim = claimed(scene, thread)
    write = {"run_id": claim["run_id"], "token": claim["token"], "checkpoint_id": made[2], "end": {"status": "success"}}
    assert scene.bare("complete_runs", [write])["refused"] == []
    assert scene.call("get_state", thread)["checkpoint"]["checkpoint_id"] == made[2]
    assert thread_status(scene, thread) == "interrupted"
