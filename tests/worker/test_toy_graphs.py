"""The toy graphs end in the states that their contract says, stream what it says, and survive a crash anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from duragraph_worker import Graph, entrypoint, graph_node
from duragraph_worker.testing import crash_everywhere
from tests.worker import toy_graphs as toys

HI = {"messages": [{"role": "user", "content": "hi"}]}


def texts(values: dict[str, Any]) -> list[str]:
    return [m["content"] for m in values["messages"]]


async def drain(graph: Any, input: Any, mode: Any, **options: Any) -> list[tuple[str, Any]]:
    return [(e.type, e.data) async for e in graph.stream(input, stream_mode=mode, **options)]


def of(events: list[tuple[str, Any]], name: str) -> list[Any]:
    return [data for event, data in events if event == name]


async def test_echo_answers_and_grows_over_runs_on_one_thread():
    graph = toys.Echo()
    await graph.arun({"messages": [{"role": "user", "content": "one"}]}, thread_id="t")
    result = await graph.arun({"messages": [{"role": "user", "content": "two"}]}, thread_id="t")
    assert texts(result.output) == ["one", "echo: one", "two", "echo: two"]
    assert [m["type"] for m in result.output["messages"]] == ["human", "ai", "human", "ai"]


async def test_counter_counts_and_goes_on_growing_over_runs_on_one_thread():
    graph = toys.Counter()
    first = await graph.arun({"target": 2}, thread_id="t")
    assert first.output == {
        "target": 2,
        "count": 2,
        "log": ["prepare", "increment:1", "increment:2", "finish"],
        "result": "counted to 2",
    }
    second = await graph.arun({"target": 3}, thread_id="t")
    assert second.output["count"] == 3
    assert second.output["log"][4:] == ["prepare", "increment:3", "finish"]


async def test_interrupting_asks_until_it_has_the_answers():
    graph = toys.Interrupting()
    first = await graph.arun({"request": "x", "times": 2}, thread_id="t")
    assert first.status == "interrupted"
    assert first.interrupts[0]["value"] == {"question": "approve x?", "number": 1}
    second = await graph.arun(thread_id="t", resume="a")
    assert second.interrupts[0]["value"]["number"] == 2
    assert second.interrupts[0]["id"] != first.interrupts[0]["id"]
    last = await graph.arun(thread_id="t", resume="b")
    assert last.status == "success"
    assert last.output == {"request": "x", "times": 2, "answers": ["a", "b"], "status": "done"}


async def test_parallel_questions_are_answered_by_id():
    graph = toys.Interrupting()
    asked = await graph.arun({"request": "x", "parallel": 2}, thread_id="t")
    by_item = {i["value"]["number"]: i["id"] for i in asked.interrupts}
    assert set(by_item) == {1, 2}
    half = await graph.arun(thread_id="t", resume={by_item[2]: "two"})
    assert [i["id"] for i in half.interrupts] == [by_item[1]]
    last = await graph.arun(thread_id="t", resume={by_item[1]: "one"})
    assert last.output["answers"] == [{"item": 1, "answer": "one"}, {"item": 2, "answer": "two"}]
    assert last.output["status"] == "done"


async def test_slow_takes_its_steps():
    result = await toys.Slow().arun({"steps": 3, "sleep": 0, "tag": "a"})
    assert result.output == {"steps": 3, "sleep": 0, "tag": "a", "done": ["a1", "a2", "a3"]}


async def test_failing_ends_as_error_with_what_was_done_before():
    result = await toys.Failing().arun({"message": "kaboom"})
    assert result.status == "error"
    assert result.error == {"error": "ValueError", "message": "kaboom"}
    assert result.output == {"message": "kaboom", "trail": ["before"]}
    survived = await toys.Failing().arun({"fail": False})
    assert survived.output["trail"] == ["before", "survived"]


async def test_a_failing_run_streams_its_error_last():
    events = await drain(toys.Failing(), {"message": "kaboom"}, "values")
    assert events[-1] == ("error", {"error": "ValueError", "message": "kaboom"})


async def test_tokens_replies():
    result = await toys.Tokens().arun(HI)
    assert texts(result.output) == ["hi", "you said hi and that is all"]
    assert result.tokens["total_tokens"] == 10


async def test_tokens_streams_tokens_and_custom_events():
    events = await drain(toys.Tokens(), HI, ["messages-tuple", "custom", "values"])
    chunks = of(events, "messages")
    assert "".join(m["content"] for m, _ in chunks) == "you said hi and that is all"
    assert {m["type"] for m, _ in chunks} == {"AIMessageChunk"}
    assert len({m["id"] for m, _ in chunks}) == 1
    assert {meta["langgraph_node"] for _, meta in chunks} == {"model"}
    assert [e["stage"] for e in of(events, "custom")] == ["start", "thinking", "end"]
    assert chunks[0][0]["id"] == of(events, "values")[-1]["messages"][-1]["id"]


async def test_messages_mode_accumulates_what_is_streamed():
    events = await drain(toys.Tokens(), HI, "messages")
    assert [name for name, _ in events[:2]] == ["messages/metadata", "messages/partial"]
    partial = of(events, "messages/partial")
    assert partial[0][0]["content"] == "you"
    assert partial[-1][0]["content"] == "you said hi and that is all"
    assert of(events, "messages/complete") == []


async def test_messages_mode_gives_returned_messages_as_complete():
    events = await drain(toys.Echo(), HI, "messages")
    assert of(events, "messages/complete")[-1][0]["content"] == "echo: hi"
    assert len(of(events, "messages/complete")) == 1


async def test_nested_runs_the_child_as_one_step():
    events = await drain(toys.Nested(), {}, ["updates", "values"])
    assert [list(d) for d in of(events, "updates")] == [["parent_before"], ["child"], ["parent_after"]]
    assert of(events, "values")[-1] == {
        "trail": ["parent_before", "parent_after"],
        "inner": ["child_one", "child_two"],
    }


async def test_nested_shows_its_child_when_subgraphs_are_asked_for():
    events = await drain(toys.Nested(), {}, "updates", subgraphs=True)
    inner = [(name, data) for name, data in events if name.startswith("updates|child:")]
    assert [list(data) for _, data in inner] == [["child_one"], ["child_two"]]


async def test_a_question_inside_a_subgraph_is_answered_through_the_parent():
    graph = toys.Nested()
    asked = await graph.arun({"pause": True}, thread_id="t")
    assert asked.next == ("child",)
    assert asked.interrupts[0]["value"] == {"question": "child asks"}
    (ns,) = {ns for ns, _ in graph.local.thread("t").values if ns}
    assert ns.startswith("child:")
    inner = [values for (at, _), values in graph.local.thread("t").values.items() if at == ns][-1]
    assert inner["secret"] == "kept in the child"
    result = await graph.arun(thread_id="t", resume="ok")
    assert result.output["inner"] == ["child_one", "child_two:ok"]
    assert result.output["trail"] == ["parent_before", "parent_after"]
    assert "secret" not in result.output
    assert result.nodes_executed == ("child_two", "child", "parent_after")


async def test_context_reaches_the_node():
    config = {"configurable": {"style": "loud"}, "tags": ["t"], "metadata": {"purpose": "test"}}
    result = await toys.Contextual().arun({"text": "hey"}, context={"user_name": "Ada"}, config=config)
    assert result.output["reply"] == "loud: hello Ada, hey"
    seen = result.output["seen"]
    assert seen["metadata"]["purpose"] == "test"
    assert seen["tags"] == ["t"]
    assert seen["recursion_limit"] == 25
    assert seen["configurable"]["thread_id"] == result.thread_id


def test_the_schemas_of_subgraphs_are_by_namespace():
    @Graph(id="outer", state=toys.NestedState)
    class Outer:
        nested = entrypoint(graph_node(toys.Nested))

    subgraphs = Outer.schemas()["subgraphs"]
    assert set(subgraphs) == {"nested", "nested|child"}
    assert "secret" in subgraphs["nested|child"]["state_schema"]["properties"]
    assert "subgraphs" not in toys.Counter.schemas()


@pytest.mark.parametrize("way", ["left", "right"])
async def test_routing_goes_where_the_command_says(way: str):
    result = await toys.Routing().arun({"go": way})
    assert result.output == {"go": way, "trail": ["start", "decide", way]}


async def test_goto_and_update_by_command():
    graph = toys.Routing()
    await graph.arun({"go": "left"}, thread_id="t")
    result = await graph.arun(thread_id="t", command={"goto": "right", "update": {"trail": ["patched"]}})
    assert result.output["trail"] == ["start", "decide", "left", "patched", "right"]


async def test_a_run_leaves_a_checkpoint_for_its_input_and_for_each_superstep():
    graph = toys.Counter()
    await graph.arun({"target": 1}, thread_id="t")
    kept = list(graph.local.thread("t").checkpoints.values())
    assert [c["next"] for c in kept] == [["__start__"], ["prepare"], ["increment"], ["finish"], []]
    assert [c["step"] for c in kept] == [-1, 0, 1, 2, 3]
    assert [c["source"] for c in kept] == ["input", "loop", "loop", "loop", "loop"]
    assert [c["checkpoint_id"] for c in kept] == sorted(c["checkpoint_id"] for c in kept)
    assert kept[2]["channels"] == {"log": {"append": ["increment:1"]}} or kept[2]["channels"]["log"] == {
        "set": ["prepare"]
    }


async def test_memory_knows_what_its_other_threads_learnt():
    graph = toys.Memory()
    assert (await graph.arun({"space": "s", "fact": "sky"})).output["known"] == ["sky"]
    assert (await graph.arun({"space": "s", "fact": "sea"})).output["known"] == ["sea", "sky"]
    assert (await graph.arun({"space": "other"})).output["known"] == []
    assert graph.local.store.get(("facts", "s"), "sky").value == {"fact": "sky"}


CALLS: list[tuple[Any, list[dict[str, Any]]]] = [
    (toys.Echo, [{"input": HI}]),
    (toys.Counter, [{"input": {"target": 2}}, {"input": {"target": 3}}]),
    (toys.Interrupting, [{"input": {"request": "x", "times": 2}}, {"resume": "a"}, {"resume": "b"}]),
    (toys.Interrupting, [{"input": {"request": "x", "parallel": 2}}, {"resume": "a"}, {"resume": "b"}]),
    (toys.Slow, [{"input": {"steps": 3, "sleep": 0, "tag": "a"}}]),
    (toys.Failing, [{"input": {"message": "no"}}, {"command": {"update": {"fail": False}}}]),
    (toys.Tokens, [{"input": HI, "stream_mode": ["messages-tuple", "custom"]}]),
    (toys.Nested, [{"input": {}}]),
    (toys.Nested, [{"input": {"pause": True}}, {"resume": "ok"}]),
    (toys.Contextual, [{"input": {"text": "hey"}}]),
    (toys.Memory, [{"input": {"space": "s", "fact": "sky"}}, {"input": {"space": "s", "fact": "sea"}}]),
    (toys.Routing, [{"input": {"go": "right"}}, {"command": {"goto": "left", "update": {"trail": ["patched"]}}}]),
]


@pytest.mark.parametrize(("graph", "calls"), CALLS, ids=lambda v: v.__name__ if isinstance(v, type) else "")
async def test_a_crash_after_any_write_changes_nothing_but_the_number_of_attempts(graph: Any, calls: Any):
    report = await crash_everywhere(graph, calls)
    for played in [report.undisturbed, *report.crashed]:
        played.output.pop("seen", None)  # holds the run's id
    assert report.final_states_differ == []
    wanted = [r.status for r in report.undisturbed.results]
    for played in report.crashed:
        assert [r.status for r in played.results] == wanted
        assert len(played.ledger) == len(report.undisturbed.ledger)
        assert played.attempts <= report.undisturbed.attempts + 1
