"""The decorators that make a class's methods nodes, and `>>` that joins them.

    a >> b                  b runs after a
    a >> [b, c] >> d        b and c run side by side; d waits for both
    [b, c] >> d             d waits for both; without the list, each of them would start d
    route >> a; route >> b  where a router may go: what it returns picks (a name, a node, a list, END or Sends)

Edges are kept on the node objects of the class body they are written in: a class body that fails leaves nothing behind.
A node method takes `(self, state)` or `(self, state, ctx)`, is a plain function (run in a thread) or a coroutine
function, and returns what changes (a dict), a Command, a list of them, or None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from duragraph_worker.commands import END, name_of
from duragraph_worker.errors import GraphError

Method = Callable[..., Any]
_ENTRY = "__duragraph_entrypoint__"


@dataclass(frozen=True)
class Branch:
    """A conditional edge: `choose(self, state)` is asked when the source is done and says where to go.

    Targets are names or nodes until the class is collected, then names.
    """

    choose: Method
    targets: tuple[Any, ...]
    mapping: Mapping[Any, Any] | None = None


class Node:
    """A node of a graph class. Called through an instance it is the method it was made from."""

    def __init__(self, method: Method, kind: str, name: str | None = None, **config: Any) -> None:
        self.method = method
        self.kind = kind
        self.given_name = name
        self.name: str = name or str(getattr(method, "__name__", kind))
        self.config = {key: value for key, value in config.items() if value is not None}
        self.entry = bool(getattr(method, _ENTRY, False))
        self.owner: type | None = None
        self.targets: list[Any] = []
        self.joins: list[tuple[Any, ...]] = []
        self.branches: list[Branch] = []
        self.mapping: dict[Any, Any] | None = None
        self.is_async = inspect.iscoroutinefunction(method)
        self.wants_context = _wants_context(method)
        self.__doc__ = getattr(method, "__doc__", None)
        self.__wrapped__ = method

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.owner = owner
        self.name = self.given_name or attribute

    @overload
    def __get__(self, instance: None, owner: type) -> Node: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Method: ...
    def __get__(self, instance: object | None, owner: type) -> Node | Method:
        if instance is None:
            return self
        return self.method.__get__(instance, owner)  # type: ignore[no-any-return]  # a bound method

    def __rshift__(self, other: Any) -> Any:
        """`self >> other`: other runs after self. `other` is a node, a name, END or a list of them."""
        return _lead([self], other, join=False)

    def __rrshift__(self, sources: Any) -> Any:
        """`[b, c] >> self`: self waits for all of them."""
        return _lead(sources, self, join=True)

    def __repr__(self) -> str:
        return f"<{self.kind} node '{self.name}'>"


class Fan:
    """What `a >> [b, c]` gives, so that `>> d` can wait for both."""

    def __init__(self, nodes: Sequence[Any]) -> None:
        self.nodes = list(nodes)

    def __rshift__(self, other: Any) -> Any:
        return _lead(self.nodes, other, join=True)


def _lead(sources: Sequence[Any], other: Any, *, join: bool) -> Any:
    targets = list(other) if isinstance(other, list | tuple) else [other]
    for source in sources:
        if not isinstance(source, Node):
            raise GraphError(f"an edge cannot begin at {source!r}; begin it at a node of this class")
    for target in targets:
        name_of(target)
        if join and len(sources) > 1 and target != END:
            if not isinstance(target, Node):
                raise GraphError(f"a join needs the node itself, not its name: write [...] >> {target}")
            target.joins.append(tuple(sources))
        else:
            for source in sources:
                source.targets.append(target)
    return Fan(targets) if isinstance(other, list | tuple) else other


@dataclass
class edge:  # noqa: N801  # reads as a word in a class body: edge(a).to(b)
    """An edge in words: `edge(a).to(b)`, `edge(a).to(b, condition=fn)`, `edge(a).to_conditional(fn, [b, c])`."""

    source: Node
    made: list[tuple[Any, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.source, Node):
            raise GraphError(f"edge({self.source!r}): give the node itself")

    def to(self, target: Any, *, condition: Method | None = None) -> edge:
        """Go to `target`, always or when `condition(self, state)` is true."""
        if condition is None:
            self.source >> target
        else:
            self.source.branches.append(Branch(_when(condition, target), (target,)))
        self.made.append((self.source, target))
        return self

    def to_conditional(self, choose: Any, targets: Any = None) -> edge:
        """Ask `choose(self, state)` where to go, right after the source and without a superstep of its own.

        `targets` lists where it may go, or maps what it returns to nodes. On a router, which chooses by itself, the
        mapping alone: `edge(router).to_conditional({"yes": a, "no": b})`.
        """
        if isinstance(choose, Mapping):
            if self.source.kind != "router":
                raise GraphError(f"edge({self.source.name}).to_conditional needs a function that chooses, then targets")
            self.source.mapping = {**(self.source.mapping or {}), **choose}
            self.source.targets.extend(choose.values())
            return self
        if not targets:
            raise GraphError(f"edge({self.source.name}).to_conditional: list where it may go, such as [a, b, END]")
        mapping = dict(targets) if isinstance(targets, Mapping) else None
        leads = tuple(mapping.values() if mapping else targets)
        self.source.branches.append(Branch(choose, leads, mapping))
        self.made.extend((self.source, target) for target in leads)
        return self

    def build(self) -> list[tuple[Any, Any]]:
        """The edges made; they count already without this call."""
        return self.made


def _when(condition: Method, target: Any) -> Method:
    def choose(self: Any, state: Any) -> Any:
        return target if condition(self, state) else None

    return choose


def _wants_context(method: Method) -> bool:
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 2


def _decorate(kind: str, first: Any, name: str | None, config: dict[str, Any], first_is: str = "name") -> Any:
    """A decorator used bare (`first` is the method) or called (`first` is its first argument)."""
    if isinstance(first, Node):
        raise GraphError(f"node '{first.name}' is decorated twice")
    if callable(first):
        return Node(first, kind, name, **config)
    if first is not None:
        if first_is == "name":
            name = first
        else:
            config = {**config, first_is: first}

    def decorate(method: Method) -> Node:
        if isinstance(method, Node):
            raise GraphError(f"node '{method.name}' is decorated twice")
        return Node(method, kind, name, **config)

    return decorate


def node(first: Any = None, /, *, name: str | None = None, goto: Sequence[Any] | None = None) -> Any:
    """A function node. `goto` lists where a Command it returns may go, so that those nodes count as reachable."""
    return _decorate("function", first, name, {"goto": list(goto) if goto else None})


def router_node(first: Any = None, /, *, name: str | None = None) -> Any:
    """A node that chooses: it returns a target (or a list, END, Sends); `router >> a` declares that it may go to a.

    It is a superstep of its own, recorded, and may call models or services. To choose without one, see `edge`.
    """
    return _decorate("router", first, name, {})


def llm_node(
    first: Any = None,
    /,
    *,
    model: str | None = None,
    name: str | None = None,
    system_prompt: str | None = None,
    tools: Sequence[Any] = (),
    temperature: float | None = None,
    max_tokens: int | None = None,
    stream: bool = True,
    provider: Any = None,
    output: str | None = None,
    max_rounds: int = 10,
) -> Any:
    """A node that asks a model.

    The method builds the prompt: it returns a text (the user's prompt), a list of messages, a dict with `messages`, or
    None: then the state's `messages` are the prompt. Calls of `tools` are run and their results handed back to the
    model, at most `max_rounds` times. Every model and tool call is journaled: after a crash none is paid twice.

    The update is `{output: text}` when `output` is given; else `{"messages": [the new messages]}` when the state has a
    messages channel (without a schema: when it holds `messages`); else `{node name: text}`. Tokens go to the
    `messages` streams as they come unless `stream=False`. `provider` is a provider or its name.
    """
    config = {
        "model": model or "gpt-4o-mini",
        "system_prompt": system_prompt,
        "tools": list(tools) or None,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "stream": stream,
        "provider": provider,
        "output": output,
        "max_rounds": max_rounds,
    }
    return _decorate("llm", first, name, config, first_is="model")


def tool_node(first: Any = None, /, *, name: str | None = None, tools: Sequence[Any] = ()) -> Any:
    """A node that does something to the world.

    When the method returns None, the tool calls of the state's last ai message are run, each journaled, with `tools`
    (default: those of the graph's llm nodes), and the update is `{"messages": [their results]}`. Any other return is
    the update of an ordinary node.
    """
    return _decorate("tool", first, name, {"tools": list(tools) or None})


def human_node(
    first: Any = None,
    /,
    *,
    prompt: str | None = None,
    name: str | None = None,
    schema: Any = None,
    output: str | None = None,
) -> Any:
    """A node that asks a person, and waits without a worker held.

    The question is `{"prompt": prompt}` with what the method returns laid over it (a dict) or in its place (a text).
    `schema` (JSON Schema, or a class) says what answer is expected. The answer goes to `state[output]`; without
    `output`, to the state key named like the node if the schema declares one; else a dict is merged into the state,
    and anything else is kept under the node's name.
    """
    config = {"prompt": prompt or "Please review and continue", "schema": schema, "output": output}
    return _decorate("human", first, name, config, first_is="prompt")


def graph_node(graph: Any, *, name: str | None = None) -> Node:
    """Another graph as a node: `research = graph_node(Research)` in a class body.

    The keys that both states declare go in and what the child changed comes back; its other keys stay its own. Its
    supersteps, questions and journaled calls are recorded like the parent's.
    """
    return Node(_no_method, "subgraph", name, graph=graph)


def _no_method(self: Any, state: Any) -> None:
    """A subgraph node has no code of its own."""


def entrypoint(target: Any = None) -> Any:
    """Marks the node a run starts at: above or below the node decorator, or alone on a method."""
    if target is None:
        return entrypoint
    if isinstance(target, Node):
        target.entry = True
    else:
        setattr(target, _ENTRY, True)
    return target


def as_node(attribute: str, value: Any) -> Node | None:
    """The node that a class attribute is: also a plain method with nothing but `@entrypoint`."""
    if isinstance(value, Node):
        return value
    if inspect.isfunction(value) and getattr(value, _ENTRY, False):
        plain = Node(value, "function", attribute)
        plain.entry = True
        return plain
    return None
