"""Finds the texts in a value that a path names, as LangGraph's store does: `title`, `parts[*].text`, `{a,b.c}`, `$`."""

from __future__ import annotations

import json
import re
from typing import Any

_PART = re.compile(r"\[[^\]]*\]?|\{[^}]*\}?|[^.\[{]+")


def texts_at(value: Any, path: str) -> list[str]:
    """The texts, in order; `$` is the whole value as JSON. What is no text becomes one, but null."""
    if path in ("", "$"):
        return [_json(value)]
    found = [value]
    for part in _PART.findall(path):
        found = [inner for one in found for inner in _inner(one, part)]
    return [text for one in found for text in _text(one)]


def _inner(value: Any, part: str) -> list[Any]:
    if part.startswith("["):
        return _item(value, part[1:].removesuffix("]")) if isinstance(value, list) else []
    if part.startswith("{") and part.endswith("}"):
        return [_field(value, name.strip()) for name in part[1:-1].split(",")]
    if part == "*":
        return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value[part]] if isinstance(value, dict) and part in value else []


def _item(values: list[Any], place: str) -> list[Any]:
    if place == "*":
        return values
    try:
        return [values[int(place)]]
    except (ValueError, IndexError):
        return []


def _field(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> list[str]:
    if value is None:
        return []
    return [_json(value) if isinstance(value, dict | list) else str(value)]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
