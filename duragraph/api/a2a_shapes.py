"""What A2A says: messages in, tasks and updates out, as version 0.3 has them; `Dialect.V1` says them as 1.0 does.

https://a2a-protocol.org/v0.3.0/specification/ and https://a2a-protocol.org/latest/specification/
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import orjson
from pydantic import AliasChoices, Field, model_validator

from duragraph.api.jsonrpc import INVALID_PARAMS, RpcError
from duragraph.models import Object, Shape

Json = dict[str, Any]

TASK_NOT_FOUND = -32001
TASK_NOT_CANCELABLE = -32002
PUSH_NOT_SUPPORTED = -32003
UNSUPPORTED_OPERATION = -32004
CONTENT_TYPE_NOT_SUPPORTED = -32005
EXTENDED_CARD_NOT_CONFIGURED = -32007

_STATES = {
    "pending": "submitted",
    "running": "working",
    "error": "failed",
    "timeout": "failed",
    "interrupted": "canceled",
}
_ROLES = {"human": "user", "user": "user", "ai": "agent", "assistant": "agent", "AIMessageChunk": "agent"}


class Part(Shape):
    """A piece of a message: text or data."""

    text: str | None = None
    data: Any = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_known_kind(cls, given: object) -> object:
        if isinstance(given, dict) and "text" not in given and "data" not in given:
            raise RpcError(CONTENT_TYPE_NOT_SUPPORTED, "Only text and data parts are taken")
        return given


class Message(Shape):
    """What a user says."""

    parts: list[Part] = Field(min_length=1, max_length=1000)
    message_id: str = Field(alias="messageId", min_length=1, max_length=200)
    role: Literal["user", "ROLE_USER"] = "user"
    context_id: str | None = Field(default=None, alias="contextId")
    task_id: str | None = Field(default=None, alias="taskId")

    @property
    def text(self) -> str | None:
        """The text of its parts."""
        texts = [part.text for part in self.parts if part.text is not None]
        return "\n".join(texts) if texts else None

    @property
    def data(self) -> Json | None:
        """The data of its parts, merged."""
        found = [part.data for part in self.parts if part.text is None]
        if not found:
            return None
        if not all(isinstance(one, dict) for one in found):
            raise RpcError(INVALID_PARAMS, "data must be an object")
        return {key: value for one in found for key, value in one.items()}


class Configuration(Shape):
    """How a caller wants its answer."""

    blocking: bool | None = None
    at_once: bool | None = Field(default=None, alias="returnImmediately")
    history_length: int | None = Field(default=None, alias="historyLength", ge=0)
    push: Object | None = Field(
        default=None, validation_alias=AliasChoices("pushNotificationConfig", "taskPushNotificationConfig")
    )


class SendMessage(Shape):
    """Parameters of message/send and message/stream."""

    message: Message
    configuration: Configuration = Configuration()


class TaskQuery(Shape):
    """Parameters of tasks/get and its like."""

    id: str
    history_length: int | None = Field(default=None, alias="historyLength", ge=0)


class Dialect(Enum):
    """The versions that are spoken; the method's name tells which."""

    V03 = "0.3"
    V1 = "1.0"

    def task(self, task: Json) -> Json:
        """A task as this version has it."""
        return task if self is Dialect.V03 else _plain(task)

    def sent(self, task: Json) -> Json:
        """The task that answers a message."""
        return task if self is Dialect.V03 else {"task": _plain(task)}

    def event(self, event: Json) -> Json:
        """A frame of a stream."""
        if self is Dialect.V03:
            return event
        name = {"task": "task", "status-update": "statusUpdate", "artifact-update": "artifactUpdate"}[event["kind"]]
        return {name: _plain({key: value for key, value in event.items() if key != "final"})}


def _plain(value: Any) -> Any:
    """Without `kind`, and with the longer words of 1.0 for states and roles. Data of graphs stays as it is."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    plain = {key: one if key == "data" else _plain(one) for key, one in value.items() if key != "kind"}
    if isinstance(state := plain.get("state"), str):
        plain["state"] = f"TASK_STATE_{state.upper().replace('-', '_')}"
    if isinstance(role := plain.get("role"), str):
        plain["role"] = f"ROLE_{role.upper()}"
    return plain


def state_of(status: str, output: object) -> str:
    """The state of a task whose run is like that."""
    if status == "success":
        return "input-required" if isinstance(output, dict) and output.get("__interrupt__") else "completed"
    return _STATES.get(status, "unknown")


def task_of(found: Json, history_length: int | None) -> Json:
    """A task, from what find_task() gives."""
    status, output = found["run"]["status"], found["run"]["output"]
    state = state_of(status, output)
    task: Json = {
        "kind": "task",
        "id": found["task_id"],
        "contextId": found["context_id"],
        "status": {"state": state, "timestamp": found["updated_at"]},
        "history": history_of(found, history_length),
    }
    if said := _says(found, state, output):
        task["status"]["message"] = said
    if state in ("completed", "input-required"):
        task["artifacts"] = [artifact_of(found)]
    return task


def history_of(found: Json, length: int | None) -> list[Json]:
    """The last messages of the conversation that have a text; those of tools are the graph's own concern."""
    history = [
        message(found, _ROLES[one["type"]], [text_part(text)], str(one.get("id") or f"{found['run_id']}-{n}"))
        for n, one in enumerate(_messages(found["run"]["output"]))
        if one.get("type") in _ROLES and (text := text_of(one.get("content")))
    ]
    return history if length is None else history[len(history) - length :] if length < len(history) else history


def artifact_of(found: Json) -> Json:
    """What a task gave: the last answer of a conversation, else the graph's whole output; or what it asks."""
    output = found["run"]["output"]
    if isinstance(output, dict) and (asked := output.get("__interrupt__")):
        return {"artifactId": found["run_id"], "name": "Interrupt", "parts": _questions(asked)}
    answers = [one for one in _messages(output) if _ROLES.get(one.get("type", "")) == "agent"]
    text = text_of(answers[-1].get("content")) if answers else ""
    parts = [text_part(text)]
    if not text:
        parts = [text_part(orjson.dumps(output).decode())]
        parts += [data_part(output)] if isinstance(output, dict) else []
    return {"artifactId": found["run_id"], "name": "Assistant Response", "parts": parts}


def _says(found: Json, state: str, output: object) -> Json | None:
    """The message that goes with a state: what went wrong, or what is asked."""
    if state == "failed" and isinstance(output, dict):
        error = output.get("__error__") or {}
        return message(found, "agent", [text_part(f"{error.get('error')}: {error.get('message')}")])
    if state == "input-required" and isinstance(output, dict):
        return message(found, "agent", _questions(output["__interrupt__"]))
    return None


def _questions(asked: list[Json]) -> list[Json]:
    return [data_part({"id": one["id"], "value": one["value"]}) for one in asked]


def message(found: Json, role: str, parts: list[Json], message_id: str | None = None) -> Json:
    """A message of a task."""
    return {
        "kind": "message",
        "role": role,
        "parts": parts,
        "messageId": message_id or f"{found['run_id']}-status",
        "taskId": found["task_id"],
        "contextId": found["context_id"],
    }


def text_part(text: str) -> Json:
    """A part that is text."""
    return {"kind": "text", "text": text}


def data_part(data: Json) -> Json:
    """A part that is data."""
    return {"kind": "data", "data": data}


def text_of(content: object) -> str:
    """The text of a LangChain message's content, which may be a list of blocks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [
        block if isinstance(block, str) else block.get("text") for block in content if isinstance(block, str | dict)
    ]
    return "".join(text for text in texts if isinstance(text, str))


def _messages(output: object) -> list[Json]:
    found = output.get("messages") if isinstance(output, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
