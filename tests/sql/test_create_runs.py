"""Runs are created whole or not at all, in order, once a key, and never without a place in the queue."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import create, everything, line, places, some_thread_id, status, thread_status
from tests.sql.invariants import violations
from tests.sql.scene import Scene


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    scene.worker()
    return scene


def made(scene: Scene, thread: str | None = None, **body: object) -> dict[str, Any]:
    request = {"thread_id": thread, "body": {"assistant_id": "counter", **body}}
    run: dict[str, Any] = scene.call("create_runs", [request])[0]
    return run


def test_a_new_run_is_pending_and_its_thread_busy(scene: Scene) -> None:
    thread = scene.thread()
    run = made(scene, thread, input={"target": 3}, stream_mode="updates")
    assert (run["status"], run["thread_id"], run["multitask_strategy"], run["attempt"]) == (
        "pending",
        thread,
        "enqueue",
        0,
    )
    assert datetime.fromisoformat(run["created_at"]) == scene.now
    assert run["created_at"] == run["updated_at"]
    assert run["kwargs"]["input"] == {"target": 3}
    assert run["kwargs"]["stream_mode"] == ["updates"]
    assert thread_status(scene, thread) == "busy"
    assert scene.call("get_run", run["run_id"]) == run


def test_runs_are_answered_and_started_in_the_order_of_the_requests(scene: Scene) -> None:
    threads = [scene.thread(), None, scene.thread(), None, None]
    runs = scene.call(
        "create_runs",
        [{"thread_id": t, "body": {"assistant_id": "counter", "metadata": {"n": n}}} for n, t in enumerate(threads)],
    )
    assert [run["metadata"]["n"] for run in runs] == [0, 1, 2, 3, 4]
    assert [run["thread_id"] for run in runs if run["thread_id"] in threads] == [threads[0], threads[2]]
    key = scene.worker()
    assert [scene.claim(key)[0]["run_id"] for _ in runs] == [run["run_id"] for run in runs]


def test_a_brief_answer_has_only_the_ids(scene: Scene) -> None:
    thread = scene.thread()
    body = {"assistant_id": "counter"}
    brief, whole = scene.call("create_runs", [{"thread_id": thread, "brief": True, "body": body}, {"body": body}])
    assert set(brief) == {"run_id", "thread_id"}
    assert brief["thread_id"] == thread
    assert whole["status"] == "pending"


def test_a_bad_request_makes_nothing_of_its_batch(scene: Scene) -> None:
    before = everything(scene)
    good = {"body": {"assistant_id": "counter"}}
    for bad, refusal in [
        ({"body": {"assistant_id": "nobody"}}, ("DG422", "graph_not_found")),
        ({"body": {"assistant_id": str(uuid4())}}, ("DG404", "assistant_not_found")),
        ({"thread_id": some_thread_id(), "body": {"assistant_id": "counter"}}, ("DG404", "thread_not_found")),
    ]:
        assert scene.refused("create_runs", [good, bad, good]) == refusal
        assert everything(scene) == before


def test_a_thread_is_made_when_the_creator_asks(scene: Scene) -> None:
    thread = some_thread_id()
    made(scene, thread, if_not_exists="create")
    assert thread_status(scene, thread) == "busy"
    made(scene, thread, if_not_exists="create")
    assert scene.call("count_threads") == 1


def test_another_tenants_thread_is_not_found(scene: Scene) -> None:
    other = Scene(scene.connection, tenant=2)
    other.worker()
    thread = other.thread()
    request = [{"thread_id": thread, "body": {"assistant_id": "counter"}}]
    assert scene.refused("create_runs", request) == ("DG404", "thread_not_found")
    scene.run(thread, if_not_exists="create")
    assert thread_status(other, thread) == "idle"


def test_a_thread_shows_the_graph_it_last_ran(scene: Scene) -> None:
    scene.worker("second", {"graph_id": "other"})
    thread = scene.thread(metadata={"k": 1})
    for graph in ("counter", "other"):
        run = made(scene, thread, assistant_id=graph)
        metadata = scene.call("get_thread", thread)["metadata"]
        assert metadata == {"k": 1, "graph_id": graph, "assistant_id": run["assistant_id"]}


def test_metadata_is_laid_together(scene: Scene) -> None:
    assistant = scene.call("create_assistant", {"graph_id": "counter", "metadata": {"a": 1, "over": "assistant"}})
    thread = scene.thread(metadata={"t": 1, "over": "thread"})
    run = made(
        scene,
        thread,
        assistant_id=assistant["assistant_id"],
        config={"metadata": {"c": 1, "over": "config"}},
        metadata={"r": 1, "over": "run"},
    )
    shown = {
        "a": 1,
        "t": 1,
        "c": 1,
        "r": 1,
        "over": "run",
        "graph_id": "counter",
        "assistant_id": assistant["assistant_id"],
    }
    assert {k: v for k, v in run["metadata"].items() if k != "created_by"} == shown


def test_the_runs_config_lies_over_its_assistants(scene: Scene) -> None:
    assistant = scene.call(
        "create_assistant",
        {
            "graph_id": "counter",
            "config": {"recursion_limit": 5, "tags": ["a"]},
            "context": {"model": "small", "keep": 1},
        },
    )
    run = made(scene, assistant_id=assistant["assistant_id"], config={"recursion_limit": 9}, context={"model": "large"})
    assert run["kwargs"]["config"]["recursion_limit"] == 9
    assert run["kwargs"]["config"]["tags"] == ["a"]
    assert run["kwargs"]["context"] == {"model": "large", "keep": 1}
    configurable = run["kwargs"]["config"]["configurable"]
    assert (configurable["model"], configurable["keep"], configurable["run_id"]) == ("large", 1, run["run_id"])
    mirrored = made(scene, config={"configurable": {"model": "tiny"}})
    assert mirrored["kwargs"]["context"] == {"model": "tiny"}


def test_the_graph_sees_the_metadata_of_assistant_thread_config_and_run(scene: Scene) -> None:
    assistant = scene.call("create_assistant", {"graph_id": "counter", "metadata": {"a": 1, "over": "assistant"}})
    thread = scene.thread(metadata={"t": 1, "over": "thread"})
    body = {"assistant_id": assistant["assistant_id"], "config": {"metadata": {"c": 1}}, "metadata": {"over": "run"}}
    run = made(scene, thread, **body)
    ids = {"graph_id": "counter", "assistant_id": assistant["assistant_id"]}
    assert run["metadata"] == {"a": 1, "t": 1, "c": 1, "over": "run", **ids}
    seen = run["kwargs"]["config"]["metadata"]
    assert seen == {**run["metadata"], "run_id": run["run_id"], "thread_id": thread}
    [claim] = scene.claim(scene.worker())
    assert claim["metadata"] == run["metadata"]


def test_a_run_without_a_thread_keeps_one_when_it_is_asked_to(scene: Scene) -> None:
    run = made(scene, on_completion="keep", input={"target": 1})
    assert run["kwargs"]["temporary"] is False
    thread = scene.call("get_thread", run["thread_id"])
    assert (thread["status"], thread["metadata"]["graph_id"]) == ("busy", "counter")
    [claim] = scene.claim(scene.worker())
    assert claim["temporary"] is False
    scene.superstep(claim, None, -1, {"count": {"set": 1}}, end={"status": "success"})
    assert scene.call("get_state", run["thread_id"])["values"] == {"count": 1}
    assert violations(scene.connection) == []


def test_a_stateless_run_has_no_thread(scene: Scene) -> None:
    run = made(scene)
    assert places(scene, run["run_id"]) == ["ready"]
    assert scene.rows("select * from duragraph.slots") == []
    assert scene.refused("get_thread", run["thread_id"])[0] == "DG404"


def test_a_delayed_run_starts_at_its_time(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    for run in (made(scene, thread, after_seconds=10), made(scene, None, after_seconds=10)):
        assert datetime.fromisoformat(run["created_at"]) == scene.now + timedelta(seconds=10)
        assert places(scene, run["run_id"]) == ["scheduled"]
    assert thread_status(scene, thread) == "busy"
    assert scene.claim(key, 9) == []
    scene.wait(10)
    assert len(scene.claim(key, 9)) == 2
    assert violations(scene.connection) == []


def test_higher_priority_starts_first(scene: Scene) -> None:
    key = scene.worker()
    wanted = [scene.run(None, priority=p) for p in (0, 10, -3, 10)]
    order = [scene.claim(key)[0]["run_id"] for _ in wanted]
    assert order == [wanted[1], wanted[3], wanted[0], wanted[2]]


def test_one_call_may_name_a_thread_several_times(scene: Scene) -> None:
    thread, other = scene.thread(), scene.thread()
    a, late, b, elsewhere, c = create(
        scene,
        {"thread_id": thread},
        {"thread_id": thread, "after_seconds": 60},
        {"thread_id": thread},
        {"thread_id": other},
        {"thread_id": thread},
    )
    assert line(scene, thread) == (a, [b, c], [late])
    assert line(scene, other) == (elsewhere, [], [])
    assert violations(scene.connection) == []


def test_a_thread_with_only_a_delayed_run_does_not_strand_the_others_of_the_call(scene: Scene) -> None:
    busy, quiet, free = scene.thread(), scene.thread(), scene.thread()
    first = scene.run(busy)
    delayed, queued, started = create(
        scene, {"thread_id": quiet, "after_seconds": 60}, {"thread_id": busy}, {"thread_id": free}
    )
    assert violations(scene.connection) == []
    assert line(scene, busy) == (first, [queued], [])
    assert line(scene, quiet) == (None, [], [delayed])
    assert places(scene, started) == ["ready"]


def test_a_run_comes_before_a_delayed_one_of_its_thread(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    delayed = scene.run(thread, after_seconds=60)
    now = scene.run(thread)
    assert line(scene, thread) == (now, [], [delayed])
    scene.wait(60)
    [claim] = scene.claim(key, 9)
    assert claim["run_id"] == now
    assert line(scene, thread) == (now, [delayed], [])
    scene.commit(claim, end={"status": "success"})
    assert scene.claim(key)[0]["run_id"] == delayed


def test_the_same_key_gives_the_same_run(scene: Scene) -> None:
    request = {"idempotency_key": "k", "body": {"assistant_id": "counter", "input": {"n": 1}}}
    first = scene.call("create_runs", [request])
    assert scene.call("create_runs", [request]) == first
    key = scene.worker()
    scene.commit(scene.claim(key)[0], end={"status": "success"})
    [again] = scene.call("create_runs", [request])
    assert (again["run_id"], again["status"]) == (first[0]["run_id"], "success")
    assert scene.value("select count(*) from duragraph.runs") == 1


def test_a_key_twice_in_one_call_makes_one_run(scene: Scene) -> None:
    request = {"idempotency_key": "k", "body": {"assistant_id": "counter"}}
    plain = {"body": {"assistant_id": "counter"}}
    one, other, again = scene.call("create_runs", [request, plain, {**request, "brief": True}])
    assert one["run_id"] == again["run_id"] != other["run_id"]


def test_a_key_is_not_for_another_request(scene: Scene) -> None:
    request = {"idempotency_key": "k", "body": {"assistant_id": "counter", "input": 1}}
    scene.call("create_runs", [request])
    before = everything(scene)
    for other in (
        {**request, "body": {"assistant_id": "counter", "input": 2}},
        {**request, "thread_id": scene.thread()},
    ):
        assert scene.refused("create_runs", [other]) == ("DG422", "idempotency_key_reused")
    within = [
        {**request, "idempotency_key": "new"},
        {**request, "idempotency_key": "new", "body": {"assistant_id": "counter"}},
    ]
    assert scene.refused("create_runs", within) == ("DG422", "idempotency_key_reused")
    assert everything(scene) == before


def test_a_key_whose_run_was_deleted_makes_a_new_run(scene: Scene) -> None:
    request = {"idempotency_key": "k", "body": {"assistant_id": "counter"}}
    [first] = scene.call("create_runs", [request])
    scene.call("delete_run", None, first["run_id"])
    [second] = scene.call("create_runs", [request])
    assert second["run_id"] != first["run_id"]
    assert scene.call("create_runs", [request])[0]["run_id"] == second["run_id"]


def test_keys_of_two_tenants_do_not_meet(scene: Scene) -> None:
    other = Scene(scene.connection, tenant=2)
    other.worker()
    request = {"idempotency_key": "k", "body": {"assistant_id": "counter"}}
    ours, theirs = scene.call("create_runs", [request]), other.call("create_runs", [request])
    assert ours[0]["run_id"] != theirs[0]["run_id"]
    assert status(scene, theirs[0]["run_id"]) == "pending"


def test_runs_of_a_thread_are_listed_newest_first(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    runs = [scene.run(thread) for _ in range(4)]
    scene.run(scene.thread())
    scene.commit(scene.claim(key)[0], end={"status": "success"})
    scene.claim(key, 9)
    listed = scene.call("list_runs", thread, {})
    assert [run["status"] for run in sorted(listed, key=lambda run: runs.index(run["run_id"]))] == [
        "success",
        "running",
        "pending",
        "pending",
    ]
    assert [run["run_id"] for run in listed] == sorted(runs, reverse=True)
    assert [r["run_id"] for r in scene.call("list_runs", thread, {"status": "running"})] == [runs[1]]
    page = scene.call("list_runs", thread, {"limit": 2, "offset": 1, "select": ["run_id"]})
    assert page == [{"run_id": run} for run in sorted(runs, reverse=True)[1:3]]
    assert scene.call("list_runs", thread, {"status": "never"}) == []
    assert len(scene.call("list_runs", None, {})) == 5


def test_a_run_is_found_by_its_thread_and_tenant_only(scene: Scene) -> None:
    thread = scene.thread()
    run = scene.run(thread)
    assert scene.call("get_run", run, thread)["run_id"] == run
    assert scene.refused("get_run", run, scene.thread()) == ("DG404", "run_not_found")
    assert Scene(scene.connection, tenant=2).refused("get_run", run) == ("DG404", "run_not_found")
    assert scene.refused("get_run", str(uuid4())) == ("DG404", "run_not_found")
