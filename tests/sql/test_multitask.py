"""Double texting: what a new run does to its thread, whatever the thread is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.sql.acts import append, create, everything, finish, line, places, status, thread_status
from tests.sql.invariants import violations
from tests.sql.scene import Scene, question


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    scene.worker(lease_seconds=30)
    return scene


def idle(scene: Scene, thread: str) -> list[str]:
    scene.counted(thread, scene.worker())
    return []


def queued(scene: Scene, thread: str) -> list[str]:
    return [scene.run(thread)]


def running(scene: Scene, thread: str) -> list[str]:
    run = scene.run(thread)
    assert [claim["run_id"] for claim in scene.claim(scene.worker())] == [run]
    return [run]


def in_line(scene: Scene, thread: str) -> list[str]:
    return [*running(scene, thread), scene.run(thread), scene.run(thread)]


def delayed(scene: Scene, thread: str) -> list[str]:
    return [scene.run(thread, after_seconds=60)]


def backing_off(scene: Scene, thread: str) -> list[str]:
    run = scene.run(thread)
    [claim] = scene.claim(scene.worker())
    assert finish(scene, claim, "retry", retry_after=60)
    return [run]


def all_at_once(scene: Scene, thread: str) -> list[str]:
    return [*backing_off(scene, thread), scene.run(thread), scene.run(thread, after_seconds=60)]


BUSY = [queued, running, in_line, delayed, backing_off, all_at_once]
STATES = [idle, *BUSY]
State = Callable[[Scene, str], list[str]]


def names(state: State) -> str:
    return state.__name__


@pytest.mark.parametrize("after_seconds", [None, 30])
@pytest.mark.parametrize("state", BUSY, ids=names)
def test_reject_leaves_a_busy_thread_as_it_is(scene: Scene, state: State, after_seconds: int | None) -> None:
    thread = scene.thread()
    state(scene, thread)
    before, shown = everything(scene), scene.call("get_thread", thread)
    body = {"assistant_id": "counter", "multitask_strategy": "reject", "after_seconds": after_seconds}
    assert scene.refused("create_runs", [{"thread_id": thread, "body": body}]) == ("DG409", "thread_busy")
    assert (everything(scene), scene.call("get_thread", thread)) == (before, shown)
    assert violations(scene.connection) == []


@pytest.mark.parametrize("strategy", ["reject", "enqueue", "interrupt", "rollback"])
def test_on_an_idle_thread_every_strategy_starts(scene: Scene, strategy: str) -> None:
    thread = scene.thread()
    idle(scene, thread)
    shown = scene.call("get_thread", thread)["values"]
    run = scene.run(thread, multitask_strategy=strategy)
    assert line(scene, thread) == (run, [], [])
    assert scene.call("get_run", run)["multitask_strategy"] == strategy
    assert scene.call("get_thread", thread)["values"] == shown
    assert [claim["run_id"] for claim in scene.claim(scene.worker())] == [run]


@pytest.mark.parametrize("state", BUSY, ids=names)
def test_enqueue_waits_behind_all_that_came_before(scene: Scene, state: State) -> None:
    thread = scene.thread()
    before = state(scene, thread)
    held = line(scene, thread)
    assert held is not None
    run = scene.run(thread)
    active, waiting, later = held
    assert line(scene, thread) == ((active, [*waiting, run], later) if active else (run, [], later))
    assert [status(scene, one) for one in before] == [
        "running" if one in running_now(scene) else "pending" for one in before
    ]
    assert violations(scene.connection) == []


def running_now(scene: Scene) -> list[str]:
    return [str(row["run_id"]) for row in scene.rows("select run_id from duragraph.leases")]


@pytest.mark.parametrize("state", BUSY, ids=names)
def test_interrupt_ends_all_that_came_before_and_starts(scene: Scene, state: State) -> None:
    thread = scene.thread()
    before = state(scene, thread)
    run = scene.run(thread, multitask_strategy="interrupt")
    assert [status(scene, one) for one in before] == ["interrupted"] * len(before)
    reasons = {scene.call("get_run", one)["cancel_reason"] for one in before}
    assert reasons == {f"superseded by run {run}"}
    assert line(scene, thread) == (run, [], [])
    assert violations(scene.connection) == []
    assert [claim["run_id"] for claim in scene.claim(scene.worker(), 9)] == [run]
    scene.wait(3600)
    assert scene.claim(scene.worker(), 9) == []


@pytest.mark.parametrize("state", BUSY, ids=names)
def test_rollback_erases_all_that_came_before_and_starts(scene: Scene, state: State) -> None:
    thread = scene.thread()
    idle(scene, thread)
    shown, history = scene.call("get_thread", thread), scene.call("get_history", thread)
    before = state(scene, thread)
    run = scene.run(thread, multitask_strategy="rollback")
    assert [scene.refused("get_run", one) for one in before] == [("DG404", "run_not_found")] * len(before)
    assert line(scene, thread) == (run, [], [])
    assert scene.call("get_history", thread) == history
    now = scene.call("get_thread", thread)
    assert [now[name] for name in ("values", "error", "interrupts")] == [
        shown[name] for name in ("values", "error", "interrupts")
    ]
    assert violations(scene.connection) == []
    assert [claim["run_id"] for claim in scene.claim(scene.worker(), 9)] == [run]


def superseded(scene: Scene, strategy: str) -> tuple[str, dict[str, Any], dict[str, Any], list[str]]:
    """A run half-way on a thread with a state, and its successor's claim."""
    thread = scene.thread()
    idle(scene, thread)
    victim, made = scene.counted(thread, scene.worker(), end=None)
    scene.run(thread, multitask_strategy=strategy)
    [claim] = scene.claim(scene.worker())
    return thread, victim, claim, made


def test_a_superseded_run_writes_nothing_more_and_hears_of_it(scene: Scene) -> None:
    for strategy in ("interrupt", "rollback"):
        _, victim, claim, _ = superseded(scene, strategy)
        before = everything(scene)
        assert not append(scene, victim, 99, "custom")
        assert not finish(scene, victim)
        assert everything(scene) == before
        held = [victim["token"], claim["token"]]
        [beat] = scene.bare("heartbeat", [{"worker_key": scene.worker(), "held": held}])
        assert beat["lost"] == [victim["token"]]
        scene.commit(claim, end={"status": "success"})


def test_after_an_interrupt_the_next_run_goes_on_from_what_was_committed(scene: Scene) -> None:
    thread, _, claim, made = superseded(scene, "interrupt")
    assert claim["checkpoint"]["checkpoint_id"] == made[-1]
    assert claim["checkpoint"]["values"]["log"] == ["prepare", "increment", "finish"] * 2
    assert claim["resumed"] is False
    assert len(scene.call("list_runs", thread, {})) == 3


def test_after_a_rollback_the_next_run_goes_on_from_before(scene: Scene) -> None:
    thread, _, claim, made = superseded(scene, "rollback")
    assert claim["checkpoint"]["values"]["log"] == ["prepare", "increment", "finish"]
    left = [state["checkpoint"]["checkpoint_id"] for state in scene.call("get_history", thread, {"limit": 99})]
    assert not set(left) & set(made)
    assert scene.value("select count(*) from duragraph.channel_values where checkpoint_id = any(%s::uuid[])", made) == 0
    assert scene.value("select count(*) from duragraph.steps where checkpoint_id = any(%s::uuid[])", made) == 0
    assert len(scene.call("list_runs", thread, {})) == 2


def test_a_rollback_takes_back_the_answer_that_the_run_gave(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [asking] = scene.claim(key)
    head = scene.superstep(asking, None, -1, {"count": {"set": 1}}, "ask")
    asked = question(head, "ask", "sure?")
    scene.commit(asking, interrupts=[asked], end={"status": "success"})
    assert thread_status(scene, thread) == "interrupted"
    scene.run(thread, command={"resume": "yes"})
    [answering] = scene.claim(key)
    answer = {"checkpoint_id": head, "task_id": asked["task_id"], "ordinal": 0, "answer": "yes"}
    scene.superstep(answering, head, 0, {"count": {"set": 2}}, answers=[answer])
    scene.run(thread, multitask_strategy="rollback")
    [claim] = scene.claim(key)
    [task] = claim["checkpoint"]["tasks"]
    assert [(i["value"], i["answered"]) for i in task["interrupts"]] == [("sure?", False)]


def test_the_line_is_served_in_the_order_of_arrival(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    runs = [scene.run(thread) for _ in range(5)]
    served = []
    while claims := scene.claim(key, 9):
        [claim] = claims
        served.append(claim["run_id"])
        assert finish(scene, claim)
    assert served == runs
    assert thread_status(scene, thread) == "idle"


def test_a_higher_priority_goes_first_in_the_line_but_not_before_the_active_run(scene: Scene) -> None:
    thread = scene.thread()
    first, low, high = (scene.run(thread, priority=p) for p in (0, 0, 5))
    assert line(scene, thread) == (first, [high, low], [])


def test_in_one_call_each_strategy_meets_the_runs_before_it(scene: Scene) -> None:
    thread = scene.thread()
    a, b, c = create(
        scene,
        {"thread_id": thread},
        {"thread_id": thread, "multitask_strategy": "interrupt"},
        {"thread_id": thread},
    )
    assert (status(scene, a), line(scene, thread)) == ("interrupted", (b, [c], []))
    d, e = create(scene, {"thread_id": thread}, {"thread_id": thread, "multitask_strategy": "rollback"})
    assert [status(scene, run) for run in (a, b, c, d)] == ["interrupted", None, None, None]
    assert line(scene, thread) == (e, [], [])
    other = scene.thread()
    refused = [
        {"thread_id": other, "body": {"assistant_id": "counter", "multitask_strategy": s}}
        for s in ("enqueue", "reject")
    ]
    assert scene.refused("create_runs", refused) == ("DG409", "thread_busy")
    assert line(scene, other) is None
    assert violations(scene.connection) == []


def test_several_threads_interrupted_in_one_call(scene: Scene) -> None:
    threads = [scene.thread() for _ in range(4)]
    for state, thread in zip((running, in_line, delayed, backing_off), threads, strict=True):
        state(scene, thread)
    new = create(scene, *({"thread_id": t, "multitask_strategy": "interrupt"} for t in threads))
    assert [line(scene, t) for t in threads] == [(run, [], []) for run in new]
    assert violations(scene.connection) == []


def test_a_refusal_names_the_run_in_the_way(scene: Scene) -> None:
    thread = scene.thread()
    run = scene.run(thread)
    for other, expected in ((thread, f"Run {run} is active"), (scene.thread(), "A delayed run waits for its time")):
        if other != thread:
            scene.run(other, after_seconds=60)
        request = [{"thread_id": other, "body": {"assistant_id": "counter", "multitask_strategy": "reject"}}]
        with pytest.raises(psycopg.Error) as caught, scene.connection.transaction():
            scene.call("create_runs", request)
        assert expected in str(caught.value.diag.message_hint)


def test_stateless_runs_never_meet(scene: Scene) -> None:
    runs = create(scene, *({"multitask_strategy": "reject"} for _ in range(3)))
    assert [places(scene, run) for run in runs] == [["ready"]] * 3
