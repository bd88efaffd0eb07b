"""A graph of LangGraph as a module has it: compiled, a builder, an entrypoint, or a function that makes one."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from pydantic import create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from duragraph_worker.errors import GraphError
from duragraph_worker.executor import Outcome
from duragraph_worker.hosted import HostedGraph, HostedJournal
from duragraph_worker.hosting.exits import keep_exits_inside
from duragraph_worker.hosting.running import HostedRun
from duragraph_worker.journal import Claim, run_config

_NO_SCHEMA = (PydanticSchemaGenerationError, PydanticUserError, TypeError, NameError, AttributeError, KeyError)


def is_graph(value: Any) -> bool:
    """Whether a value is one of the kinds that LangGraph graphs come in, factories aside."""
    return isinstance(value, Pregel | StateGraph)


class LangGraphGraph(HostedGraph):
    """One graph of LangGraph under the id it is served by.

    A factory takes nothing, the run's config, or the config and the runtime (found by its parameters' names and
    number); it may be async, and give the graph or a context manager of it. It is called for every run.
    """

    def __init__(self, graph_id: str, source: Any) -> None:
        self.graph_id = graph_id
        self._source = source
        self._drawn: dict[str, Any] | None = None
        self._schemas: dict[str, Any] = {}
        if not is_graph(source) and not callable(source):
            raise GraphError(
                f"{source!r} is no graph; name a compiled graph, a StateGraph or a function that makes one"
            )

    async def prepare(self) -> None:
        """Load the graph once, to tell what it looks like. Raises what a factory raises."""
        async with self._loaded({"configurable": {}}) as graph:
            self._drawn = _definition(self.graph_id, graph)
            self._schemas = _schemas(graph)

    def definition(self) -> dict[str, Any]:
        """Its nodes and edges."""
        return self._drawn or {"graph_id": self.graph_id, "nodes": [], "edges": [], "hosted": "langgraph"}

    def schemas(self) -> dict[str, Any]:
        """Its JSON Schemas."""
        return self._schemas

    async def execute(self, claim: Claim, journal: HostedJournal) -> Outcome:
        """One attempt at a run."""
        keep_exits_inside()
        async with self._loaded(run_config(claim)) as graph:
            return await HostedRun(graph, claim, journal).run()

    @asynccontextmanager
    async def _loaded(self, config: dict[str, Any]) -> AsyncIterator[Pregel[Any, Any]]:
        made = self._source
        if not is_graph(made):
            made = self._source(*_arguments(self._source, config))
            if inspect.isawaitable(made):
                made = await made
        if isinstance(made, AbstractAsyncContextManager):
            async with made as graph:
                yield self._compiled(graph)
        elif isinstance(made, AbstractContextManager):
            with made as graph:
                yield self._compiled(graph)
        else:
            yield self._compiled(made)

    def _compiled(self, graph: Any) -> Pregel[Any, Any]:
        compiled = graph.compile() if isinstance(graph, StateGraph) else graph
        if not isinstance(compiled, Pregel):
            raise GraphError(f"the graph '{self.graph_id}' came out as {compiled!r}, which is no graph of LangGraph")
        return compiled


def _arguments(factory: Any, config: dict[str, Any]) -> list[Any]:
    required = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    runtime = None  # what the run's nodes are given; a factory is called before there is one
    return [runtime if parameter.name == "runtime" else config for parameter in required[:2]]


def _definition(graph_id: str, graph: Any) -> dict[str, Any]:
    drawn = graph.get_graph()
    inner = {name: _definition(name, one) for name, one in graph.get_subgraphs() if "|" not in name}
    nodes = []
    for name in drawn.nodes:
        if name in ("__start__", "__end__"):
            continue
        config = {"graph": inner[name]} if name in inner else {}
        nodes.append({"id": name, "type": "subgraph" if config else "node", "config": config})
    edges = []
    for edge in drawn.edges:
        described: dict[str, Any] = {"source": edge.source, "target": edge.target}
        if edge.conditional:
            described["conditional"] = True
        if edge.data is not None:
            described["data"] = str(edge.data)
        edges.append(described)
    description = inspect.getdoc(graph) if type(graph).__doc__ != inspect.getdoc(graph) else None
    return {
        "graph_id": graph_id,
        "name": graph_id,
        "description": description or "",
        "nodes": nodes,
        "edges": edges,
        "channels": {},
        "hosted": "langgraph",
    }


def _schemas(graph: Pregel[Any, Any]) -> dict[str, Any]:
    schemas = _own_schemas(graph)
    inner = {name: _own_schemas(one) for name, one in graph.get_subgraphs(recurse=True)}
    return {**schemas, "subgraphs": inner} if inner else schemas


def _own_schemas(graph: Any) -> dict[str, Any]:
    made = {
        "input_schema": graph.get_input_jsonschema,
        "output_schema": graph.get_output_jsonschema,
        "state_schema": lambda: _state_schema(graph),
        "config_schema": graph.get_context_jsonschema,  # one mirrors the other
        "context_schema": graph.get_context_jsonschema,
    }
    schemas: dict[str, Any] = {}
    for name, make in made.items():
        try:
            schemas[name] = make()
        except _NO_SCHEMA:  # of a type that has no JSON Schema
            schemas[name] = None
    return {name: schema for name, schema in schemas.items() if schema}


def _state_schema(graph: Any) -> Any:
    shown = graph.stream_channels_asis
    if isinstance(shown, str):
        return graph.get_output_jsonschema()
    fields: dict[str, Any] = {name: (graph.channels[name].UpdateType, None) for name in shown}
    return create_model(graph.get_name("State"), **fields).model_json_schema()
