"""State: read at the head and at any checkpoint, listed, changed from outside, forked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.scene import Scene, question, step, task_id
from tests.waiting import wait_for

EMPTY: dict[str, Any] = {
    "values": {},
    "next": [],
    "tasks": [],
    "metadata": {},
    "created_at": None,
    "checkpoint": None,
    "parent_checkpoint": None,
    "interrupts": [],
    "checkpoint_id": None,
    "parent_checkpoint_id": None,
}
WAITERS = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
Two = tuple[psycopg.Connection[Any], psycopg.Connection[Any]]


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def test_a_new_thread_has_an_empty_state(scene: Scene) -> None:
    thread = scene.thread()
    assert scene.call("get_state", thread) == EMPTY
    assert scene.call("get_history", thread) == []


def test_the_state_after_a_run(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    claim, made = scene.counted(thread, key)
    state = scene.call("get_state", thread)
    assert state["values"] == {"target": 1, "count": 1, "log": ["prepare", "increment", "finish"]}
    assert (state["next"], state["tasks"], state["interrupts"]) == ([], [], [])
    assert state["checkpoint"] == {"checkpoint_id": made[-1], "thread_id": thread, "checkpoint_ns": ""}
    assert state["parent_checkpoint"] == {"checkpoint_id": made[-2], "thread_id": thread, "checkpoint_ns": ""}
    assert (state["checkpoint_id"], state["parent_checkpoint_id"]) == (made[-1], made[-2])
    metadata = state["metadata"]
    assert (metadata["source"], metadata["step"], metadata["parents"]) == ("loop", 3, {})
    assert (metadata["run_id"], metadata["thread_id"], metadata["graph_id"]) == (claim["run_id"], thread, "counter")
    assert metadata["assistant_id"] == claim["assistant_id"]
    assert state["created_at"].endswith("+00:00")


def test_history_is_newest_first_and_linked(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    history = scene.call("get_history", thread)
    assert [s["checkpoint_id"] for s in history] == made[::-1]
    assert [s["next"] for s in history] == [[], ["finish"], ["increment"], ["prepare"], ["__start__"]]
    assert [s["metadata"]["step"] for s in history] == [3, 2, 1, 0, -1]
    assert [s["metadata"]["source"] for s in history] == ["loop", "loop", "loop", "loop", "input"]
    assert [s["parent_checkpoint_id"] for s in history] == [*made[-2::-1], None]
    assert history[1]["tasks"][0] == {
        "id": task_id(made[3], "finish"),
        "name": "finish",
        "path": ["__pregel_pull", "finish"],
        "error": None,
        "interrupts": [],
        "checkpoint": None,
        "state": None,
        "result": {"log": ["finish"]},
    }
    assert [s["values"].get("count") for s in history] == [1, 1, 0, None, None]


def test_history_is_limited_and_filtered(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    claim, made = scene.counted(thread, key)

    def listed(**request: object) -> list[str]:
        return [state["checkpoint_id"] for state in scene.call("get_history", thread, request)]

    assert listed(limit=2) == made[:-3:-1]
    assert listed(metadata={"source": "input"}) == [made[0]]
    assert listed(metadata={"step": 2}) == [made[3]]
    assert listed(metadata={"run_id": claim["run_id"]}, limit=1) == [made[-1]]
    assert listed(metadata={"run_id": "other"}) == []
    assert listed(checkpoint={"checkpoint_id": made[1]}) == [made[1]]
    assert listed(checkpoint={"checkpoint_ns": "child:1"}) == []
    for before in (
        made[2],
        {"checkpoint_id": made[2], "thread_id": thread},
        {"configurable": {"checkpoint_id": made[2]}},
    ):
        assert listed(before=before) == made[1::-1]
    assert listed(before=made[2], limit=1) == [made[1]]
    assert listed(before=str(uuid4()).replace("-", "f", 1)[:8] + "-0000-4000-8000-000000000000") is not None


@pytest.mark.parametrize("field", ["before", "checkpoint"])
def test_what_is_no_checkpoint_is_refused(scene: Scene, field: str) -> None:
    thread = scene.thread()
    wrong = "yesterday" if field == "before" else {"checkpoint_id": "yesterday"}
    assert scene.refused("get_history", thread, {field: wrong}) == ("DG422", "invalid_checkpoint")
    assert scene.refused("get_state", thread, {"checkpoint": {"checkpoint_id": "x"}}) == ("DG422", "invalid_checkpoint")
    assert scene.refused("put_state", thread, {"checkpoint_id": "x"}) == ("DG422", "invalid_checkpoint")


def test_the_state_at_a_checkpoint(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    older = scene.call("get_history", thread)[2]
    assert scene.call("get_state", thread, {"checkpoint_id": made[2]}) == older
    assert scene.call("get_state", thread, {"checkpoint": older["checkpoint"]}) == older
    assert scene.call("get_state", thread, {"checkpoint_id": str(uuid4())}) == EMPTY


def test_the_state_follows_the_run_step_by_step(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    scene.run(thread)
    [claim] = scene.claim(key)
    assert scene.call("get_state", thread)["next"] == []
    at = scene.superstep(claim, claim["checkpoint"]["checkpoint_id"], 4, {"target": {"set": 7}}, "prepare")
    assert scene.call("get_state", thread)["checkpoint_id"] == at
    assert scene.call("get_thread", thread)["values"]["target"] == 1
    scene.commit(claim, end={"status": "release"})
    assert scene.call("get_state", thread)["checkpoint_id"] == at


def test_questions_show_on_their_tasks(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "ask", "tell", "done")
    ask, tell = question(at, "ask", {"q": 1}), question(at, "tell", None)
    scene.commit(claim, interrupts=[ask, tell], steps=[step(at, "done", {"x": 1})], end={"status": "success"})
    state = scene.call("get_state", thread)
    assert [(t["name"], [i["value"] for i in t["interrupts"]], t["result"]) for t in state["tasks"]] == [
        ("ask", [{"q": 1}], None),
        ("tell", [None], None),
        ("done", [], {"x": 1}),
    ]
    assert [i["id"] for i in state["interrupts"]] == [ask["interrupt_id"], tell["interrupt_id"]]
    shown = scene.call("get_thread", thread)["interrupts"]
    assert shown == {t["id"]: t["interrupts"] for t in state["tasks"] if t["interrupts"]}


def test_a_task_that_failed_shows_why(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "boom", "fine")
    steps = [step(at, "fine", None)]
    scene.commit(claim, steps=steps, end={"status": "error", "error": {"error": "ValueError", "message": "it's 1"}})
    tasks = {t["name"]: t for t in scene.call("get_state", thread)["tasks"]}
    assert tasks["boom"]["error"] == "ValueError('it''s 1')"
    assert tasks["fine"]["error"] is None
    assert scene.call("get_history", thread)[0]["tasks"][0]["error"] == tasks["boom"]["error"]


def test_a_task_that_chose_its_way_shows_its_update(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "decide")
    result = {"__command__": {"update": {"log": ["decide"]}, "goto": ["left"]}}
    scene.commit(claim, steps=[step(at, "decide", result)], end={"status": "success"})
    [task] = scene.call("get_state", thread)["tasks"]
    assert task["result"] == {"log": ["decide"]}


def test_a_checkpoint_shows_the_metadata_of_its_run(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread, metadata={"who": "me"})
    [claim] = scene.claim(key)
    scene.superstep(claim, None, -1, {}, end={"status": "success"})
    assert scene.call("get_state", thread)["metadata"]["who"] == "me"
    assert len(scene.call("get_history", thread, {"metadata": {"who": "me"}})) == 1
    assert scene.call("get_history", thread, {"metadata": {"who": "you"}}) == []


def test_only_what_is_selected_is_given(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    select = ["values.count", "next", "values.log", "values.nothing"]
    chosen = scene.call("get_state", thread, {"select": select})
    assert chosen == {"values": {"count": 1, "log": ["prepare", "increment", "finish"]}, "next": []}
    assert scene.call("get_state", thread, {"select": []}) == scene.call("get_state", thread)
    assert scene.call("get_state", scene.thread(), {"select": ["values.count"]}) == {"values": {}}
    history = scene.call("get_history", thread, {"limit": 2, "select": ["next"]})
    assert history == [{"next": []}, {"next": ["finish"]}]
    for wrong in ("nothing", "next.x", "values."):
        assert scene.refused("get_state", thread, {"select": [wrong]}) == ("DG422", "unknown_field")


def test_a_subgraph_is_named_or_nested(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "child")
    namespace = f"child:{task_id(at, 'child')}"
    inner = str(scene.bare("make_id"))
    checkpoint = {
        "checkpoint_id": inner,
        "parent_checkpoint_id": None,
        "checkpoint_ns": namespace,
        "step": 1,
        "source": "loop",
        "channels": {"secret": {"set": "kept"}},
        "next": ["child_two"],
        "tasks": [{"id": task_id(inner, "child_two"), "name": "child_two", "path": ["__pull__", "child_two"]}],
    }
    scene.commit(claim, checkpoints=[checkpoint], end={"status": "success"})
    [task] = scene.call("get_state", thread)["tasks"]
    assert (task["checkpoint"], task["state"]) == ({"thread_id": thread, "checkpoint_ns": namespace}, None)
    [task] = scene.call("get_state", thread, {"subgraphs": True})["tasks"]
    assert task["checkpoint"] is None
    assert (task["state"]["values"], task["state"]["next"]) == ({"secret": "kept"}, ["child_two"])
    assert task["state"]["checkpoint"]["checkpoint_ns"] == namespace
    alone = scene.call("get_state", thread, {"checkpoint": {"checkpoint_ns": namespace}})
    assert alone == task["state"]
    history = scene.call("get_history", thread, {"checkpoint": {"checkpoint_ns": namespace}})
    assert [s["checkpoint_id"] for s in history] == [inner]


# changed from outside


def test_an_update_goes_through_the_reducers(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    values = {"target": 5, "count": 10, "log": ["by hand"], "facts": {"a": 1}, "unknown": 1}
    given = scene.call("put_state", thread, {"values": values})
    point = {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": given["checkpoint_id"]}
    assert given == {"checkpoint": point, "configurable": point, "checkpoint_id": given["checkpoint_id"]}
    state = scene.call("get_state", thread)
    assert state["checkpoint_id"] == given["checkpoint_id"]
    assert state["parent_checkpoint_id"] == made[-1]
    assert state["values"] == {
        "target": 5,
        "count": 11,
        "log": ["prepare", "increment", "finish", "by hand"],
        "facts": {"a": 1},
    }
    assert (state["metadata"]["source"], state["metadata"]["step"], state["next"]) == ("update", 4, [])
    shown = scene.call("get_thread", thread)
    assert (shown["values"], shown["status"]) == (state["values"], "idle")
    scene.call("put_state", thread, {"values": {"facts": {"b": 2}}})
    assert scene.call("get_state", thread)["values"]["facts"] == {"a": 1, "b": 2}


def test_a_list_stores_only_what_was_added(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    given = scene.call("put_state", thread, {"values": {"log": "one more"}})
    stored = scene.rows(
        "select channel, value from duragraph.channel_values where checkpoint_id = %s", given["checkpoint_id"]
    )
    assert stored == [{"channel": "log", "value": ["one more"]}]
    assert scene.call("get_state", thread)["values"]["log"][-2:] == ["finish", "one more"]


def test_messages_are_added_replaced_and_removed(scene: Scene) -> None:
    scene.worker()
    thread = scene.thread(graph_id="counter")

    def messages(update: object) -> list[dict[str, Any]]:
        scene.call("put_state", thread, {"values": {"messages": update}})
        listed: list[dict[str, Any]] = scene.call("get_state", thread)["values"]["messages"]
        return listed

    [first] = messages("hello")
    assert {**first, "id": None} == {
        "type": "human",
        "content": "hello",
        "id": None,
        "name": None,
        "additional_kwargs": {},
        "response_metadata": {},
    }
    assert first["id"]
    _, second = messages({"role": "assistant", "content": "hi", "id": "m2"})
    assert (second["type"], second["content"], second["id"]) == ("ai", "hi", "m2")
    assert "role" not in second
    assert second["tool_calls"] == []
    assert [m["content"] for m in messages([{"type": "ai", "content": "hey", "id": "m2"}])] == ["hello", "hey"]
    assert [m["id"] for m in messages([{"type": "remove", "id": first["id"]}])] == ["m2"]
    assert [m["content"] for m in messages([{"type": "remove", "id": "__remove_all__"}, "anew"])] == ["anew"]
    assert [(m["type"], m["content"]) for m in messages(["system", "be kind"])][1:] == [("system", "be kind")]
    assert [m["content"] for m in messages(["one", "two"])][2:] == ["one", "two"]
    assert len(messages(None)) == 4
    assert scene.refused("put_state", thread, {"values": {"messages": {"type": "remove", "id": "x"}}}) == (
        "DG422",
        "unknown_message",
    )
    assert scene.refused("put_state", thread, {"values": {"messages": [7]}}) == ("DG422", "invalid_message")


def test_as_node_decides_what_is_next(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    scene.call("put_state", thread, {"values": {"target": 5}, "as_node": "prepare"})
    state = scene.call("get_state", thread)
    assert (state["next"], [t["name"] for t in state["tasks"]]) == (["increment"], ["increment"])
    assert scene.call("get_thread", thread)["status"] == "interrupted"
    for node in ("finish", "__end__"):
        scene.call("put_state", thread, {"values": None, "as_node": node})
        assert scene.call("get_state", thread)["next"] == []
        assert scene.call("get_thread", thread)["status"] == "idle"
    scene.call("put_state", thread, {"values": {"target": 1}, "as_node": "__start__"})
    assert scene.call("get_state", thread)["next"] == ["prepare"]


def test_as_an_unknown_node_is_refused(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    assert scene.refused("put_state", thread, {"values": {}, "as_node": "nowhere"}) == ("DG400", "unknown_node")


def test_what_only_code_can_decide_is_refused(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    for request in ({"values": {"count": 1}, "as_node": "increment"}, {"values": {"odd": 1}}):
        assert scene.refused("put_state", thread, request) == ("DG422", "worker_needed")
    child = {"checkpoint_ns": "child:1"}
    assert scene.refused("put_state", thread, {"values": {}, "checkpoint": child}) == ("DG422", "worker_needed")


@pytest.mark.parametrize("values", [5, "text", [1], {"count": "text"}, {"facts": [1]}])
def test_values_of_the_wrong_type_are_refused(scene: Scene, values: object) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    scene.call("put_state", thread, {"values": {"facts": {"a": 1}}})
    assert scene.refused("put_state", thread, {"values": values}) == ("DG422", "invalid_type")
    assert scene.value("select count(*) from duragraph.slots") == 0


def test_an_update_without_values_makes_a_checkpoint(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.counted(thread, key)
    before = scene.call("get_state", thread)
    scene.call("put_state", thread, {"values": None})
    after = scene.call("get_state", thread)
    assert (after["values"], after["next"]) == (before["values"], before["next"])
    assert after["parent_checkpoint_id"] == before["checkpoint_id"]


def test_an_update_keeps_what_was_next(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, -1, {}, "ask")
    scene.commit(claim, interrupts=[question(at, "ask", "?")], end={"status": "success"})
    scene.call("put_state", thread, {"values": {"target": 2}})
    state = scene.call("get_state", thread)
    assert (state["next"], state["interrupts"]) == (["ask"], [])
    assert state["tasks"][0]["id"] != task_id(at, "ask")


def test_an_update_of_an_older_checkpoint_forks(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    _, made = scene.counted(thread, key)
    given = scene.call("put_state", thread, {"values": {"target": 4}, "checkpoint": {"checkpoint_id": made[2]}})
    state = scene.call("get_state", thread)
    assert state["checkpoint_id"] == given["checkpoint_id"]
    assert state["parent_checkpoint_id"] == made[2]
    assert (state["values"], state["next"]) == ({"target": 4, "count": 0, "log": ["prepare"]}, ["increment"])
    assert scene.call("get_state", thread, {"checkpoint_id": made[-1]})["values"]["log"][-1] == "finish"
    assert scene.call("get_history", thread)[0]["checkpoint_id"] == given["checkpoint_id"]
    scene.run(thread)
    assert scene.claim(key)[0]["checkpoint"]["checkpoint_id"] == given["checkpoint_id"]
    absent = {"values": {}, "checkpoint_id": str(uuid4())}
    other = scene.thread(graph_id="counter")
    assert scene.refused("put_state", other, absent) == ("DG404", "checkpoint_not_found")


def test_a_thread_without_a_graph_cannot_be_updated(scene: Scene) -> None:
    thread = scene.thread()
    assert scene.refused("put_state", thread, {"values": {"a": 1}}) == ("DG400", "thread_without_graph")
    named = scene.thread(graph_id="nope")
    assert scene.refused("put_state", named, {"values": {"a": 1}}) == ("DG404", "graph_not_found")


def test_a_busy_thread_cannot_be_updated(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    assert scene.refused("put_state", thread, {"values": {"count": 1}}) == ("DG409", "thread_busy")
    [claim] = scene.claim(key)
    assert scene.refused("put_state", thread, {"values": {"count": 1}}) == ("DG409", "thread_busy")
    scene.commit(claim, end={"status": "success"})
    scene.call("put_state", thread, {"values": {"count": 1}})


def test_an_update_clears_the_error(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    scene.superstep(claim, None, -1, {}, "boom")
    scene.commit(claim, end={"status": "error", "error": {"error": "E", "message": "m"}})
    scene.call("put_state", thread, {"values": {"target": 1}})
    shown = scene.call("get_thread", thread)
    assert (shown["status"], shown["error"]) == ("interrupted", None)


def test_a_graph_that_declares_no_channels_takes_all(scene: Scene) -> None:
    scene.worker(
        "worker-2", {"graph_id": "plain", "definition": {"nodes": [{"id": "a"}], "edges": [], "entry_point": "a"}}
    )
    thread = scene.thread(graph_id="plain")
    scene.call("put_state", thread, {"values": {"any": {"thing": [1]}}})
    scene.call("put_state", thread, {"values": {"more": 1, "__joins": 1}})
    assert scene.call("get_state", thread)["values"] == {"any": {"thing": [1]}, "more": 1}
    assert scene.call("get_state", thread)["next"] == ["a"]


def test_supersteps_build_a_history(scene: Scene) -> None:
    scene.worker()
    supersteps = [
        {"updates": [{"values": {"target": 3}, "as_node": "__start__"}]},
        {
            "updates": [
                {"values": {"log": ["a"], "count": 1}, "as_node": "prepare"},
                {"values": {"log": ["b"]}, "as_node": "finish"},
            ]
        },
    ]
    made = scene.call("create_thread", {"graph_id": "counter", "supersteps": supersteps})
    assert (made["values"], made["status"]) == ({"target": 3, "count": 1, "log": ["a", "b"]}, "interrupted")
    history = scene.call("get_history", made["thread_id"])
    assert [s["next"] for s in history] == [["increment"], ["prepare"]]
    assert scene.refused("create_thread", {"supersteps": supersteps}) == ("DG400", "thread_without_graph")


def test_a_run_that_meets_an_update_starts_from_it(fresh_db: str, two: Two) -> None:
    one, other = Scene(two[0]), Scene(two[1])
    key = one.worker()
    thread = one.thread(graph_id="counter")
    with ThreadPoolExecutor(1) as pool:
        with two[0].transaction():
            given = one.call("put_state", thread, {"values": {"target": 2}})
            late = pool.submit(other.run, thread)
            with psycopg.connect(fresh_db, autocommit=True) as watcher:
                wait_for(lambda: watcher.execute(WAITERS).fetchone(), what="the new run at the thread's slot")
        late.result(timeout=10)
    [claim] = one.claim(key)
    assert claim["checkpoint"]["checkpoint_id"] == given["checkpoint_id"]
    assert claim["checkpoint"]["values"] == {"target": 2}


def test_two_updates_at_once_follow_one_another(fresh_db: str, two: Two) -> None:
    one, other = Scene(two[0]), Scene(two[1])
    one.worker()
    thread = one.thread(graph_id="counter")
    with ThreadPoolExecutor(1) as pool:
        with two[0].transaction():
            one.call("put_state", thread, {"values": {"count": 1}})
            late = pool.submit(other.call, "put_state", thread, {"values": {"count": 2}})
            with psycopg.connect(fresh_db, autocommit=True) as watcher:
                wait_for(lambda: watcher.execute(WAITERS).fetchone(), what="the second update at the thread's slot")
        late.result(timeout=10)
    assert one.call("get_state", thread)["values"]["count"] == 3
    times = [state["created_at"] for state in one.call("get_history", thread)]
    assert times == sorted(times, reverse=True)


def test_questions_come_in_the_order_of_their_tasks(scene: Scene) -> None:
    # given five tasks that ask, whose ids are in no order
    key = scene.worker()
    thread = scene.thread()
    run = scene.run(thread)
    [claim] = scene.claim(key)
    nodes = ["e", "b", "d", "a", "c"]
    at = scene.superstep(claim, None, 0, {"count": {"set": 1}}, *nodes)
    scene.commit(claim, interrupts=[question(at, node, node) for node in sorted(nodes)])
    scene.commit(claim, end={"status": "success"})
    # then each place shows the questions as the tasks come
    output = scene.call("run_output", run)["output"]["__interrupt__"]
    assert [one["value"] for one in output] == nodes
    shown = scene.call("get_thread", thread)["interrupts"]
    assert [one[0]["value"] for one in shown.values()] == nodes
    assert [one["value"] for one in scene.call("get_state", thread, {})["interrupts"]] == nodes


def test_a_question_of_a_subgraph_shows_in_its_states_too(scene: Scene) -> None:
    # given a task whose subgraph, and the subgraph in that, have come to a question
    key = scene.worker()
    thread = scene.thread()
    scene.run(thread)
    [claim] = scene.claim(key)
    at = scene.superstep(claim, None, 0, {"count": {"set": 1}}, "increment")
    outer = f"increment:{task_id(at, 'increment')}"
    ids = [str(scene.bare("make_id")) for _ in range(3)]
    inner = f"{outer}|deep:{task_id(ids[1], 'deep')}"

    def child(checkpoint_id: str, ns: str, step_no: int, node: str) -> dict[str, Any]:
        tasks = [{"id": task_id(checkpoint_id, node), "name": node, "path": ["__pull__", node]}]
        place = {"checkpoint_id": checkpoint_id, "parent_checkpoint_id": None, "checkpoint_ns": ns, "step": step_no}
        return {**place, "source": "loop", "channels": {}, "next": [node], "tasks": tasks}

    children = [child(ids[0], outer, 0, "deep"), child(ids[1], outer, 1, "deep"), child(ids[2], inner, 0, "asker")]
    asked = question(at, "asker", "sure?") | {"task_id": task_id(at, "increment"), "checkpoint_ns": inner}
    scene.commit(claim, checkpoints=children, interrupts=[asked])
    scene.commit(claim, end={"status": "success"})
    # then the task, the subgraph's task and the task that asks show it
    shown = [{"id": asked["interrupt_id"], "value": "sure?"}]
    state = scene.call("get_state", thread, {"subgraphs": True})
    for _ in range(3):
        [task] = state["tasks"]
        assert (task["interrupts"], state["interrupts"]) == (shown, shown)
        state = task["state"] or state
    assert task["name"] == "asker"
    # and an older state of the subgraph does not
    older = scene.call("get_state", thread, {"checkpoint": {"checkpoint_ns": outer, "checkpoint_id": ids[0]}})
    assert older["interrupts"] == []
