"""The frames of stream mode `events`, as LangChain's `astream_events` (v2) has them: runs inside of runs, by name.

A graph is a run, so is each of its tasks, and so is each call of a model. `parent_ids` are the runs around it,
outermost first. Conditional edges and side effects are not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duragraph_worker.ids import task_id
from duragraph_worker.journal import EventItem
from duragraph_worker.plan import Task


@dataclass(frozen=True)
class Chains:
    """One graph's runs: `graph` is its own, inside of `around`; nothing is made unless they are `wanted`."""

    wanted: bool
    name: str
    run_id: str
    tags: list[str]
    around: tuple[str, ...] = ()
    own_tags: tuple[str, ...] = ()

    def child(self, name: str, task: Task) -> Chains:
        """The runs of a graph that the task runs."""
        around = (*self.around, self.run_id, task.id)
        return Chains(self.wanted, name, task_id(task.id, [name]), self.tags, around, ("seq:step:1",))

    def graph(self, what: str, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[EventItem]:
        """The graph's `start` or `end`."""
        return self._made(f"on_chain_{what}", self.name, self.run_id, self.around, self.own_tags, metadata, data)

    def task(
        self, what: str, task: Task, step: int, data: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> list[EventItem]:
        """A task's `start`, `stream` or `end`."""
        around, tags = (*self.around, self.run_id), (f"graph:step:{step}",)
        return self._made(f"on_chain_{what}", task.name, task.id, around, tags, metadata, data)

    def model(
        self, what: str, task: Task, name: str, message_id: str, data: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> list[EventItem]:
        """The `start`, `stream` or `end` of a model's call, which the message's id names."""
        around, run_id = (*self.around, self.run_id, task.id), message_id.removeprefix("run-")
        return self._made(f"on_chat_model_{what}", name, run_id, around, ("seq:step:1",), metadata, data)

    def _made(
        self,
        event: str,
        name: str,
        run_id: str,
        around: Sequence[str],
        tags: Sequence[str],
        metadata: Mapping[str, Any],
        data: Mapping[str, Any],
    ) -> list[EventItem]:
        if not self.wanted:
            return []
        frame = {
            "event": event,
            "name": name,
            "run_id": run_id,
            "parent_ids": list(around),
            "tags": [*tags, *self.tags],
            "metadata": dict(metadata),
            "data": dict(data),
        }
        return [EventItem(event="events", data=frame)]
