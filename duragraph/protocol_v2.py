"""Translates a run's stored frames into the events of LangGraph's protocol v2, always into the same ones.

| frame (`|ns` for a subgraph)   | events: method |
|---|---|
| a run's beginning and end      | lifecycle `running`, then `completed`, `interrupted` or `failed` |
| values                         | values; the first of a subgraph also lifecycle `started` |
| updates                        | updates, one a node: `{node, values}`; `__interrupt__`: input.requested |
| messages, messages/...         | messages: message-start, content-block-start/-delta/-finish, message-finish; tools |
| custom                         | custom `{payload, name?}` |
| tasks, checkpoints, debug      | of the same name; the result of a task ends its subgraph and its messages |

The forms are those of the published types (langchain-protocol, MIT). An event's number and id depend on the run's
frames alone, so every reader, at any time, sees the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from duragraph.hub import Frame

CHANNELS = ("values", "updates", "messages", "tools", "custom", "lifecycle", "input", "checkpoints", "tasks", "debug")
RUN_MODES = ("values", "updates", "messages-tuple", "custom", "tasks", "checkpoints")
"""What a run streams so that every channel can be made of it."""

Namespace = tuple[str, ...]
Json = dict[str, Any]

_INTERRUPT = "__interrupt__"
_PASSED = frozenset({"tasks", "debug"})


@dataclass(frozen=True)
class Event:
    """One event: `n` counts those of its run from 1."""

    n: int
    event_id: str
    method: str
    namespace: Namespace
    data: Any
    node: str | None = None

    @property
    def channel(self) -> str:
        """What is subscribed to, to get it."""
        if self.method == "input.requested":
            return "input"
        if self.method == "custom" and self.data.get("name"):
            return f"custom:{self.data['name']}"
        return self.method

    def render(self, seq: int, timestamp: int) -> bytes:
        """As it goes over the wire."""
        params: Json = {"namespace": self.namespace, "timestamp": timestamp, "data": self.data}
        if self.node is not None:
            params["node"] = self.node
        body = {"type": "event", "event_id": self.event_id, "seq": seq, "method": self.method, "params": params}
        return orjson.dumps(body)


@dataclass(frozen=True)
class Filter:
    """What a subscription lets through."""

    channels: frozenset[str]
    namespaces: tuple[Namespace, ...] = ()
    depth: int | None = None

    def __contains__(self, event: Event) -> bool:
        channel = event.channel
        if channel not in self.channels and not (channel.startswith("custom:") and "custom" in self.channels):
            return False
        return not self.namespaces or any(
            _is_prefix(prefix, event.namespace)
            and (self.depth is None or len(event.namespace) - len(prefix) <= self.depth)
            for prefix in self.namespaces
        )


def _is_prefix(prefix: Namespace, namespace: Namespace) -> bool:
    """A segment without ":" also means every invocation of that name."""
    return len(prefix) <= len(namespace) and all(
        there == asked or (":" not in asked and there.partition(":")[0] == asked)
        for asked, there in zip(prefix, namespace, strict=False)
    )


@dataclass
class _Block:
    """A content block that is being written."""

    key: object
    content: Json


@dataclass
class _Message:
    """A message that is being written."""

    message_id: str
    namespace: Namespace
    node: str | None
    task: str | None
    written: list[_Block] = field(default_factory=list)
    open: bool = False
    """Whether the last block is still being written."""

    @property
    def text(self) -> str:
        return "".join(block.content.get("text", "") for block in self.written)


class Translator:
    """The events of one run, as its frames come: `begin`, then `take` for each frame in order, then `end`."""

    def __init__(self, run_id: UUID, graph_name: str) -> None:
        self._run_id = run_id
        self._graph_name = graph_name
        self._n = 0
        self._frame = ""
        self._part = 0
        self._children: dict[Namespace, str] = {}
        self._messages: dict[str, _Message] = {}
        self._finished: set[str] = set()
        self._asked: set[str] = set()
        self._called: set[str] = set()
        self._paused = False
        self._error: str | None = None

    def begin(self) -> list[Event]:
        """The run begins."""
        return [self._lifecycle((), "running", self._graph_name)]

    def take(self, frame: Frame) -> list[Event]:
        """What a frame says."""
        self._frame, self._part = f"{self._run_id.int >> 80}-{frame.seq:08d}", 0
        name, *parts = frame.event.split("|")
        namespace = tuple(parts)
        events = list(self._discover(namespace))
        if name == "values":
            events += self._values(namespace, frame.data)
        elif name == "error" and not namespace:
            error = _loads(frame.data)
            self._error = str(error.get("message") or error.get("error") or "") if isinstance(error, dict) else None
        elif name == "metadata":
            # A further attempt: what the one before was writing is written no further.
            events += self._cut()
        elif name == "custom":
            events.append(self._event("custom", namespace, _custom(_loads(frame.data))))
        elif name == "messages":
            events += self._tuple(namespace, _loads(frame.data))
        elif name in ("messages/partial", "messages/complete"):
            events += self._whole(namespace, _loads(frame.data), done=name == "messages/complete")
        elif name == "updates":
            events += self._updates(namespace, _loads(frame.data))
        elif name == "checkpoints":
            events += self._checkpoint(namespace, _loads(frame.data))
        elif name in _PASSED:
            events.append(self._event(name, namespace, orjson.Fragment(frame.data)))
            if name == "tasks":
                events += self._task(namespace, _loads(frame.data))
        return events

    def end(self, status: str, error: str | None = None) -> list[Event]:
        """The run has ended in that status; `error` is the message of its error, where no frame had it."""
        state = {"success": "interrupted" if self._paused else "completed", "error": "failed", "timeout": "failed"}
        word = state.get(status, "interrupted")
        self._frame, self._part = f"{self._run_id.int >> 80}-end", 0
        events = self._cut() if word != "completed" else []
        for message in list(self._messages.values()):
            events += self._finish(message, {})
        for namespace in sorted(self._children, key=len, reverse=True):
            events.append(self._lifecycle(namespace, word, self._children[namespace]))
        self._children.clear()
        said = {"error": self._error or error or status} if word == "failed" else {}
        return [*events, self._lifecycle((), word, self._graph_name, **said)]

    # one frame each

    def _values(self, namespace: Namespace, data: bytes) -> Iterator[Event]:
        if not self._messages and _INTERRUPT.encode() not in data:
            yield self._event("values", namespace, orjson.Fragment(data))
            return
        values = _loads(data)
        if not isinstance(values, dict):
            yield self._event("values", namespace, values)
            return
        asked = values.pop(_INTERRUPT, None)
        yield from self._settle(values)
        yield self._event("values", namespace, values)
        if asked is not None:
            yield from self._input(namespace, asked)

    def _updates(self, namespace: Namespace, data: Any) -> Iterator[Event]:
        for node, update in data.items() if isinstance(data, dict) else ():
            if node == _INTERRUPT:
                yield from self._input(namespace, update)
            else:
                yield from self._settle(update)
                values = update if isinstance(update, dict) else {} if update is None else {"value": update}
                yield self._event("updates", namespace, {"node": node, "values": values}, node)

    def _input(self, namespace: Namespace, asked: Any) -> Iterator[Event]:
        self._paused = True
        for one in asked if isinstance(asked, list) else ():
            interrupt = str(one.get("id")) if isinstance(one, dict) else ""
            if not interrupt or interrupt in self._asked:
                continue
            self._asked.add(interrupt)
            # "value" too, which the Python SDK reads.
            data = {"interrupt_id": interrupt, "payload": one.get("value"), "value": one.get("value")}
            name = f"input|{'|'.join(namespace)}|{interrupt}"
            yield self._event("input.requested", namespace, data, event_id=f"synth:{self._run_id}:{name}")

    def _checkpoint(self, namespace: Namespace, data: Any) -> Iterator[Event]:
        if not isinstance(data, dict):
            return
        at, parent, metadata = (data.get(key) or {} for key in ("checkpoint", "parent_checkpoint", "metadata"))
        seen = {"id": at.get("checkpoint_id"), "step": metadata.get("step"), "source": metadata.get("source")}
        if parent.get("checkpoint_id"):
            seen["parent_id"] = parent["checkpoint_id"]
        yield self._event("checkpoints", namespace, seen)

    def _task(self, namespace: Namespace, task: Any) -> Iterator[Event]:
        """The end of a task ends what it was writing, and the subgraph it ran."""
        if not isinstance(task, dict) or "result" not in task:
            return
        yield from self._settle(task.get("result"))
        error, interrupts = task.get("error"), task.get("interrupts")
        for message in [one for one in self._messages.values() if one.task == task.get("id")]:
            yield from self._fail(message, str(error)) if error else self._finish(message, {})
        word = "failed" if error else "interrupted" if interrupts else "completed"
        for child in [one for one in self._children if one[:-1] == namespace and _task_of(one[-1]) == task.get("id")]:
            said = {"error": str(error)} if error else {}
            yield self._lifecycle(child, word, self._children.pop(child), **said)

    # messages

    def _tuple(self, namespace: Namespace, data: Any) -> Iterator[Event]:
        if isinstance(data, list) and len(data) == 2 and isinstance(data[0], dict):
            metadata = data[1] if isinstance(data[1], dict) else {}
            yield from self._message(namespace, data[0], metadata, done=data[0].get("type") != "AIMessageChunk")

    def _whole(self, namespace: Namespace, data: Any, *, done: bool) -> Iterator[Event]:
        for one in data if isinstance(data, list) else ():
            if isinstance(one, dict):
                yield from self._message(namespace, one, {}, done=done, so_far=True)

    def _message(
        self, namespace: Namespace, given: Json, metadata: Json, *, done: bool, so_far: bool = False
    ) -> Iterator[Event]:
        if given.get("type") == "tool":
            yield from self._tool_result(namespace, given)
        message_id = str(given.get("id") or "")
        if given.get("type") not in ("ai", "AIMessageChunk") or not message_id or message_id in self._finished:
            return
        message = self._messages.get(message_id)
        if message is None:
            message = self._messages[message_id] = _started(message_id, namespace, metadata)
            about = {"metadata": {"langgraph_node": message.node}} if message.node else {}
            yield self._say(message, "message-start", role="ai", id=message_id, **about)
        if done or so_far:
            yield from self._rest(message, given)
        else:
            yield from self._chunk(message, given)
        if done:
            yield from self._finish(message, given)

    def _chunk(self, message: _Message, chunk: Json) -> Iterator[Event]:
        for key, kind, words in _pieces(chunk.get("content")):
            yield from self._write(message, key, kind, words)
        for call in chunk.get("tool_call_chunks") or ():
            if isinstance(call, dict):
                yield from self._call_chunk(message, call)
        if not chunk.get("tool_call_chunks"):
            for call in chunk.get("tool_calls") or ():
                yield from self._call(message, call)

    def _rest(self, message: _Message, whole: Json) -> Iterator[Event]:
        """What the whole message has beyond what was written of it."""
        content = whole.get("content")
        if isinstance(content, str):
            written = message.text
            if content.startswith(written) and len(content) > len(written):
                yield from self._write(message, "text", "text", content[len(written) :])
        elif not message.written:
            for key, kind, words in _pieces(content):
                yield from self._write(message, key, kind, words)
        for call in whole.get("tool_calls") or ():
            yield from self._call(message, call)

    def _write(self, message: _Message, key: object, kind: str, words: str) -> Iterator[Event]:
        if not words:
            return
        field_name = "text" if kind == "text" else "reasoning"
        if not message.open or message.written[-1].key != key:
            yield from self._open(message, key, {"type": kind, field_name: ""})
        message.written[-1].content[field_name] += words
        delta = {"type": f"{field_name}-delta", field_name: words}
        yield self._say(message, "content-block-delta", index=len(message.written) - 1, delta=delta)

    def _call_chunk(self, message: _Message, call: Json) -> Iterator[Event]:
        key = ("call", call.get("index"))
        if not message.open or message.written[-1].key != key:
            start = {"type": "tool_call_chunk", "id": call.get("id"), "name": call.get("name"), "args": ""}
            yield from self._open(message, key, start)
        if args := call.get("args") or "":
            message.written[-1].content["args"] += args
            delta = {"type": "tool-call-delta", "args": args}
            yield self._say(message, "content-block-delta", index=len(message.written) - 1, delta=delta)

    def _call(self, message: _Message, call: Any) -> Iterator[Event]:
        """A tool call that is whole."""
        if not isinstance(call, dict) or any(block.content.get("id") == call.get("id") for block in message.written):
            return
        whole = {"type": "tool_call", **{name: call.get(name) for name in ("id", "name", "args")}}
        yield from self._open(message, ("call", call.get("id")), {**whole, "type": "tool_call_chunk", "args": ""})
        message.written[-1].content = whole
        yield from self._close(message)

    def _open(self, message: _Message, key: object, content: Json) -> Iterator[Event]:
        yield from self._close(message)
        message.written.append(_Block(key, content))
        message.open = True
        yield self._say(message, "content-block-start", index=len(message.written) - 1, content=dict(content))

    def _close(self, message: _Message) -> Iterator[Event]:
        if not message.open:
            return
        message.open = False
        block = message.written[-1]
        block.content = _finalized(block.content)
        yield self._say(message, "content-block-finish", index=len(message.written) - 1, content=block.content)
        if block.content["type"] == "tool_call":
            yield from self._tool_start(message, block.content)

    def _finish(self, message: _Message, whole: Json) -> Iterator[Event]:
        yield from self._close(message)
        usage = whole.get("usage_metadata")
        yield self._say(message, "message-finish", **({"usage": usage} if usage else {}))
        self._forget(message)

    def _fail(self, message: _Message, problem: str) -> Iterator[Event]:
        yield self._say(message, "error", message=problem)
        self._forget(message)

    def _cut(self) -> list[Event]:
        return [
            event for message in list(self._messages.values()) for event in self._fail(message, "the run was cut off")
        ]

    def _forget(self, message: _Message) -> None:
        del self._messages[message.message_id]
        self._finished.add(message.message_id)

    def _settle(self, held: Any) -> Iterator[Event]:
        """Messages that are in the state now are whole."""
        if not self._messages or not isinstance(held, dict):
            return
        for value in held.values():
            for one in value if isinstance(value, list) else (value,):
                message = self._messages.get(str(one.get("id"))) if isinstance(one, dict) else None
                if message is not None:
                    yield from self._rest(message, one)
                    yield from self._finish(message, one)

    def _tool_start(self, message: _Message, call: Json) -> Iterator[Event]:
        if call.get("id") and call["id"] not in self._called:
            self._called.add(call["id"])
            data = {
                "event": "tool-started",
                "tool_call_id": call["id"],
                "tool_name": call.get("name"),
                "input": call.get("args"),
            }
            yield self._event("tools", message.namespace, data, message.node)

    def _tool_result(self, namespace: Namespace, message: Json) -> Iterator[Event]:
        call, key = str(message.get("tool_call_id") or ""), f"result {message.get('id')}"
        if not call or key in self._called:
            return
        self._called.add(key)
        if message.get("status") == "error":
            data: Json = {"event": "tool-error", "tool_call_id": call, "message": str(message.get("content"))}
        else:
            data = {"event": "tool-finished", "tool_call_id": call, "output": message}
        yield self._event("tools", namespace, data)

    # events

    def _discover(self, namespace: Namespace) -> Iterator[Event]:
        """The first frame of a subgraph begins it."""
        for depth in range(1, len(namespace) + 1):
            child = namespace[:depth]
            if child not in self._children:
                name, _, task = child[-1].partition(":")
                self._children[child] = name
                yield self._lifecycle(child, "started", name, namespace=child, trigger_call_id=task or None)

    def _say(self, told: _Message, event: str, /, **data: Any) -> Event:
        # Messages of parallel tasks interleave: the Python SDK tells them apart by id, the JavaScript one by run_id.
        known = {"event": event, "id": told.message_id, "run_id": told.message_id}
        return self._event("messages", told.namespace, {**known, **data}, told.node)

    def _lifecycle(self, place: Namespace, word: str, graph_name: str, /, **more: Any) -> Event:
        data = {"event": word, "graph_name": graph_name, **more}
        name = f"lc|{'|'.join(place)}|{word}"
        return self._event("lifecycle", place, data, event_id=f"synth:{self._run_id}:{name}")

    def _event(
        self, method: str, namespace: Namespace, data: Any, node: str | None = None, *, event_id: str | None = None
    ) -> Event:
        self._n += 1
        if event_id is None:
            event_id = f"{self._frame}.{self._part}" if self._part else self._frame
            self._part += 1
        return Event(self._n, event_id, method, namespace, data, node)


def _started(message_id: str, namespace: Namespace, metadata: Mapping[str, Any]) -> _Message:
    node, place = metadata.get("langgraph_node"), metadata.get("langgraph_checkpoint_ns")
    task = _task_of(place.split("|")[-1]) if isinstance(place, str) else None
    return _Message(message_id, namespace, node if isinstance(node, str) else None, task)


def _task_of(segment: str) -> str | None:
    return segment.partition(":")[2] or None


def _pieces(content: Any) -> Iterator[tuple[object, str, str]]:
    """(which block, text or reasoning, words) of a message's content."""
    if isinstance(content, str):
        yield "text", "text", content
    for n, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, str):
            yield (n, "text"), "text", block
        elif isinstance(block, dict) and block.get("type") in ("text", "reasoning", "thinking"):
            kind = "text" if block["type"] == "text" else "reasoning"
            words = block.get("text") or block.get("reasoning") or block.get("thinking") or ""
            yield (block.get("index", n), kind), kind, str(words)


def _finalized(content: Json) -> Json:
    if content["type"] != "tool_call_chunk":
        return content
    try:
        args = orjson.loads(content["args"] or "{}")
    except orjson.JSONDecodeError:
        args = None
    if isinstance(args, dict):
        return {**content, "type": "tool_call", "args": args}
    return {**content, "type": "invalid_tool_call", "error": "the arguments are no JSON object"}


def _custom(data: Any) -> Json:
    """A dict with a name goes to the channel of that name, for which its payload is the whole or its `payload`."""
    name = data.get("name") if isinstance(data, dict) else None
    if isinstance(name, str) and name:
        return {"name": name, "payload": data.get("payload", data)}
    return {"payload": data}


def _loads(data: bytes) -> Any:
    return orjson.loads(data)


def tree(events: Iterable[Event], graph_name: str) -> Json:
    """The agents of a run, each with what became of it, from its lifecycle events."""
    nodes: dict[Namespace, Json] = {
        (): {"namespace": [], "status": "running", "graph_name": graph_name, "children": []}
    }
    for event in events:
        if event.method != "lifecycle":
            continue
        node = nodes.get(event.namespace)
        if node is None:
            node = {"namespace": list(event.namespace), "graph_name": event.data["graph_name"], "children": []}
            nodes[event.namespace] = node
            nodes[event.namespace[:-1]]["children"].append(node)
        node["status"] = event.data["event"]
    return nodes[()]


def unknown_channels(channels: Sequence[str]) -> list[str]:
    """Those of the channels that there are not."""
    return [one for one in channels if one not in CHANNELS and not (one.startswith("custom:") and len(one) > 7)]
