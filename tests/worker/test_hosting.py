"""Graphs of LangGraph hosted unchanged: what they save, what is shown, and that a crash repeats nothing finished."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.base import ListNamespacesOp, MatchCondition

from duragraph_worker.errors import DuraGraphError, GraphError
from duragraph_worker.hosting.graphs import LangGraphGraph
from duragraph_worker.hosting.rendering import jsonable
from duragraph_worker.hosting.store import RunStore
from tests.conformance.graphs import toy_graphs as toys
from tests.worker import hosting_graphs as more
from tests.worker.test_executor_on_postgres import SqlJournal, Stage

HI = {"messages": [{"role": "user", "content": "hi", "id": "m1"}]}


class SavingJournal(SqlJournal):
    """Reads back too what was saved."""

    async def read_checkpoints(self, reads: Sequence[dict[str, Any]]) -> Any:
        return self.stage.call("read_checkpoints", 1, self.claim["run_id"], self.claim["token"], list(reads))


class Hosting(Stage):
    """A thread on which runs of a hosted graph are played through the database."""

    def register(self) -> None:
        graph = {"graph_id": "g", "definition": self.graph.definition(), "schemas": self.graph.schemas()}
        self.worker_key = self.call("register_worker", 1, {"worker_id": "w", "graphs": [graph]})["worker_key"]

    @property
    def assistant(self) -> str:
        return "g"

    async def execute(self, claim: Any) -> None:
        await self.graph.execute(claim, SavingJournal(self, claim))

    def state(self, **request: Any) -> Any:
        return self.call("get_state", 1, self.thread_id, request)

    def history(self) -> Any:
        return self.call("get_history", 1, self.thread_id, {"limit": 100})


async def host(db: psycopg.Connection[Any], graph: Any, **options: Any) -> Hosting:
    hosted = LangGraphGraph("g", graph)
    await hosted.prepare()
    stage = Hosting(db, hosted, **options)
    stage.register()
    more.CALLS.clear()
    return stage


def values(stage: Hosting) -> Any:
    return stage.output()["output"]


SCENARIOS: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("echo", toys.echo, [{"input": HI}, {"input": {"messages": [{"role": "user", "content": "more", "id": "m2"}]}}]),
    ("counter", toys.counter, [{"input": {"target": 2}}, {"input": {"target": 3}}]),
    ("asks", toys.interrupting, [{"input": {"request": "x", "times": 2}}, {"resume": "a"}, {"resume": "b"}]),
    ("nested", toys.nested, [{"input": {}}]),
    ("nested, asking", toys.nested, [{"input": {"pause": True}}, {"resume": "ok"}]),
    ("routing", toys.routing, [{"input": {"go": "right"}}, {"command": {"goto": "left", "update": {"trail": ["p"]}}}]),
    ("failing", toys.failing, [{"input": {"message": "no"}}, {"command": {"update": {"fail": False}}}]),
    ("functional", more.flow, [{"input": {"n": 3}}]),
    ("functional, asking", more.flow, [{"input": {"n": 3, "ask": True}}, {"resume": 100}]),
    ("sync", more.plain, [{"input": {"n": 1}}, {"input": {"n": 5}}]),
    ("typed", more.typed, [{"input": {"item": "tea"}}]),
    ("parallel", more.parallel, [{"input": {"total": 1}}]),
]


@pytest.mark.parametrize(("graph", "calls"), [one[1:] for one in SCENARIOS], ids=[one[0] for one in SCENARIOS])
async def test_a_crash_after_any_write_leaves_the_same_state_and_repeats_no_finished_task(
    graph: Any, calls: Sequence[Mapping[str, Any]], db: psycopg.Connection[Any]
):
    undisturbed = await host(db, graph)
    await undisturbed.play(calls)
    wanted, steps = values(undisturbed), undisturbed.steps()
    assert steps > 0
    for at in range(1, undisturbed.writes + 1):
        crashed = await host(db, graph, crash_at=at)
        await crashed.play(calls)
        assert without_ids(values(crashed)) == without_ids(wanted), f"crash after write {at}"
        assert crashed.steps() == steps, f"crash after write {at}"


def without_ids(value: Any) -> Any:
    """What is the same in every run: messages made by the graph get random ids."""
    if isinstance(value, dict):
        return {key: without_ids(inner) for key, inner in value.items() if key != "id"}
    return [without_ids(inner) for inner in value] if isinstance(value, list) else value


async def test_a_finished_task_of_a_functional_graph_is_not_run_again_after_a_crash(db: psycopg.Connection[Any]):
    undisturbed = await host(db, more.flow)
    await undisturbed.play([{"input": {"n": 1}}])
    for at in range(1, undisturbed.writes + 1):
        crashed = await host(db, more.flow, crash_at=at)
        await crashed.play([{"input": {"n": 1}}])
        known = crashed.db.execute(
            "select count(*) from duragraph.steps where thread_id = %s and name = 'double'", [crashed.thread_id]
        ).fetchone()
        assert known == (2,)
        # One of them may have been in flight; what was recorded ran once.
        assert len([call for call in more.CALLS if call.startswith("double")]) <= 3


async def test_the_history_is_what_langgraph_itself_would_show(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    await stage.play([{"input": {"target": 1}}])
    history = stage.history()
    assert [state["next"] for state in history] == [[], ["finish"], ["increment"], ["prepare"], ["__start__"]]
    assert [state["metadata"]["step"] for state in history] == [3, 2, 1, 0, -1]
    assert history[1]["tasks"][0]["name"] == "finish"
    assert history[1]["tasks"][0]["result"] == {"log": ["finish"], "result": "counted to 1"}
    assert history[3]["values"] == {"target": 1, "count": 0, "log": []}


async def test_a_question_is_shown_with_its_task_and_is_gone_when_answered(db: psycopg.Connection[Any]):
    stage = await host(db, toys.interrupting)
    await stage.run({"input": {"request": "x", "parallel": 2}})
    asked = stage.state()["interrupts"]
    assert [one["value"]["number"] for one in asked] == [1, 2]
    await stage.run({"resume": {asked[0]["id"]: "one"}})
    left = stage.state()["interrupts"]
    assert [one["id"] for one in left] == [asked[1]["id"]]
    assert stage.state()["next"] == ["ask_one"]  # the other one is done
    await stage.run({"resume": {left[0]["id"]: "two"}})
    assert stage.state()["interrupts"] == []
    assert values(stage)["answers"] == [{"item": 1, "answer": "one"}, {"item": 2, "answer": "two"}]


async def test_whoever_waits_is_told_all_questions_that_are_left(db: psycopg.Connection[Any]):
    stage = await host(db, toys.interrupting)
    await stage.run({"input": {"request": "x", "parallel": 3}})
    asked = values(stage)["__interrupt__"]
    assert [one["value"]["number"] for one in asked] == [1, 2, 3]
    await stage.run({"resume": {asked[1]["id"]: "two"}})
    assert {one["id"] for one in values(stage)["__interrupt__"]} == {asked[0]["id"], asked[2]["id"]}
    await stage.run({"resume": {asked[0]["id"]: "one", asked[2]["id"]: "three"}})
    assert "__interrupt__" not in values(stage)
    assert values(stage)["status"] == "done"


@pytest.mark.parametrize("durability", ["async", "exit"])
@pytest.mark.parametrize("graph", [more.twice, more.twice_inside], ids=["in the graph", "in a subgraph"])
async def test_a_crash_gives_the_answer_to_no_other_question(graph: Any, durability: str, db: psycopg.Connection[Any]):
    calls = [{"input": {}, "durability": durability}, {"resume": "a", "durability": durability}]
    undisturbed = await host(db, graph)
    await undisturbed.play(calls)
    for at in range(1, undisturbed.writes + 1):
        crashed = await host(db, graph, crash_at=at)
        await crashed.play(calls)
        assert [one["value"] for one in crashed.state()["interrupts"]] == ["second, after a?"], (
            f"crash after write {at}"
        )
        await crashed.run({"resume": "b"})
        assert values(crashed)["given"] == ["a", "b"], f"crash after write {at}"


async def test_every_question_inside_a_subgraph_is_shown_until_it_is_answered(db: psycopg.Connection[Any]):
    stage = await host(db, more.each_inside)
    await stage.run({"input": {}})
    for left in ([0, 1, 2], [1, 2], [2]):
        asked = {one["value"]["n"]: one["id"] for one in stage.state()["interrupts"]}
        assert sorted(asked) == left
        (shown,) = stage.call("get_thread", 1, stage.thread_id)["interrupts"].values()
        assert sorted(one["value"]["n"] for one in shown) == left
        await stage.run({"resume": {asked[left[0]]: "yes"}})
    assert stage.state()["interrupts"] == []
    assert values(stage)["given"] == ["0=yes", "1=yes", "2=yes"]


async def test_what_a_called_task_asks_is_asked_once(db: psycopg.Connection[Any]):
    stage = await host(db, more.asking_task)
    await stage.run({"input": {}})
    (shown,) = stage.call("get_thread", 1, stage.thread_id)["interrupts"].values()
    assert [one["value"] for one in shown] == ["well?"]


@pytest.mark.parametrize("nodes", [["increment"], "*"])
@pytest.mark.parametrize("side", ["interrupt_before", "interrupt_after"])
async def test_a_crash_at_a_breakpoint_does_not_pass_it(side: str, nodes: Any, db: psycopg.Connection[Any]):
    calls = [{"input": {"target": 2}, side: nodes}, {"input": None, side: nodes}]
    undisturbed = await host(db, toys.counter)
    await undisturbed.play(calls)
    wanted = undisturbed.state()
    for at in range(1, undisturbed.writes + 1):
        crashed = await host(db, toys.counter, crash_at=at)
        await crashed.play(calls)
        found = crashed.state()
        assert (found["next"], found["values"]) == (wanted["next"], wanted["values"]), f"crash after write {at}"


@pytest.mark.parametrize("graph", [more.leaving, more.leaving_async], ids=["sync", "async"])
async def test_a_node_that_calls_exit_ends_its_run_and_not_the_worker(graph: Any, db: psycopg.Connection[Any]):
    stage = await host(db, graph)
    await stage.run({"input": {}})
    assert stage.output()["output"]["__error__"] == {"error": "NodeError", "message": "a node raised SystemExit(3)"}


async def test_an_exception_that_cannot_be_printed_ends_the_run_all_the_same(db: psycopg.Connection[Any]):
    stage = await host(db, more.breaking)
    run_id = await stage.run({"input": {}, "stream_mode": ["tasks"]})
    assert stage.output()["status"] == "error"
    error = next(data for name, data in stage.events(run_id) if name == "error")
    assert error == {"error": "Silent", "message": "<Silent; its str() raised RuntimeError>"}


async def test_a_channel_kept_as_its_writes_is_shown_whole_and_outlives_pruning(db: psycopg.Connection[Any]):
    stage = await host(db, more.kept)
    seen: list[Any] = []
    for turn in range(3):
        run_id = await stage.run({"input": {"seen": [f"in {turn}"]}})
        seen += [f"in {turn}", len(seen) + 1, "hush"]
        assert values(stage)["seen"] == seen
        assert [data["seen"] for name, data in stage.events(run_id) if name == "values"] == [seen[:-2], seen[:-1], seen]
        assert [state["values"]["seen"] for state in stage.history()][:3] == [seen, seen[:-1], seen[:-2]]
        stage.call("keep_latest", 1, stage.thread_id)


async def test_what_is_not_to_be_kept_is_streamed_and_kept_nowhere_in_the_state(db: psycopg.Connection[Any]):
    stage = await host(db, more.kept)
    run_id = await stage.run({"input": {"seen": []}})
    assert [data.get("secret") for name, data in stage.events(run_id) if name == "values"] == [None, "hush", "hush"]
    assert all("secret" not in state["values"] for state in stage.history())
    stored = db.execute("select count(*) from duragraph.channel_values where channel = 'secret'").fetchone()
    assert stored == (0,)


@pytest.mark.parametrize("mode", ["tasks", "debug"])
async def test_a_failed_task_is_shown_with_type_and_message(mode: str, db: psycopg.Connection[Any]):
    stage = await host(db, toys.failing)
    run_id = await stage.run({"input": {"message": "no"}, "stream_mode": [mode]})
    ends = [data.get("payload", data) for name, data in stage.events(run_id) if name == mode]
    assert ends[-1]["error"] == {"error": "ValueError", "message": "no"}


async def test_a_debug_checkpoint_says_where_the_state_of_a_subgraph_is(db: psycopg.Connection[Any]):
    stage = await host(db, toys.nested)
    run_id = await stage.run({"input": {}, "stream_mode": ["debug"]})
    shown = [data["payload"] for name, data in stage.events(run_id) if data.get("type") == "checkpoint"]
    (task,) = next(payload["tasks"] for payload in shown if payload["next"] == ["child"])
    assert task["checkpoint"]["checkpoint_ns"] == f"child:{task['id']}"
    assert "state" not in task


async def test_the_state_of_a_subgraph_is_inside_its_task(db: psycopg.Connection[Any]):
    stage = await host(db, toys.nested)
    await stage.play([{"input": {"pause": True}}])
    state = stage.state(subgraphs=True)
    inner = state["tasks"][0]["state"]
    assert state["next"] == ["child"]
    assert inner["values"] == {"pause": True, "inner": ["child_one"], "secret": "kept in the child"}
    assert inner["next"] == ["child_two"]
    assert inner["interrupts"][0]["value"] == {"question": "child asks"}


async def test_a_functional_graph_shows_what_it_returned(db: psycopg.Connection[Any]):
    stage = await host(db, more.flow)
    await stage.play([{"input": {"n": 3}}])
    assert values(stage) == {"result": 12}
    assert stage.state()["values"] == {"result": 12}


async def test_a_state_that_is_a_list_is_shown_as_one_and_so_is_what_its_nodes_gave(db: psycopg.Connection[Any]):
    stage = await host(db, more.whole)
    await stage.play([{"input": ["a"]}, {"input": ["b"]}])
    assert values(stage) == ["a", 1, "b", 3]
    assert stage.history()[1]["tasks"][0]["result"] == [3]


async def test_types_of_the_schema_come_back_as_such_and_are_shown_as_json(db: psycopg.Connection[Any]):
    stage = await host(db, more.typed)
    await stage.play([{"input": {"item": "tea"}}])
    assert values(stage) == {"item": "tea", "points": [{"x": n, "tags": ["a"]} for n in range(3)]}


async def test_an_update_from_outside_goes_through_reducers_and_conditions(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    await stage.play([{"input": {"target": 1}}])
    made = await update(stage, {"values": {"target": 5, "log": ["by hand"]}, "as_node": "prepare"})
    state = stage.state()
    assert state["checkpoint"]["checkpoint_id"] == made["checkpoint_id"]
    assert state["next"] == ["increment"]
    assert state["values"]["log"][-1] == "by hand"
    assert state["metadata"]["source"] == "update"
    await stage.run({"input": None})
    assert values(stage)["count"] == 5


async def test_a_copy_of_a_checkpoint_holds_what_it_holds_and_not_what_its_parent_held(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    await stage.play([{"input": {"target": 2}}])
    before = stage.state()["values"]
    await update(stage, {"values": None, "as_node": "__copy__"})
    assert stage.state()["values"] == before
    await stage.run({"input": {"target": 3}})
    assert values(stage)["log"][:4] == before["log"][:4]


async def test_a_command_may_answer_and_update_at_once_and_be_followed_by_an_answer(db: psycopg.Connection[Any]):
    stage = await host(db, more.twice)
    await stage.play([{"input": {}}, {"command": {"resume": "a", "update": {"given": ["x"]}}}, {"resume": "b"}])
    assert values(stage)["given"] == ["x", "a", "b"]


async def test_an_update_that_the_graph_refuses_changes_nothing(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    await stage.play([{"input": {"target": 1}}])
    before = stage.state()
    made = await update(stage, {"values": {"target": 5}, "as_node": "nowhere"})
    assert made["refused"]["error"] == "InvalidUpdateError"
    assert stage.state() == before


async def test_a_refused_superstep_takes_those_before_it_with_it(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    await stage.play([{"input": {"target": 1}}])
    before = stage.state()
    made = await update(
        stage, {"values": {"target": 5}, "as_node": "prepare"}, {"values": {"target": 6}, "as_node": "nowhere"}
    )
    assert made["refused"]["error"] == "InvalidUpdateError"
    assert stage.state() == before


async def test_a_crash_makes_no_superstep_of_an_update_twice(db: psycopg.Connection[Any]):
    async def updated(crash_at: int | None) -> Hosting:
        stage = await host(db, toys.counter, crash_at=crash_at)
        await stage.play([{"input": {"target": 1}}])
        for log in ("first", "second"):
            await update(stage, *({"values": {"log": [f"{log} {n}"]}, "as_node": "prepare"} for n in range(2)))
        return stage

    undisturbed = await updated(None)
    wanted = undisturbed.state()["values"]
    assert wanted["log"][-4:] == ["first 0", "first 1", "second 0", "second 1"]
    for at in range(1, undisturbed.writes + 1):
        assert (await updated(at)).state()["values"] == wanted, f"crash after write {at}"


async def update(stage: Hosting, *supersteps: dict[str, Any]) -> Any:
    run_id = stage.call("begin_update", 1, stage.thread_id, [{"updates": [one]} for one in supersteps])
    await stage.attempts()
    return stage.call("run_output", 1, run_id)["output"]


async def test_updates_are_not_listed_among_the_runs(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    await stage.play([{"input": {"target": 0}}])
    await update(stage, {"values": {"target": 5}})
    assert len(stage.call("list_runs", 1, stage.thread_id, {})) == 1


async def test_values_are_streamed_by_reference_where_a_checkpoint_holds_them(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    run_id = await stage.run({"input": {"target": 1}, "stream_mode": ["values"]})
    shown = [data for name, data in stage.events(run_id) if name == "values"]
    assert shown[0] == {"target": 1, "count": 0, "log": []}
    assert shown[-1]["result"] == "counted to 1"
    kept = db.execute("select count(*) from duragraph.events where run_id = %s and data is not null", [run_id])
    assert kept.fetchone() == (0,)


async def test_a_long_conversation_is_stored_once(db: psycopg.Connection[Any]):
    stage = await host(db, toys.echo)
    size = []
    for turn in range(12):
        await stage.run({"input": {"messages": [{"role": "user", "content": "x" * 500, "id": f"m{turn}"}]}})
        row = db.execute(
            "select sum(length(value::text) + length(saved::text)) from duragraph.channel_values where thread_id = %s",
            [stage.thread_id],
        ).fetchone()
        assert row is not None
        size.append(row[0])
    grown = [after - before for before, after in pairwise(size)]
    assert grown[-1] < 1.1 * grown[1]  # as much a turn at the end as at the beginning


async def test_with_durability_exit_only_the_last_checkpoint_is_kept(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    run_id = await stage.run({"input": {"target": 3}, "durability": "exit"})
    assert [state["values"]["count"] for state in stage.history()] == [3]
    assert [data["count"] for name, data in stage.events(run_id) if name == "values"] == [0, 0, 1, 2, 3, 3]


async def test_a_fork_leaves_the_older_branch_as_it_was(db: psycopg.Connection[Any]):
    stage = await host(db, toys.counter)
    await stage.play([{"input": {"target": 2}}])
    old = stage.history()
    point = next(state for state in old if state["values"].get("count") == 1)
    await stage.run({"input": None, "checkpoint_id": point["checkpoint"]["checkpoint_id"]})
    now = stage.history()
    assert values(stage)["log"] == ["prepare", "increment:1", "increment:2", "finish"]
    assert [state for state in now if state["checkpoint_id"] in {s["checkpoint_id"] for s in old}] == old


@pytest.mark.parametrize(
    "source", [more.by_config, lambda: more.by_config({}), more.typed], ids=["config", "plain", "compiled"]
)
async def test_factories_are_called_with_what_they_take(source: Any, db: psycopg.Connection[Any]):
    stage = await host(db, source)
    await stage.run({"input": {"item": "x"}, "config": {"configurable": {"mode": "fast"}}})
    assert stage.output()["status"] == "success"


async def test_a_factory_sees_the_config_of_the_run(db: psycopg.Connection[Any]):
    stage = await host(db, more.by_config)
    await stage.run({"input": {"n": 1}, "config": {"configurable": {"mode": "fast"}}})
    assert values(stage)["seen"] == [4]


async def test_a_factory_that_opens_something_closes_it_behind_the_run(db: psycopg.Connection[Any]):
    stage = await host(db, more.in_context)
    await stage.run({"input": {"n": 1}})
    assert more.CALLS == ["opened", "plain", "closed"]


async def test_graphs_share_the_store_of_the_api(db: psycopg.Connection[Any]):
    stage = await host(db, toys.memory)
    await stage.play([{"input": {"space": "s", "fact": "sky"}}, {"input": {"space": "s", "fact": "sea"}}])
    assert values(stage)["known"] == ["sea", "sky"]
    item = stage.call("store_batch", 1, [{"op": "get", "namespace": ["facts", "s"], "key": "sky"}])[0]
    assert item["value"] == {"fact": "sky"}


async def test_namespaces_are_listed_by_one_prefix_and_one_suffix_and_never_by_half_of_what_was_asked():
    sent: list[Any] = []

    async def send(ops: list[dict[str, Any]]) -> list[Any]:
        sent.extend(ops)
        return [[["a", "b"]] for _ in ops]

    store = RunStore(send)
    assert await store.alist_namespaces(prefix=("a",), suffix=("b",)) == [("a", "b")]
    assert (sent[0]["prefix"], sent[0]["suffix"]) == (["a"], ["b"])
    two = tuple(MatchCondition(match_type="prefix", path=path) for path in (("a",), ("a", "*")))
    with pytest.raises(DuraGraphError, match="by one prefix"):
        await store.abatch([ListNamespacesOp(match_conditions=two)])


@pytest.mark.parametrize(
    "planted",
    [
        {"lc": 2, "type": "constructor", "id": ["planted", "Thing"], "args": [], "kwargs": {}},
        {"lc": 1, "type": "constructor", "id": ["planted", "Thing"], "kwargs": {}},
        {"__type__": "planted.Thing", "py/object": "planted.Thing", "__class__": "planted.Thing"},
        ["planted", "Thing", [], "__init__"],
        "pickle:gASVCw==",
        "msgpack:xwsAk6dwbGFudGVkpVRoaW5nkA==",
    ],
)
async def test_nothing_that_a_client_sends_is_made_into_an_object(
    planted: Any, db: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "planted.py").write_text("class Thing:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"configurable": {"x": planted}, "metadata": {"x": planted}}
    stage = await host(db, more.twice)
    await stage.run({"input": {"given": [planted]}, "config": config, "metadata": {"x": planted}})
    await stage.run({"command": {"resume": planted, "update": {"given": [planted]}}})
    await update(stage, {"values": {"given": [planted]}})
    await stage.run({"command": {"resume": planted}})
    assert "planted" not in sys.modules
    assert values(stage)["given"][0] == planted


def test_what_is_no_graph_is_refused_by_name():
    with pytest.raises(GraphError, match="is no graph"):
        LangGraphGraph("g", 5)


async def test_messages_stream_as_tokens_and_accumulate(db: psycopg.Connection[Any]):
    stage = await host(db, toys.tokens)
    run_id = await stage.run({"input": HI, "stream_mode": ["messages", "messages-tuple", "custom"]})
    events = stage.events(run_id)
    chunks = [data[0] for name, data in events if name == "messages"]
    assert "".join(chunk["content"] for chunk in chunks) == "you said hi and that is all"
    assert {chunk["type"] for chunk in chunks} == {"AIMessageChunk"}
    partial = [data[0] for name, data in events if name == "messages/partial"]
    assert partial[-1]["content"] == "you said hi and that is all"
    assert {message["type"] for message in partial} == {"ai"}
    assert [data["stage"] for name, data in events if name == "custom"] == ["start", "thinking", "end"]


async def test_events_mode_shows_chains_and_models(db: psycopg.Connection[Any]):
    stage = await host(db, toys.tokens)
    run_id = await stage.run({"input": HI, "stream_mode": ["events", "values"]})
    events = stage.events(run_id)
    kinds = {data["event"] for name, data in events if name == "events"}
    assert {"on_chain_start", "on_chain_end", "on_chat_model_stream"} <= kinds
    assert [name for name, _ in events].count("values") == 2


async def test_subgraphs_are_streamed_when_asked_for(db: psycopg.Connection[Any]):
    stage = await host(db, toys.nested)
    run_id = await stage.run({"input": {}, "stream_mode": ["updates"], "stream_subgraphs": True})
    inner = [data for name, data in stage.events(run_id) if name.startswith("updates|child:")]
    assert [next(iter(data)) for data in inner] == ["child_one", "child_two"]


def test_the_definition_draws_subgraphs_and_conditions():
    drawn = json.loads(json.dumps(LangGraphGraph("g", toys.nested).definition()))
    assert drawn["nodes"] == []  # not known before it was prepared


async def test_what_is_registered_tells_nodes_edges_and_schemas():
    hosted = LangGraphGraph("counter", toys.counter)
    await hosted.prepare()
    drawn = hosted.definition()
    assert [node["id"] for node in drawn["nodes"]] == ["prepare", "increment", "finish"]
    assert {"source": "prepare", "target": "increment", "conditional": True} in drawn["edges"]
    assert set(hosted.schemas()["state_schema"]["properties"]) == {"target", "count", "log", "result"}
    nested = LangGraphGraph("nested", toys.nested)
    await nested.prepare()
    assert "secret" in nested.schemas()["subgraphs"]["child"]["state_schema"]["properties"]


def test_rendering_replaces_what_no_text_in_the_database_may_hold():
    assert jsonable({"a\0b": ["\ud800", float("nan"), b"x"]}) == {"a\ufffdb": ["\ufffd", None, "eA=="]}


def test_rendering_shows_as_text_what_cannot_be_taken_apart():
    class Odd:
        def tolist(self) -> Any:
            raise ValueError

        def __str__(self) -> str:
            return "odd"

    assert jsonable([Odd(), {more.Silent(): more.Silent()}])[0] == "odd"
    told = "<Silent; its repr() raised RuntimeError>"
    assert jsonable({"x": more.Silent()}) == {"x": told}
