"""A step is one commit: its events, checkpoint, ledger rows, questions, answers and end, behind the fence."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import events, everything, line, status, thread_status
from tests.sql.invariants import violations
from tests.sql.scene import Scene, question, step, task_id


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def claimed(scene: Scene, thread: str | None = None) -> dict[str, Any]:
    key = scene.worker()
    scene.run(thread or scene.thread())
    [claim] = scene.claim(key)
    return claim


def whole_write(scene: Scene, claim: dict[str, Any], write_no: int, parent: str | None = None) -> dict[str, Any]:
    """A write with one of everything."""
    made = str(scene.bare("make_id"))
    return {
        "run_id": claim["run_id"],
        "token": claim["token"],
        "write_no": write_no,
        "checkpoint_id": made,
        "events": [{"event": "updates", "data": {"n": 1}}, {"event": "values", "checkpoint_id": made}],
        "checkpoints": [
            {
                "checkpoint_id": made,
                "parent_checkpoint_id": parent,
                "step": write_no,
                "source": "loop",
                "channels": {"count": {"set": write_no}},
                "next": ["ask"],
                "tasks": [{"id": task_id(made, "ask"), "name": "ask", "path": ["__pull__", "ask"]}],
            }
        ],
        "steps": [step(parent or made, f"node-{write_no}", {"count": write_no})],
        "interrupts": [question(made, "ask", "sure?")],
    }


def test_a_commit_shows_everywhere_at_once(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    write = whole_write(scene, claim, 1)
    assert scene.bare("commit_steps", [write]) == {"refused": [], "ready": False}
    assert events(scene, claim["run_id"]) == [(1, "updates", {"n": 1}), (2, "values", {"count": 1})]
    state = scene.call("get_state", thread)
    assert (state["values"], state["next"]) == ({"count": 1}, ["ask"])
    assert [i["value"] for i in state["interrupts"]] == ["sure?"]
    [entry] = scene.rows("select name, kind, result, attempt, ended_at - started_at as took from duragraph.steps")
    assert (entry["name"], entry["kind"], entry["result"], entry["attempt"]) == ("node-1", "node", {"count": 1}, 1)
    assert entry["took"].total_seconds() == 0.005
    assert violations(scene.connection) == []


def test_a_commit_that_fails_leaves_nothing(scene: Scene) -> None:
    claim, good = claimed(scene), claimed(scene)
    first = whole_write(scene, claim, 1)
    assert scene.bare("commit_steps", [first])["refused"] == []
    before = everything(scene)
    bad_writes = [
        {**whole_write(scene, claim, 2, first["checkpoint_id"]), "steps": [step(first["checkpoint_id"], "node-1", 0)]},
        whole_write(scene, claim, 2, str(uuid4())),
        {**whole_write(scene, claim, 2), "end": {"status": "whatever"}},
        {**whole_write(scene, claim, 2), "events": [{"event": "\n"}]},
        {**whole_write(scene, claim, 2), "checkpoints": first["checkpoints"]},
    ]
    for bad in bad_writes:
        with pytest.raises(psycopg.Error) as caught, scene.connection.transaction():
            scene.bare("commit_steps", [whole_write(scene, good, 1), bad])
        assert caught.value.sqlstate is not None
        assert caught.value.sqlstate[:2] in ("23", "DG")
        assert everything(scene) == before
    assert violations(scene.connection) == []


def test_a_finished_step_is_never_recorded_twice(scene: Scene) -> None:
    claim = claimed(scene)
    head = scene.superstep(claim, None, -1, {"count": {"set": 1}}, "pay")
    done = step(head, "pay", {"paid": True})
    scene.commit(claim, steps=[done, step(head, "pay", 7, key="tool:1", kind="tool")])
    for again in (done, step(head, "pay", {"paid": "again"}), step(head, "pay", 8, key="tool:1", kind="tool")):
        with pytest.raises(psycopg.errors.UniqueViolation), scene.connection.transaction():
            scene.commit(claim, steps=[again])
    assert scene.value("select result from duragraph.steps where step_key = ''") == {"paid": True}


def test_a_checkpoint_stands_on_a_stored_one(scene: Scene) -> None:
    claim = claimed(scene)
    scene.superstep(claim, None, -1, {"count": {"set": 1}})
    with pytest.raises(psycopg.errors.NotNullViolation), scene.connection.transaction():
        scene.superstep(claim, str(uuid4()), 0, {"log": {"append": ["lost"]}})


def test_checkpoints_of_one_write_stand_on_one_another(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    ids = [str(scene.bare("make_id")) for _ in range(3)]
    channels: list[dict[str, Any]] = [
        {"log": {"set": ["a"]}},
        {"log": {"append": ["b"]}, "count": {"set": 1}},
        {"log": {"append": ["c"]}},
    ]
    rows = [
        {"checkpoint_id": one, "parent_checkpoint_id": parent, "step": n, "source": "loop", "channels": changed}
        for n, (one, parent, changed) in enumerate(zip(ids, [None, *ids[:2]], channels, strict=True))
    ]
    scene.commit(claim, checkpoint_id=ids[-1], checkpoints=rows)
    states = {s["checkpoint"]["checkpoint_id"]: s["values"] for s in scene.call("get_history", thread)}
    assert [states[one] for one in ids] == [
        {"log": ["a"]},
        {"log": ["a", "b"], "count": 1},
        {"log": ["a", "b", "c"], "count": 1},
    ]


def test_a_repeated_commit_changes_nothing_and_is_done(scene: Scene) -> None:
    claim = claimed(scene)
    write = whole_write(scene, claim, 1)
    assert scene.bare("commit_steps", [write])["refused"] == []
    before = everything(scene)
    assert scene.bare("commit_steps", [write, write])["refused"] == []
    last = {**whole_write(scene, claim, 2, write["checkpoint_id"]), "interrupts": [], "end": {"status": "success"}}
    assert scene.bare("commit_steps", [last])["refused"] == []
    after = everything(scene)
    assert scene.bare("commit_steps", [last])["refused"] == []
    assert scene.bare("commit_steps", [write])["refused"] == [{"n": 0, "reason": "lease_lost"}]
    assert (everything(scene), status(scene, claim["run_id"])) == (after, "success")
    assert before["checkpoints"] + 1 == after["checkpoints"]


def test_a_late_commit_is_refused_and_the_others_of_its_batch_go_through(scene: Scene) -> None:
    late, good = claimed(scene), claimed(scene)
    scene.bare("requeue_run", late["run_id"])
    [successor] = scene.claim(scene.worker())
    assert successor["run_id"] == late["run_id"]
    first, second = whole_write(scene, successor, 1), whole_write(scene, good, 1)
    answer = scene.bare("commit_steps", [whole_write(scene, late, 1), second, first])
    assert answer["refused"] == [{"n": 0, "reason": "lease_lost"}]
    before = everything(scene)
    ending = {**whole_write(scene, late, 2), "end": {"status": "success"}}
    assert scene.bare("commit_steps", [ending])["refused"] == [{"n": 0, "reason": "lease_lost"}]
    assert (everything(scene), status(scene, late["run_id"])) == (before, "running")


def test_a_run_that_stops_to_ask_succeeds_and_its_thread_is_interrupted(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    scene.bare("commit_steps", [{**whole_write(scene, claim, 1), "end": {"status": "success"}}])
    assert (status(scene, claim["run_id"]), thread_status(scene, thread)) == ("success", "interrupted")
    output = scene.call("run_output", claim["run_id"])
    assert output["output"]["count"] == 1
    assert [asked["value"] for asked in output["output"]["__interrupt__"]] == ["sure?"]


def test_an_answer_is_kept_with_its_question(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    write = whole_write(scene, claim, 1)
    scene.bare("commit_steps", [{**write, "end": {"status": "success"}}])
    [asked] = write["interrupts"]
    answering = claimed(scene, thread)
    answer = {
        "checkpoint_id": asked["checkpoint_id"],
        "task_id": asked["task_id"],
        "ordinal": 0,
        "answer": {"yes": None},
    }
    scene.commit(answering, answers=[answer])
    scene.commit(answering, answers=[{**answer, "answer": "changed"}])
    [row] = scene.rows("select answer, answered, answered_run_id from duragraph.interrupts")
    assert (row["answer"], row["answered"], str(row["answered_run_id"])) == ({"yes": None}, True, answering["run_id"])


@pytest.mark.parametrize(
    ("end", "run_is", "thread_is"),
    [
        ({"status": "success"}, "success", "interrupted"),
        ({"status": "error", "error": {"error": "ValueError", "message": "kaboom"}}, "error", "error"),
        ({"status": "timeout"}, "timeout", "error"),
        ({"status": "interrupted"}, "interrupted", "interrupted"),
        ({"status": "retry", "retry_after": 5}, "pending", "busy"),
        ({"status": "release"}, "pending", "busy"),
    ],
)
def test_an_end_is_part_of_the_commit(scene: Scene, end: dict[str, Any], run_is: str, thread_is: str) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    answer = scene.bare("commit_steps", [{**whole_write(scene, claim, 1), "end": end}])
    assert answer == {"refused": [], "ready": end["status"] in ("retry", "release")}
    assert (status(scene, claim["run_id"]), thread_status(scene, thread)) == (run_is, thread_is)
    assert scene.call("get_state", thread)["values"] == {"count": 1}
    assert violations(scene.connection) == []


def test_the_end_of_a_run_starts_the_next_of_its_thread(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    following = scene.run(thread)
    write = {**whole_write(scene, claim, 1), "end": {"status": "success"}}
    assert scene.bare("commit_steps", [write]) == {"refused": [], "ready": True}
    assert line(scene, thread) == (following, [], [])
    [claim] = scene.claim(scene.worker())
    assert (claim["run_id"], claim["checkpoint"]["checkpoint_id"]) == (following, write["checkpoint_id"])


def test_null_values_and_results_stay_null(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    head = scene.superstep(claim, None, -1, {"count": {"set": None}, "odd": {}}, "node")
    scene.commit(claim, steps=[step(head, "node", None)], events=[{"event": "custom", "data": None}])
    assert scene.call("get_state", thread)["values"] == {"count": None, "odd": None}
    assert events(scene, claim["run_id"])[-1] == (1, "custom", None)
