"""`interrupt(value)`: ask a person from inside a node, and go on with the answer, minutes or months later."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from duragraph_worker.errors import NodeError


class Interrupted(BaseException):
    """Leaves a node that asks. Not an Exception, so that a node's own `except Exception` does not take it."""

    def __init__(self, questions: list[dict[str, Any]]) -> None:
        super().__init__("the node waits for an answer")
        self.questions = questions


class Asks(Protocol):
    """What a running task offers to `interrupt`."""

    def ask(self, value: Any, schema: dict[str, Any] | None) -> Any:
        """The answer, or raise Interrupted."""


current: ContextVar[Asks | None] = ContextVar("duragraph_task", default=None)


def interrupt(value: Any = None, *, schema: Any = None) -> Any:
    """Ask `value` (any JSON) and give back the answer.

    The first time, the run stops here and holds no worker; when the answer comes the node runs again from its start and
    this call returns it. So what comes before `interrupt` runs once more: put side effects into `ctx.step`. Several
    calls in one node are answered in their order. `schema` (JSON Schema, or a class) says what answer is expected.
    Works in coroutines and in plain functions, also deep inside. Raises NodeError outside a node.
    """
    task = current.get()
    if task is None:
        raise NodeError("interrupt() was called outside a running node")
    return task.ask(value, schema_of(schema))


def schema_of(schema: Any) -> dict[str, Any] | None:
    """A schema given as JSON Schema or as a class."""
    if schema is None or isinstance(schema, dict):
        return schema
    from duragraph_worker.state import json_schema  # pydantic, only when needed

    return json_schema(schema)
