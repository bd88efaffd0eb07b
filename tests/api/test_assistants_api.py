"""Assistants over HTTP: statuses, shapes, headers."""

from __future__ import annotations

from uuid import uuid4

import pytest

from duragraph.answers import Assistant, AssistantList, AssistantVersion, Drawing, GraphSchemas
from tests.api.acting import MISSING, Acting


@pytest.fixture
def act(acting: Acting) -> Acting:
    acting.worker()
    return acting


def test_an_assistants_life(act: Acting) -> None:
    made = act.post("/assistants", {"graph_id": act.graph_id, "name": "one", "metadata": {"k": 1}})
    act.shape(Assistant, made)
    path = f"/assistants/{made['assistant_id']}"
    assert act.get(path) == made
    changed = act.call("PATCH", path, {"name": "two", "metadata": {"more": 2}}).json()
    assert (changed["version"], changed["metadata"]) == (2, {"k": 1, "more": 2})
    versions = act.shapes(AssistantVersion, act.post(f"{path}/versions", {}))
    assert [version.version for version in versions] == [2, 1]
    assert act.get(f"{path}/versions", params={"limit": 1}) == act.post(f"{path}/versions", {"limit": 1})
    assert act.post(f"{path}/latest", {"version": 1})["name"] == "one"
    assert act.post(f"{path}/latest", params={"version": 2})["name"] == "two"
    act.call("DELETE", path, status=204)
    assert act.refused("GET", path, status=404) == ("assistant_not_found", None)
    assert act.refused("DELETE", path, status=404) == ("assistant_not_found", None)


def test_conflicts(act: Acting) -> None:
    wanted = {"graph_id": act.graph_id, "assistant_id": str(uuid4()), "name": "first"}
    made = act.post("/assistants", wanted)
    assert act.refused("POST", "/assistants", wanted, 409) == ("assistant_exists", "assistant_id")
    assert act.post("/assistants", {**wanted, "if_exists": "do_nothing", "name": "second"}) == made
    both = {"graph_id": act.graph_id, "context": {"a": 1}, "config": {"configurable": {"a": 1}}}
    assert act.refused("POST", "/assistants", both, 400) == ("context_and_configurable", "context")
    [system] = act.post("/assistants/search", {"metadata": {"created_by": "system"}, "graph_id": act.graph_id})
    assert act.refused("DELETE", f"/assistants/{system['assistant_id']}", status=409)[0] == "system_assistant"


def test_search_pages_with_headers(act: Acting) -> None:
    tag = uuid4().hex
    for name in ("carol", "alice", "bob"):
        act.post("/assistants", {"graph_id": act.graph_id, "name": name, "metadata": {"tag": tag}})
    search = {"metadata": {"tag": tag}, "sort_by": "name", "sort_order": "asc", "limit": 2}
    response = act.call("POST", "/assistants/search", search)
    assert [one.name for one in act.shapes(Assistant, response.json())] == ["alice", "bob"]
    assert (response.headers["x-pagination-total"], response.headers["x-pagination-next"]) == ("3", "2")
    response = act.call("POST", "/assistants/search", {**search, "offset": 2})
    assert [one["name"] for one in response.json()] == ["carol"]
    assert "x-pagination-next" not in response.headers
    assert act.post("/assistants/count", {"metadata": {"tag": tag}}) == 3
    assert act.post("/assistants/search", {**search, "select": ["name"]})[0] == {"name": "alice"}
    listed = act.shape(AssistantList, act.get("/assistants", params={"limit": 1}))
    assert (len(listed.assistants), listed.total >= 4) == (1, True)


def test_the_graph_and_its_schemas(act: Acting) -> None:
    by_name = act.get(f"/assistants/{act.graph_id}/graph")
    assert {node.id for node in act.shape(Drawing, by_name).nodes} >= {"__start__", "prepare", "__end__"}
    made = act.post("/assistants", {"graph_id": act.graph_id})
    path = f"/assistants/{made['assistant_id']}"
    for xray in ("true", "2"):
        assert act.get(f"{path}/graph", params={"xray": xray}) == by_name
    for xray in ("0", "deep"):
        assert act.refused("GET", f"{path}/graph", params={"xray": xray})[1] == "xray"
    assert act.shape(GraphSchemas, act.get(f"{path}/schemas")).graph_id == act.graph_id
    assert act.get(f"{path}/subgraphs") == act.get(f"{path}/subgraphs/child", params={"recurse": "1"}) == {}
    assert act.refused("GET", "/assistants/no-such-graph/graph") == ("graph_not_found", "assistant_id")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("GET", "/graph", None),
        ("GET", "/schemas", None),
        ("GET", "/subgraphs", None),
        ("POST", "/versions", {}),
        ("POST", "/latest", {"version": 1}),
    ],
)
def test_unknown_assistants(act: Acting, method: str, path: str, body: object) -> None:
    assert act.refused(method, f"/assistants/{MISSING}{path}", body, 404)[0] == "assistant_not_found"
    if path != "/graph":
        assert act.refused(method, f"/assistants/nobody{path}", body) == ("invalid_uuid", "assistant_id")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/assistants", {}, "graph_id"),
        ("/assistants", {"graph_id": 7}, "graph_id"),
        ("/assistants", {"graph_id": "some", "assistant_id": "x"}, "assistant_id"),
        ("/assistants", {"graph_id": "some", "config": []}, "config"),
        ("/assistants", {"graph_id": "some", "config": {"tags": "t"}}, "config.tags"),
        ("/assistants", {"graph_id": "some", "metadata": "m"}, "metadata"),
        ("/assistants", {"graph_id": "some", "metadata": {"a": {"b": "\0"}}}, "metadata.a.b"),
        ("/assistants", {"graph_id": "some", "if_exists": "replace"}, "if_exists"),
        ("/assistants/search", {"limit": 0}, "limit"),
        ("/assistants/search", {"limit": 1001}, "limit"),
        ("/assistants/search", {"offset": -1}, "offset"),
        ("/assistants/search", {"sort_by": "name; drop table"}, "sort_by"),
        ("/assistants/search", {"select": ["password"]}, "select.0"),
        ("/assistants/count", {"name": 1}, "name"),
        ("/assistants/search", [], None),
        (f"/assistants/{MISSING}/latest", {"version": 0}, "version"),
        (f"/assistants/{MISSING}/latest", {}, "version"),
        (f"/assistants/{MISSING}/versions", {"limit": "x"}, "limit"),
    ],
)
def test_bad_bodies_name_the_field(act: Acting, path: str, body: object, field: str | None) -> None:
    assert act.refused("POST", path, body)[1] == field


def test_an_unknown_graph_is_404(act: Acting) -> None:
    for path in ("/assistants", "/assistants/search"):
        assert act.refused("POST", path, {"graph_id": "nope"}, 404) == ("graph_not_found", "graph_id")
