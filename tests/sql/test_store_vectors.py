"""Searching the store by meaning: what the embedder is given, whose vectors stay, and what is found first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.sql.acts import finish, places, silence, weaken
from tests.sql.scene import Scene
from tests.sql.test_races import Race
from tests.sql.test_store import get, put

EMBEDDER = {"graph_id": "__embed__", "definition": {"dims": 2, "fields": ["$"]}}
EAST, NORTH, WEST = [1, 0], [0, 1], [-1, 0]


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


def offer(scene: Scene, worker: str = "w") -> int:
    """A worker with an embedder."""
    key: int = scene.call("register_worker", {"worker_id": worker, "graphs": [EMBEDDER]})["worker_key"]
    return key


def batch(scene: Scene, *ops: dict[str, Any]) -> list[Any]:
    results: list[Any] = scene.call("store_batch", json.dumps(ops))
    return results


def put_op(key: str, **more: Any) -> dict[str, Any]:
    return {"op": "put", "namespace": ["a"], "key": key, "value": {"at": key}, **more}


def index(scene: Scene, key: str, vector: Any, at: str | None = None, path: str = "$") -> bool:
    """Write an item's vector, made of the value it had at `at` (now)."""
    at = at or get(scene, ["a"], key)["updated_at"]
    [done] = batch(
        scene,
        {
            "op": "index",
            "namespace": ["a"],
            "key": key,
            "updated_at": at,
            "vectors": [{"path": path, "vector": vector}],
        },
    )
    return bool(done)


def vectors(scene: Scene) -> dict[str, list[float]]:
    return {row["key"]: row["vector"] for row in scene.rows("select key, vector from duragraph.store_vectors")}


def asked(scene: Scene) -> list[dict[str, Any]]:
    """What the embedder's waiting runs are asked."""
    rows = scene.rows(
        "select r.kwargs -> 'input' as input from duragraph.ready q join duragraph.runs r using (shard, run_id) "
        "where r.metadata ->> 'graph_id' = '__embed__' order by q.ord"
    )
    return [row["input"] for row in rows]


def queued(scene: Scene) -> list[str]:
    """The keys that the embedder is to index."""
    return [item["key"] for one in asked(scene) for item in one.get("items", [])]


def found(scene: Scene, vector: Any, **more: Any) -> list[tuple[str, float | None]]:
    items = scene.call("search_items", {"namespace_prefix": ["a"], "vector": vector, **more})
    return [(item["key"], item["score"]) for item in items]


@pytest.fixture
def pgvector(scene: Scene) -> bool:
    """Whether the database ranks: pgvector is installed wherever the server has it."""
    there: bool = scene.value("select exists (select from pg_available_extensions where name = 'vector')")
    if there:
        scene.connection.execute("create schema elsewhere")
        scene.connection.execute("create extension vector schema elsewhere")
    return there


# What is to be indexed


def test_without_an_embedder_a_put_makes_no_run(scene: Scene) -> None:
    batch(scene, put_op("k"))
    assert scene.value("select count(*) from duragraph.runs") == 0


def test_what_a_batch_puts_is_indexed_by_one_run(scene: Scene) -> None:
    offer(scene)
    batch(
        scene,
        put_op("plain"),
        put_op("paths", index=["at", "more[*].text"]),
        put_op("never", index=False),
        put_op("gone"),
        {"op": "delete", "namespace": ["a"], "key": "gone"},
        put_op("twice", index=False),
        put_op("twice"),
    )
    [run] = asked(scene)
    at = get(scene, ["a"], "plain")["updated_at"]
    items = {item.pop("key"): item for item in run["items"]}
    assert items["plain"] == {"namespace": ["a"], "updated_at": at}
    assert items["paths"] == {"namespace": ["a"], "updated_at": at, "fields": ["at", "more[*].text"]}
    assert items["twice"]["updated_at"] == get(scene, ["a"], "twice")["updated_at"] > at, "the later of the two"
    assert sorted(items) == ["paths", "plain", "twice"]


def test_what_is_not_put_is_not_indexed(scene: Scene) -> None:
    offer(scene)
    batch(scene, {"op": "get", "namespace": ["a"], "key": "k"}, put_op("k", value=None), put_op("l", index=False))
    assert asked(scene) == []


def test_the_embedder_of_another_tenant_is_not_asked(scene: Scene) -> None:
    offer(Scene(scene.connection, tenant=2))
    batch(scene, put_op("k"))
    assert asked(scene) == []


def test_a_gap_between_embedders_loses_nothing_and_a_day_without_one_queues_no_more(scene: Scene) -> None:
    offer(scene)
    scene.call("deregister_worker", "w")
    batch(scene, put_op("in-the-gap"))
    scene.wait(86500)
    batch(scene, put_op("later"))
    assert queued(scene) == ["in-the-gap"]
    offer(scene, "new")
    assert scene.call("reindex_items") == 2
    assert sorted(queued(scene)) == ["in-the-gap", "in-the-gap", "later"]


@pytest.mark.parametrize("index", [True, 5, "at", [1], ["p" * 500], ["p"] * 200, {}])
def test_an_index_that_is_none_is_refused(scene: Scene, index: Any) -> None:
    with pytest.raises(psycopg.Error, match="index must be false") as refused:
        batch(scene, put_op("k", index=index))
    assert refused.value.sqlstate == "DG422"
    assert '"field":"index"' in (refused.value.diag.message_detail or "")


def test_items_that_were_there_first_are_indexed_when_it_is_asked_for(scene: Scene) -> None:
    for key in ("a", "b", "c"):
        batch(scene, put_op(key))
    batch(scene, put_op("never", index=False))
    with pytest.raises(psycopg.Error, match="no embedder"), scene.connection.transaction():
        scene.call("reindex_items")
    offer(scene)
    index(scene, "a", EAST)
    index(scene, "b", [1, 2, 3])
    assert scene.call("reindex_items") == 2
    assert sorted(queued(scene)) == ["b", "c"]


def test_the_longest_names_have_vectors_too(scene: Scene) -> None:
    noise = scene.value("select string_agg(chr(33 + (random() * 90)::int), '') from generate_series(1, 2500)")
    noise = noise.replace(".", ":")
    op = {"namespace": ["n"], "key": noise[:1991]}
    put(scene, ["n"], op["key"])
    at = get(scene, ["n"], op["key"])["updated_at"]
    longest = [{"path": noise[-500:], "vector": EAST}]
    assert batch(scene, {"op": "index", **op, "updated_at": at, "vectors": longest}) == [True]


# Whose vectors stay


def test_vectors_are_kept_at_length_one(scene: Scene) -> None:
    put(scene, ["a"], "k")
    for given in ([3, 4], [3e200, 4e200], [3e-100, 4e-100]):
        assert index(scene, "k", given)
        assert vectors(scene) == {"k": pytest.approx([0.6, 0.8])}
    assert index(scene, "k", [1, 1e-60])
    assert vectors(scene) == {"k": [1, 0]}


def test_vectors_go_with_the_value_they_were_made_of(scene: Scene) -> None:
    ways: list[dict[str, Any]] = [
        {"op": "delete", "namespace": ["a"], "key": "k"},
        put_op("k", value=None),
        put_op("k"),
        put_op("k", index=False),
    ]
    for way in ways:
        put(scene, ["a"], "k")
        index(scene, "k", EAST)
        assert vectors(scene)
        batch(scene, way)
        assert vectors(scene) == {}, way


def test_what_expires_takes_its_vectors_along(scene: Scene) -> None:
    put(scene, ["a"], "short", ttl=1)
    put(scene, ["a"], "long")
    index(scene, "short", EAST)
    index(scene, "long", EAST)
    scene.wait(61)
    assert scene.bare("sweep_items") == 1
    assert list(vectors(scene)) == ["long"]


def test_vectors_of_an_earlier_value_are_not_taken(scene: Scene) -> None:
    put(scene, ["a"], "k")
    before = get(scene, ["a"], "k")["updated_at"]
    put(scene, ["a"], "k", {"new": True})
    assert not index(scene, "k", EAST, at=before), "put at the same time, and yet another value"
    assert vectors(scene) == {}
    assert index(scene, "k", NORTH)
    batch(scene, {"op": "delete", "namespace": ["a"], "key": "k"})
    assert not index(scene, "k", EAST, at=before)


@pytest.mark.parametrize("vector", [None, 5, [], ["1"], [[1]], [0, 0], [1] * 16001, [1e-300]])
def test_a_vector_that_is_none_is_refused(scene: Scene, vector: Any) -> None:
    put(scene, ["a"], "k")
    with pytest.raises(psycopg.Error, match="vector must") as refused:
        index(scene, "k", vector)
    assert refused.value.sqlstate == "DG422"


@pytest.mark.parametrize("given", [None, {}, [1], [{"vector": [1]}], [{"path": 1, "vector": [1]}]])
def test_vectors_that_are_no_list_of_paths_are_refused(scene: Scene, given: Any) -> None:
    op = {"op": "index", "namespace": ["a"], "key": "k", "updated_at": "2030-01-01", "vectors": given}
    with pytest.raises(psycopg.Error, match="vectors must") as refused:
        batch(scene, op)
    assert refused.value.sqlstate == "DG422"


CHANGES: list[dict[str, Any]] = [put_op("k", value={"new": True}), {"op": "delete", "namespace": ["a"], "key": "k"}]


@pytest.mark.parametrize("change", CHANGES, ids=["put", "delete"])
def test_a_change_while_the_old_value_is_indexed_leaves_none_of_its_vectors(race: Race, change: dict[str, Any]) -> None:
    put(race.one, ["a"], "k")
    done, _, waited = race.overlap(lambda: index(race.one, "k", EAST), lambda: batch(race.other, change))
    assert (done, waited) == (True, True)
    assert vectors(race.one) == {}


@pytest.mark.parametrize("change", CHANGES, ids=["put", "delete"])
def test_vectors_that_come_while_an_item_changes_are_not_taken(race: Race, change: dict[str, Any]) -> None:
    put(race.one, ["a"], "k")
    at = get(race.one, ["a"], "k")["updated_at"]
    _, done, waited = race.overlap(lambda: batch(race.one, change), lambda: index(race.other, "k", EAST, at=at))
    assert (done, waited) == (False, True)
    assert vectors(race.one) == {}


def test_without_the_lock_on_the_item_old_vectors_would_stay(race: Race) -> None:
    weaken(race.one.connection, "index_item", "for share", "")
    put(race.one, ["a"], "k")
    at = get(race.one, ["a"], "k")["updated_at"]
    race.overlap(lambda: batch(race.one, CHANGES[0]), lambda: index(race.other, "k", EAST, at=at))
    assert vectors(race.one) == {"k": [1, 0]}


@pytest.mark.parametrize("guarded", [True, False])
def test_batches_that_put_and_index_in_another_order_do_not_lock_each_other_out(race: Race, guarded: bool) -> None:
    if not guarded:
        weaken(race.one.connection, "store_batch", "'delete', 'index'", "'delete'")
    for key in ("first", "held", "last"):
        put(race.one, ["a"], key)
    at = {key: get(race.one, ["a"], key)["updated_at"] for key in ("first", "last")}
    ops = [
        {"op": "index", "namespace": ["a"], "key": key, "updated_at": at[key], "vectors": []}
        for key in ("last", "first")
    ]
    with race.held("select from duragraph.store_items where key = 'held' for update"):
        putting = race.pool.submit(batch, race.one, put_op("first"), put_op("held"), put_op("last"))
        race.settled(putting)
        indexing = race.pool.submit(batch, race.other, *ops)
        race.settled(putting, indexing)
    problems = [problem for call in (putting, indexing) if (problem := call.exception(timeout=10)) is not None]
    assert [getattr(problem, "sqlstate", None) for problem in problems] == ([] if guarded else ["40P01"])


def test_who_lost_the_lease_indexes_nothing(scene: Scene) -> None:
    key = offer(scene)
    batch(scene, put_op("k"))
    [claim] = scene.bare("claim_runs", key, 1)["runs"]
    [item] = claim["kwargs"]["input"]["items"]
    write = [{"op": "index", **item, "vectors": [{"path": "$", "vector": EAST}]}]
    silence(scene)
    with pytest.raises(psycopg.Error) as refused, scene.connection.transaction():
        scene.bare("run_store_batch", claim["run_id"], claim["token"], json.dumps(write))
    assert refused.value.sqlstate == "DG409"
    assert vectors(scene) == {}
    other = offer(scene, "other")
    scene.wait(60)
    [again] = scene.bare("claim_runs", other, 1)["runs"]
    assert (again["run_id"], again["attempt"], again["kwargs"]) == (claim["run_id"], 2, claim["kwargs"])
    assert scene.bare("run_store_batch", again["run_id"], again["token"], json.dumps(write)) == [True]
    assert finish(scene, again)
    assert places(scene, again["run_id"]) == []


# What is found


def test_what_fits_best_comes_first_where_there_is_pgvector(scene: Scene, pgvector: bool) -> None:
    for key, vector in {"west": WEST, "north": NORTH, "east": EAST, "other-size": [1, 0, 0]}.items():
        put(scene, ["a"], key)
        index(scene, key, vector)
        scene.wait(1)
    put(scene, ["a"], "unknown")
    last_first = ["unknown", "other-size", "east", "north", "west"]
    if not pgvector:
        assert found(scene, [2, 0]) == [(key, None) for key in last_first], "the plain listing"
        return
    best = [("east", 1.0), ("north", 0.0), ("west", -1.0), ("unknown", None), ("other-size", None)]
    assert found(scene, [2, 0]) == best
    assert found(scene, [2, 0], limit=2, offset=1) == best[1:3]
    assert found(scene, [2, 0], filter={"at": "north"}) == best[1:2]
    assert found(scene, [2, 0], filter={"at": {"$ne": "east"}}, limit=1) == best[1:2]
    assert found(scene, [2, 0], namespace_prefix=["b"]) == []
    assert found(scene, [1], limit=1) == [("unknown", None)]
    assert [key for key, _ in found(scene, None)] == last_first


def test_the_best_of_an_items_paths_counts(scene: Scene, pgvector: bool) -> None:
    put(scene, ["a"], "k")
    at = get(scene, ["a"], "k")["updated_at"]
    both = [{"path": "x", "vector": WEST}, {"path": "y", "vector": [1, 1]}]
    batch(scene, {"op": "index", "namespace": ["a"], "key": "k", "updated_at": at, "vectors": both})
    [(_, score)] = found(scene, EAST)
    assert score == (pytest.approx(0.7071, abs=1e-4) if pgvector else None)


def test_a_worker_that_may_only_call_functions_ranks_too(scene: Scene, pgvector: bool) -> None:
    key = offer(scene)
    batch(scene, put_op("k"))
    [claim] = scene.bare("claim_runs", key, 1)["runs"]
    search = {"op": "search", "vector": [1, 1]}
    [item] = claim["kwargs"]["input"]["items"]
    write = {"op": "index", **item, "vectors": [{"path": "$", "vector": EAST}]}
    with scene.connection.transaction():
        scene.connection.execute("set local role duragraph_worker")
        done, [seen] = scene.bare("run_store_batch", claim["run_id"], claim["token"], json.dumps([write, search]))
        scene.connection.execute("reset role")
    assert done is True
    assert seen["score"] == (pytest.approx(0.7071, abs=1e-4) if pgvector else None)


def test_a_query_is_embedded_at_once_or_not_at_all(scene: Scene, pgvector: bool) -> None:
    assert scene.call("embed_texts", '["q"]') is None, "no embedder"
    offer(scene)
    batch(scene, put_op("k"))
    run = scene.call("embed_texts", '["q"]')
    if not pgvector:
        assert run is None
        return
    assert asked(scene)[0] == {"texts": ["q"]}, "before what is to be indexed"
    scene.call("drain_worker", "w")
    assert scene.call("embed_texts", '["q"]') is None, "it takes no more runs"


def test_vectors_join_the_operations_they_belong_to(scene: Scene) -> None:
    ops = '[{"op": "put", "value": {"n": 1e400}}, {"op": "search", "query": "q"}]'
    joined = scene.value("select duragraph.with_vectors(%s, %s)::text", ops, '{"1": [1, 0]}')
    assert joined.startswith('[{"op": "put", "value": {"n": 1e400}}'), "as it came"
    assert json.loads(joined)[1] == {"op": "search", "query": "q", "vector": [1, 0]}


# Who sees the embedder


def test_the_embedder_is_nobodys_assistant(scene: Scene) -> None:
    offer(scene)
    assert scene.value("select count(*) from duragraph.assistants") == 0
    assert scene.call("list_tools") == []
    graph = scene.value("select assistant_id from duragraph.graphs")
    for assistant, state in (("__embed__", "DG422"), (str(graph), "DG404")):
        with pytest.raises(psycopg.Error) as refused, scene.connection.transaction():
            scene.call("create_runs", json.dumps([{"body": {"assistant_id": assistant, "input": {"texts": ["q"]}}}]))
        assert refused.value.sqlstate == state
        assert "graphs: (none yet)" in str(refused.value) or state == "DG404"
    for function, request in (("create_assistant", {"graph_id": "__embed__"}), ("get_graph", "__embed__")):
        with pytest.raises(psycopg.Error) as refused, scene.connection.transaction():
            scene.call(function, request)
        assert refused.value.sqlstate == "DG404"


@pytest.mark.parametrize("dims", [None, 0, "2", 1.5, 16001])
def test_an_embedder_without_a_size_is_refused(scene: Scene, dims: Any) -> None:
    with pytest.raises(psycopg.Error, match="needs its dims") as refused:
        scene.call(
            "register_worker",
            {"worker_id": "w", "graphs": [{"graph_id": "__embed__", "definition": {"dims": dims}}]},
        )
    assert refused.value.sqlstate == "DG422"
