"""Declaring a graph: decorators, edges, the checks at declaration, and what is published."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated, Any, TypedDict

import pytest

from duragraph_worker import (
    END,
    Graph,
    GraphError,
    MessagesState,
    append,
    edge,
    entrypoint,
    graph_node,
    human_node,
    llm_node,
    node,
    router_node,
    tool,
    tool_node,
)
from duragraph_worker.nodes import Node


def work(name: str | None = None) -> Any:
    def method(self, state):
        return {}

    return node(name=name)(method)


def declare(body: Any, **options: Any) -> Any:
    """A graph class from a function that fills its namespace."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(body())

    import types

    return Graph(id="g", **options)(types.new_class("G", (), {}, fill))


def test_every_decorator_works_with_and_without_parentheses():
    for decorator in (node, llm_node, tool_node, router_node, human_node):
        for used in (decorator, decorator()):

            @used
            def method(self, state):
                return None

            assert isinstance(method, Node)
    assert node("given").__call__(lambda self, state: None).name == "given"
    assert llm_node("gpt-x")(lambda self, state: None).config["model"] == "gpt-x"
    assert human_node("Sure?")(lambda self, state: None).config["prompt"] == "Sure?"


def test_entrypoint_may_stand_above_below_or_alone():
    @Graph(id="a")
    class Above:
        @entrypoint
        @node()
        def a(self, state): ...

        b = work()
        a >> b

    @Graph(id="b")
    class Below:
        @node()
        @entrypoint
        def a(self, state): ...

        b = work()
        a >> b

    @Graph(id="c")
    class Alone:
        @entrypoint
        def a(self, state):
            return {"done": True}

    for graph in (Above, Below, Alone):
        assert graph.topology().entry == "a"
    assert Alone().run({}).output == {"done": True}


def test_a_node_called_through_an_instance_is_its_method():
    @Graph(id="g")
    class Plain:
        @node
        def double(self, state):
            return {"n": state["n"] * self.factor}

        factor = 2

    assert Plain().double({"n": 4}) == {"n": 8}


def edges(graph: Any) -> set[tuple[str, str]]:
    return {(e["source"], e["target"]) for e in graph.definition()["edges"]}


def test_arrows_lead_from_and_to_lists():
    def body():
        a, b, c, d, e = work("a"), work("b"), work("c"), work("d"), work("e")
        entrypoint(a)
        a >> [b, c] >> d >> e >> END
        return {"a": a, "b": b, "c": c, "d": d, "e": e}

    graph = declare(body)
    assert edges(graph) == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e"), ("e", "__end__")}
    assert [(j.sources, j.target) for j in graph.topology().joins] == [(("b", "c"), "d")]


def test_a_list_of_one_is_an_ordinary_edge():
    def body():
        a, b = work("a"), work("b")
        [entrypoint(a)] >> b
        return {"a": a, "b": b}

    assert declare(body).topology().joins == []


def test_targets_may_be_named_ahead():
    @Graph(id="g")
    class Ahead:
        @entrypoint
        @node
        def a(self, state): ...

        a >> "b"

        @node
        def b(self, state): ...

    assert edges(Ahead) == {("a", "b"), ("b", "__end__")}


def test_edges_in_words():
    @Graph(id="g")
    class Words:
        @entrypoint
        @node
        def a(self, state): ...

        b = work()
        c = work()
        edge(a).to(b)
        edge(a).to(c, condition=lambda self, state: state.get("go"))

    assert edges(Words) == {("a", "b"), ("a", "c"), ("b", "__end__"), ("c", "__end__")}
    assert [e.get("conditional", False) for e in Words.definition()["edges"][:2]] == [False, True]
    assert Words().run({"go": True}).nodes_executed[1:] in (("b", "c"), ("c", "b"))
    assert Words().run({}).nodes_executed == ("a", "b")


def broken_target():
    a = entrypoint(work("a"))
    a >> "nowhere"
    return {"a": a}


def broken_branch():
    a = entrypoint(work("a"))
    edge(a).to_conditional(lambda self, state: "x", ["x"])
    return {"a": a}


def foreign_node():
    a, foreign = entrypoint(work("a")), work("foreign")
    a >> foreign
    return {"a": a}


def foreign_join():
    a, b, c = entrypoint(work("a")), work("b"), work("c")
    a >> b
    [b, c] >> a
    return {"a": a, "b": b}


def unreachable():
    return {"a": entrypoint(work("a")), "island": work("island")}


def no_entry():
    a, b = work("a"), work("b")
    a >> b
    return {"a": a, "b": b}


def two_entries():
    return {"a": entrypoint(work("a")), "b": entrypoint(work("b"))}


def lost_router():
    def method(self, state): ...

    return {"route": entrypoint(router_node(method))}


def router_in_join():
    def method(self, state): ...

    a, b, route = entrypoint(work("a")), work("b"), router_node(method)
    a >> [b, route]
    route >> b
    [b, route] >> a
    return {"a": a, "b": b, "route": route}


def generator():
    def method(self, state):
        yield {}

    return {"gen": node(method)}


def hidden_name():
    return {"run": work("run")}


def same_name():
    return {"a": entrypoint(work("x")), "b": work("x")}


def bad_subgraph():
    return {"sub": graph_node(dict)}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (broken_target, r"node 'a' leads to 'nowhere', no node of this graph"),
        (broken_branch, r"the conditional edge of node 'a' leads to 'x'"),
        (foreign_node, r"node 'a' leads to 'foreign'"),
        (foreign_join, r"the join into 'a' has <function node 'c'>"),
        (unreachable, r"node 'island' is unreachable from 'a'"),
        (no_entry, r"no node is the entry; put @entrypoint on one of a, b"),
        (two_entries, r"a and b are both @entrypoint"),
        (lost_router, r"router 'route' leads nowhere; write route >> some_node"),
        (router_in_join, r"router 'route' cannot be part of the join into 'a'"),
        (generator, r"node 'gen' is a generator"),
        (hidden_name, r"node 'run' hides Graph.run"),
        (same_name, r"two nodes are named 'x'"),
        (bad_subgraph, r"graph_node 'sub' needs a class decorated with @Graph"),
        (dict, r"has no nodes"),
    ],
    ids=lambda v: v.__name__ if callable(v) else None,
)
def test_a_graph_declared_wrongly_is_refused_with_the_name_of_what_is_wrong(body: Any, message: str):
    with pytest.raises(GraphError, match=message):
        declare(body)


def test_a_class_body_that_fails_leaves_no_edges_behind():
    with pytest.raises(ZeroDivisionError):

        class Broken:
            a = work("a")
            b = work("b")
            a >> b
            1 / 0  # noqa: B018  # the failure

    @Graph(id="g")
    class Next:
        @entrypoint
        @node
        def a(self, state): ...

        @node
        def c(self, state): ...

        a >> c

    assert edges(Next) == {("a", "c"), ("c", "__end__")}


def test_a_subclass_inherits_nodes_and_adds_its_own_without_changing_its_parent():
    @Graph(id="parent")
    class Parent:
        @entrypoint
        @node
        def a(self, state):
            return {"trail": ["parent"]}

        b = work()
        a >> b

    @Graph(id="child")
    class Childish(Parent):
        c = work()
        Parent.b >> c

        @node
        def extra(self, state): ...

        c >> extra

    @Graph(id="other")
    class Other(Parent):
        d = work()
        Parent.b >> d

    assert edges(Parent) == {("a", "b"), ("b", "__end__")}
    assert edges(Childish) == {("a", "b"), ("b", "c"), ("c", "extra"), ("extra", "__end__")}
    assert edges(Other) == {("a", "b"), ("b", "d"), ("d", "__end__")}


class State(TypedDict, total=False):
    log: Annotated[list[str], append]
    text: str


@tool
def look(place: str) -> str:
    """Look there."""
    return place


def test_the_definition_is_json_and_says_what_a_control_plane_needs():
    @Graph(id="inner", state=State)
    class Inner:
        @node
        def only(self, state): ...

    @Graph(id="whole", state=State, description="All kinds.", version="2")
    class Whole:
        @entrypoint
        @llm_node(model="m", system_prompt="s", tools=[look], temperature=0.1)
        def think(self, state): ...

        @router_node
        def route(self, state): ...

        @human_node(prompt="ok?", schema={"type": "boolean"})
        def ask(self, state): ...

        sub = graph_node(Inner)
        think >> route
        route >> ask
        route >> sub
        route >> END

    definition = json.loads(json.dumps(Whole.definition()))
    assert definition["entry_point"] == "think"
    assert definition["channels"] == {"log": {"reducer": "append"}, "text": {"reducer": None}}
    assert {n["id"]: n["type"] for n in definition["nodes"]} == {
        "think": "llm",
        "route": "router",
        "ask": "human",
        "sub": "subgraph",
    }
    config = {n["id"]: n["config"] for n in definition["nodes"]}
    assert config["think"]["tools"] == ["look"]
    assert config["think"]["is_entrypoint"] is True
    assert config["ask"]["schema"] == {"type": "boolean"}
    assert config["sub"]["graph"]["graph_id"] == "inner"
    assert {"source": "route", "target": "ask", "conditional": True} in definition["edges"]
    assert json.dumps(Whole.schemas())


def test_a_graph_without_a_schema_declares_no_channels():
    assert declare(lambda: {"a": work("a")}).definition()["channels"] == {}


def test_the_context_schema_is_published():
    graph = declare(lambda: {"a": work("a")}, context=State)
    assert "text" in graph.schemas()["context_schema"]["properties"]


def test_a_graph_draws_itself():
    @Graph(id="g", state=MessagesState)
    class Drawn:
        @entrypoint
        @router_node
        def route(self, state): ...

        @llm_node
        def think(self, state): ...

        route >> think >> END
        route >> END

    assert Drawn.draw() == (
        "flowchart TD\n"
        "    start((start))\n"
        "    n0{{route}}\n"
        "    n1([think])\n"
        "    stop((end))\n"
        "    start --> n0\n"
        "    n0 -.-> n1\n"
        "    n0 -.-> stop\n"
        "    n1 --> stop\n"
    )


def test_a_node_name_that_would_break_a_namespace_is_refused():
    with pytest.raises(GraphError, match=r"a node cannot be named 'a\|b'"):
        declare(lambda: {"a": work("a|b")})


@pytest.mark.parametrize("names", ["", "a" * 201])
def test_a_graph_needs_an_id(names: str):
    with pytest.raises(GraphError, match="needs an id"):
        Graph(id=names)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, time; t = time.perf_counter(); import duragraph_worker; "
        "seconds = time.perf_counter() - t; "
        "heavy = [m for m in ('pydantic', 'httpx', 'openai', 'rich') if m in sys.modules]; "
        "assert not heavy, heavy; assert seconds < 0.15, seconds; "
        "from duragraph_worker import Graph, node, RunResult; "
        "heavy = [m for m in ('pydantic', 'httpx', 'openai', 'rich') if m in sys.modules]; assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_can_be_imported():
    import duragraph_worker

    for name in duragraph_worker.__all__:
        assert getattr(duragraph_worker, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        duragraph_worker.nothing  # noqa: B018  # the access is the test
