"""What a worker is given, and in which order."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.sql.acts import append, events, finish, places, status
from tests.sql.invariants import violations
from tests.sql.scene import COUNTER, Scene, question, step


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def test_a_claim_says_all_that_the_worker_needs(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    run = scene.run(
        thread, input={"target": 3}, context={"model": "m"}, stream_mode=["values", "custom"], stream_subgraphs=True
    )
    [claim] = scene.claim(key)
    assert (claim["run_id"], claim["thread_id"], claim["graph_id"]) == (run, thread, "counter")
    assert (claim["attempt"], claim["max_attempts"], claim["last_seq"]) == (1, 3, 0)
    assert (claim["temporary"], claim["resumed"], claim["checkpoint"], claim["journal"]) == (False, False, None, [])
    asked = claim["kwargs"]
    assert (asked["input"], asked["context"], asked["stream_mode"]) == (
        {"target": 3},
        {"model": "m"},
        ["values", "custom"],
    )
    assert asked["subgraphs"] is True
    assert status(scene, run) == "running"
    assert places(scene, run) == ["leases"]


def test_a_stateless_run_is_marked(scene: Scene) -> None:
    key = scene.worker()
    scene.run(None)
    assert scene.claim(key)[0]["temporary"] is True


def test_each_claim_has_a_new_token(scene: Scene) -> None:
    key = scene.worker()
    for _ in range(3):
        scene.run(None)
    tokens = [scene.claim(key)[0]["token"] for _ in range(3)]
    assert sorted(set(tokens)) == tokens


def test_no_more_than_asked_for_is_given(scene: Scene) -> None:
    key = scene.worker()
    for _ in range(5):
        scene.run(None)
    assert [len(scene.claim(key, limit)) for limit in (0, 2, 2, 2, 2)] == [0, 2, 2, 1, 0]
    assert violations(scene.connection) == []


def test_a_worker_is_given_only_runs_of_its_graphs(scene: Scene) -> None:
    ours, theirs = scene.worker("a", {"graph_id": "one"}), scene.worker("b", {"graph_id": "two"}, {"graph_id": "three"})
    runs = {name: scene.run(None, name) for name in ("one", "two", "three")}
    assert {c["run_id"] for c in scene.claim(theirs, 9)} == {runs["two"], runs["three"]}
    assert [c["run_id"] for c in scene.claim(ours, 9)] == [runs["one"]]


def test_a_worker_of_another_tenant_is_given_nothing(scene: Scene) -> None:
    scene.worker()
    other = Scene(scene.connection, tenant=2)
    key = other.worker()
    scene.run(None)
    assert other.claim(key, 9) == []


def test_a_stranger_is_refused(scene: Scene) -> None:
    scene.worker()
    run = scene.run(None)
    with pytest.raises(psycopg.Error) as caught, scene.connection.transaction():
        scene.claim(-1)
    assert caught.value.sqlstate == "DG404"
    assert status(scene, run) == "pending"


@pytest.mark.parametrize("leaving", ["drain_worker", "deregister_worker"])
def test_a_worker_that_leaves_is_given_nothing(scene: Scene, leaving: str) -> None:
    key = scene.worker()
    run = scene.run(None)
    scene.call(leaving, "worker-1")
    assert scene.claim(key, 9) == []
    assert scene.worker() == key
    assert [c["run_id"] for c in scene.claim(key, 9)] == [run]


def test_a_run_starts_from_the_head_of_its_thread(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    scene.run(thread)
    [claim] = scene.claim(key)
    start = claim["checkpoint"]
    assert (start["checkpoint_id"], start["parent_checkpoint_id"], start["next"]) == (made[-1], made[-2], [])
    assert start["values"] == {"target": 1, "count": 1, "log": ["prepare", "increment", "finish"]}


def test_a_fork_starts_from_the_checkpoint_its_creator_names(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    for body in ({"checkpoint_id": made[2]}, {"checkpoint": {"checkpoint_id": made[2]}}):
        scene.run(thread, **body)
        [claim] = scene.claim(key)
        assert claim["checkpoint"]["checkpoint_id"] == made[2]
        assert claim["checkpoint"]["values"] == {"target": 1, "count": 0, "log": ["prepare"]}
        assert [task["name"] for task in claim["checkpoint"]["tasks"]] == ["increment"]
        assert [entry["name"] for entry in claim["journal"]] == ["increment"]
        assert finish(scene, claim)


def test_the_next_attempt_goes_on_where_the_last_one_stood(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    run = scene.run(thread)
    [claim] = scene.claim(key)
    head = scene.superstep(claim, None, -1, {"count": {"set": 1}}, "left", "right")
    scene.commit(
        claim, steps=[step(head, "left", {"log": ["left"]}, details={"cost": 1})], events=[{"event": "custom"}]
    )
    scene.commit(claim, steps=[step(head, "right", 42, kind="llm", key="llm:1")])
    assert finish(scene, claim, "release")
    [again] = scene.claim(key)
    assert (again["run_id"], again["resumed"], again["last_seq"]) == (run, True, 1)
    assert again["checkpoint"]["checkpoint_id"] == head
    entries = {(entry["name"], entry["key"]): (entry["kind"], entry["result"]) for entry in again["journal"]}
    assert entries == {("left", ""): ("node", {"log": ["left"]}), ("right", "llm:1"): ("llm", 42)}


def test_open_questions_and_answers_come_with_their_tasks(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    head = scene.superstep(claim, None, -1, {"count": {"set": 1}}, "ask")
    first, second = question(head, "ask", {"q": 1}), question(head, "ask", {"q": 2}, ordinal=1)
    scene.commit(claim, interrupts=[first, second], end={"status": "success"})
    scene.run(thread, command={"resume": "yes"})
    [claim] = scene.claim(key)
    answer = {"checkpoint_id": head, "task_id": first["task_id"], "ordinal": 0, "answer": "yes"}
    scene.commit(claim, answers=[answer], end={"status": "release"})
    [claim] = scene.claim(key)
    assert claim["kwargs"]["command"] == {"resume": "yes"}
    [task] = claim["checkpoint"]["tasks"]
    assert [(i["value"], i["answered"], i["answer"]) for i in task["interrupts"]] == [
        ({"q": 1}, True, "yes"),
        ({"q": 2}, False, None),
    ]


def test_a_new_attempt_says_so_in_the_log(scene: Scene) -> None:
    key = scene.worker()
    run = scene.run(None)
    [claim] = scene.claim(key)
    assert append(scene, claim, 1, "custom", "custom")
    assert finish(scene, claim, "retry", retry_after=0)
    [again] = scene.claim(key)
    assert (again["attempt"], again["last_seq"]) == (2, 3)
    assert events(scene, run)[-1] == (3, "metadata", {"run_id": run, "attempt": 2})


def marked(scene: Scene, key: int, marks: dict[str, Any], limit: int = 1) -> tuple[list[str], dict[str, Any]]:
    answer = scene.bare("claim_runs", key, limit, marks)
    return [claim["run_id"] for claim in answer["runs"]], answer["marks"]


def test_marks_hide_no_run(scene: Scene) -> None:
    key = scene.worker("w", COUNTER, {"graph_id": "other"})
    marks: dict[str, Any] = {}
    for graph in ("counter", "other", "counter"):
        runs = [scene.run(None, graph) for _ in range(3)]
        given, marks = marked(scene, key, marks, 9)
        assert sorted(given) == sorted(runs)
    assert set(marks) > {"0"}
    assert marked(scene, key, marks)[0] == []
    urgent = scene.run(None, priority=5)
    assert marked(scene, key, marks)[0] == [urgent]


def test_a_run_that_comes_back_is_found_behind_the_marks(scene: Scene) -> None:
    key = scene.worker()
    back = [scene.run(None, after_seconds=5), scene.run(scene.thread(), after_seconds=5)]
    retried, *others = [scene.run(None) for _ in range(8)]
    [claim] = scene.claim(key)
    assert claim["run_id"] == retried
    assert finish(scene, claim, "retry", retry_after=5)
    marks: dict[str, Any] = {}
    seen: list[str] = []
    for n in range(10):
        if n == 3:
            scene.wait(5)
        given, marks = marked(scene, key, marks)
        seen += given
        scene.run(None)  # the queue never runs dry
    assert seen[:7] == others
    for _ in range(6):
        given, marks = marked(scene, key, marks)
        seen += given
    assert {*back, retried} <= set(seen)


def test_it_is_told_when_the_next_delayed_run_is_due(scene: Scene) -> None:
    key = scene.worker()
    assert scene.bare("claim_runs", key, 1)["next_due"] is None
    scene.run(None, after_seconds=30)
    scene.run(scene.thread(), after_seconds=12.5)
    assert scene.bare("claim_runs", key, 1)["next_due"] == 12.5
    scene.wait(12.5)
    answer = scene.bare("claim_runs", key, 1)
    assert (len(answer["runs"]), answer["next_due"]) == (1, 17.5)


def test_of_a_thread_only_one_run_is_given(scene: Scene) -> None:
    key, threads = scene.worker(), [scene.thread() for _ in range(3)]
    first = [min(scene.run(thread) for _ in range(3)) for thread in threads]
    assert sorted(c["run_id"] for c in scene.claim(key, 99)) == sorted(first)
    assert scene.claim(key, 99) == []
    assert violations(scene.connection) == []


def test_a_run_from_an_older_checkpoint_says_so(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    for point in ({"checkpoint_id": made[1]}, {"checkpoint": {"checkpoint_id": made[1]}}):
        scene.run(thread, **point)
        [claim] = scene.claim(key)
        assert claim["checkpoint"]["checkpoint_id"] == made[1]
        assert claim["kwargs"]["checkpoint_id"] == made[1], "else the worker takes what was finished there for its own"
        scene.commit(claim, end={"status": "success"})
