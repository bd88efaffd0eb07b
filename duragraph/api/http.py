"""Reads requests and answers them: bodies, queries, path parameters, JSON; a fault is a 422 that names its place."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from typing import TypeVar
from uuid import UUID

import orjson
from falcon import HTTP_200
from falcon.asgi import Request, Response
from pydantic import BaseModel, ValidationError

from duragraph.errors import Invalid, TooLarge

M = TypeVar("M", bound=BaseModel)

JSON = "application/json"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_UNWANTED_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_UNWANTED = re.compile("[\x00\ud800-\udfff]")
# What may be a number that no double holds: looked for first, as to parse every body twice would be dear.
_ODD_NUMBER = re.compile(rb"[eE]\+?\d{3}|\d{309}|NaN|Infinity")
# What pydantic puts into the place of an error for the branch of a union that was tried.
_BRANCH = re.compile(
    r"^(?:str|int|float|bool|none|dict|list|literal|datetime|date|function|constrained|nullable)(?:$|[-\[])"
)


async def read_body(req: Request) -> bytes:
    """The whole body; `TooLarge` past the limit, whether its length was announced or not."""
    limit: int = req.context.max_body_bytes
    if (req.content_length or 0) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in req.stream:
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is over the limit of {limit} bytes", hint="send less at once")


async def read_json(req: Request, model: type[M], *, empty: bytes = b"{}") -> tuple[M, bytes]:
    """The body as `model`, and as the bytes that came. JSON whatever the Content-Type; no body counts as `empty`."""
    raw = await read_body(req)
    if not raw.strip():
        raw = empty
    return parse_json(raw, model), raw


def parse_json(raw: bytes, model: type[M]) -> M:
    """`raw` as `model`; `Invalid` names the field. NUL, lone surrogates and numbers that no double holds are refused
    wherever they are."""
    check_text(raw)
    try:
        parsed = model.model_validate_json(raw)
    except ValidationError as problems:
        raise invalid(problems) from None
    _check_numbers(raw)
    return parsed


def check_text(raw: bytes) -> None:
    """Refuse NUL and lone surrogates, which PostgreSQL cannot store, naming the place. Cheap without escapes."""
    if b"\x00" in raw:
        raise Invalid("Invalid JSON in request body: a NUL byte", code="invalid_json", hint="send JSON in UTF-8")
    if b"\\u" in raw and _UNWANTED_ESCAPE.search(raw) and (place := unwanted_text(_loads(raw))) is not None:
        raise Invalid(
            f"{place or 'body'}: a NUL or a lone surrogate cannot be stored",
            code="invalid_text",
            field=place or None,
            hint="remove it or encode the text, for example in base64",
        )


def _check_numbers(raw: bytes) -> None:
    """Refuse what the model lets through and nobody could read again, once it is stored as it came: NaN, 1e400."""
    if _ODD_NUMBER.search(raw):
        try:
            orjson.loads(raw)
        except ValueError as problem:
            raise Invalid(f"a number cannot be read: {problem}", code="invalid_value", hint="send it as text") from None


def _loads(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise Invalid(f"Invalid JSON in request body: {problem}", code="invalid_json", hint="send JSON") from None


def unwanted_text(value: object) -> str | None:
    """Where a NUL or a lone surrogate is: a dotted path, empty for the value itself, None when there is none."""
    todo: list[tuple[str, object]] = [("", value)]
    while todo:
        place, item = todo.pop()
        if isinstance(item, str) and _UNWANTED.search(item):
            return place
        if isinstance(item, dict):
            if any(_UNWANTED.search(key) for key in item):
                return f"{place}.<key>" if place else "<key>"
            todo += [(f"{place}.{key}" if place else key, inner) for key, inner in item.items()]
        if isinstance(item, list):
            todo += [(f"{place}.{index}" if place else str(index), inner) for index, inner in enumerate(item)]
    return None


def invalid(problems: ValidationError) -> Invalid:
    """The first of pydantic's problems as our error; of the branches of a union, the one that came furthest."""
    found = problems.errors(include_url=False, include_input=False, include_context=False)
    first = max((one for one in found if one["loc"][:1] == found[0]["loc"][:1]), key=lambda one: len(one["loc"]))
    if first["type"] == "json_invalid":
        return Invalid(f"Invalid JSON in request body: {first['msg']}", code="invalid_json", hint="send JSON")
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or not _BRANCH.match(part))
    return Invalid(f"{place or 'body'}: {first['msg']}", code="invalid_field", field=place or None)


def answer_json(resp: Response, body: bytes | str, status: str = HTTP_200) -> None:
    """Answer JSON text as it is."""
    resp.status = status
    resp.content_type = JSON
    resp.data = body.encode() if isinstance(body, str) else body


def answer(resp: Response, value: object, status: str = HTTP_200) -> None:
    """Answer a value as JSON."""
    answer_json(resp, orjson.dumps(value), status)


def path_uuid(text: str, name: str) -> UUID:
    """A path parameter that must be a UUID."""
    try:
        return UUID(text)
    except ValueError:
        raise _wrong(name, "Invalid UUID", "invalid_uuid") from None


def query_bool(req: Request, name: str, default: bool = False) -> bool:
    """true/false, 1/0, yes/no, in any case."""
    raw = req.get_param(name)
    if raw is None:
        return default
    word = raw.strip().lower()
    if word not in _TRUE | _FALSE:
        raise _wrong(name, "must be true or false")
    return word in _TRUE


def query_int(req: Request, name: str, default: int, low: int = 0, high: int = 2**31 - 1) -> int:
    """An integer from `low` to `high`."""
    raw = req.get_param(name)
    if raw is None or not raw.strip():
        return default
    try:
        value = int(raw) if raw.isascii() and len(raw) < 20 else None
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise _wrong(name, f"must be an integer from {low} to {high}")
    return value


def query_choice(req: Request, name: str, choices: Iterable[str], default: str) -> str:
    """One of the words."""
    raw = req.get_param(name)
    if raw is None:
        return default
    allowed = tuple(choices)
    if raw not in allowed:
        raise _wrong(name, f"must be one of {', '.join(allowed)}")
    return raw


def query_list(req: Request, name: str, choices: Iterable[str] | None = None) -> list[str] | None:
    """Words as one value, comma separated, repeated, or a JSON list; None when the parameter is absent.

    With `choices`, an unknown word is refused.
    """
    words = _query_words(req, name)
    allowed = None if choices is None else tuple(choices)
    if words and allowed and (wrong := [word for word in words if word not in allowed]):
        raise _wrong(name, f"unknown word {wrong[0]!r}; use {', '.join(allowed)}")
    return words


def _query_words(req: Request, name: str) -> list[str] | None:
    values: list[str] | None = req.get_param_as_list(name)
    if values is None:
        return None
    words: list[str] = []
    for value in values:
        words += _json_words(name, value) if value.lstrip().startswith("[") else value.split(",")
    return [word.strip() for word in words if word.strip()]


def _json_words(name: str, value: str) -> list[str]:
    try:
        words = orjson.loads(value)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _wrong(name, "must be a list of words")
    return words


def _wrong(name: str, problem: str, code: str = "invalid_parameter") -> Invalid:
    return Invalid(f"{name}: {problem}", code=code, field=name)


async def disconnected(req: Request) -> None:
    """Returns when the client has gone. To be called after the body was read, by one task a request."""
    while True:
        event = await req.context.receive()
        if event["type"] == "http.disconnect":
            return


def watch(req: Request) -> asyncio.Task[None]:
    """A task that ends when the client has gone; cancel it when the answer is complete."""
    return asyncio.create_task(disconnected(req))
