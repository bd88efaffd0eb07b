"""What each stream mode shows, in which order, as clients of LangGraph know it."""

from __future__ import annotations

import asyncio
from typing import Any

from duragraph_worker import END, Graph, Send, edge, entrypoint, graph_node, interrupt, node
from tests.worker import toy_graphs as toys

EVERY = ["values", "updates", "tasks", "checkpoints"]


async def frames(graph: Any, input: Any = None, mode: Any = "values", **options: Any) -> list[tuple[str, Any]]:
    return [(e.type, e.data) async for e in graph.stream(input, stream_mode=mode, thread_id="t", **options)]


def names(events: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in events]


def of(events: list[tuple[str, Any]], name: str) -> list[Any]:
    return [data for event, data in events if event == name]


def bare(events: list[tuple[str, Any]]) -> list[str]:
    """The names, without the ids in namespaces."""
    return [name.partition(":")[0] for name, _ in events]


async def test_a_step_shows_updates_then_ends_then_values_then_its_checkpoint():
    events = await frames(toys.Failing(), {"fail": False}, EVERY)
    assert names(events) == [
        "checkpoints", "values", "checkpoints",
        "tasks", "updates", "tasks", "values", "checkpoints",
        "tasks", "updates", "tasks", "values", "checkpoints",
    ]  # fmt: skip


async def test_the_checkpoint_of_new_input_shows_the_state_before_it():
    events = await frames(toys.Counter(), {"target": 0}, "checkpoints")
    marked, merged = of(events, "checkpoints")[:2]
    assert (marked["values"], marked["next"], marked["metadata"]["source"]) == (
        {"count": 0, "log": []}, ["__start__"], "input",
    )  # fmt: skip
    assert [task["name"] for task in marked["tasks"]] == ["__start__"]
    assert merged["values"] == {"count": 0, "log": [], "target": 0}


async def test_input_without_any_key_shows_no_values():
    events = await frames(toys.Nested(), {})
    assert [len(values["trail"]) for values in of(events, "values")] == [1, 1, 2]


async def test_a_question_shows_in_updates_and_values_before_its_task_ends():
    events = await frames(toys.Interrupting(), {"request": "r"}, EVERY)
    assert names(events)[-4:] == ["tasks", "updates", "values", "tasks"]
    assert len({str(one) for one in (events[-3][1]["__interrupt__"], events[-1][1]["interrupts"])}) == 1


async def test_going_on_shows_the_checkpoint_with_its_question_first():
    graph = toys.Interrupting()
    asked = await frames(graph, {"request": "r"}, ["checkpoints", "updates"])
    events = await frames(graph, None, ["values", "checkpoints"], resume="yes")
    assert names(events)[:2] == ["values", "checkpoints"]
    again = of(events, "checkpoints")[0]
    assert again["config"] == of(asked, "checkpoints")[-1]["config"]
    assert again["tasks"][0]["interrupts"] == of(asked, "updates")[-1]["__interrupt__"]


@Graph(id="racing", state=toys.InterruptState)
class Racing:
    @entrypoint
    @node()
    async def begin(self, state):
        return {"status": "asking"}

    @node()
    async def ask(self, sent):
        if sent == 0:
            await SECOND.wait()
        SECOND.set()
        return {"answers": [interrupt(sent)]}

    edge(begin).to_conditional(lambda self, state: [Send("ask", 0), Send("ask", 1)], [ask])
    edge(ask).to_conditional(lambda self, state: END, [END])


SECOND = asyncio.Event()


async def test_questions_are_shown_in_the_order_of_their_tasks_whoever_asks_first():
    SECOND.clear()
    result = await Racing().arun({}, thread_id="t")
    assert [question["value"] for question in result.interrupts] == [0, 1]


async def test_a_subgraph_shows_its_question_and_where_it_goes_on():
    graph = toys.Nested()
    asked = await frames(graph, {"pause": True}, ["values", "updates"], subgraphs=True)
    assert bare(asked)[-4:] == ["updates|child", "values|child", "updates", "values"]
    assert asked[-3][1]["__interrupt__"] == asked[-1][1]["__interrupt__"]
    assert asked[-3][1]["inner"] == ["child_one"]
    events = await frames(graph, None, ["values", "checkpoints"], subgraphs=True, resume="ok")
    assert bare(events)[:6] == [
        "values", "checkpoints", "values|child", "checkpoints|child", "values|child", "checkpoints|child",
    ]  # fmt: skip
    assert events[2][1]["inner"] == ["child_one"]
    assert [len(task["interrupts"]) for task in events[3][1]["tasks"]] == [1]


async def test_a_subgraphs_checkpoint_names_those_it_runs_under():
    events = await frames(toys.Nested(), {}, "checkpoints", subgraphs=True)
    outer = next(data for name, data in events if name == "checkpoints" and data["next"] == ["child"])
    at = outer["config"]["configurable"]["checkpoint_id"]
    namespace = outer["tasks"][0]["state"]["configurable"]["checkpoint_ns"]
    for name, inner in events:
        if name != "checkpoints":
            point = inner["config"]["configurable"]
            assert name == f"checkpoints|{namespace}"
            assert inner["metadata"]["parents"] == {"": at}
            assert point["checkpoint_map"] == {"": at, namespace: point["checkpoint_id"]}


async def test_a_failed_task_shows_type_and_message():
    events = await frames(toys.Failing(), {"message": "k"}, "tasks")
    assert of(events, "tasks")[-1]["error"] == {"error": "ValueError", "message": "k"}


async def test_a_failure_in_a_subgraph_shows_at_its_task_and_at_the_parents():
    @Graph(id="outer", state=toys.FailingState)
    class Outer:
        inner = entrypoint(graph_node(toys.Failing))

    events = await frames(Outer(), {"message": "k"}, "tasks", subgraphs=True)
    failed = [(name.partition(":")[0], data.get("name")) for name, data in events if data.get("error")]
    assert failed == [("tasks|inner", "boom"), ("tasks", "inner"), ("error", None)]


async def test_events_are_runs_inside_of_runs():
    events = of(await frames(toys.Nested(), {}, "events"), "events")
    inside = {(e["name"], e["event"].removeprefix("on_chain_"), len(e["parent_ids"])): e for e in events}
    root = inside["nested", "start", 0]["run_id"]
    task = inside["child", "start", 1]
    graph = inside["child", "start", 2]
    assert task["parent_ids"] == [root]
    assert graph["parent_ids"] == [root, task["run_id"]]
    assert inside["child_one", "start", 3]["parent_ids"] == [root, task["run_id"], graph["run_id"]]
    assert inside["child_two", "end", 3]["tags"] == ["graph:step:2"]
    assert inside["child_two", "end", 3]["data"] == {
        "input": {"inner": ["child_one"], "secret": "kept in the child"}, "output": {"inner": ["child_two"]},
    }  # fmt: skip
    assert [e["event"] for e in events if e["run_id"] == root] == ["on_chain_start", "on_chain_end"]


async def test_events_show_a_models_call_from_question_to_answer():
    events = of(await frames(toys.Tokens(), {"messages": ["hi"]}, "events"), "events")
    calls = [e for e in events if e["event"].startswith("on_chat_model_")]
    assert [e["event"].removeprefix("on_chat_model_") for e in calls] == ["start", *["stream"] * 13, "end"]
    assert len({e["run_id"] for e in calls}) == 1
    assert calls[0]["data"]["input"]["messages"][0][-1]["content"] == "hi"
    assert calls[-1]["data"]["output"]["content"] == "you said hi and that is all"
    task = next(e for e in events if e["name"] == "model")
    assert calls[0]["parent_ids"] == [*task["parent_ids"], task["run_id"]]


async def test_events_of_a_run_that_waits_end_too():
    events = of(await frames(toys.Interrupting(), {"request": "r"}, "events"), "events")
    assert (events[-1]["event"], events[-1]["data"]["output"]["status"]) == ("on_chain_end", "waiting")


async def test_metadata_names_the_ways_to_a_task_as_clients_know_them():
    events = await frames(toys.Echo(), {"messages": ["hi"]}, "messages-tuple")
    (_, metadata), *_ = of(events, "messages")
    assert metadata["langgraph_path"] == ["__pregel_pull", "echo"]
    assert metadata["langgraph_triggers"] == ["branch:to:echo"]
    assert metadata["run_attempt"] == 1
    sent = await frames(toys.Interrupting(), {"request": "r", "parallel": 1}, "tasks")
    assert of(sent, "tasks")[-2]["triggers"] == ["__pregel_push"]
