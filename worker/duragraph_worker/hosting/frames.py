"""What a hosted graph streams, as the frames that the run's stream modes ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, BaseMessageChunk

from duragraph_worker.hosting.rendering import jsonable, told
from duragraph_worker.journal import EventItem

_PLAIN = frozenset({"values", "updates", "custom", "debug", "tasks", "checkpoints"})


class Frames:
    """Makes frames of (namespace, mode, payload) as LangGraph gives them."""

    def __init__(self, modes: Sequence[str], *, subgraphs: bool) -> None:
        self.modes = frozenset(modes)
        self._subgraphs = subgraphs
        self._so_far: dict[str, BaseMessage] = {}

    @property
    def asked_of_graph(self) -> list[str]:
        """The stream modes of LangGraph; checkpoints and tasks are always needed, for the run's record."""
        modes = {mode for mode in self.modes if mode in _PLAIN} | {"checkpoints", "tasks"}
        if self.modes & {"messages", "messages-tuple"}:
            modes.add("messages")
        return sorted(modes)

    def of(self, ns: Sequence[str], mode: str, payload: Any) -> list[EventItem]:
        """The frames of one payload: none when nobody asked for them."""
        if ns and not self._subgraphs and mode != "custom":
            return []
        suffix = "".join(f"|{part}" for part in ns) if self._subgraphs else ""
        if mode == "messages":
            return self._message(suffix, *payload)
        if mode not in self.modes:
            return []
        if mode == "checkpoints":
            payload = _pointed(payload)
        elif mode == "debug" and payload.get("type") == "checkpoint":
            payload = {**payload, "payload": _located(_pointed(payload["payload"]))}
        elif mode == "debug":
            payload = {**payload, "payload": _told(payload["payload"])}
        elif mode == "tasks":
            payload = _told(payload)
        return [EventItem(event=f"{mode}{suffix}", data=jsonable(payload))]

    def event(self, event: Any) -> list[EventItem]:
        """A frame of the mode `events`: what LangChain's astream_events gave."""
        return [EventItem(event="events", data=jsonable(event))] if "events" in self.modes else []

    def _message(self, suffix: str, message: BaseMessage, metadata: Any) -> list[EventItem]:
        made: list[EventItem] = []
        if "messages-tuple" in self.modes:
            made.append(EventItem(event=f"messages{suffix}", data=[jsonable(message), jsonable(metadata)]))
        if "messages" not in self.modes:
            return made
        key = message.id or ""
        known = self._so_far.get(key)
        if known is None:
            about = {key: {"metadata": jsonable(metadata)}}
            made.append(EventItem(event=f"messages/metadata{suffix}", data=about))
        if not isinstance(message, BaseMessageChunk):
            self._so_far[key] = message
            return [*made, EventItem(event=f"messages/complete{suffix}", data=[jsonable(message)])]
        grown: Any = known + message if isinstance(known, BaseMessageChunk) else message
        self._so_far[key] = grown
        return [*made, EventItem(event=f"messages/partial{suffix}", data=[_whole(grown)])]


def _whole(chunk: BaseMessageChunk) -> Any:
    """A message that is still growing, as a message of its kind: type `ai`, not `AIMessageChunk`."""
    shown = jsonable(chunk)
    shown["type"] = {"AIMessageChunk": "ai", "HumanMessageChunk": "human", "ToolMessageChunk": "tool"}.get(
        shown["type"], str(shown["type"]).removesuffix("MessageChunk").lower()
    )
    for of_chunks in ("tool_call_chunks", "chunk_position"):
        shown.pop(of_chunks, None)
    return shown


def _pointed(payload: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's payload with its points as the state API has them."""
    return {
        **payload,
        "checkpoint": _point(payload.get("config")),
        "parent_checkpoint": _point(payload.get("parent_config")),
    }


def _located(payload: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of mode `debug`: where the state of a subgraph is, its task says in `checkpoint`."""
    tasks = [
        {
            **{name: value for name, value in task.items() if name != "state"},
            "checkpoint": task["state"]["configurable"],
        }
        if isinstance(task.get("state"), dict) and "configurable" in task["state"]
        else task
        for task in payload["tasks"]
    ]
    return {**payload, "tasks": tasks}


def _told(payload: dict[str, Any]) -> dict[str, Any]:
    """A task's end, its error as type and message."""
    error = payload.get("error")
    if not isinstance(error, BaseException):
        return payload
    return {**payload, "error": told(error)}


def _point(config: Any) -> dict[str, Any] | None:
    if not config:
        return None
    configurable = config.get("configurable") or {}
    return {name: configurable.get(name) for name in ("thread_id", "checkpoint_ns", "checkpoint_id")}
