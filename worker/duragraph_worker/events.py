"""The frames of a run's stream, by stream mode, and the Event that local runs give.

| mode | event | data |
|---|---|---|
| values | values | the whole state (stored as a reference to its checkpoint) |
| updates | updates | `{node: update or null}` |
| messages | messages/metadata, /partial, /complete | `{id: {metadata}}`, `[message so far]`, `[message]` |
| messages-tuple | messages | `[message or chunk, metadata]` |
| custom | custom | what a node emitted |
| tasks | tasks | a task's start (`input`) and end (`result`, `error`, `interrupts`) |
| checkpoints | checkpoints | `{config, parent_config, values, metadata, next, tasks}` |
| debug | debug | `{step, timestamp, type: checkpoint, task or task_result, payload}` |
| events | events | `on_chain_start/stream/end` and `on_chat_model_start/stream/end`, those of subgraphs too |

Frames of a subgraph are named `<event>|<node>:<task id>[|...]`, and are there only when subgraphs are asked for; those
of mode `events` have no namespace and are always there: their `parent_ids` say where they belong.

A step's frames come in this order: what its tasks stream, for each task its update and its end, then the values, then
the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from duragraph_worker.chains import Chains
from duragraph_worker.commands import START
from duragraph_worker.ids import task_id
from duragraph_worker.journal import (
    CheckpointItem,
    Claim,
    ClaimCheckpoint,
    EventItem,
    InterruptState,
    TaskItem,
    run_config,
)
from duragraph_worker.plan import PULL, PUSH, Result, Task
from duragraph_worker.state import messages

if TYPE_CHECKING:
    from duragraph_worker.topology import Topology

MODES = frozenset(
    {"values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"}
)


# As clients know the ways to a task.
_WIRE = {PULL: "__pregel_pull", PUSH: "__pregel_push"}


@dataclass(frozen=True)
class Event:
    """One event of a local stream: `type` is the frame's name (see the table above), `data` JSON."""

    type: str
    data: Any
    run_id: str = ""
    node_id: str | None = None
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))


def modes_of(asked: Any) -> frozenset[str]:
    """Stream modes as a set; raises ValueError for an unknown one."""
    modes = frozenset([asked] if isinstance(asked, str) else asked or ["values"])
    if unknown := modes - MODES:
        raise ValueError(f"stream_mode {', '.join(sorted(unknown))} is unknown; there are {', '.join(sorted(MODES))}")
    return modes


@dataclass(frozen=True)
class Within:
    """Where a subgraph runs: in that task of the superstep after the checkpoint."""

    streams: Streams
    task: Task
    step: int
    checkpoint_id: str

    @property
    def ns(self) -> tuple[str, ...]:
        """Its namespace."""
        return (*self.streams.ns, f"{self.task.name}:{self.task.id}")


class Streams:
    """Makes the frames that a run's stream modes ask for, and none else."""

    def __init__(self, claim: Claim, topology: Topology, within: Within | None = None) -> None:
        kwargs = claim.get("kwargs") or {}
        asked = kwargs.get("stream_mode") or ["values"]
        parent = within.streams if within else None
        self.claim = claim
        self.config: dict[str, Any] = parent.config if parent else run_config(claim)
        self.topology = topology
        self.ns: tuple[str, ...] = within.ns if within else ()
        self.modes = frozenset([asked] if isinstance(asked, str) else asked)
        self.chains: Chains = (
            within.streams.chains.child(topology.graph_id, within.task)
            if within
            else Chains("events" in self.modes, topology.graph_id, claim["run_id"], list(self.config.get("tags") or []))
        )
        if within and not kwargs.get("subgraphs"):
            self.modes = frozenset()
        self.suffix = "".join(f"|{part}" for part in self.ns)
        self.within = within
        self.seen: set[str] = parent.seen if parent else set()
        self.partial: dict[str, dict[str, Any]] = parent.partial if parent else {}
        self.of_messages = bool(self.modes & {"messages", "messages-tuple"})
        self.of_tasks = bool(self.modes & {"tasks", "debug"})
        self.of_checkpoints = bool(self.modes & {"checkpoints", "debug"})

    def child(self, topology: Topology, task: Task, step: int, checkpoint_id: str) -> Streams:
        """The frames of a subgraph, run by that task of the superstep after the checkpoint."""
        return Streams(self.claim, topology, Within(self, task, step, checkpoint_id))

    @property
    def parents(self) -> dict[str, str]:
        """The checkpoints that this graph runs under, by namespace."""
        if self.within is None:
            return {}
        outer = self.within.streams
        return {**outer.parents, "|".join(outer.ns): self.within.checkpoint_id}

    def start(self, values: Mapping[str, Any], input: Any) -> list[EventItem]:
        """The graph begins; messages that are there already are not new."""
        if self.of_messages:
            self.seen.update(m["id"] for _, m in self._messages(values) if m.get("id"))
        return self.chains.graph("start", {"input": input}, self._own_metadata())

    def finish(self, values: Mapping[str, Any]) -> list[EventItem]:
        """The graph is done, or waits."""
        return self.chains.graph("end", {"output": values}, self._own_metadata())

    def values(
        self, checkpoint_id: str | None, values: Mapping[str, Any], interrupts: Sequence[dict[str, Any]] = ()
    ) -> list[EventItem]:
        """The state; by reference where the checkpoint is stored, whole where it is not (subgraph, durability exit)."""
        if "values" not in self.modes:
            return []
        laid = {"__interrupt__": list(interrupts)} if interrupts else {}
        if checkpoint_id is None or self.ns:
            return [EventItem(event=f"values{self.suffix}", data={**values, **laid})]
        event = EventItem(event="values", checkpoint_id=checkpoint_id)
        if laid:
            event["data"] = laid
        return [event]

    def input_checkpoint(self, item: CheckpointItem, values: Mapping[str, Any]) -> list[EventItem]:
        """The checkpoint that marks new input, which is not in its values yet."""
        mark = TaskItem(id=task_id(item["checkpoint_id"], [PULL, START]), name=START)
        return self.checkpoint({**item, "tasks": [mark]}, values)

    def checkpoint(self, item: CheckpointItem | ClaimCheckpoint, values: Mapping[str, Any]) -> list[EventItem]:
        """A checkpoint that is new, or that the run goes on from: then its tasks may have questions."""
        if not self.of_checkpoints:
            return []
        parent = item.get("parent_checkpoint_id")
        at, before = self._point(item["checkpoint_id"]), self._point(parent) if parent else None
        payload: dict[str, Any] = {
            "config": {"configurable": at},
            "parent_config": {"configurable": before} if before else None,
            "values": dict(values),
            "metadata": {"source": item["source"], "step": item["step"], "parents": self.parents, **self._ids()},
            "next": item["next"],
        }
        events = self._mode("checkpoints", {**payload, "tasks": [self._shown(t, "state") for t in item["tasks"]]})
        payload["tasks"] = [self._shown(t, "checkpoint") for t in item["tasks"]]
        payload |= {"checkpoint": at, "parent_checkpoint": before}
        return events + self._debug("checkpoint", item["step"], payload)

    def task_start(self, task: Task, given: Any, step: int) -> list[EventItem]:
        """A task begins, on the state or on what it was sent."""
        events: list[EventItem] = []
        if self.chains.wanted:
            events += self.chains.task("start", task, step, {"input": given}, self._metadata(task, step))
        if not self.of_tasks:
            return events
        payload = {
            "id": task.id, "name": task.name, "input": given, "triggers": _triggers(task), "metadata": self._ids()
        }  # fmt: skip
        return events + self._mode("tasks", payload) + self._debug("task", step, payload)

    def task_done(self, task: Task, given: Any, result: Result, step: int) -> list[EventItem]:
        """A task is done: its new messages, its update, its end."""
        events = self._complete(task, result.update or {}, step)
        events += self._mode("updates", {task.name: result.update or None})
        events += self._task_result(task, step, result=result.update or {})
        if not self.chains.wanted:
            return events
        made, metadata = result.update or {}, self._metadata(task, step)
        events += self.chains.task("stream", task, step, {"chunk": made}, metadata)
        return events + self.chains.task("end", task, step, {"input": given, "output": made}, metadata)

    def task_asks(self, task: Task, interrupts: Sequence[dict[str, Any]], step: int) -> list[EventItem]:
        """A task waits for answers."""
        return self._task_result(task, step, interrupts=list(interrupts))

    def task_failed(self, task: Task, error: Mapping[str, str], step: int) -> list[EventItem]:
        """A task failed."""
        return self._task_result(task, step, error=dict(error))

    def pause(self, interrupts: Sequence[dict[str, Any]]) -> list[EventItem]:
        """The run stops for answers; without any, at a breakpoint."""
        return self._mode("updates", {"__interrupt__": list(interrupts)})

    def custom(self, data: Any) -> list[EventItem]:
        """What a node emitted."""
        return self._mode("custom", data)

    def asked(self, task: Task, step: int, model: str, message_id: str, given: Sequence[Any]) -> list[EventItem]:
        """A model is asked; its answer will be the message."""
        data = {"input": {"messages": [list(given)]}}
        return self.chains.model("start", task, model, message_id, data, self._model_metadata(task, step))

    def token(self, task: Task, step: int, model: str, message_id: str, text: str, **extra: Any) -> list[EventItem]:
        """A piece of a message that a model is making; `extra` are fields of the chunk such as `tool_calls`."""
        self.seen.add(message_id)
        chunk = _ai(message_id, text, "AIMessageChunk") | {"tool_call_chunks": []} | extra
        metadata = self._model_metadata(task, step)
        events: list[EventItem] = []
        if "messages-tuple" in self.modes:
            events += self._event("messages", [chunk, metadata])
        if "messages" in self.modes:
            so_far = self.partial.get(message_id)
            if so_far is None:
                so_far = self.partial[message_id] = _ai(message_id, "", "ai")
                events += self._event("messages/metadata", {message_id: {"metadata": metadata}})
            so_far["content"] += text
            so_far.update(extra)
            events += self._event("messages/partial", [dict(so_far)])
        return events + self.chains.model("stream", task, model, message_id, {"chunk": chunk}, metadata)

    def answered(
        self, task: Task, step: int, model: str, given: Sequence[Any], answer: Mapping[str, Any]
    ) -> list[EventItem]:
        """A model has answered with the message."""
        data = {"input": {"messages": [list(given)]}, "output": answer}
        return self.chains.model("end", task, model, answer["id"], data, self._model_metadata(task, step))

    def error(self, error: Mapping[str, str]) -> list[EventItem]:
        """The run failed; in every mode."""
        return [EventItem(event="error", data=dict(error))]

    def _complete(self, task: Task, update: Mapping[str, Any], step: int) -> list[EventItem]:
        events: list[EventItem] = []
        if not self.of_messages:
            return events
        for _, message in self._messages(update):
            if message["id"] in self.seen or message["type"] == "remove":
                continue
            self.seen.add(message["id"])
            metadata = self._metadata(task, step)
            if "messages-tuple" in self.modes:
                events += self._event("messages", [message, metadata])
            if "messages" in self.modes:
                events += self._event("messages/metadata", {message["id"]: {"metadata": metadata}})
                events += self._event("messages/complete", [message])
        return events

    def _messages(self, values: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        for key, value in values.items():
            if self.topology.schema.channel(key).reducer is messages:
                yield from ((key, message) for message in value)

    def _task_result(self, task: Task, step: int, **outcome: Any) -> list[EventItem]:
        if not self.of_tasks:
            return []
        empty: dict[str, Any] = {"error": None, "result": {}, "interrupts": []}
        payload = {"id": task.id, "name": task.name, **empty, **outcome}
        return self._mode("tasks", payload) + self._debug("task_result", step, payload)

    def _mode(self, mode: str, data: Any) -> list[EventItem]:
        return self._event(mode, data) if mode in self.modes else []

    def _event(self, name: str, data: Any) -> list[EventItem]:
        return [EventItem(event=f"{name}{self.suffix}", data=data)]

    def _debug(self, kind: str, step: int, payload: Any) -> list[EventItem]:
        if "debug" not in self.modes:
            return []
        now = datetime.now(UTC).isoformat()
        return self._event("debug", {"step": step, "timestamp": now, "type": kind, "payload": payload})

    def _shown(self, task: TaskItem, where: str) -> dict[str, Any]:
        """A task of a checkpoint; of one that runs a subgraph, `where` says where the subgraph's state is."""
        shown: dict[str, Any] = {"id": task["id"], "name": task["name"]}
        shown["interrupts"] = [_question(asked) for asked in task.get("interrupts") or []]
        node = self.topology.nodes.get(task["name"])
        if node is None or node.kind != "subgraph":
            return {**shown, "state": None}
        point = {"thread_id": self.claim.get("thread_id"), "checkpoint_ns": self._ns_of(task["name"], task["id"])}
        return {**shown, where: {"configurable": point} if where == "state" else point}

    def _ids(self) -> dict[str, Any]:
        return dict(self.config["metadata"])

    def _own_metadata(self) -> dict[str, Any]:
        if self.within is None:
            return self._ids()
        return self.within.streams._model_metadata(self.within.task, self.within.step)

    def _metadata(self, task: Task, step: int) -> dict[str, Any]:
        path = [_WIRE.get(str(part), part) for part in task.path]
        return {
            **self._ids(),
            "run_attempt": self.claim.get("attempt", 1),
            "langgraph_step": step,
            "langgraph_node": task.name,
            "langgraph_triggers": _triggers(task),
            "langgraph_path": [*path, False] if task.path[0] == PUSH else path,
            "langgraph_checkpoint_ns": self._ns_of(task.name, task.id),
            **({"checkpoint_ns": "|".join(self.ns)} if self.ns else {}),
        }

    def _model_metadata(self, task: Task, step: int) -> dict[str, Any]:
        """What runs inside of a task has the task's namespace."""
        return {**self._metadata(task, step), "checkpoint_ns": self._ns_of(task.name, task.id)}

    def _ns_of(self, name: str, task: str) -> str:
        return "|".join((*self.ns, f"{name}:{task}"))

    def _point(self, checkpoint_id: str) -> dict[str, Any]:
        ns = "|".join(self.ns)
        point = {"thread_id": self.claim.get("thread_id"), "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}
        return {**point, "checkpoint_map": {**self.parents, ns: checkpoint_id}} if ns else point


def _triggers(task: Task) -> list[str]:
    return [_WIRE[PUSH]] if task.path[0] == PUSH else [f"branch:to:{task.name}"]


def _question(asked: InterruptState) -> dict[str, Any]:
    return {"value": asked.get("value"), "id": asked["id"], "response_schema": None}


def _ai(message_id: str, content: str, kind: str) -> dict[str, Any]:
    return {
        "content": content,
        "additional_kwargs": {},
        "response_metadata": {},
        "type": kind,
        "name": None,
        "id": message_id,
        "tool_calls": [],
        "invalid_tool_calls": [],
        "usage_metadata": None,
    }
