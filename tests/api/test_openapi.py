"""The document says what is routed, no more and no less."""

from __future__ import annotations

from typing import Any

import falcon.inspect
import pytest

from duragraph.app import PREFIXES, create_app
from duragraph.config import Settings
from duragraph.openapi import METHODS, document, operations

Doc = dict[str, Any]


@pytest.fixture(scope="module")
def app() -> Any:
    # Nothing is connected to before the application is started.
    return create_app(Settings(database_url="postgresql://nobody@localhost/nothing"))


@pytest.fixture(scope="module")
def doc(app: Any) -> Doc:
    return document(app.deps)


def described(doc: Doc) -> set[str]:
    return {f"{method.upper()} {path}" for path, methods in doc["paths"].items() for method in methods}


def test_the_router_and_the_document_are_equal(app: Any, doc: Doc) -> None:
    routed = {
        f"{method.method} {route.path}"
        for route in falcon.inspect.inspect_routes(app.falcon)
        for method in route.methods
        if not method.internal and method.method.lower() in METHODS
    }
    at_the_root = {one for one in routed if " /api/v1" not in one}
    assert described(doc) == at_the_root
    under_prefix = {f"{method} {PREFIXES[1]}{path}" for method, path in (one.split(" ") for one in at_the_root)}
    assert {one.replace("/api/v1/", "/api/v1") if one.endswith("/api/v1/") else one for one in under_prefix} == (
        routed - at_the_root
    )


def test_every_operation_is_described(doc: Doc) -> None:
    assert described(doc) == set(operations())
    for path, methods in doc["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert {"500", "503"} <= set(operation["responses"]), where
            if "requestBody" in operation:
                assert {"413", "422"} <= set(operation["responses"]), where
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, where


def test_operation_ids_are_unique(doc: Doc) -> None:
    ids = [operation["operationId"] for methods in doc["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def test_every_reference_is_there(doc: Doc) -> None:
    known = {f"#/components/schemas/{name}" for name in doc["components"]["schemas"]}
    assert references(doc) <= known
    assert known <= references(doc)


def test_what_is_spoken_in_json_rpc_is_described_as_that(doc: Doc) -> None:
    answer = {"schema": {"$ref": "#/components/schemas/RpcAnswer"}}
    mcp = doc["paths"]["/mcp"]["post"]["responses"]
    assert mcp["200"]["content"] == mcp["400"]["content"] == {"application/json": answer}
    assert "content" not in mcp["202"]
    assert mcp["413"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
    refused = doc["paths"]["/threads/{thread_id}/commands"]["post"]["responses"]["400"]["content"]["application/json"]
    assert {"$ref": "#/components/schemas/CommandRefused"} in refused["schema"]["anyOf"]
    a2a = doc["paths"]["/a2a/{assistant_id}"]["post"]["responses"]
    assert a2a["200"]["content"] == {"application/json": answer, "text/event-stream": {"schema": {"type": "string"}}}


def test_the_document_is_served(acting: Any, doc: Doc) -> None:
    assert acting.get("/openapi.json") == doc
