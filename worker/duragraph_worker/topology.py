"""A graph class as declared: its nodes and edges, checked, and what is published of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from duragraph_worker.commands import END, START, name_of
from duragraph_worker.errors import GraphError
from duragraph_worker.nodes import Branch, Node, as_node
from duragraph_worker.state import Schema, json_schema

_NOT_IN_NAMES = ("|", ":", "/", "@", "\0")  # they part namespaces and journal keys


@dataclass(frozen=True)
class Join:
    """`[b, c] >> d`: d runs when all sources have run since it last did."""

    sources: tuple[str, ...]
    target: str

    @property
    def key(self) -> str:
        """Its name in a checkpoint while it is part-filled."""
        return f"{'+'.join(self.sources)}>{self.target}"


@dataclass
class Topology:
    """Nodes by name in the order of declaration, and what leads where."""

    graph_id: str
    schema: Schema
    description: str | None = None
    version: str = "1.0.0"
    context_schema: Any = None
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[str, list[str]] = field(default_factory=dict)
    routes: dict[str, list[str]] = field(default_factory=dict)
    mappings: dict[str, dict[Any, str]] = field(default_factory=dict)
    branches: dict[str, list[Branch]] = field(default_factory=dict)
    joins: list[Join] = field(default_factory=list)
    entry: str = ""

    def leads(self) -> Iterator[tuple[str, str, bool]]:
        """Every edge as (source, target, conditional), END where a node leads nowhere else."""
        for name in self.nodes:
            targets = [(t, False) for t in self.edges.get(name, ())]
            targets += [(j.target, False) for j in self.joins if name in j.sources]
            targets += [(t, True) for t in self.routes.get(name, ())]
            targets += [(t, True) for b in self.branches.get(name, ()) for t in b.targets]
            for target, conditional in dict(targets or [(END, False)]).items():
                yield name, target, conditional

    def definition(self) -> dict[str, Any]:
        """What is registered: `{nodes, edges, entry_point, channels}`, JSON."""
        declared = {} if self.schema.open else self.schema.channels  # none declared: any key may be written
        channels = {name: {"reducer": c.reducer_name} for name, c in declared.items()}
        return {
            "graph_id": self.graph_id,
            "name": self.graph_id,
            "description": self.description or "",
            "version": self.version,
            "nodes": [{"id": n, "type": node.kind, "config": self._config(node)} for n, node in self.nodes.items()],
            "edges": [
                {"source": s, "target": t, **({"conditional": True} if conditional else {})}
                for s, t, conditional in self.leads()
            ],
            "entry_point": self.entry,
            "channels": channels,
        }

    def _config(self, node: Node) -> dict[str, Any]:
        public: dict[str, Any] = {k: v for k, v in node.config.items() if isinstance(v, str | int | float | bool)}
        if isinstance(schema := node.config.get("schema"), dict):
            public["schema"] = schema
        if tools := node.config.get("tools"):
            public["tools"] = [str(getattr(t, "name", getattr(t, "__name__", t))) for t in tools]
        if node.kind == "subgraph":
            public["graph"] = node.config["graph"].topology().definition()
        if node.name == self.entry:
            public["is_entrypoint"] = True
        return public

    def schemas(self) -> dict[str, Any]:
        """JSON Schemas: `{input_schema, output_schema, state_schema, config_schema?, context_schema?, subgraphs?}`.

        Subgraphs are by namespace: `child`, and `child|inner` for one inside it.
        """
        state = self.schema.json_schema()
        schemas = {"input_schema": state, "output_schema": state, "state_schema": state}
        if self.context_schema is not None:
            context = json_schema(self.context_schema)
            schemas |= {"config_schema": context, "context_schema": context}
        subgraphs: dict[str, Any] = {}
        for name, node in self.nodes.items():
            if node.kind == "subgraph":
                inner = node.config["graph"].schemas()
                deeper = inner.pop("subgraphs", {})
                subgraphs |= {name: inner, **{f"{name}|{ns}": schema for ns, schema in deeper.items()}}
        return {**schemas, "subgraphs": subgraphs} if subgraphs else schemas

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        shapes = {"router": "{{%s}}", "human": "[/%s/]", "llm": "([%s])", "subgraph": "[[%s]]", "tool": "[(%s)]"}
        at = {name: f"n{i}" for i, name in enumerate(self.nodes)} | {START: "start", END: "stop"}
        lines = ["flowchart TD", "    start((start))"]
        lines += [f"    {at[n]}{shapes.get(node.kind, '[%s]') % n}" for n, node in self.nodes.items()]
        lines += ["    stop((end))", f"    start --> {at[self.entry]}"]
        lines += [f"    {at[s]} {'-.->' if cond else '-->'} {at[t]}" for s, t, cond in self.leads()]
        return "\n".join(lines) + "\n"


def collect(cls: type, topology: Topology) -> Topology:
    """Take the nodes and edges that the class body declared, and check them. Raises GraphError naming the node."""
    own: dict[int, str] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            if found := as_node(attribute, value):
                if found.name in topology.nodes and topology.nodes[found.name].owner is base:
                    raise GraphError(f"{cls.__name__}: two nodes are named '{found.name}'")
                found.owner = found.owner or base
                topology.nodes[found.name] = found
    own = {id(node): name for name, node in topology.nodes.items()}
    if not topology.nodes:
        raise GraphError(f"{cls.__name__} has no nodes; decorate a method with @node()")
    for name, node in topology.nodes.items():
        _take_edges(cls, topology, own, name, node)
    _find_entry(cls, topology)
    _check(cls, topology)
    return topology


def _take_edges(cls: type, topology: Topology, own: dict[int, str], name: str, node: Node) -> None:
    def known(target: Any, what: str) -> str | None:
        named = own.get(id(target), "") if isinstance(target, Node) else name_of(target)
        if named == END or named in topology.nodes:
            return named
        if isinstance(target, Node) and node.owner is not cls:
            return None  # an edge that another subclass gave to the inherited node
        raise GraphError(f"{cls.__name__}: {what} '{name}' leads to '{name_of(target)}', no node of this graph")

    targets = list(dict.fromkeys(t for t in (known(t, "node") for t in node.targets) if t))
    topology.edges[name] = [] if node.kind == "router" else [t for t in targets if t != END]
    topology.routes[name] = targets if node.kind == "router" else []
    for destination in node.config.get("goto", ()):
        if destination := known(destination, "goto of node"):
            topology.routes[name].append(destination)
    if node.mapping:
        topology.mappings[name] = {k: t for k, v in node.mapping.items() if (t := known(v, "router"))}
    topology.branches[name] = [_resolved(branch, known) for branch in node.branches]
    for sources in node.joins:
        names = []
        for source in sources:
            named = own.get(id(source))
            if named is None:
                if node.owner is cls:
                    raise GraphError(f"{cls.__name__}: the join into '{name}' has {source!r}, no node of this graph")
                break
            if topology.nodes[named].kind == "router":
                raise GraphError(f"{cls.__name__}: router '{named}' cannot be part of the join into '{name}'")
            names.append(named)
        else:
            topology.joins.append(Join(tuple(dict.fromkeys(names)), name))


def _resolved(branch: Branch, known: Callable[[Any, str], str | None]) -> Branch:
    """The conditional edge with names for nodes."""
    what = "the conditional edge of node"
    targets = tuple(name for target in branch.targets if (name := known(target, what)))
    mapping = {k: known(v, what) for k, v in branch.mapping.items()} if branch.mapping else None
    return Branch(branch.choose, targets, mapping)


def _find_entry(cls: type, topology: Topology) -> None:
    marked = [name for name, node in topology.nodes.items() if node.entry]
    own = [name for name in marked if topology.nodes[name].owner is cls]
    entries = own or marked  # a subclass may begin elsewhere
    if not entries and len(topology.nodes) == 1:
        entries = list(topology.nodes)
    if not entries:
        names = ", ".join(topology.nodes)
        raise GraphError(f"{cls.__name__}: no node is the entry; put @entrypoint on one of {names}")
    if len(entries) > 1:
        raise GraphError(f"{cls.__name__}: {' and '.join(entries)} are both @entrypoint; a run starts at one")
    topology.entry = entries[0]


def _check(cls: type, topology: Topology) -> None:
    for name, node in topology.nodes.items():
        if not name or name.startswith("__") or any(mark in name for mark in _NOT_IN_NAMES):
            raise GraphError(f"{cls.__name__}: a node cannot be named '{name}'; leave out | : / @ and a leading __")
        if node.kind == "router" and not topology.routes[name]:
            raise GraphError(f"{cls.__name__}: router '{name}' leads nowhere; write {name} >> some_node for each")
        if inspect.isgeneratorfunction(node.method) or inspect.isasyncgenfunction(node.method):
            raise GraphError(f"{cls.__name__}: node '{name}' is a generator; return the update, and use ctx.emit()")
        if node.kind == "subgraph" and not hasattr(node.config.get("graph"), "topology"):
            raise GraphError(f"{cls.__name__}: graph_node '{name}' needs a class decorated with @Graph")
    reached, todo = {topology.entry}, [topology.entry]
    following: dict[str, list[str]] = {}
    for source, target, _ in topology.leads():
        following.setdefault(source, []).append(target)
    while todo:
        fresh = [t for t in following.get(todo.pop(), ()) if t not in reached]
        reached.update(fresh)
        todo += fresh
    for name in topology.nodes:
        if name not in reached:
            raise GraphError(
                f"{cls.__name__}: node '{name}' is unreachable from '{topology.entry}'; lead an edge to it, or list it "
                "in @node(goto=[...]) of the node whose Command goes there"
            )
