"""The description of the API: what is routed, with the shapes that are checked and the statuses that are answered."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from duragraph import __version__, answers, api, models
from duragraph import resource_models as requests

if TYPE_CHECKING:
    from duragraph.deps import Deps

Json = dict[str, Any]
Schema = type[BaseModel] | Json

METHODS = ("get", "post", "put", "patch", "delete")

_OBJECT: Json = {"type": "object"}
_ANY: Json = {}
_INTEGER: Json = {"type": "integer"}
_BOOLEAN: Json = {"type": "boolean", "default": False}
_TEXT: Json = {"type": "string"}
_LIMIT: Json = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10}
_OFFSET: Json = {"type": "integer", "minimum": 0, "default": 0}
_UUID: Json = {"type": "string", "format": "uuid"}
_ACTION: Json = {"enum": ["interrupt", "rollback"], "default": "interrupt"}
_MODES: Json = {"type": "array", "items": {"enum": list(models.STREAM_MODES)}}
_THREAD_MODES: Json = {"type": "array", "items": {"enum": [*models.THREAD_STREAM_MODES, *models.STREAM_MODES]}}
_REASONS = {
    400: "The request makes no sense for what is there.",
    404: "There is no such thing.",
    405: "The path has no such method.",
    409: "The present state forbids it.",
    413: "The body is over the limit.",
    422: "The request cannot be understood; `field` names the part at fault.",
    500: "The server is at fault.",
    503: "The database, or a part of the server, cannot answer now; the same request may succeed later.",
}
# Path parameters that are not UUIDs.
_NAMES = {"worker_id", "graph_id", "namespace"}


@dataclass(frozen=True)
class Operation:
    """What one method of one path takes and answers, besides what its path and its responder's docstring say."""

    tag: str
    answer: Schema | None = None
    body: type[BaseModel] | None = None
    errors: tuple[int, ...] = (422,)
    status: int = 200
    media: str = "application/json"
    query: dict[str, Json] | None = None
    headers: tuple[str, ...] = ()
    also: tuple[int, ...] = ()
    """Further statuses without an error in them."""
    or_as: dict[str, Json] | None = None
    """Further media types of the answer."""
    told_as: Schema = answers.Error
    """The form of `errors`."""
    lenient_path: bool = False
    """A graph's name is taken for an assistant's id."""


def _list(of: Schema) -> Json:
    return {"type": "array", "items": of}


def _part(of: type[BaseModel]) -> Json:
    return {"anyOf": [of, {"type": "object", "description": "Only the fields that `select` names."}]}


def _selected(of: type[BaseModel]) -> Json:
    return _list(_part(of))


_PAGE = {"limit": _LIMIT, "offset": _OFFSET}
_GONE: dict[str, Any] = {"answer": None, "status": 204, "errors": (404, 422)}


def _runs(base: str, *, stateless: bool) -> Iterator[tuple[str, Operation]]:
    """The operations of runs, which are the same with a thread in the path and without."""
    tag = "Stateless runs" if stateless else "Runs"
    created: dict[str, Any] = {"tag": tag, "body": models.RunCreate, "errors": (400, 404, 409, 422)}
    streamed: dict[str, Any] = {"answer": _TEXT, "media": "text/event-stream"}
    one = f"{base}/{{run_id}}"
    ended: dict[str, Any] = {"tag": tag, "answer": _ANY, "errors": (404, 422)}
    cut = {"cancel_on_disconnect": _BOOLEAN}
    listed: Schema = _OBJECT if stateless else _list(_OBJECT)
    yield (
        f"GET {base}",
        Operation(tag, listed, query={**_PAGE, "status": _TEXT, "select": _list(_TEXT)}, errors=(404, 422)),
    )
    yield f"POST {base}", Operation(**created, answer=_OBJECT, headers=("Idempotency-Key",))
    yield f"POST {base}/stream", Operation(**created, **streamed, headers=("Idempotency-Key",))
    yield f"POST {base}/wait", Operation(**created, answer=_ANY, headers=("Idempotency-Key",))
    yield f"GET {one}", Operation(tag, _OBJECT, errors=(404, 422))
    yield f"DELETE {one}", Operation(tag, **_GONE)
    yield (
        f"GET {one}/stream",
        Operation(tag, **streamed, errors=(404, 422), query={"stream_mode": _MODES, **cut}, headers=("Last-Event-ID",)),
    )
    for word in ("join", "wait"):
        yield f"GET {one}/{word}", Operation(**ended, query=cut)
        yield f"POST {one}/{word}", Operation(**ended, query=cut)
    yield (
        f"POST {one}/cancel",
        Operation(tag, None, status=202, also=(200,), errors=(404, 422), query={"wait": _BOOLEAN, "action": _ACTION}),
    )


def _assistants() -> Iterator[tuple[str, Operation]]:
    tag, one = "Assistants", "/assistants/{assistant_id}"
    found: tuple[int, ...] = (404, 422)
    yield "GET /assistants", Operation(tag, answers.AssistantList, query=_PAGE)
    yield "POST /assistants", Operation(tag, answers.Assistant, requests.AssistantCreate, errors=(400, 404, 409, 422))
    yield (
        "POST /assistants/search",
        Operation(tag, _selected(answers.Assistant), requests.AssistantSearch, errors=found),
    )
    yield "POST /assistants/count", Operation(tag, _INTEGER, requests.AssistantCount, errors=found)
    yield f"GET {one}", Operation(tag, answers.Assistant, errors=found)
    yield f"PATCH {one}", Operation(tag, answers.Assistant, requests.AssistantPatch, errors=(400, 404, 422))
    yield (
        f"DELETE {one}",
        Operation(tag, None, status=204, errors=(404, 409, 422), query={"delete_threads": _BOOLEAN}),
    )
    xray = {"xray": {"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 1}]}}
    yield f"GET {one}/graph", Operation(tag, answers.Drawing, errors=found, query=xray, lenient_path=True)
    yield f"GET {one}/schemas", Operation(tag, answers.GraphSchemas, errors=found)
    for path in (f"{one}/subgraphs", f"{one}/subgraphs/{{namespace}}"):
        yield f"GET {path}", Operation(tag, _OBJECT, errors=found, query={"recurse": _BOOLEAN})
    versions = _list(answers.AssistantVersion)
    yield f"GET {one}/versions", Operation(tag, versions, errors=found, query=_PAGE)
    yield f"POST {one}/versions", Operation(tag, versions, requests.AssistantVersions, errors=found)
    version = {"version": {"type": "integer", "minimum": 1}}
    yield f"POST {one}/latest", Operation(tag, answers.Assistant, requests.AssistantLatest, errors=found, query=version)


def _threads() -> Iterator[tuple[str, Operation]]:
    tag, one = "Threads", "/threads/{thread_id}"
    found: tuple[int, ...] = (404, 422)
    yield "GET /threads", Operation(tag, answers.ThreadList, query=_PAGE)
    yield "POST /threads", Operation(tag, answers.Thread, requests.ThreadCreate, errors=(400, 404, 409, 422))
    yield "POST /threads/search", Operation(tag, _selected(answers.Thread), requests.ThreadSearch)
    yield "POST /threads/count", Operation(tag, _INTEGER, requests.ThreadCount)
    yield f"GET {one}", Operation(tag, answers.Thread, errors=found, query={"include": _TEXT})
    yield (
        f"PATCH {one}",
        Operation(tag, answers.Thread, requests.ThreadPatch, errors=found, also=(204,), headers=("Prefer",)),
    )
    yield f"DELETE {one}", Operation(tag, None, status=204, errors=(404, 409, 422))
    yield f"POST {one}/copy", Operation(tag, answers.Thread, errors=found)
    yield "POST /threads/prune", Operation(tag, answers.ThreadsPruned, requests.ThreadPrune)
    yield f"GET {one}/storage", Operation(tag, answers.ThreadStorage, errors=found)
    yield f"PATCH {one}/state", Operation(tag, None, requests.StatePatch, status=204, errors=found)
    yield (
        f"GET {one}/stream",
        Operation(
            tag,
            _TEXT,
            media="text/event-stream",
            errors=found,
            query={"stream_modes": _THREAD_MODES, "stream_mode": _THREAD_MODES},
            headers=("Last-Event-ID",),
        ),
    )
    refused: Json = {"anyOf": [answers.CommandRefused, answers.Error]}
    yield (
        f"POST {one}/commands",
        Operation(tag, _OBJECT, models.ProtocolCommand, errors=(400,), told_as=refused),
    )
    yield (
        f"POST {one}/stream/events",
        Operation(
            tag,
            _TEXT,
            models.EventStreamRequest,
            media="text/event-stream",
            errors=(400, 413),
            headers=("Last-Event-ID",),
        ),
    )
    at = {"subgraphs": _BOOLEAN, "checkpoint_ns": _TEXT, "select": _list(_TEXT)}
    state = _part(answers.ThreadState)
    yield f"GET {one}/state", Operation(tag, state, errors=found, query=at)
    yield (
        f"POST {one}/state",
        Operation(tag, answers.StateUpdated, requests.StateUpdate, errors=(400, 404, 409, 422)),
    )
    yield f"POST {one}/state/checkpoint", Operation(tag, state, requests.StateAt, errors=found)
    yield f"GET {one}/state/{{checkpoint_id}}", Operation(tag, state, errors=found, query=at)
    before = {"limit": {**_LIMIT, "default": 1}, "before": _UUID, "checkpoint_ns": _TEXT, "select": _list(_TEXT)}
    yield f"GET {one}/history", Operation(tag, _list(state), errors=found, query=before)
    yield f"POST {one}/history", Operation(tag, _list(state), requests.StateSearch, errors=found)


def _store() -> Iterator[tuple[str, Operation]]:
    tag = "Store"
    item: Json = {"anyOf": [answers.Item, {"type": "null"}]}
    named = {"key": _TEXT, "namespace": _list(_TEXT), "refresh_ttl": {**_BOOLEAN, "default": True}}
    yield "PUT /store/items", Operation(tag, None, requests.ItemPut, status=204)
    yield "GET /store/items", Operation(tag, item, query=named, errors=(400, 422))
    yield "DELETE /store/items", Operation(tag, None, requests.ItemDelete, status=204)
    yield "POST /store/items/search", Operation(tag, answers.FoundItems, requests.ItemSearch)
    yield "POST /store/namespaces", Operation(tag, answers.FoundNamespaces, requests.NamespaceSearch)


def _crons() -> Iterator[tuple[str, Operation]]:
    tag, one = "Crons", "/runs/crons/{cron_id}"
    created: dict[str, Any] = {"tag": tag, "answer": answers.Cron, "errors": (400, 404, 422)}
    yield "POST /runs/crons", Operation(**created, body=requests.CronCreate)
    yield "POST /threads/{thread_id}/runs/crons", Operation(**created, body=requests.CronCreate)
    yield "POST /runs/crons/search", Operation(tag, _selected(answers.Cron), requests.CronSearch)
    yield "POST /runs/crons/count", Operation(tag, _INTEGER, requests.CronCount)
    yield f"GET {one}", Operation(tag, answers.Cron, errors=(404, 422))
    yield f"PATCH {one}", Operation(tag, answers.Cron, requests.CronPatch, errors=(400, 404, 409, 422))
    yield f"DELETE {one}", Operation(tag, **_GONE)


def _workers() -> Iterator[tuple[str, Operation]]:
    tag, one = "Workers", "/workers/{worker_id}"
    found: dict[str, Any] = {"answer": _OBJECT, "errors": (404, 422)}
    yield "GET /workers", Operation(tag, _OBJECT, query={"healthy": {"type": "boolean"}})
    yield "POST /workers", Operation(tag, _OBJECT, models.WorkerRegister)
    yield f"GET {one}", Operation(tag, **found)
    yield f"DELETE {one}", Operation(tag, **found)
    yield f"POST {one}/claim", Operation(tag, body=models.WorkerClaim, **found)
    yield f"POST {one}/writes", Operation(tag, body=requests.WorkerWrites, **found)
    yield (
        f"POST {one}/checkpoints",
        Operation(tag, _OBJECT, models.WorkerReads, errors=(404, 409, 422)),
    )
    yield (
        f"POST {one}/store",
        Operation(tag, answers.StoreResults, requests.WorkerStore, errors=(404, 409, 422)),
    )
    yield f"POST {one}/heartbeat", Operation(tag, body=models.WorkerBeat, **found)
    yield f"POST {one}/drain", Operation(tag, **found)
    yield "GET /workers/graphs/{graph_id}", Operation(tag, **found)
    old = "Workers (published protocol)"
    yield "POST /workers/register", Operation(old, _OBJECT, models.LegacyRegister)
    yield f"POST {one}/poll", Operation(old, body=models.LegacyPoll, **found)
    yield f"POST {one}/events", Operation(old, body=models.LegacyEvent, **found)
    yield f"POST {one}/deregister", Operation(old, **found)


def _agents() -> Iterator[tuple[str, Operation]]:
    """What other agents speak: JSON-RPC, whose errors are 200 unless the message itself cannot be read."""
    call: dict[str, Any] = {"answer": answers.RpcAnswer, "body": requests.RpcCall}
    yield "POST /mcp", Operation("MCP", **call, errors=(400,), told_as=answers.RpcAnswer, also=(202, 307))
    yield "GET /mcp", Operation("MCP", None, status=405, errors=())
    yield "DELETE /mcp", Operation("MCP", None, status=404, errors=())
    stream: dict[str, Json] = {"text/event-stream": _TEXT}
    yield "POST /a2a/{assistant_id}", Operation("A2A", **call, errors=(), or_as=stream, lenient_path=True)
    card = {"assistant_id": _TEXT}
    yield "GET /.well-known/agent-card.json", Operation("A2A", _OBJECT, errors=(400, 404), query=card)


def _system() -> Iterator[tuple[str, Operation]]:
    tag = "System"
    ok = Operation(tag, answers.Ok, query={"check_db": _BOOLEAN})
    form = {"format": {"enum": ["prometheus", "json"], "default": "prometheus"}}
    yield "GET /", ok
    yield "GET /ok", ok
    yield "GET /info", Operation(tag, _OBJECT, errors=())
    yield "GET /health", Operation(tag, answers.Health, errors=())
    yield "GET /metrics", Operation(tag, _TEXT, media="text/plain", or_as={"application/json": _OBJECT}, query=form)
    yield "GET /openapi.json", Operation(tag, _OBJECT, errors=())
    yield "GET /docs", Operation(tag, _TEXT, media="text/html", errors=())


def operations() -> dict[str, Operation]:
    """ "METHOD /path" -> what it takes and answers."""
    known = dict(_assistants())
    known.update(_threads())
    known.update(_runs("/threads/{thread_id}/runs", stateless=False))
    known.update(_runs("/runs", stateless=True))
    tag = "Stateless runs"
    known["POST /runs/batch"] = Operation(tag, _list(_OBJECT), models.RunBatch, errors=(400, 404, 409, 422))
    known["POST /runs/cancel"] = Operation(
        tag, None, models.RunsCancel, status=204, errors=(404, 422), query={"action": _ACTION}
    )
    known.update(_store())
    known.update(_crons())
    known.update(_workers())
    known.update(_agents())
    known.update(_system())
    return known


def document(deps: Deps) -> Json:
    """The OpenAPI document of everything that the modules of duragraph.api route."""
    known = operations()
    models_used = _models_of(known.values())
    paths: Json = {}
    for method, path, about in routed(deps):
        operation = known.get(f"{method.upper()} {path}", Operation("Other", _ANY))
        paths.setdefault(path, {})[method] = _describe(method, path, about, operation)
    _, definitions = models_json_schema(
        [(model, "validation") for model in models_used], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DuraGraph",
            "version": __version__,
            "description": "Durable execution of agent graphs on PostgreSQL. Every path is also under /api/v1.",
        },
        "servers": [{"url": "/"}, {"url": "/api/v1"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": definitions["$defs"]},
    }


def routed(deps: Deps) -> Iterator[tuple[str, str, str]]:
    """(method, path, docstring of its responder) of everything that is routed."""
    for found in pkgutil.iter_modules(api.__path__):
        routes = getattr(import_module(f"duragraph.api.{found.name}"), "routes", None)
        # What takes more than deps is a part of another module, which routes it.
        if routes is None or len(inspect.signature(routes).parameters) != 1:
            continue
        for path, resource, suffix in routes(deps):
            for method in METHODS:
                responder = getattr(resource, f"on_{method}_{suffix}" if suffix else f"on_{method}", None)
                if responder is not None:
                    yield method, path, inspect.getdoc(responder) or ""


def _describe(method: str, path: str, about: str, operation: Operation) -> Json:
    described: Json = {
        "tags": [operation.tag],
        "summary": about.partition("\n")[0].rstrip("."),
        "operationId": re.sub(r"\W+", "_", f"{method}{path}").strip("_"),
        "parameters": [*_path_parameters(path, operation), *_other_parameters(operation)],
        "responses": _responses(operation),
    }
    if operation.body is not None:
        needed = any(field.is_required() for field in operation.body.model_fields.values())
        described["requestBody"] = {
            "required": needed,
            "content": {"application/json": {"schema": _schema(operation.body)}},
        }
    return described


def _path_parameters(path: str, operation: Operation) -> Iterator[Json]:
    for name in re.findall(r"\{(\w+)\}", path):
        schema = _TEXT if name in _NAMES or operation.lenient_path else _UUID
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _other_parameters(operation: Operation) -> Iterator[Json]:
    for name, schema in (operation.query or {}).items():
        yield {"name": name, "in": "query", "required": False, "schema": schema}
    for name in operation.headers:
        yield {"name": name, "in": "header", "required": False, "schema": _TEXT}


def _responses(operation: Operation) -> Json:
    responses: Json = {str(operation.status): _answer(operation)}
    for status in operation.also:
        responses[str(status)] = _answer(operation, _ANY) if status == 200 else {"description": "Done."}
    limits = (413, 422) if operation.body is not None else ()
    for status in sorted({*operation.errors, *limits, 500, 503}):
        told_as = operation.told_as if status in operation.errors else answers.Error
        responses[str(status)] = {
            "description": _REASONS[status],
            "content": {"application/json": {"schema": _schema(told_as)}},
        }
    if operation.answer in (answers.Ok, answers.Health):
        responses["503"] = {
            "description": "It does not work.",
            "content": {"application/json": {"schema": _schema(operation.answer)}},
        }
    return responses


def _answer(operation: Operation, schema: Schema | None = None) -> Json:
    schema = operation.answer if schema is None else schema
    if schema is None:
        return {"description": "Done."}
    forms = {operation.media: schema, **(operation.or_as or {})}
    return {"description": "Done.", "content": {media: {"schema": _schema(form)} for media, form in forms.items()}}


def _schema(schema: Schema) -> Json:
    """A reference to a model; in other schemas the models they hold are replaced by references."""
    if isinstance(schema, type):
        return {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {key: _inner(value) for key, value in schema.items()}


def _inner(value: Any) -> Any:
    if isinstance(value, list):
        return [_inner(one) for one in value]
    return _schema(value) if isinstance(value, type | dict) else value


def _models_of(known: Iterable[Operation]) -> list[type[BaseModel]]:
    used: dict[type[BaseModel], None] = {answers.Error: None}
    todo: list[Any] = [
        schema for operation in known for schema in (operation.body, operation.answer, operation.told_as)
    ]
    while todo:
        schema = todo.pop()
        if isinstance(schema, dict | list):
            todo += schema.values() if isinstance(schema, dict) else schema
        elif isinstance(schema, type):
            used[schema] = None
    return list(used)
