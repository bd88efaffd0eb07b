"""Bodies that no client means well: every operation that takes one answers a 4xx or a 2xx, and a 4xx left no row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import BaseModel, RootModel

from duragraph.answers import CommandRefused, Error, RpcAnswer
from duragraph.api import workers, workers_v1
from duragraph.models import RunCreate
from duragraph.openapi import operations
from tests.api.conftest import start
from tests.api.fuzzing import Things, worker_at_work
from tests.postgres import Server

TABLES = (
    "threads",
    "runs",
    "assistants",
    "assistant_versions",
    "crons",
    "store_items",
    "workers",
    "graphs",
    "webhooks",
)
COUNTS = "select " + ", ".join(f"(select count(*) from duragraph.{table})" for table in TABLES)

DEEP = 10_000
BIG = 2 * 1024 * 1024
VALUES: dict[str, bytes] = {
    "an escaped NUL": rb'"\u0000"',
    "a NUL in a key": rb'{"\u0000": 1}',
    "a lone surrogate": rb'"\ud800"',
    "lone surrogates within": rb'[{"a": ["\udc00\ud800"]}]',
    "a raw NUL": b'"\x00"',
    "no UTF-8": b'"\xff\xc3"',
    "a surrogate as UTF-8": b'"\xed\xa0\x80"',
    "beyond a double": b"1e400",
    "beyond a double, within": b'{"a": [-1e400]}',
    "nearly a double": b"1.7976931348623157e308",
    "nearly nothing": b"1e-400",
    "NaN": b"NaN",
    "infinity": b"[-Infinity]",
    "a huge integer": b"9" * 400,
    "an integer of 4400 digits": b"9" * 4400,
    "beyond 64 bits": b"18446744073709551616",
    "far below 64 bits": b"-" + b"9" * 30,
    "a numeric exponent": b"1e15",
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a key twice": b'{"a": 1, "a": [2]}',
    "null": b"null",
    "true": b"true",
    "minus one": b"-1",
    "no text": b'""',
    "an empty array": b"[]",
    "an empty object": b"{}",
    "nested nulls": b'[null, {"": null}]',
    "half a value": b'{"a": ',
}
"""JSON values, or what looks like them."""


@dataclass(frozen=True)
class Served:
    """A server on which nothing changes but by requests, for its worker has left; and what it holds."""

    http: httpx.Client
    things: Things
    database: psycopg.Connection[Any]

    def rows(self) -> Any:
        """How many rows there are of what requests make."""
        return self.database.execute(COUNTS).fetchone()


@pytest.fixture(scope="module")
def served(server: Server) -> Iterator[Served]:
    """Long polls are not held here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "POLL_SECONDS", 0.0)
        patch.setattr(workers_v1, "HOLD_SECONDS", 0.0)
        with (
            server.database(server.template) as name,
            start(server.dsn(name), heartbeat_seconds=0.1) as running,
            httpx.Client(base_url=running.url, timeout=30) as http,
            psycopg.connect(running.dsn, autocommit=True) as database,
        ):
            with worker_at_work(running):
                things = Things(http)
            yield Served(http, things, database)


def bodies(model: type[BaseModel], things: Things) -> Iterator[tuple[str, bytes]]:
    """Odd bodies, each with what is odd about it: the whole, a field that nobody knows, and each field."""
    good = good_body(model, things)
    for name, value in VALUES.items():
        yield f"{name} as the body", value
        for field in ("unknown", *model.model_fields):
            yield f"{name} as {field}", with_field(good, field, value)
    for name in ("unknown", *model.model_fields):
        twice = with_field(good, name, b"1")
        yield f"{name} twice", b"%b, %b" % (twice[:-1], with_field({}, name, b"[1]")[1:])
    whole = json.dumps(good).encode()
    yield "nothing", b""
    yield "a byte order mark", b"\xef\xbb\xbf" + whole
    yield "UTF-16", whole.decode().encode("utf-16")
    yield "half a body", whole[:-1]
    yield "two bodies", whole + whole
    yield "a key of 2 MB", with_field(good, "k" * BIG, b"1")
    yield "a key of 2 MB in metadata", with_field(good, "metadata", b'{"%b": 1}' % (b"k" * BIG))
    yield "a text of 2 MB", with_field(good, "metadata", b'"%b"' % (b"t" * BIG))


def with_field(good: dict[str, Any], name: str, value: bytes) -> bytes:
    """The body with a field as these bytes."""
    rest = json.dumps({key: one for key, one in good.items() if key != name}).encode()
    return b'%b%b"%b": %b}' % (rest[:-1], b", " if len(rest) > 2 else b"", name.encode(), value)


def good_body(model: type[BaseModel], things: Things) -> dict[str, Any]:
    """The fields that must be there."""
    usual: dict[str, Any] = {
        "value": {"n": 1},
        "checkpoint": {"checkpoint_id": None},
        "writes": [],
        "ops": [],
        "reads": [],
        "jsonrpc": "2.0",
        "id": 1,
    }
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    body = {name: usual[name] if name in usual else things.known[name][0] for name in needed}
    model.model_validate_json(json.dumps(body))
    return body


WITH_BODY = {name: operation.body for name, operation in operations().items() if operation.body is not None}


def is_error(said: bytes, path: str) -> bool:
    """Whether an answer has the form of an error, that of JSON-RPC where it is spoken."""
    try:
        answer = json.loads(said)
        if path.startswith(("/mcp", "/a2a/")) and "jsonrpc" in answer:
            return bool(RpcAnswer.model_validate(answer).error)
        (CommandRefused if path.endswith("/commands") and "type" in answer else Error).model_validate(answer)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("operation", WITH_BODY)
def test_no_body_is_too_much(served: Served, operation: str) -> None:
    method, path = operation.split()
    for name in re.findall(r"\{(\w+)\}", path):
        path = path.replace(f"{{{name}}}", served.things.known[name][0])
    many = issubclass(WITH_BODY[operation], RootModel)
    model = RunCreate if many else WITH_BODY[operation]
    wrong = []
    before = served.rows()
    for odd, body in bodies(model, served.things):
        content = b"[%b]" % body if many else body
        with served.http.stream(method, path, content=content) as response:
            # A good answer may have no end.
            said = response.read() if response.status_code >= 400 else b""
        after = served.rows()
        if response.status_code >= 500:
            wrong.append(f"{odd}: {response.status_code} {said[:300]!r}")
        if response.status_code >= 400:
            if after != before:
                wrong.append(f"{odd}: {response.status_code} {said[:300]!r}, and {before} is now {after}")
            if not is_error(said, path):
                wrong.append(f"{odd}: {response.status_code} {said[:300]!r} is no error of ours")
        before = after
    assert not wrong, "\n".join(wrong)
