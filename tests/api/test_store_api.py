"""The key-value store over HTTP: for clients, and for the runs of workers."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from duragraph import jobs
from duragraph.answers import FoundItems, Item
from duragraph.store import Store
from tests.api.acting import MISSING, Acting
from tests.api.conftest import Live
from tests.api.scripted import Api, Work
from tests.sql.test_store import HOSTILE


def root() -> str:
    """A label of a test's own."""
    return uuid4().hex[:12]


def put(acting: Acting, namespace: list[str], key: str, value: Any = None, **more: Any) -> None:
    acting.call("PUT", "/store/items", {"namespace": namespace, "key": key, "value": value or {}, **more}, 204)


def get(acting: Acting, namespace: str, key: str, **more: Any) -> Any:
    return acting.get("/store/items", params={"namespace": namespace, "key": key, **more})


def found(acting: Acting, prefix: list[str], **more: Any) -> list[str]:
    body = {"namespace_prefix": prefix, **more}
    return [item.key for item in acting.shape(FoundItems, acting.post("/store/items/search", body)).items]


def test_an_item_lives_from_put_to_delete(acting: Acting) -> None:
    own = root()
    assert get(acting, f"{own}.notes", "k") is None
    put(acting, [own, "notes"], "k", {"text": "hello", "n": 1})
    first = acting.shape(Item, get(acting, f"{own}.notes", "k"))
    assert (first.namespace, first.key, first.value) == ([own, "notes"], "k", {"text": "hello", "n": 1})
    put(acting, [own, "notes"], "k", {"n": 2})
    second = acting.shape(Item, get(acting, f"{own}.notes", "k"))
    assert (second.value, second.created_at) == ({"n": 2}, first.created_at)
    assert second.updated_at > first.updated_at
    for _ in range(2):
        acting.call("DELETE", "/store/items", {"namespace": [own, "notes"], "key": "k"}, 204)
    assert get(acting, f"{own}.notes", "k") is None


def test_a_query_without_an_embedder_is_the_plain_listing(acting: Acting) -> None:
    own = root()
    for key in ("a", "b"):
        put(acting, [own], key, {"text": key}, index=["text"])
    body = {"namespace_prefix": [own], "query": "a", "vector": "nothing of the API's"}
    assert [(one["key"], one["score"]) for one in acting.post("/store/items/search", body)["items"]] == [
        ("b", None),
        ("a", None),
    ]


def test_a_namespace_comes_dotted_or_repeated(acting: Acting) -> None:
    own = root()
    put(acting, [own, "a,b", "c"], "k, v")
    for namespace in (f"{own}.a,b.c", [own, "a,b", "c"], [f"{own}.a,b", "c"]):
        item = acting.get("/store/items", params={"namespace": namespace, "key": "k, v"})
        assert item["namespace"] == [own, "a,b", "c"]


def test_every_path_is_also_under_the_prefix(acting: Acting) -> None:
    own = root()
    put(acting, [own], "k")
    assert acting.get("/api/v1/store/items", params={"namespace": own, "key": "k"})["key"] == "k"
    assert len(acting.post("/api/v1/store/items/search", {"namespace_prefix": [own]})["items"]) == 1
    assert acting.post("/api/v1/store/namespaces", {"prefix": [own]}) == {"namespaces": [[own]]}


def test_a_key_is_required(acting: Acting) -> None:
    for query in ("", "?namespace=a", "?namespace=a&key="):
        refused = acting.call("GET", f"/store/items{query}", None, 400).json()
        assert (refused["error"], refused["detail"]) == ("Key is required", "Key is required")
        assert (refused["code"], refused["field"]) == ("invalid_parameter", "key")


def test_search_finds_by_prefix_filter_and_page(acting: Acting) -> None:
    own = root()
    for n in range(4):
        put(acting, [own, "even" if n % 2 == 0 else "odd"], str(n), {"n": n, "even": n % 2 == 0})
    assert found(acting, [own]) == ["3", "2", "1", "0"]
    assert found(acting, [own, "odd"]) == ["3", "1"]
    assert found(acting, [own], filter={"even": True, "n": {"$gt": 0}}) == ["2"]
    assert found(acting, [own], filter={"missing": {"$gt": 0}}) == []
    assert found(acting, [own], limit=2, offset=1, query="anything", filter=None) == ["2", "1"]
    assert found(acting, [own[:-1]]) == []
    [item] = acting.post("/store/items/search", {"namespace_prefix": [own], "limit": 1})["items"]
    assert item["score"] is None
    assert {"items"} == set(acting.post("/store/items/search", {}))


def test_namespaces_are_listed_and_emptied_ones_are_not(acting: Acting) -> None:
    own = root()
    for path in (["a"], ["a", "x"], ["b", "x"]):
        put(acting, [own, *path], "k")

    def listed(**body: Any) -> Any:
        return acting.post("/store/namespaces", {"prefix": [own], **body})["namespaces"]

    assert listed() == [[own, "a"], [own, "a", "x"], [own, "b", "x"]]
    assert listed(max_depth=2) == [[own, "a"], [own, "b"]]
    assert listed(suffix=["x"]) == [[own, "a", "x"], [own, "b", "x"]]
    assert listed(prefix=["*", "a"], suffix=["x"], limit=1000).count([own, "a", "x"]) == 1
    assert listed(limit=1, offset=1) == [[own, "a", "x"]]
    acting.call("DELETE", "/store/items", {"namespace": [own, "a", "x"], "key": "k"}, 204)
    assert listed() == [[own, "a"], [own, "b", "x"]]


def test_index_and_times_are_taken(acting: Acting) -> None:
    own = root()
    for n, index in enumerate((False, None, ["text"])):
        put(acting, [own], str(n), {"text": "t"}, index=index, ttl=1.5)
    put(acting, [own], "seconds", ttl_seconds=90)
    assert len(found(acting, [own], refresh_ttl=False)) == 4
    assert get(acting, own, "seconds", refresh_ttl="false")["key"] == "seconds"


async def test_the_sweep_of_each_minute_deletes_what_is_over(live: Live, acting: Acting) -> None:
    own = root()
    put(acting, [own], "short", ttl=1)
    put(acting, [own], "long", ttl=1000)
    with psycopg.connect(live.dsn, autocommit=True) as connection:
        over = "update duragraph.store_items set expires_at = now() where namespace = %s and key = 'short'"
        connection.execute(over, ([own],))
        assert found(acting, [own]) == ["long"]
        store = Store.of(live.deps.settings)
        await store.open()
        try:
            await jobs.sweep_items(store)
        finally:
            await store.close()
        kept = connection.execute("select key from duragraph.store_items where namespace = %s", ([own],)).fetchall()
    assert kept == [("long",)]


PLACE = {"namespace": ["a"], "key": "k"}
BAD: list[tuple[str, str, Any, str, str | None]] = [
    ("PUT", "items", {**PLACE}, "invalid_field", "value"),
    ("PUT", "items", {"namespace": ["a"], "value": {}}, "invalid_field", "key"),
    ("PUT", "items", {"key": "k", "value": {}}, "invalid_field", "namespace"),
    ("PUT", "items", {**PLACE, "value": 5}, "invalid_field", "value"),
    ("PUT", "items", {**PLACE, "value": None}, "invalid_field", "value"),
    ("PUT", "items", {**PLACE, "value": []}, "invalid_field", "value"),
    ("PUT", "items", {**PLACE, "value": {"a": "\x00"}}, "invalid_text", "value.a"),
    ("PUT", "items", {**PLACE, "value": {"a": "\ud800"}}, "invalid_text", "value.a"),
    ("PUT", "items", {**PLACE, "value": {}, "key": ""}, "invalid_field", "key"),
    ("PUT", "items", {**PLACE, "value": {}, "key": "\x00"}, "invalid_text", "key"),
    ("PUT", "items", {**PLACE, "value": {}, "key": "x" * 5000}, "name_too_long", "key"),
    ("PUT", "items", {**PLACE, "value": {}, "namespace": []}, "invalid_namespace", "namespace"),
    ("PUT", "items", {**PLACE, "value": {}, "namespace": ["a.b"]}, "invalid_namespace", "namespace"),
    ("PUT", "items", {**PLACE, "value": {}, "namespace": [""]}, "invalid_namespace", "namespace"),
    ("PUT", "items", {**PLACE, "value": {}, "namespace": ["langgraph"]}, "invalid_namespace", "namespace"),
    ("PUT", "items", {**PLACE, "value": {}, "namespace": "a"}, "invalid_field", "namespace"),
    ("PUT", "items", {**PLACE, "value": {}, "namespace": [1]}, "invalid_field", "namespace.0"),
    ("PUT", "items", {**PLACE, "value": {}, "ttl": -1}, "invalid_ttl", "ttl"),
    ("PUT", "items", {**PLACE, "value": {}, "ttl": "1"}, "invalid_field", "ttl"),
    ("PUT", "items", {**PLACE, "value": {}, "index": True}, "invalid_field", "index"),
    ("DELETE", "items", {"namespace": ["a"]}, "invalid_field", "key"),
    ("DELETE", "items", {"key": "k"}, "invalid_namespace", "namespace"),
    ("DELETE", "items", {"namespace": ["a.b"], "key": "k"}, "invalid_namespace", "namespace"),
    ("POST", "items/search", {"namespace_prefix": ["a.b"]}, "invalid_namespace", "namespace_prefix"),
    ("POST", "items/search", {"namespace_prefix": "a"}, "invalid_field", "namespace_prefix"),
    ("POST", "items/search", {"filter": [1]}, "invalid_field", "filter"),
    ("POST", "items/search", {"filter": {"a": {"$where": "1"}}}, "invalid_filter", "filter"),
    ("POST", "items/search", {"limit": 0}, "invalid_field", "limit"),
    ("POST", "items/search", {"limit": 1001}, "invalid_field", "limit"),
    ("POST", "items/search", {"offset": -1}, "invalid_field", "offset"),
    ("POST", "items/search", {"query": 1}, "invalid_field", "query"),
    ("POST", "namespaces", {"prefix": ["a", ""]}, "invalid_namespace", "prefix"),
    ("POST", "namespaces", {"suffix": ["a.b"]}, "invalid_namespace", "suffix"),
    ("POST", "namespaces", {"max_depth": 0}, "invalid_field", "max_depth"),
    ("POST", "namespaces", {"limit": 1001}, "invalid_field", "limit"),
]


@pytest.mark.parametrize(("method", "path", "body", "code", "field"), BAD, ids=str)
def test_what_makes_no_sense_is_refused_by_its_place(
    acting: Acting, method: str, path: str, body: Any, code: str, field: str | None
) -> None:
    # As bytes, for httpx itself refuses a lone surrogate.
    assert acting.refused(method, f"/store/{path}", content=json.dumps(body).encode()) == (code, field)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_means_anything(acting: Acting, text: str) -> None:
    own, label = root(), text.replace(".", ":")
    put(acting, [own, label], text, {text: text})
    put(acting, [own, "other"], "k", {"f": "v"})
    assert acting.get("/store/items", params={"namespace": [own, label], "key": text})["value"] == {text: text}
    assert found(acting, [own, label]) == [text]
    assert found(acting, [own], filter={text: text}) == [text]
    assert found(acting, [own], filter={"f": text}) == []
    assert found(acting, [label]) == []
    assert [own, label] in acting.post("/store/namespaces", {"prefix": [own, label]})["namespaces"]
    acting.call("DELETE", "/store/items", {"namespace": [own, label], "key": text}, 204)
    assert found(acting, [own]) == ["k"]


def test_a_query_that_makes_no_sense_is_refused_by_its_place(acting: Acting) -> None:
    for query, field in (
        ("key=k", "namespace"),
        ("key=k&namespace=", "namespace"),
        ("key=k&namespace=a..b", "namespace"),
        ("key=k&namespace=a&refresh_ttl=maybe", "refresh_ttl"),
        ("key=%00&namespace=a", "key"),
        ("key=k&namespace=%00", "namespace.0"),
    ):
        assert acting.refused("GET", f"/store/items?{query}")[1] == field, query


def test_numbers_come_back_as_they_were_and_those_nobody_can_read_are_refused(acting: Acting) -> None:
    own = root()
    value = {"big": 2**63 - 1, "small": -(2**63), "float": 1.1, "exp": 1e-7, "deep": [[[{}]]], "": "empty name"}
    put(acting, [own], "k", value)
    assert get(acting, own, "k")["value"] == value
    for number in (b"1e400", b"NaN"):
        body = b'{"namespace": ["%b"], "key": "n", "value": {"n": %b}}' % (own.encode(), number)
        assert acting.refused("PUT", "/store/items", content=body)[0] in ("invalid_value", "invalid_json")
    assert get(acting, own, "n") is None


def test_the_published_client_can_read_every_answer(live: Live) -> None:
    """It sends a type with everything, uses the prefix, and parses each answer as JSON."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=live.url, headers=headers) as published, httpx.Client(base_url=live.url) as plain:
        body = {"namespace": [root()], "key": "k", "value": {}}
        for method in ("PUT", "DELETE"):
            answer = published.request(method, "/api/v1/store/items", json=body)
            assert (answer.status_code, answer.json()) == (200, {})
            assert plain.request(method, "/store/items", json=body).status_code == 204


# Runs


async def claimed(api: Api) -> Work:
    worker = await api.worker()
    await api.run(await api.thread())
    return await worker.claim()


def sent(work: Work, *ops: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"run_id": work.run_id, "token": work.claim["token"], "ops": list(ops), **more}


async def test_a_run_shares_the_store_with_clients(api: Api) -> None:
    own = root()
    work = await claimed(api)
    path = f"{work.worker.path}/store"
    at = {"namespace": [own], "key": "k"}
    answer = await api.call(
        "POST",
        path,
        sent(
            work,
            {"op": "put", **at, "value": {"n": 1}},
            {"op": "get", **at},
            {"op": "search", "namespace_prefix": [own]},
            {"op": "list_namespaces", "prefix": [own]},
        ),
    )
    item = await api.call("GET", f"/store/items?namespace={own}&key=k")
    assert answer == {"results": [None, item, [{**item, "score": None}], [[own]]]}
    assert await api.call("POST", path, sent(work, {"op": "delete", **at})) == {"results": [None]}
    assert await api.call("GET", f"/store/items?namespace={own}&key=k") is None
    assert await api.call("POST", path, sent(work)) == {"results": []}


async def test_a_run_that_was_lost_can_neither_read_nor_write(api: Api) -> None:
    own = root()
    work = await claimed(api)
    path = f"{work.worker.path}/store"
    await api.call("POST", f"/runs/{work.run_id}/cancel?wait=true")
    at = {"namespace": [own], "key": "k"}
    for op in ({"op": "put", **at, "value": {}}, {"op": "get", **at}, {"op": "search"}):
        assert await api.refused("POST", path, sent(work, op), 409) == ("lease_lost", "token")
    assert await api.call("GET", f"/store/items?namespace={own}&key=k") is None


async def test_a_run_s_bad_operations_change_nothing(api: Api) -> None:
    own = root()
    work = await claimed(api)
    path = f"{work.worker.path}/store"
    good = {"op": "put", "namespace": [own], "key": "k", "value": {}}
    for bad, place in (
        ({"op": "fly"}, ("invalid_op", "op")),
        ({}, ("invalid_op", "op")),
        ({"op": "put", "namespace": []}, ("invalid_namespace", "namespace")),
        ({"op": "put", "namespace": [own], "key": "k", "value": {"\x00": 1}}, ("invalid_text", "ops.1.value.<key>")),
        (5, ("invalid_field", "ops.1")),
    ):
        assert await api.refused("POST", path, sent(work, good, bad)) == place  # type: ignore[arg-type]  # on purpose
    assert await api.refused("POST", path, sent(work, run_id="x")) == ("invalid_field", "run_id")
    assert await api.refused("POST", path, sent(work, ops=[good] * 1001)) == ("invalid_field", "ops")
    assert await api.refused("POST", path, {"run_id": MISSING, "token": 1, "ops": [good]}, 409) == (
        "lease_lost",
        "token",
    )
    unknown = await api.refused("POST", "/workers/nobody/store", sent(work, good), 404)
    assert unknown[0] == "worker_not_found"
    assert await api.call("GET", f"/store/items?namespace={own}&key=k") is None
