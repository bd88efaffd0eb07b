"""Changes of a thread's state from outside that need the graph's code: its reducers, its routers, its conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from duragraph_worker.commands import Target
from duragraph_worker.errors import InvalidUpdateError
from duragraph_worker.journal import CheckpointItem
from duragraph_worker.plan import Joins, Result, Task, again, targets_after, tasks_to
from duragraph_worker.running import Ledger, TaskRun
from duragraph_worker.walk import Head

if TYPE_CHECKING:
    from duragraph_worker.executor import Executor

_STARTS = ("__start__", "__input__")
_OUTSIDE = "__update__"


async def apply_supersteps(
    executor: Executor, head: Head | None, supersteps: Sequence[Mapping[str, Any]]
) -> tuple[Head | None, list[CheckpointItem]]:
    """The head after [{"updates": [{"values", "as_node"}]}], and a checkpoint for each of them.

    `as_node` says whose update it is, and so what runs next; without one that stays as it was, and is the entry on a
    new thread. Keys that the state does not declare are left out. Raises InvalidUpdateError, StateError, and what the
    graph's own functions raise.
    """
    items: list[CheckpointItem] = []
    for superstep in supersteps:
        before = head
        head = await _superstep(executor, before, superstep.get("updates") or [])
        values = before.values if before else executor.topology.schema.start()
        delta = executor.topology.schema.delta(values if before else {}, head.values)
        items.append(executor.item(head, before.checkpoint_id if before else None, "update", delta))
    return head, items


async def _superstep(executor: Executor, head: Head | None, updates: Sequence[Mapping[str, Any]]) -> Head:
    schema, topology = executor.topology.schema, executor.topology
    values = head.values if head else schema.start()
    given = [(update.get("as_node"), _merged(executor, update.get("values"))) for update in updates]
    merged, _ = schema.apply(values, [(node or _OUTSIDE, update) for node, update in given])
    named = [(node, update) for node, update in given if node is not None]
    if not named:
        after = executor.make_head(head, merged, () if head else [topology.entry], head.joins if head else {})
        if head:
            after.tasks = again(after.checkpoint_id, head.tasks)
        return after
    done: list[tuple[str, Result]] = []
    targets: list[Target] = []
    for node, update in named:
        if node in _STARTS:
            targets.append(topology.entry)
        elif node != "__end__":
            done.append((node, await _result(executor, values, merged, node, update)))
    joins: Joins = head.joins if head else {}
    following, joins = targets_after(topology, done, joins)
    after = executor.make_head(head, merged, (), joins)
    after.tasks = tasks_to(after.checkpoint_id, topology, [*targets, *following])
    return after


def _merged(executor: Executor, given: Any) -> dict[str, Any]:
    """`values` of an update: an object, a list of them, or nothing."""
    parts = given if isinstance(given, list) else [given]
    merged: dict[str, Any] = {}
    for part in parts:
        merged |= executor.topology.schema.input(part or {})
    return merged


async def _result(
    executor: Executor, values: dict[str, Any], merged: dict[str, Any], node: str, update: dict[str, Any]
) -> Result:
    """What the node's update leads to: asked of its router or its conditional edges, on the state as it is then."""
    topology = executor.topology
    if node not in topology.nodes:
        raise InvalidUpdateError(f"the graph has no node '{node}'; it has {', '.join(topology.nodes)}")
    task = Task("00000000-0000-0000-0000-000000000000", node, ["__pull__", node])
    seen = merged if topology.nodes[node].kind == "router" else values
    run = TaskRun(executor, task, seen, 0, Ledger("", task.id, [], [], 1), "", "")
    return await run.as_if_done(update)
