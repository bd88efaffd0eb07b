"""The key-value store: items by namespace and key, found by prefix and filter, gone when their time is over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.sql.acts import finish, silence, weaken
from tests.sql.scene import Scene
from tests.sql.test_races import Race
from tests.sql.test_views import act_as

HOSTILE = [
    "'; drop table duragraph.store_items; --",
    "' or '1'='1",
    '" or ""="',
    "a' || pg_sleep(10) || '",
    "$$; select 1; $$",
    "%",
    "_",
    "%%_\\",
    "*",
    "{a,b}",
    '{"a":1}',
    "null",
    "NULL",
    "$.a ? (@ > 0)",
    "$eq",
    "a\\'b",
    "\x01",
    "\x7f\uffff\U0010ffff",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "\n\t\r",
    "\u202e",
]
"""Texts that mean something to somebody, and nothing to the store."""


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


@pytest.fixture
def race(fresh_db: str, two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> Iterator[Race]:
    race = Race(fresh_db, *two)
    yield race
    race.close()


def put(scene: Scene, namespace: list[str], key: str, value: Any = None, **more: Any) -> None:
    op = {"namespace": namespace, "key": key, "value": {"at": key} if value is None else value, **more}
    assert scene.call("put_item", op) is None


def get(scene: Scene, namespace: list[str], key: str, **more: Any) -> Any:
    return scene.call("get_item", {"namespace": namespace, "key": key, **more})


def value(scene: Scene, namespace: list[str], key: str) -> Any:
    item = get(scene, namespace, key, refresh_ttl=False)
    return item and item["value"]


def keys(scene: Scene, prefix: list[str], **more: Any) -> list[str]:
    return [item["key"] for item in scene.call("search_items", {"namespace_prefix": prefix, **more})]


def namespaces(scene: Scene, **op: Any) -> list[list[str]]:
    found: list[list[str]] = scene.call("list_namespaces", op)
    return found


# One item


def test_an_item_is_given_as_it_was_put(scene: Scene) -> None:
    put(scene, ["users", "ann"], "likes", {"tea": True, "cups": 3, "why": ["warm", None]})
    item = get(scene, ["users", "ann"], "likes")
    at = scene.now.isoformat(timespec="microseconds")
    assert item == {
        "namespace": ["users", "ann"],
        "key": "likes",
        "value": {"tea": True, "cups": 3, "why": ["warm", None]},
        "created_at": at,
        "updated_at": at,
    }


def test_a_second_put_replaces_the_value_and_keeps_the_day_of_birth(scene: Scene) -> None:
    put(scene, ["a"], "k", {"x": 1, "y": 1})
    first = get(scene, ["a"], "k")
    scene.wait(60)
    put(scene, ["a"], "k", {"x": 2})
    second = get(scene, ["a"], "k")
    assert second["value"] == {"x": 2}
    assert second["created_at"] == first["created_at"]
    assert second["updated_at"] > first["updated_at"]


def test_what_is_deleted_or_put_as_null_is_gone(scene: Scene) -> None:
    for n, delete in enumerate(["delete_item", "put_item"]):
        put(scene, ["a"], f"k{n}")
        assert scene.call(delete, {"namespace": ["a"], "key": f"k{n}", "value": None}) is None
        assert get(scene, ["a"], f"k{n}") is None
        assert scene.call(delete, {"namespace": ["a"], "key": f"k{n}", "value": None}) is None
    assert namespaces(scene) == []


def test_the_same_key_in_another_namespace_or_of_another_tenant_is_another_item(scene: Scene) -> None:
    stranger = Scene(scene.connection, tenant=2)
    put(scene, ["a"], "k", {"n": 1})
    put(scene, ["a", "b"], "k", {"n": 2})
    put(stranger, ["a"], "k", {"n": 3})
    assert [value(scene, ["a"], "k"), value(scene, ["a", "b"], "k"), value(stranger, ["a"], "k")] == [
        {"n": 1},
        {"n": 2},
        {"n": 3},
    ]
    stranger.call("delete_item", {"namespace": ["a"], "key": "k"})
    assert keys(scene, []) == ["k", "k"]
    assert namespaces(stranger) == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"namespace": []}, "invalid_namespace"),
    ({"namespace": None}, "invalid_namespace"),
    ({"namespace": "a"}, "invalid_namespace"),
    ({"namespace": {"a": 1}}, "invalid_namespace"),
    ({"namespace": [1]}, "invalid_namespace"),
    ({"namespace": [["a"]]}, "invalid_namespace"),
    ({"namespace": [None]}, "invalid_namespace"),
    ({"namespace": ["a", ""]}, "invalid_namespace"),
    ({"namespace": ["a.b"]}, "invalid_namespace"),
    ({"namespace": ["langgraph", "x"]}, "invalid_namespace"),
    ({"key": ""}, "invalid_key"),
    ({"key": None}, "invalid_key"),
    ({"key": 5}, "invalid_key"),
    ({"key": "k" * 3000}, "name_too_long"),
    ({"namespace": ["n"] * 300}, "name_too_long"),
    ({"value": 5}, "invalid_value"),
    ({"value": []}, "invalid_value"),
    ({"ttl": 0}, "invalid_ttl"),
    ({"ttl": -1}, "invalid_ttl"),
    ({"ttl": "1"}, "invalid_ttl"),
    ({"ttl": 1e300}, "invalid_ttl"),
    ({"ttl_seconds": -5}, "invalid_ttl"),
    ({"index": True}, "invalid_index"),
    ({"index": "title"}, "invalid_index"),
    ({"index": [1]}, "invalid_index"),
    ({"index": ["p" * 401]}, "invalid_index"),
    ({"index": ["p"] * 101}, "invalid_index"),
]


@pytest.mark.parametrize(("wrong", "code"), REFUSED, ids=str)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(scene: Scene, wrong: dict[str, Any], code: str) -> None:
    good = {"namespace": ["a"], "key": "k", "value": {}}
    assert scene.refused("put_item", {**good, **wrong}) == ("DG422", code)
    assert scene.value("select count(*) from duragraph.store_items") == 0


def test_the_longest_names_that_are_taken_can_be_stored(scene: Scene) -> None:
    scene.value("select setseed(0.5)::text")
    noise = scene.value("select string_agg(chr(33 + (random() * 90)::int), '') from generate_series(1, 1992)")
    put(scene, ["n"], noise.replace(".", ":")[:1991])
    put(scene, ["n", noise.replace(".", ":")[:1900]], "k")
    assert len(keys(scene, ["n"])) == 2


def test_a_label_of_the_root_s_name_is_free_below_the_root(scene: Scene) -> None:
    put(scene, ["a", "langgraph"], "k")
    assert value(scene, ["a", "langgraph"], "k") == {"at": "k"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_means_anything_in_a_label_a_key_a_filter_or_an_operator(scene: Scene, text: str) -> None:
    label = text.replace(".", ":")
    put(scene, ["plain"], "k", {"f": "v"})
    put(scene, ["safe", label], text, {text: text})
    assert get(scene, ["safe", label], text)["value"] == {text: text}
    assert keys(scene, ["safe", label]) == [text]
    assert keys(scene, [label]) == []
    assert keys(scene, [], filter={text: text}) == [text]
    assert keys(scene, [], filter={text: {"$eq": text}}) == [text]
    assert keys(scene, [], filter={"f": text}) == []
    assert keys(scene, [], filter={text: {"$gt": ""}}) == [text]
    if text != "$eq":
        if text.startswith("$"):
            assert scene.refused("search_items", {"filter": {"f": {text: 1}}}) == ("DG422", "invalid_filter")
        else:
            assert keys(scene, [], filter={"f": {text: 1}}) == []
    assert scene.refused("store_batch", [{"op": text}]) == ("DG422", "invalid_op")
    assert ["safe", label] in namespaces(scene, prefix=["safe", label])
    assert namespaces(scene, suffix=[label]) == ([["plain"], ["safe", "*"]] if label == "*" else [["safe", label]])
    scene.call("delete_item", {"namespace": ["safe", label], "key": text})
    assert keys(scene, []) == ["k"]


# Search


def test_a_prefix_finds_whole_labels_and_nothing_else(scene: Scene) -> None:
    for namespace in (
        ["a"],
        ["a", "b"],
        ["a", "b", "c"],
        ["a", "bc"],
        ["ab"],
        ["a%"],
        ["a_"],
        ["a\x01"],
        ["A"],
        ["b", "a"],
    ):
        put(scene, namespace, "/".join(namespace))
    assert sorted(keys(scene, ["a"])) == ["a", "a/b", "a/b/c", "a/bc"]
    assert sorted(keys(scene, ["a", "b"])) == ["a/b", "a/b/c"]
    assert keys(scene, ["a%"]) == ["a%"]
    assert keys(scene, ["a_"]) == ["a_"]
    assert keys(scene, ["a", "*"]) == []
    assert len(keys(scene, [])) == 10
    assert len(keys(scene, None)) == 10  # type: ignore[arg-type]  # as a client may send it


def test_the_last_updated_comes_first(scene: Scene) -> None:
    for key in "abc":
        put(scene, ["n"], key)
        scene.wait(1)
    put(scene, ["n"], "a")
    assert keys(scene, ["n"]) == ["a", "c", "b"]


def test_pages_are_disjoint_and_complete(scene: Scene) -> None:
    for n in range(25):
        put(scene, ["n"], str(n))
    assert len(keys(scene, ["n"])) == 10
    pages = [keys(scene, ["n"], limit=10, offset=offset) for offset in (0, 10, 20, 30)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert len({key for page in pages for key in page}) == 25
    assert keys(scene, ["n"], limit=0) == []


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("limit", -1),
        ("limit", 10_001),
        ("limit", 1.5),
        ("limit", "x"),
        ("offset", -1),
        ("offset", 2**31),
        ("offset", []),
    ],
)
def test_a_page_that_is_none_is_refused(scene: Scene, field: str, wrong: Any) -> None:
    for function in ("search_items", "list_namespaces"):
        assert scene.refused(function, {field: wrong}) == ("DG422", "invalid_field")


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcd"),
    ({"n": 1}, "a"),
    ({"n": 1.0}, "a"),
    ({"n": "1"}, "c"),
    ({"n": {"$eq": 1}}, "a"),
    ({"n": {"$ne": 1}}, "bc"),
    ({"n": {"$gt": 1}}, "b"),
    ({"n": {"$gte": 1}}, "ab"),
    ({"n": {"$lt": 2}}, "a"),
    ({"n": {"$lte": 2, "$ne": 1}}, "b"),
    ({"n": {"$gt": "0"}}, "c"),
    ({"n": {"$gt": None}}, ""),
    ({"n": {"$gt": True}}, ""),
    ({"n": {"$gt": [1]}}, ""),
    ({"n": {"$gt": {"x": 1}}}, ""),
    ({"n": None}, ""),
    ({"s": "x", "n": 2}, "b"),
    ({"s": {"$gte": "y"}}, "d"),
    ({"s": {"$lt": "Z"}}, ""),
    ({"o": {"x": 1}}, "ab"),
    ({"o": {"x": 1, "y": 2}}, "a"),
    ({"o": {"$eq": {"x": 1}}}, "b"),
    ({"o": {"x": {"$gt": 0}}}, "ab"),
    ({"o": {}}, "ab"),
    ({"o": {"z": {"$ne": 1}}}, ""),
    ({"l": [1, 2]}, "a"),
    ({"l": [1]}, ""),
    ({"l": {"0": 1}}, ""),
    ({"missing": 1}, ""),
    ({"missing": None}, ""),
    ({"missing": {"$ne": 1}}, ""),
    ({"missing": {"$lt": 1}}, ""),
    ({"empty": None}, "d"),
    ({"empty": {"$ne": 1}}, "d"),
    ({"$or": [{"n": 1}]}, ""),
    ({"o.x": 1}, ""),
]

VALUES: dict[str, dict[str, Any]] = {
    "a": {"n": 1, "s": "x", "o": {"x": 1, "y": 2}, "l": [1, 2]},
    "b": {"n": 2, "s": "x", "o": {"x": 1}},
    "c": {"n": "1"},
    "d": {"s": "y", "empty": None},
}


@pytest.mark.parametrize(("wanted", "found"), FILTERS, ids=str)
def test_a_filter_finds_by_value_and_operator_and_never_what_is_missing(
    scene: Scene, wanted: dict[str, Any], found: str
) -> None:
    for key, stored in VALUES.items():
        put(scene, ["n"], key, stored)
    assert sorted(keys(scene, ["n"], filter=wanted)) == list(found)


@pytest.mark.parametrize(
    "wrong", [[1], "x", 5, {"n": {"$in": [1]}}, {"n": {"$eq": 1, "x": 2}}, {"o": {"x": {"$no": 1}}}]
)
def test_a_filter_that_is_none_is_refused_whatever_is_stored(scene: Scene, wrong: Any) -> None:
    assert scene.refused("search_items", {"filter": wrong}) == ("DG422", "invalid_filter")


# Namespaces


@pytest.fixture
def tree(scene: Scene) -> Scene:
    """Items in five namespaces."""
    for namespace in (["u", "ann", "notes"], ["u", "ann"], ["u", "bob", "notes", "old"], ["u", "bob", "mail"], ["v"]):
        for key in ("1", "2"):
            put(scene, namespace, key)
    return scene


LISTS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["u/ann", "u/ann/notes", "u/bob/mail", "u/bob/notes/old", "v"]),
    ({"prefix": ["u", "ann"]}, ["u/ann", "u/ann/notes"]),
    ({"prefix": ["u", "*", "notes"]}, ["u/ann/notes", "u/bob/notes/old"]),
    ({"prefix": ["*", "bob"]}, ["u/bob/mail", "u/bob/notes/old"]),
    ({"prefix": ["u", "a"]}, []),
    ({"suffix": ["notes"]}, ["u/ann/notes"]),
    ({"suffix": ["notes", "*"]}, ["u/bob/notes/old"]),
    ({"suffix": ["*"], "prefix": ["v"]}, ["v"]),
    ({"suffix": ["*", "*", "*", "*", "*"]}, []),
    ({"max_depth": 1}, ["u", "v"]),
    ({"max_depth": 2}, ["u/ann", "u/bob", "v"]),
    ({"max_depth": 9}, ["u/ann", "u/ann/notes", "u/bob/mail", "u/bob/notes/old", "v"]),
    ({"max_depth": 2, "suffix": ["notes"]}, ["u/ann"]),
    ({"max_depth": 2, "suffix": ["old"]}, ["u/bob"]),
    ({"max_depth": 1, "prefix": ["u", "bob"]}, ["u"]),
    ({"limit": 2}, ["u/ann", "u/ann/notes"]),
    ({"limit": 2, "offset": 3}, ["u/bob/notes/old", "v"]),
    ({"limit": 1, "offset": 1, "max_depth": 2}, ["u/bob"]),
    ({"limit": 0}, []),
]


@pytest.mark.parametrize(("op", "found"), LISTS, ids=str)
def test_namespaces_are_listed_by_prefix_suffix_and_depth(tree: Scene, op: dict[str, Any], found: list[str]) -> None:
    assert ["/".join(namespace) for namespace in namespaces(tree, **op)] == found


def test_a_depth_of_none_is_refused(scene: Scene) -> None:
    assert scene.refused("list_namespaces", {"max_depth": 0}) == ("DG422", "invalid_field")
    assert scene.refused("list_namespaces", {"prefix": ["a.b"]}) == ("DG422", "invalid_namespace")


def test_an_emptied_namespace_is_not_listed(tree: Scene) -> None:
    for key in ("1", "2"):
        tree.call("delete_item", {"namespace": ["v"], "key": key})
    assert namespaces(tree, max_depth=1) == [["u"]]


# Time to live


def test_an_item_whose_time_is_over_is_invisible_at_once(scene: Scene) -> None:
    put(scene, ["a"], "short", ttl=1)
    put(scene, ["b"], "stays")
    scene.wait(59)
    assert value(scene, ["a"], "short") is not None
    scene.wait(1)
    assert value(scene, ["a"], "short") is None
    assert keys(scene, []) == ["stays"]
    assert namespaces(scene) == [["b"]]
    born = scene.now.isoformat(timespec="microseconds")
    put(scene, ["a"], "short")
    assert get(scene, ["a"], "short")["created_at"] == born, "it is a new one"


def test_reading_begins_the_time_anew_unless_it_says_not_to(scene: Scene) -> None:
    def read(how: str, **more: Any) -> bool:
        scene.wait(40)
        return bool(get(scene, ["a"], "k", **more) if how == "get" else keys(scene, ["a"], **more))

    for how in ("get", "search"):
        for refresh in ({}, {"refresh_ttl": None}, {"refresh_ttl": True}):
            put(scene, ["a"], "k", ttl=1)
            assert [read(how, **refresh) for _ in range(4)] == [True] * 4
        put(scene, ["a"], "k", ttl=1)
        assert [read(how, refresh_ttl=False) for _ in range(3)] == [True, False, False]


def test_a_search_refreshes_what_it_shows_only(scene: Scene) -> None:
    put(scene, ["a"], "shown", ttl=1)
    put(scene, ["a"], "passed over", ttl=1)
    scene.wait(40)
    assert keys(scene, ["a"], filter={"at": "shown"}) == ["shown"]
    scene.wait(40)
    assert keys(scene, ["a"]) == ["shown"]


def test_a_put_without_a_time_lets_the_item_stay(scene: Scene) -> None:
    put(scene, ["a"], "k", ttl=1)
    put(scene, ["a"], "k")
    scene.wait(3600)
    assert value(scene, ["a"], "k") is not None


def test_seconds_are_taken_as_the_published_client_sends_them(scene: Scene) -> None:
    put(scene, ["a"], "k", ttl_seconds=90)
    assert scene.value("select ttl from duragraph.store_items") == 1.5


def test_the_sweep_deletes_what_is_over_a_batch_at_a_time(scene: Scene) -> None:
    for n in range(5):
        put(scene, ["a"], str(n), ttl=1)
    put(scene, ["a"], "stays", ttl=5)
    assert scene.bare("sweep_items") == 0
    scene.wait(120)
    assert [scene.bare("sweep_items", 3) for _ in range(3)] == [3, 2, 0]
    assert scene.value("select count(*) from duragraph.store_items") == 1


# Batches


def test_a_batch_does_its_operations_in_order_and_answers_in_order(scene: Scene) -> None:
    at = {"namespace": ["a"], "key": "k"}
    results = scene.call(
        "store_batch",
        [
            {"op": "get", **at},
            {"op": "put", **at, "value": {"n": 1}},
            {"op": "get", **at},
            {"op": "search", "namespace_prefix": ["a"]},
            {"op": "list_namespaces"},
            {"op": "delete", **at},
            {"op": "search"},
            {"op": "list_namespaces"},
        ],
    )
    item = results[2]
    assert item["value"] == {"n": 1}
    assert results == [None, None, item, [{**item, "score": None}], [["a"]], None, [], []]
    assert scene.call("store_batch", []) == []


def test_a_batch_with_one_fault_changes_nothing(scene: Scene) -> None:
    good = {"op": "put", "namespace": ["a"], "key": "k", "value": {}}
    for bad in ({"op": "put", "namespace": []}, {"op": "search", "limit": -1}, {"op": "fly"}, {}, 5, None, "put"):
        assert scene.refused("store_batch", [good, bad])[0] == "DG422"
    assert keys(scene, []) == []


# A run's batches


def claimed(scene: Scene) -> dict[str, Any]:
    key = scene.worker()
    scene.run(None)
    [claim] = scene.claim(key)
    return claim


PUT = {"op": "put", "namespace": ["a"], "key": "k", "value": {"by": "run"}}
GET = {"op": "get", "namespace": ["a"], "key": "k"}


def run_batch(scene: Scene, claim: dict[str, Any], *ops: dict[str, Any], token: int | None = None) -> Any:
    sent = json.dumps(list(ops))
    return scene.bare("run_store_batch", claim["run_id"], token or claim["token"], sent)


def lost(scene: Scene, claim: dict[str, Any], *ops: dict[str, Any], token: int | None = None) -> bool:
    """Whether the batch is refused for its lease."""
    try:
        with scene.connection.transaction():
            run_batch(scene, claim, *ops, token=token)
    except psycopg.Error as error:
        return (error.sqlstate, json.loads(error.diag.message_detail or "{}")["code"]) == ("DG409", "lease_lost")
    return False


def test_a_run_reads_and_writes_the_store_of_its_tenant(scene: Scene) -> None:
    put(scene, ["a"], "k", {"by": "client"})
    put(Scene(scene.connection, tenant=2), ["a"], "k", {"by": "stranger"})
    claim = claimed(scene)
    assert [item and item["value"] for item in run_batch(scene, claim, GET, PUT, GET)] == [
        {"by": "client"},
        None,
        {"by": "run"},
    ]
    assert value(scene, ["a"], "k") == {"by": "run"}
    assert value(Scene(scene.connection, tenant=2), ["a"], "k") == {"by": "stranger"}


@pytest.mark.parametrize("ops", [[PUT], [GET], [GET, PUT]], ids=["write", "read", "both"])
def test_a_lost_lease_neither_reads_nor_writes(scene: Scene, ops: list[dict[str, Any]]) -> None:
    claim = claimed(scene)
    assert lost(scene, claim, *ops, token=claim["token"] + 1)
    silence(scene)
    [again] = scene.claim(scene.worker("other"))
    assert lost(scene, claim, *ops)
    assert value(scene, ["a"], "k") is None
    assert not lost(scene, again, *ops)
    assert finish(scene, again)
    assert lost(scene, again, *ops)


def test_a_worker_s_login_reaches_the_store_through_its_runs_alone(scene: Scene) -> None:
    claim = claimed(scene)
    with scene.connection.transaction(force_rollback=True):
        scene.connection.execute("set local role duragraph_worker")
        [_, item] = run_batch(scene, claim, PUT, GET)
        assert item["value"] == {"by": "run"}
    for statement in (
        "select * from duragraph.store_items",
        "select duragraph.store_batch(1, '[]')",
        "select duragraph.search_items(1, '{}')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            act_as(scene, "duragraph_worker", statement)


def test_a_write_of_a_run_that_is_being_cancelled_waits_and_is_refused(race: Race) -> None:
    run = race.one.run(None)
    [claim] = race.one.claim(race.key)
    _, refused, waited = race.overlap(
        lambda: race.one.call("cancel_runs", {"run_ids": [run]}), lambda: lost(race.other, claim, PUT)
    )
    assert (waited, refused) == (True, True)
    assert value(race.one, ["a"], "k") is None


def test_whoever_takes_the_lease_waits_for_a_write_that_is_under_way(race: Race) -> None:
    run = race.one.run(None)
    [claim] = race.one.claim(race.key)
    _, _, waited = race.overlap(
        lambda: run_batch(race.one, claim, PUT), lambda: race.other.call("cancel_runs", {"run_ids": [run]})
    )
    assert waited
    assert value(race.one, ["a"], "k") == {"by": "run"}


def test_without_its_lock_a_write_outlives_the_lease(race: Race) -> None:
    weaken(race.one.connection, "run_store_batch", "for key share")
    run = race.one.run(None)
    [claim] = race.one.claim(race.key)
    _, _, waited = race.overlap(
        lambda: run_batch(race.one, claim, PUT), lambda: race.other.call("cancel_runs", {"run_ids": [run]})
    )
    assert not waited


def test_the_other_writes_of_a_run_do_not_wait_for_its_store(race: Race) -> None:
    race.one.run(None)
    [claim] = race.one.claim(race.key)
    write = {
        "run_id": claim["run_id"],
        "token": claim["token"],
        "write_no": 1,
        "events": [{"event": "custom", "data": 1}],
    }
    _, answer, waited = race.overlap(
        lambda: run_batch(race.one, claim, PUT), lambda: race.other.bare("append_events", [write])
    )
    assert (waited, answer["refused"]) == (False, [])


# Others at the same time


def test_of_two_puts_at_once_the_last_to_come_stays(race: Race) -> None:
    _, _, waited = race.overlap(
        lambda: put(race.one, ["a"], "k", {"by": 1}), lambda: put(race.other, ["a"], "k", {"by": 2})
    )
    assert waited
    assert value(race.one, ["a"], "k") == {"by": 2}


def batch_of(*names: str) -> list[dict[str, Any]]:
    return [{"op": "put", "namespace": [name], "key": "k", "value": {}} for name in names]


def crossed(race: Race) -> list[Any]:
    """Two batches that put the same items in opposite orders, both under way before either can go on."""
    put(race.one, ["a"], "k")
    put(race.one, ["b"], "k")
    # Each has its first item when they come to the one in the middle, which somebody holds.
    put(race.one, ["m"], "k")
    with race.held("select from duragraph.store_items where namespace = '{m}' for update"):
        calls = [
            race.pool.submit(scene.call, "store_batch", batch_of(*names))
            for scene, names in ((race.one, "amb"), (race.other, "bma"))
        ]
        race.settled(*calls)
    return [call.exception(timeout=10) for call in calls]


def test_batches_with_the_same_items_in_another_order_do_not_lock_each_other_out(race: Race) -> None:
    assert crossed(race) == [None, None]


def test_without_their_order_batches_lock_each_other_out(race: Race) -> None:
    weaken(race.one.connection, "store_batch", "json_array_length(p_ops) > 1", "false")
    assert any(isinstance(problem, psycopg.errors.DeadlockDetected) for problem in crossed(race))


def test_a_read_does_not_wait_for_a_put_to_refresh(race: Race) -> None:
    put(race.one, ["a"], "k", ttl=5)
    for read in (lambda: get(race.other, ["a"], "k"), lambda: keys(race.other, ["a"])):
        _, seen, waited = race.overlap(lambda: put(race.one, ["a"], "k", ttl=5), read)
        assert (bool(seen), waited) == (True, False)


def test_the_sweep_leaves_what_is_put_anew_meanwhile(race: Race) -> None:
    put(race.one, ["a"], "k", ttl=1)
    for scene in (race.one, race.other):
        scene.wait(120)
    _, swept, waited = race.overlap(lambda: put(race.one, ["a"], "k"), lambda: race.other.bare("sweep_items"))
    assert (swept, waited) == (0, False)
    assert value(race.one, ["a"], "k") is not None


# However much is stored


def pages(connection: psycopg.Connection[Any], function: str, op: dict[str, Any]) -> int:
    """Shared pages that a call touches."""
    query = f"explain (analyze, buffers, format json) select duragraph.{function}(1, %s)"
    row = psycopg.ClientCursor(connection).execute(query, (json.dumps(op),)).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    found: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return found


def test_a_call_reads_what_it_asks_for_however_much_is_stored(fresh_db: str) -> None:
    """Plans are made when the store is empty, the worst time there is; then it fills."""
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "get": ("get_item", {"namespace": ["users", "7"], "key": "1"}),
        "put": ("put_item", {"namespace": ["users", "7"], "key": "1", "value": {}, "ttl": 100}),
        "search": ("search_items", {"namespace_prefix": ["users", "7"], "filter": {"n": 1}}),
        "list": ("list_namespaces", {"prefix": ["users"], "limit": 5}),
        "depth": ("list_namespaces", {"max_depth": 1}),
        "delete": ("delete_item", {"namespace": ["users", "7"], "key": "1"}),
    }
    with psycopg.connect(fresh_db, autocommit=True) as connection, psycopg.connect(fresh_db, autocommit=True) as other:
        other.execute("alter table duragraph.store_items set (autovacuum_enabled = off)")
        other.execute("vacuum analyze duragraph.store_items")
        for function, op in [*calls.values()] * 6:
            pages(connection, function, op)
        other.execute(
            "insert into duragraph.store_items (tenant_id, namespace, key, value)"
            " select 1, array['users', (n % 5000)::text], (n / 5000)::text, '{\"n\": 1}'"
            " from generate_series(1, 50000) n"
        )
        # The catalog is read anew at first.
        touched = {name: min(pages(connection, *call) for _ in range(2)) for name, call in calls.items()}
        assert {name: n for name, n in touched.items() if n > 60} == {}
        sweep = "explain (analyze, buffers, format json) select duragraph.sweep_items(100)"
        [(plan,)] = connection.execute(sweep).fetchall()
        assert plan[0]["Plan"]["Shared Hit Blocks"] < 60
