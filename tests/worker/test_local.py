"""Running a graph locally: results, streams, threads in memory."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from duragraph_worker import Context, Graph, SyncContext, entrypoint, human_node, node
from duragraph_worker.events import Event


@Graph(id="greeter")
class Greeter:
    @entrypoint
    @node
    def greet(self, state, ctx: SyncContext):
        ctx.emit({"at": "greet"})
        return {"greeting": f"Hello, {state['name']}!"}

    @node
    async def shout(self, state, ctx: Context):
        ctx.emit({"at": "shout"})
        return {"greeting": state["greeting"].upper()}

    greet >> shout


def test_run_gives_a_result_from_plain_code():
    result = Greeter().run({"name": "Ada"})
    assert result.status == "success"
    assert result.output == {"name": "Ada", "greeting": "HELLO, ADA!"}
    assert result.nodes_executed == ("greet", "shout")
    assert result.error is None
    assert result.duration_ms > 0
    assert result.raise_for_error() is result


async def test_run_works_where_an_event_loop_is_running_already():
    assert Greeter().run({"name": "Ada"}).status == "success"


def test_a_failed_run_says_why_and_raises_on_demand():
    @Graph(id="g")
    class Bad:
        @node
        def bad(self, state):
            return {"x": state["missing"]}

    result = Bad().run({"a": 1})
    assert result.status == "error"
    assert result.error == {"error": "KeyError", "message": "'missing'"}
    assert result.output == {"a": 1}
    with pytest.raises(KeyError):
        result.raise_for_error()


def test_a_stream_is_read_with_for():
    stream = Greeter().stream({"name": "Ada"}, stream_mode=["updates", "custom"])
    events = list(stream)
    assert all(isinstance(e, Event) for e in events)
    assert [(e.type, e.node_id) for e in events] == [
        ("custom", None),
        ("updates", "greet"),
        ("custom", None),
        ("updates", "shout"),
    ]
    assert stream.result is not None
    assert stream.result.status == "success"
    assert len({e.run_id for e in events}) == 1


async def test_a_stream_is_read_with_async_for():
    events = [e async for e in Greeter().astream({"name": "Ada"})]
    assert [e.data.get("greeting") for e in events] == [None, "Hello, Ada!", "HELLO, ADA!"]


async def test_events_come_while_the_node_still_runs():
    go_on = asyncio.Event()

    @Graph(id="g")
    class Slow:
        @node
        async def work(self, state, ctx: Context):
            ctx.emit("started")
            await asyncio.wait_for(go_on.wait(), 5)

    stream = Slow().stream({}, stream_mode="custom")
    async for event in stream:
        assert event.data == "started"
        go_on.set()
    assert stream.result is not None
    assert stream.result.status == "success"


async def test_events_of_a_plain_node_come_while_it_still_runs():
    go_on = threading.Event()

    @Graph(id="g")
    class Slow:
        @node
        def work(self, state, ctx: SyncContext):
            ctx.emit("started")
            assert go_on.wait(5)

    async for event in Slow().stream({}, stream_mode="custom"):
        assert event.data == "started"
        go_on.set()


async def test_leaving_a_stream_stops_the_run():
    stopped = asyncio.Event()

    @Graph(id="g")
    class Endless:
        @node
        async def work(self, state, ctx: Context):
            ctx.emit("started")
            try:
                await asyncio.sleep(30)
            finally:
                stopped.set()

    events = aiter(Endless().stream({}, stream_mode="custom"))
    assert (await anext(events)).data == "started"
    await events.aclose()
    await asyncio.wait_for(stopped.wait(), 5)


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("values", ["values", "values", "values"]),
        ("updates", ["updates", "updates"]),
        ("tasks", ["tasks"] * 4),
        ("checkpoints", ["checkpoints"] * 4),
        ("debug", ["debug"] * 8),
        ("custom", ["custom"] * 2),
        ("messages", []),
    ],
)
def test_a_stream_has_what_its_mode_says(mode: str, names: list[str]):
    assert [e.type for e in Greeter().stream({"name": "Ada"}, stream_mode=mode)] == names


def test_events_mode_tells_of_the_graph_its_nodes_and_their_output():
    frames = [e.data for e in Greeter().stream({"name": "Ada"}, stream_mode="events")]
    assert [(f["event"], f["name"]) for f in frames] == [
        ("on_chain_start", "greeter"),
        ("on_chain_start", "greet"),
        ("on_chain_stream", "greet"),
        ("on_chain_end", "greet"),
        ("on_chain_start", "shout"),
        ("on_chain_stream", "shout"),
        ("on_chain_end", "shout"),
        ("on_chain_end", "greeter"),
    ]
    assert frames[1]["parent_ids"] == [frames[0]["run_id"]]


def test_an_unknown_mode_or_option_is_refused_by_name():
    with pytest.raises(ValueError, match="stream_mode nope is unknown"):
        Greeter().stream({}, stream_mode="nope")
    with pytest.raises(TypeError, match="unknown option wait"):
        Greeter().run({}, wait=True)


@Graph(id="ask")
class Ask:
    @human_node(prompt="Name?", output="name")
    def ask(self, state): ...


def test_interrupts_and_answers_work_without_a_control_plane():
    graph = Ask()
    asked = graph.run({}, thread_id="t")
    assert asked.status == "interrupted"
    assert asked.interrupts == (
        {"value": {"prompt": "Name?"}, "id": asked.interrupts[0]["id"], "response_schema": None},
    )
    assert graph.run(thread_id="t", resume="Ada").output == {"name": "Ada"}


def test_the_question_is_in_the_values_and_updates_streams():
    events = list(Ask().stream({}, stream_mode=["values", "updates"]))
    assert [e.type for e in events] == ["updates", "values"]
    assert events[0].data["__interrupt__"] == events[1].data["__interrupt__"]
    assert events[1].data["__interrupt__"][0]["value"] == {"prompt": "Name?"}


def test_a_breakpoint_shows_as_an_empty_interrupt_in_updates_only():
    events = list(Greeter().stream({"name": "x"}, stream_mode=["values", "updates"], interrupt_before=["shout"]))
    assert [(e.type, e.data.get("__interrupt__")) for e in events] == [
        ("values", None),
        ("updates", None),
        ("values", None),
        ("updates", []),
    ]


def test_a_human_nodes_schema_says_what_answer_is_expected():
    from pydantic import BaseModel

    class Verdict(BaseModel):
        ok: bool

    @Graph(id="g")
    class Judge:
        @human_node(schema=Verdict)
        def judge(self, state): ...

    asked = Judge().run({})
    assert asked.interrupts[0]["response_schema"]["properties"]["ok"]["type"] == "boolean"


def test_threads_without_an_id_do_not_meet():
    graph = Greeter()
    first, second = graph.run({"name": "a"}), graph.run({"name": "b"})
    assert first.thread_id != second.thread_id
    assert second.output["name"] == "b"


def test_what_a_caller_does_with_a_result_changes_no_thread():
    graph = Greeter()
    result = graph.run({"name": "Ada", "list": [1]}, thread_id="t")
    result.output["list"].append(2)
    again: Any = graph.run({"name": "Bob"}, thread_id="t")
    assert again.output["list"] == [1]
