"""Chat messages as they are kept in state: dicts of the form that chat front ends read.

    {"type": "human" | "ai" | "system" | "tool", "content", "id", "name", "additional_kwargs", "response_metadata"}

An `ai` message also has `tool_calls` (`[{"name", "args", "id", "type": "tool_call"}]`) and `usage_metadata`, a `tool`
message `tool_call_id` and `status`. Model providers take the other common form, with roles: `for_provider`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from duragraph_worker.errors import StateError

TYPE_OF_ROLE = {
    "user": "human",
    "human": "human",
    "assistant": "ai",
    "ai": "ai",
    "AIMessageChunk": "ai",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "remove": "remove",
}
ROLE_OF_TYPE = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}

Message = dict[str, Any]


def normalise(given: Any) -> list[Message]:
    """Any usual way to write messages, as the list of dicts kept in state; those without an id get one.

    Takes a list or a single one of: a text (human), `["role", text]`, `{"role"|"type", "content", ...}`.
    Raises StateError for anything else.
    """
    if given is None:
        return []
    pair = isinstance(given, list | tuple) and len(given) == 2 and all(isinstance(g, str) for g in given)
    if isinstance(given, list | tuple) and not (pair and given[0] in TYPE_OF_ROLE):
        return [_normal(one) for one in given]
    return [_normal(given)]


def _normal(given: Any) -> Message:
    if isinstance(given, str):
        given = {"type": "human", "content": given}
    elif isinstance(given, list | tuple) and len(given) == 2 and isinstance(given[0], str):
        given = {"type": given[0], "content": given[1]}
    if not isinstance(given, Mapping):
        raise StateError(f"{given!r} is no message; give a text or a dict with role and content", "messages")
    kind = TYPE_OF_ROLE.get(str(given.get("type") or given.get("role")))
    if kind is None or (kind == "human" and given.get("type") in ("text", "image")):
        raise StateError(
            f"a message has type {given.get('type')!r} and role {given.get('role')!r}; "
            "one of them must be user/human, assistant/ai, system or tool",
            "messages",
        )
    extra = {k: v for k, v in given.items() if k not in ("role", "type", "content", "id")}
    message = {
        "content": given.get("content") if given.get("content") is not None else "",
        "additional_kwargs": {},
        "response_metadata": {},
        "type": kind,
        "name": None,
        "id": given.get("id") or str(uuid.uuid4()),
        **extra,
    }
    if kind == "ai":
        message["tool_calls"] = [_tool_call(call) for call in given.get("tool_calls") or []]
        message.setdefault("invalid_tool_calls", [])
        message.setdefault("usage_metadata", None)
    elif kind == "tool":
        message.setdefault("status", "success")
    return message


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    if "function" not in call:
        return {"name": call["name"], "args": call.get("args", {}), "id": call.get("id"), "type": "tool_call"}
    arguments = call["function"].get("arguments") or "{}"
    return {
        "name": call["function"]["name"],
        "args": json.loads(arguments) if isinstance(arguments, str) else arguments,
        "id": call.get("id"),
        "type": "tool_call",
    }


def remove_by_id(old: list[Message], added: list[Message]) -> list[Message]:
    """Merge `added` into `old` by id; `remove` messages take theirs out, and `__remove_all__` takes all before it."""
    merged = old
    for message in added:
        if message["type"] == "remove" and message["id"] == "__remove_all__":
            merged = []
            continue
        place = next((i for i, m in enumerate(merged) if m.get("id") == message["id"]), None)
        if message["type"] == "remove":
            if place is None:
                raise StateError(f"message '{message['id']}' cannot be removed: there is none with that id", "messages")
            merged = [*merged[:place], *merged[place + 1 :]]
        elif place is None:
            merged = [*merged, message]
        else:
            merged = [*merged[:place], message, *merged[place + 1 :]]
    return merged


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content may be a text or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)
    return str(content or "")


def for_provider(messages: Sequence[Any]) -> list[Message]:
    """Messages with roles, as model providers take them."""
    return [_with_role(message) for message in normalise(list(messages))]


def _with_role(message: Message) -> Message:
    out: Message = {"role": ROLE_OF_TYPE[message["type"]], "content": message["content"]}
    if message.get("name"):
        out["name"] = message["name"]
    if message["type"] == "tool":
        out["tool_call_id"] = message.get("tool_call_id")
    elif message.get("tool_calls"):
        out["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["args"], ensure_ascii=False)},
            }
            for call in message["tool_calls"]
        ]
    return out
