"""What a node may return to say where the run goes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

START = "__start__"
END = "__end__"


@dataclass(frozen=True)
class Send:
    """Run `node` once more in the next superstep, on `input` instead of the state: the map of a map-reduce."""

    node: str
    input: Any = None

    def __init__(self, node: Any, input: Any = None) -> None:
        object.__setattr__(self, "node", name_of(node))
        object.__setattr__(self, "input", input)


Target = str | Send


@dataclass(frozen=True)
class Command:
    """An update together with a way to go: `Command(update={...}, goto="next")`; `goto` takes what a router returns.

    `resume` belongs to a run's input, not to a node: see `GraphInstance.run`.
    """

    update: dict[str, Any] | None = None
    goto: Any = ()
    resume: Any = None

    def targets(self) -> list[Target]:
        """`goto` as a list of names and Sends."""
        return as_targets(self.goto)


def name_of(node: Any) -> str:
    """The name of a node given by name or as the node itself."""
    if isinstance(node, str):
        return node
    name = getattr(node, "name", None) or getattr(node, "__name__", None)
    if isinstance(name, str):
        return name
    raise TypeError(f"{node!r} names no node; give a node's name, a node, END or a Send")


def as_targets(value: Any) -> list[Target]:
    """What a router returned, as a list: a name, a node, END, a Send, None (nowhere) or a sequence of them."""
    if value is None:
        return []
    if isinstance(value, Send):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [target for item in value for target in as_targets(item)]
    return [name_of(value)]


def targets_to_json(targets: Sequence[Target]) -> list[Any]:
    """Targets as they are recorded: a name, or `{"node", "input"}` for a Send."""
    return [{"node": t.node, "input": t.input} if isinstance(t, Send) else t for t in targets]


def targets_from_json(value: Any) -> list[Target]:
    """The reverse; also takes a single one, as `command.goto` of the API may be."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [Send(value["node"], value.get("input"))]
    return [target for item in value for target in targets_from_json(item)]
