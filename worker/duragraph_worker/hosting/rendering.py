"""Values of hosted graphs as JSON, for people and clients to see; the graph itself goes on from what it saved."""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

_UNWANTED = re.compile("[\x00\ud800-\udfff]")
_DEPTH = 200


def jsonable(value: Any, depth: int = 0) -> Any:
    """`value` as plain JSON. What JSON has not is shown as text; NUL and lone surrogates, which no text in PostgreSQL
    may hold, as U+FFFD; NaN and infinities as null."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() and "\0" not in value else _UNWANTED.sub("\ufffd", value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if depth > _DEPTH:
        return jsonable(_text(value))
    if isinstance(value, Mapping):
        return {jsonable(_text(key)): jsonable(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return jsonable(value._asdict(), depth + 1)
    if isinstance(value, list | tuple | set | frozenset) or kind.__name__ == "deque":
        return [jsonable(inner, depth + 1) for inner in value]
    try:
        return _object(value, depth)
    except Exception:  # of the value's own code: how it is shown must not decide what becomes of the run
        return jsonable(_text(value))


def told(problem: BaseException) -> dict[str, str]:
    """An exception as type and message."""
    return {"error": type(problem).__name__, "message": jsonable(_text(problem))}


def _text(value: Any, text: Callable[[Any], str] = str) -> str:
    """`str(value)`, whatever the value's own code does."""
    try:
        return text(value)
    except Exception as problem:
        return f"<{type(value).__name__}; its {text.__name__}() raised {type(problem).__name__}>"


def _object(value: Any, depth: int) -> Any:
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump(), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return jsonable(fields, depth + 1)
    if isinstance(value, Enum):
        return jsonable(value.value, depth + 1)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, str | int | float):  # subclasses
        plain = str.__str__(value) if isinstance(value, str) else int(value) if isinstance(value, int) else float(value)
        return jsonable(plain, depth + 1)
    if isinstance(value, UUID | Decimal | timedelta | PurePath):
        return str(value)
    if isinstance(value, BaseException):
        return jsonable(_text(value, repr))
    if hasattr(value, "node") and hasattr(value, "arg"):  # LangGraph's Send
        return jsonable({"node": value.node, "input": value.arg}, depth + 1)
    if callable(dump := getattr(value, "tolist", None)):  # numpy
        return jsonable(dump(), depth + 1)
    return jsonable(_text(value))
