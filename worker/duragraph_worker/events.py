"""The frames of a run's stream, by stream mode, and the Event that local runs give.

| mode | event | data |
|---|---|---|
| values | values | the whole state (stored as a reference to its checkpoint) |
| updates | updates | `{node: update or null}` |
| messages | messages/metadata, /partial, /complete | `{id: {metadata}}`, `[message so far]`, `[message]` |
| messages-tuple | messages | `[message or chunk, metadata]` |
| custom | custom | what a node emitted |
| tasks | tasks | a task's start (`input`) and end (`result`, `error`, `interrupts`) |
| checkpoints | checkpoints | `{config, parent_config, values, metadata, next, tasks, ...}` |
| debug | debug | `{step, timestamp, type: checkpoint, task or task_result, payload}` |
| events | events | `on_chain_start/stream/end` and `on_chat_model_stream` |

Frames of a subgraph are named `<event>|<node>:<task id>[|...]`, and are there only when subgraphs are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from duragraph_worker.journal import CheckpointItem, Claim, EventItem, run_config
from duragraph_worker.plan import PUSH, Result, Task
from duragraph_worker.state import MISSING, Schema, messages

MODES = frozenset(
    {"values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"}
)


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


class Streams:
    """Makes the frames that a run's stream modes ask for, and none else."""

    def __init__(self, claim: Claim, schema: Schema, ns: tuple[str, ...] = (), parent: Streams | None = None) -> None:
        kwargs = claim.get("kwargs") or {}
        self.claim = claim
        self.config: dict[str, Any] = parent.config if parent else run_config(claim)
        self.schema = schema
        self.ns = ns
        asked = kwargs.get("stream_mode") or ["values"]
        self.modes = frozenset([asked] if isinstance(asked, str) else asked)
        if ns and not kwargs.get("subgraphs"):
            self.modes = frozenset()
        self.suffix = "".join(f"|{part}" for part in ns)
        self.seen: set[str] = parent.seen if parent else set()
        self.partial: dict[str, dict[str, Any]] = parent.partial if parent else {}
        self.of_messages = bool(self.modes & {"messages", "messages-tuple"})
        self.of_tasks = bool(self.modes & {"tasks", "debug"})

    def child(self, schema: Schema, node: str, task_id: str) -> Streams:
        """The frames of a subgraph run by that task."""
        return Streams(self.claim, schema, (*self.ns, f"{node}:{task_id}"), self)

    def start(self, values: Mapping[str, Any], input: Any) -> list[EventItem]:
        """The run begins; messages that are there already are not new."""
        if self.of_messages:
            self.seen.update(m["id"] for _, m in self._messages(values) if m.get("id"))
        return self._chain("on_chain_start", self.claim.get("graph_id", ""), {"input": input})

    def finish(self, values: Mapping[str, Any]) -> list[EventItem]:
        """The run ends well."""
        return self._chain("on_chain_end", self.claim.get("graph_id", ""), {"output": dict(values)})

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

    def checkpoint(self, item: CheckpointItem, values: Mapping[str, Any]) -> list[EventItem]:
        """A new checkpoint."""
        if not self.modes & {"checkpoints", "debug"}:
            return []
        at, parent = self._point(item["checkpoint_id"]), item.get("parent_checkpoint_id")
        payload: dict[str, Any] = {
            "config": {"configurable": at},
            "parent_config": {"configurable": self._point(parent)} if parent else None,
            "values": dict(values),
            "metadata": {"source": item["source"], "step": item["step"], "parents": {}, **self._ids()},
            "next": item["next"],
            "tasks": [{"id": t["id"], "name": t["name"], "interrupts": [], "state": None} for t in item["tasks"]],
            "checkpoint": at,
            "parent_checkpoint": self._point(parent) if parent else None,
        }
        return self._mode("checkpoints", payload) + self._debug("checkpoint", item["step"], payload)

    def task_start(self, task: Task, values: Mapping[str, Any], step: int) -> list[EventItem]:
        """A task begins."""
        given = values if task.input is MISSING else task.input
        events = self._chain("on_chain_start", task.name, {"input": given}, task, step)
        if not self.of_tasks:
            return events
        triggers = [PUSH] if task.path[0] == PUSH else [f"branch:to:{task.name}"]
        payload = {"id": task.id, "name": task.name, "input": given, "triggers": triggers, "metadata": self._ids()}
        return events + self._mode("tasks", payload) + self._debug("task", step, payload)

    def task_done(self, task: Task, result: Result, step: int) -> list[EventItem]:
        """A task is done: its new messages, its end, its update."""
        events = self._complete(task, result.update or {}, step) + self._task_result(
            task, step, result=result.update or {}
        )
        events += self._mode("updates", {task.name: result.update or None})
        return (
            events
            + self._chain("on_chain_stream", task.name, {"chunk": result.update}, task, step)
            + self._chain("on_chain_end", task.name, {"output": result.update}, task, step)
        )

    def task_asks(self, task: Task, interrupts: Sequence[dict[str, Any]], step: int) -> list[EventItem]:
        """A task waits for answers."""
        return self._task_result(task, step, interrupts=list(interrupts)) + self.pause(interrupts)

    def task_failed(self, task: Task, error: str, step: int) -> list[EventItem]:
        """A task failed."""
        return self._task_result(task, step, error=error)

    def pause(self, interrupts: Sequence[dict[str, Any]]) -> list[EventItem]:
        """The run stops for answers; without any, at a breakpoint."""
        return self._mode("updates", {"__interrupt__": list(interrupts)})

    def custom(self, data: Any) -> list[EventItem]:
        """What a node emitted."""
        return self._mode("custom", data)

    def token(self, task: Task, step: int, message_id: str, text: str, **extra: Any) -> list[EventItem]:
        """A piece of a message that a model is making; `extra` are fields of the chunk such as `tool_calls`."""
        self.seen.add(message_id)
        chunk = _ai(message_id, text, "AIMessageChunk") | {"tool_call_chunks": []} | extra
        events: list[EventItem] = []
        if "messages-tuple" in self.modes:
            events += self._event("messages", [chunk, self._metadata(task, step)])
        if "messages" in self.modes:
            so_far = self.partial.get(message_id)
            if so_far is None:
                so_far = self.partial[message_id] = _ai(message_id, "", "ai")
                events += self._event("messages/metadata", {message_id: {"metadata": self._metadata(task, step)}})
            so_far["content"] += text
            so_far.update(extra)
            events += self._event("messages/partial", [dict(so_far)])
        return events + self._chain("on_chat_model_stream", task.name, {"chunk": chunk}, task, step)

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
            if self.schema.channel(key).reducer is messages:
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

    def _chain(
        self, event: str, name: str, data: dict[str, Any], task: Task | None = None, step: int = 0
    ) -> list[EventItem]:
        if "events" not in self.modes:
            return []
        run_id = self.claim["run_id"]
        frame = {
            "event": event,
            "name": name,
            "run_id": task.id if task else run_id,
            "parent_ids": [run_id] if task else [],
            "tags": list(self.config.get("tags") or []),
            "metadata": self._metadata(task, step) if task else self._ids(),
            "data": data,
        }
        return self._event("events", frame)

    def _ids(self) -> dict[str, Any]:
        return dict(self.config["metadata"])

    def _metadata(self, task: Task, step: int) -> dict[str, Any]:
        return {
            **self._ids(),
            "langgraph_step": step,
            "langgraph_node": task.name,
            "langgraph_triggers": [PUSH] if task.path[0] == PUSH else [f"branch:to:{task.name}"],
            "langgraph_path": list(task.path),
            "langgraph_checkpoint_ns": "|".join((*self.ns, f"{task.name}:{task.id}")),
        }

    def _point(self, checkpoint_id: str) -> dict[str, Any]:
        thread = self.claim.get("thread_id")
        return {"thread_id": thread, "checkpoint_ns": "|".join(self.ns), "checkpoint_id": checkpoint_id}


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
