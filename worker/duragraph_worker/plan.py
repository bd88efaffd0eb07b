"""What runs next: tasks, the results that lead to them, and joins that wait for more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from duragraph_worker.commands import END, Send, Target, targets_from_json, targets_to_json
from duragraph_worker.errors import NodeError
from duragraph_worker.ids import task_id
from duragraph_worker.journal import InterruptState, TaskItem
from duragraph_worker.state import MISSING
from duragraph_worker.topology import Topology

PULL, PUSH = "__pull__", "__push__"
_COMMAND = "__command__"

Joins = dict[str, list[str]]


@dataclass
class Task:
    """One node to run, on the state or on what a Send carried."""

    id: str
    name: str
    path: list[str | int]
    input: Any = MISSING
    asked: list[InterruptState] = field(default_factory=list)

    def item(self) -> TaskItem:
        """As a checkpoint keeps it."""
        item = TaskItem(id=self.id, name=self.name, path=self.path)
        if self.input is not MISSING:
            item["input"] = self.input
        return item

    @property
    def open(self) -> list[InterruptState]:
        """The questions that nobody answered yet."""
        return [asked for asked in self.asked if not asked.get("answered")]


@dataclass(frozen=True)
class Result:
    """What a task came to: its update (None: it returned nothing) and where it goes besides its plain edges."""

    update: dict[str, Any] | None = None
    goto: tuple[Target, ...] = ()

    def record(self) -> Any:
        """As the journal keeps it: the update alone, or `{"__command__": {"update", "goto"}}`."""
        if not self.goto and not (self.update and _COMMAND in self.update):
            return self.update
        return {_COMMAND: {"update": self.update, "goto": targets_to_json(self.goto)}}

    @classmethod
    def from_record(cls, record: Any) -> Result:
        """The reverse."""
        if isinstance(record, dict) and record.keys() == {_COMMAND}:
            command = record[_COMMAND]
            return cls(command["update"], tuple(targets_from_json(command["goto"])))
        return cls(record)


def task_from(item: TaskItem) -> Task:
    """A task as a claim shows it."""
    carried = item.get("input") if item["path"][0] == PUSH else MISSING
    return Task(item["id"], item["name"], item["path"], carried, item.get("interrupts") or [])


def tasks_to(checkpoint_id: str, topology: Topology, targets: Iterable[Target]) -> list[Task]:
    """Tasks for targets: a node once, however often it is named, in the order of declaration; then a task a Send."""
    names, sends = set[str](), list[Send]()
    for target in targets:
        if isinstance(target, Send):
            sends.append(target)
        elif target != END:
            names.add(target)
    for name in [*names, *(send.node for send in sends)]:
        if name not in topology.nodes:
            raise NodeError(f"'{name}' is no node of graph '{topology.graph_id}'; it has {', '.join(topology.nodes)}")
    pulls = [_task(checkpoint_id, name, [PULL, name]) for name in topology.nodes if name in names]
    pushes = [_task(checkpoint_id, send.node, [PUSH, i], send.input) for i, send in enumerate(sends)]
    return pulls + pushes


def _task(checkpoint_id: str, name: str, path: list[str | int], input: Any = MISSING) -> Task:
    return Task(task_id(checkpoint_id, path), name, path, input)


def again(checkpoint_id: str, tasks: Sequence[Task]) -> list[Task]:
    """The same tasks at another checkpoint."""
    return [_task(checkpoint_id, task.name, task.path, task.input) for task in tasks]


def targets_after(topology: Topology, done: Sequence[tuple[str, Result]], joins: Joins) -> tuple[list[Target], Joins]:
    """Where a superstep's results lead, and the joins that still wait."""
    targets: list[Target] = []
    waiting = {key: list(names) for key, names in joins.items()}
    for name, result in done:
        targets += topology.edges.get(name, ())
        targets += result.goto
        for join in topology.joins:
            if name not in join.sources:
                continue
            arrived = waiting.setdefault(join.key, [])
            if name not in arrived:
                arrived.append(name)
            if len(arrived) == len(join.sources):
                targets.append(join.target)
                del waiting[join.key]
    return targets, waiting
