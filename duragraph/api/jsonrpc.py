"""JSON-RPC 2.0 over HTTP, as MCP and A2A use it: one call a request, every fault with its standard code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Never, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from duragraph.api.http import check_text, invalid
from duragraph.errors import DuragraphError

M = TypeVar("M", bound=BaseModel)

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

Id = str | int | float | None


class RpcError(Exception):
    """What goes into `error` of an answer."""

    def __init__(self, code: int, message: str, data: object = None, call_id: Id = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.call_id = call_id


@dataclass(frozen=True)
class Call:
    """One call. A notification wants no answer."""

    id: Id
    method: str
    params: dict[str, Any]
    notification: bool


def parse(raw: bytes) -> Call | None:
    """The call in a body; None for an answer, which a server that asks nothing has no use for."""
    try:
        body = orjson.loads(raw)
    except ValueError as problem:
        raise RpcError(PARSE_ERROR, f"Invalid JSON: {problem}") from None
    if not isinstance(body, dict) or body.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'Not a JSON-RPC message: it must be an object with "jsonrpc": "2.0"')
    given = body.get("id")
    if not (given is None or (isinstance(given, str | int | float) and not isinstance(given, bool))):
        raise RpcError(INVALID_REQUEST, "id must be a text or a number")
    method, params = body.get("method"), body.get("params")
    if method is None and ("result" in body or "error" in body):
        return None
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "method must be a text", call_id=given)
    if not isinstance(params, dict | None):
        raise RpcError(INVALID_PARAMS, "params must be an object", call_id=given)
    try:
        check_text(raw)
    except DuragraphError as problem:
        raise RpcError(INVALID_PARAMS, problem.message, {"field": problem.field}, given) from None
    return Call(given, method, params or {}, "id" not in body)


def read_params(call: Call, model: type[M]) -> M:
    """The parameters as `model`; the error names the field."""
    try:
        return model.model_validate_json(orjson.dumps(call.params))
    except ValidationError as problems:
        problem = invalid(problems)
        raise RpcError(INVALID_PARAMS, problem.message, {"field": problem.field}) from None


def unknown(call: Call) -> Never:
    """Refuse a method that is not served."""
    raise RpcError(METHOD_NOT_FOUND, f"Method not found: {call.method[:200]}")


def from_ours(problem: DuragraphError) -> RpcError:
    """An error of ours; what the caller can do nothing about is internal."""
    code = INVALID_PARAMS if problem.status < 500 else INTERNAL_ERROR
    return RpcError(code, str(problem), {"code": problem.code, "field": problem.field})


def result(call_id: Id, value: object) -> bytes:
    """The answer to a call."""
    return orjson.dumps({"jsonrpc": "2.0", "id": call_id, "result": value})


def failure(call_id: Id, error: RpcError) -> bytes:
    """The answer to a call that failed."""
    about: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        about["data"] = error.data
    return orjson.dumps({"jsonrpc": "2.0", "id": call_id if call_id is not None else error.call_id, "error": about})
