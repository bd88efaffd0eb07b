"""The superstep engine: what runs, in which order, and where it goes."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Any, TypedDict

import pytest

from duragraph_worker import (
    END,
    Command,
    Graph,
    Send,
    append,
    edge,
    entrypoint,
    node,
    router_node,
)
from duragraph_worker.testing import play
from tests.worker.scenarios import (
    Diamond,
    Linear,
    Trail,
    done,
    step,
)


@pytest.fixture(autouse=True)
def _nothing_done_yet():
    done.clear()


async def test_a_linear_graph_takes_one_write_a_superstep_and_one_for_its_input():
    played = await play(Linear(), [{"input": {}}])
    assert played.writes == 4
    assert played.output["trail"] == ["a", "b", "c"]


async def test_a_join_waits_for_all_of_its_sources():
    played = await play(Diamond(), [{"input": {}}])
    assert played.output["trail"] == ["a", "b", "c", "c2", "d"]
    assert done["d"] == 1


async def test_separate_edges_start_their_target_each_time():
    @Graph(id="g", state=Trail)
    class Twice:
        a = entrypoint(step("a"))
        b = step("b")
        c = step("c")
        d = step("d")
        a >> b >> d
        a >> c >> d
        e = step("e")
        d >> e

    played = await play(Twice(), [{"input": {}}])
    assert played.output["trail"] == ["a", "b", "c", "d", "e"]


async def test_edges_from_different_depths_start_their_target_twice():
    @Graph(id="g", state=Trail)
    class Depths:
        a = entrypoint(step("a"))
        b = step("b")
        b2 = step("b2")
        d = step("d")
        a >> b >> b2 >> d
        b >> d

    played = await play(Depths(), [{"input": {}}])
    assert played.output["trail"] == ["a", "b", "b2", "d", "d"]


async def test_parallel_nodes_run_at_the_same_time_whether_they_are_plain_functions_or_not():
    class Meeting(TypedDict, total=False):
        met: Annotated[list[str], append]

    barrier = threading.Barrier(2, timeout=5)
    event = asyncio.Event()

    @Graph(id="g", state=Meeting)
    class Meet:
        @entrypoint
        @node
        async def start(self, state): ...

        @node
        def one(self, state):
            barrier.wait()
            return {"met": ["one"]}

        @node
        def two(self, state):
            barrier.wait()
            return {"met": ["two"]}

        @node
        async def three(self, state):
            await asyncio.wait_for(event.wait(), 5)
            return {"met": ["three"]}

        @node
        async def four(self, state):
            event.set()
            return {"met": ["four"]}

        start >> [one, two, three, four]

    result = await Meet().arun({})
    assert result.output["met"] == ["one", "two", "three", "four"]


async def test_two_nodes_writing_a_key_without_a_reducer_is_an_error_that_names_them():
    class Clash(TypedDict, total=False):
        winner: str

    @Graph(id="g", state=Clash)
    class Race:
        @entrypoint
        @node
        async def start(self, state): ...

        @node
        async def red(self, state):
            return {"winner": "red"}

        @node
        async def blue(self, state):
            return {"winner": "blue"}

        start >> [red, blue]

    result = await Race().arun({})
    assert result.error is not None
    assert result.error["error"] == "InvalidUpdateError"
    assert "'red' and 'blue' both wrote the key 'winner'" in result.error["message"]


async def test_a_loop_without_an_end_stops_at_the_recursion_limit():
    @Graph(id="g", state=Trail)
    class Forever:
        a = entrypoint(step("a"))
        b = step("b")
        a >> b >> a

    result = await Forever().arun({}, config={"recursion_limit": 7})
    assert result.error is not None
    assert result.error["error"] == "GraphRecursionError"
    assert "after 7 supersteps" in result.error["message"]
    assert len(result.nodes_executed) == 7
    assert (await Linear().arun({}, config={"recursion_limit": 3})).status == "success"


async def test_no_input_on_a_new_thread_is_an_error():
    result = await Linear().arun()
    assert result.error is not None
    assert result.error["error"] == "EmptyInputError"


async def test_no_input_on_a_finished_thread_changes_nothing():
    graph = Linear()
    await graph.arun({}, thread_id="t")
    again = await graph.arun(thread_id="t")
    assert again.status == "success"
    assert again.nodes_executed == ()


async def test_a_command_goes_where_it_says_besides_plain_edges():
    @Graph(id="g", state=Trail)
    class Go:
        @entrypoint
        @node(goto=["extra"])
        async def a(self, state):
            return Command(update={"trail": ["a"]}, goto="extra")

        b = step("b")
        extra = step("extra")
        a >> b

    result = await Go().arun({})
    assert result.output["trail"] == ["a", "b", "extra"]


async def test_a_router_picks_names_nodes_lists_sends_and_end():
    picks: list[Any] = ["b", ["b", "c"], END, Send("c", {"n": 1}), [], None, True]

    @Graph(id="g", state=Trail)
    class Route:
        @entrypoint
        @router_node
        def route(self, state):
            return picks[state["n"]]

        b = step("b")
        c = step("c")
        edge(route).to_conditional({True: c, "b": b})
        route >> b
        route >> c
        route >> END

    trails = [(await Route().arun({"n": i})).output["trail"] for i in range(len(picks))]
    assert trails == [["b"], ["b", "c"], [], ["c"], [], [], ["c"]]


async def test_a_router_that_picks_what_it_did_not_declare_is_an_error_that_names_it():
    @Graph(id="g", state=Trail)
    class Route:
        @entrypoint
        @router_node
        def route(self, state):
            return "c"

        b = step("b")
        c = step("c")
        route >> b >> c

    result = await Route().arun({})
    assert result.error is not None
    assert result.error["message"] == "router 'route' chose 'c', which is not declared; it may go to b"


async def test_a_thread_that_waits_at_a_node_the_graph_no_longer_has_says_so():
    graph = Linear()
    await graph.arun({}, thread_id="t", interrupt_before=["b"])
    thread = graph.local.thread("t")
    thread.checkpoints[thread.head]["tasks"][0]["name"] = "renamed"
    result = await graph.arun(thread_id="t")
    assert result.error is not None
    assert "node 'renamed' is next on this thread, but graph 'linear' lacks it" in result.error["message"]
