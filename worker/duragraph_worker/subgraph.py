"""A graph inside a node: its supersteps are journaled under the node's task, so a crash inside it repeats nothing.

Nothing of a subgraph is needed to go on but the parent's claim: its finished tasks are in the parent task's ledger, and
its state is rebuilt from them. Its checkpoints are stored under its own namespace, for people to look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duragraph_worker.errors import GraphRecursionError
from duragraph_worker.graph import GraphInstance, instance_of
from duragraph_worker.ids import child_checkpoint_id, interrupt_id
from duragraph_worker.interrupts import Interrupted
from duragraph_worker.journal import InterruptState, Write
from duragraph_worker.plan import Task
from duragraph_worker.run_state import RECURSION_LIMIT
from duragraph_worker.running import Ledger
from duragraph_worker.state import MISSING
from duragraph_worker.walk import Head, Superstep, TaskFailed, Walk, error_of

if TYPE_CHECKING:
    from duragraph_worker.running import TaskRun


async def run_subgraph(run: TaskRun) -> dict[str, Any] | None:
    """Run the child graph of a subgraph node; the parent's update. Raises Interrupted with all that its tasks ask."""
    child = ChildWalk(run, instance_of(run.node.config["graph"]))
    given = run.values if run.task.input is MISSING else run.task.input
    return await child.walk(dict(given or {}))


class ChildWalk(Walk):
    """The walk of a subgraph."""

    def __init__(self, run: TaskRun, graph: GraphInstance) -> None:
        self.parent = run
        part = f"{run.task.name}:{run.task.id}"
        streams = run.streams.child(graph.topology(), run.task, run.step_number, run.checkpoint_id)
        super().__init__(run.walk.shared, graph, streams, (*run.walk.ns, part))
        self._going_on = False  # whether an earlier run came this far, so that this one shows where it goes on

    def ledger(self, head: Head, task: Task) -> tuple[Ledger, str]:
        """The parent task's rows, under a key made of the ways down to this task."""
        place = task.name if isinstance(task.path[-1], str) else f"{task.name}[{task.path[-1]}]"
        key = f"{self.parent.key}/{place}@{head.step}"
        ledger = self.parent.ledger
        task.asked = _asked(ledger, task)
        return ledger, key

    def next_id(self, head: Head | None) -> str:
        """The same in every attempt."""
        return child_checkpoint_id(self.parent.task.id, self.parent.ledger.checkpoint_id, head.step + 1 if head else -1)

    async def walk(self, parent_values: dict[str, Any]) -> dict[str, Any] | None:
        """Run to the end; what changed of the keys that the parent's state declares too."""
        schema = self.topology.schema
        given = {key: value for key, value in parent_values.items() if schema.has(key)}
        values = {**schema.start(), **given}
        start = self.make_head(None, values, (), {})
        head = self.make_head(start, values, [self.topology.entry], {})
        self.shared.emit(self.streams.start(parent_values, parent_values))
        if not await self._begin(start, head) and not self.shared.claim.get("resumed"):
            self._going_on = True
        limit = int(self.parent.config.get("recursion_limit") or RECURSION_LIMIT)
        before = start
        for _ in range(limit):
            if not head.tasks:
                break
            before, head = head, await self._step(head, before.checkpoint_id)
        if not head.tasks:
            self.shared.emit(self.streams.finish(head.values))
            return self._update(given, head.values)
        raise GraphRecursionError(f"subgraph '{self.topology.graph_id}' was not done after {limit} supersteps")

    async def _begin(self, start: Head, head: Head) -> bool:
        """Store the first checkpoints, with a ledger row that says they are; False when they were."""
        ledger, key = self.parent.ledger, f"{self.parent.key}/@"
        if key in ledger.records:
            return False
        mark = self.item(start, None, "input", {})
        mark["next"] = ["__start__"]
        schema = self.topology.schema
        items = [mark, self.item(head, start.checkpoint_id, "loop", schema.delta({}, head.values))]
        write = Write(events=self.streams.input_checkpoint(mark, schema.start()))
        write["events"] += self.streams.values(None, head.values) + self.streams.checkpoint(items[1], head.values)
        entry = ledger.entry(key, "subgraph", self.topology.graph_id, None, 0)
        if self.shared.durable:
            write["checkpoints"], write["steps"] = items, [entry]
        await self.shared.send(write)
        return True

    async def _step(self, head: Head, parent: str) -> Head:
        replayed = self._finished(head)
        if self._going_on and not replayed:
            self._going_on = False
            here = self.item(head, parent, "loop", {})
            here["tasks"] = [{**task.item(), "interrupts": task.asked} for task in head.tasks]
            self.shared.emit(self.streams.values(None, head.values) + self.streams.checkpoint(here, head.values))
        try:
            done = await self.superstep(head)
        except TaskFailed as failed:
            failed.superstep.events += self.streams.task_failed(failed.task, error_of(failed.error), head.step + 1)
            await self._note(failed.superstep)
            raise failed.error from failed
        if done.questions or done.waiting:
            done.events = self.events_of_pause(head, done)
            await self._note(done)
            raise Interrupted([*(self._again(q) for q in done.waiting), *done.questions])
        after, item, events = self.next_head(head, done)
        if not replayed:
            write = Write(steps=done.steps, checkpoints=[item]) if self.shared.durable else Write()
            write["events"] = done.events + events
            # The last superstep is stored with the parent's.
            await self.shared.send(write, commit=self.shared.durable and bool(after.tasks))
        return after

    async def _note(self, done: Superstep) -> None:
        if self.shared.durable and (done.steps or done.events):
            await self.shared.send(Write(steps=done.steps, events=done.events))
        elif done.events:
            await self.shared.send(Write(events=done.events))

    def _finished(self, head: Head) -> bool:
        """Whether an earlier attempt finished this superstep: then its checkpoint is stored too."""
        return all(key in ledger.records for ledger, key in (self.ledger(head, task) for task in head.tasks))

    def _again(self, question: InterruptState) -> dict[str, Any]:
        return {
            "interrupt_id": question["id"],
            "ordinal": question["ordinal"],
            "node": self.parent.task.name,
            "checkpoint_ns": "|".join(self.ns),
            "value": question.get("value"),
        }

    def _update(self, given: dict[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
        """The child's changes as the parent's update: of lists that only grew, what was added."""
        parent = self.parent.walk.topology.schema
        delta = self.topology.schema.delta(given, values)
        update: dict[str, Any] = {}
        for key, change in delta.items():
            if not parent.has(key):
                continue
            reducer = parent.channel(key).reducer_name
            if "append" in change and reducer in ("append", "messages"):
                update[key] = change["append"]
            elif reducer == "add" and isinstance(values[key], int | float):
                update[key] = values[key] - given.get(key, 0)
            elif not (reducer == "append" and not values[key]):
                update[key] = values[key]
        return update or None


def _asked(ledger: Ledger, task: Task) -> list[InterruptState]:
    asked: list[InterruptState] = []
    while known := ledger.asked.get(interrupt_id(task.id, "", len(asked))):
        asked.append(known)
    return asked
