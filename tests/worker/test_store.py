"""`ctx.store`: the same rules in memory and in PostgreSQL, in plain nodes and in coroutines, behind the run's lease."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import psycopg
import pytest

from duragraph_worker import (
    Context,
    Graph,
    Item,
    LeaseLost,
    NodeError,
    StateError,
    Store,
    StoreError,
    SyncContext,
    entrypoint,
    interrupt,
    node,
)
from duragraph_worker.executor import Executor
from duragraph_worker.local import LocalJournal
from duragraph_worker.local_store import LocalStore
from duragraph_worker.testing import crash_everywhere, play
from duragraph_worker.worker import Worker
from tests.api.conftest import start
from tests.postgres import Server
from tests.sql.scene import Scene
from tests.sql.test_store import FILTERS, HOSTILE, LISTS, REFUSED, VALUES
from tests.waiting import wait_for_async
from tests.worker import toy_graphs as toys
from tests.worker.doubles import Answer, ControlPlaneDouble
from tests.worker.serving import Gates, ended, until, working


class Held:
    """A store whose clock a test holds: in memory, or behind the SQL functions."""

    def __init__(self, connection: psycopg.Connection[Any] | None) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.local = LocalStore(lambda: self.now)
        self.scene = Scene(connection) if connection else None
        if self.scene:
            self.scene.wait(0)

    async def store_ops(self, ops: list[Any]) -> list[Any]:
        return self.store_ops_in_thread(ops)

    def store_ops_in_thread(self, ops: list[Any]) -> list[Any]:
        if self.scene is None:
            return self.local.store_ops_in_thread(ops)
        try:
            with self.scene.connection.transaction():
                results: list[Any] = self.scene.call("store_batch", json.dumps(ops))
        except psycopg.Error as refusal:
            assert refusal.sqlstate == "DG422", refusal  # noqa: PT017  # what the control plane would answer
            detail = json.loads(refusal.diag.message_detail or "{}")
            raise StoreError(str(refusal), field=detail["field"]) from None
        return results

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        if self.scene:
            self.scene.wait(seconds)


@pytest.fixture(params=["memory", "postgres"])
def held(request: pytest.FixtureRequest) -> Held:
    return Held(request.getfixturevalue("db") if request.param == "postgres" else None)


@pytest.fixture
def store(held: Held) -> Store:
    return Store(held)


# The same rules on both


async def test_an_item_lives_from_put_to_delete(store: Store, held: Held) -> None:
    await store.aput(("users", "ann"), "likes", {"tea": [1, None]})
    first = await store.aget(["users", "ann"], "likes")
    assert isinstance(first, Item)
    assert (first.namespace, first.key, first.value) == (("users", "ann"), "likes", {"tea": [1, None]})
    assert first.created_at == first.updated_at
    held.wait(1)
    store.put(("users", "ann"), "likes", {"tea": "no"})
    second = store.get(("users", "ann"), "likes")
    assert second is not None
    assert (second.value, second.created_at) == ({"tea": "no"}, first.created_at)
    assert second.updated_at == first.updated_at + timedelta(seconds=1)
    assert store.list_namespaces() == [("users", "ann")]
    await store.adelete(("users", "ann"), "likes")
    store.delete(("users", "ann"), "likes")
    assert await store.aget(("users", "ann"), "likes") is None
    assert await store.alist_namespaces() == []


def test_the_last_updated_is_found_first_and_pages_follow(store: Store, held: Held) -> None:
    for key in ("a", "b", "c"):
        store.put(("n", key), key, {"k": key})
        held.wait(1)
    store.put(("n", "a"), "a", {})
    assert [item.key for item in store.search(("n",))] == ["a", "c", "b"]
    assert [item.key for item in store.search(("n",), limit=1, offset=1)] == ["c"]
    assert [item.score for item in store.search(query="anything")] == [None] * 3
    assert store.search(("n", "c"))[0].value == {"k": "c"}
    assert store.search(("n", "*")) == []
    assert store.search(limit=0) == []


@pytest.mark.parametrize(("wanted", "found"), FILTERS, ids=str)
def test_a_filter_finds_the_same(store: Store, wanted: dict[str, Any], found: str) -> None:
    for key, value in VALUES.items():
        store.put(("n",), key, value)
    assert sorted(item.key for item in store.search(("n",), filter=wanted)) == list(found)


@pytest.mark.parametrize("value", [True, 1, 1.5, "1", None, [1, True], {"a": {"b": 1}}, {}, []], ids=str)
def test_values_are_told_apart_as_json(store: Store, value: Any) -> None:
    others = [True, False, 1, 0, 1.5, "1", "", None, [1, True], [True, 1], [], {"a": {"b": 1}}, {"a": {}}, {}]
    for n, other in enumerate(others):
        store.put(("n",), str(n), {"v": other})
    equal = [item.value["v"] for item in store.search(filter={"v": {"$eq": value}}, limit=100)]
    unequal = store.search(filter={"v": {"$ne": value}}, limit=100)
    assert [json.dumps(found) for found in equal] == [json.dumps(value)]
    assert len(unequal) == len(others) - 1


@pytest.mark.parametrize(("op", "found"), LISTS, ids=str)
def test_namespaces_are_listed_the_same(store: Store, op: dict[str, Any], found: list[str]) -> None:
    for namespace in ("u/ann/notes", "u/ann", "u/bob/notes/old", "u/bob/mail", "v"):
        store.put(namespace.split("/"), "k", {})
    assert ["/".join(namespace) for namespace in store.list_namespaces(**op)] == found


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_means_anything(store: Store, text: str) -> None:
    label = text.replace(".", ":")
    store.put(("safe", label), text, {text: text})
    store.put(("plain",), "k", {})
    assert [item.value for item in store.search(("safe", label), filter={text: text})] == [{text: text}]
    assert store.search((label,)) == []
    assert ("safe", label) in store.list_namespaces(prefix=("safe", label))


@pytest.mark.parametrize(("wrong", "code"), [one for one in REFUSED if "ttl_seconds" not in one[0]], ids=str)
def test_the_same_is_refused_and_nothing_of_its_batch_is_done(store: Store, wrong: dict[str, Any], code: str) -> None:
    good = {"op": "put", "namespace": ["a"], "key": "good", "value": {}}
    with pytest.raises(StoreError) as caught:
        store.batch([good, {**good, "key": "k", **wrong}])
    assert caught.value.field == ("key" if code == "name_too_long" else next(iter(wrong)))
    assert store.search() == []


@pytest.mark.parametrize(
    ("op", "field"),
    [
        ({"op": "fly"}, "op"),
        ({}, "op"),
        ({"op": "search", "limit": -1}, "limit"),
        ({"op": "search", "limit": 10_001}, "limit"),
        ({"op": "search", "offset": "1"}, "offset"),
        ({"op": "search", "namespace_prefix": ["a.b"]}, "namespace_prefix"),
        ({"op": "search", "filter": {"a": {"$in": [1]}}}, "filter"),
        ({"op": "search", "filter": [1]}, "filter"),
        ({"op": "list_namespaces", "max_depth": 0}, "max_depth"),
        ({"op": "list_namespaces", "prefix": "abc"}, "prefix"),
        ({"op": "list_namespaces", "limit": 1.5}, "limit"),
        ({"op": "get", "namespace": [], "key": "k"}, "namespace"),
        ({"op": "delete", "namespace": ["a"], "key": ""}, "key"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_its_place(store: Store, op: dict[str, Any], field: str) -> None:
    with pytest.raises(StoreError) as caught:
        store.batch([op])
    assert caught.value.field == field


def test_what_is_no_json_is_refused_before_it_is_sent(store: Store) -> None:
    for value in ({"a": object()}, {"a": float("nan")}, {"a": "\x00"}, {1: 2}):
        with pytest.raises(StateError):
            store.put(("a",), "k", value)  # type: ignore[dict-item]  # that is the point
    assert store.search() == []


def test_an_item_expires_at_once_and_reading_begins_its_time_anew(store: Store, held: Held) -> None:
    store.put(("a",), "read", {}, ttl=1)
    store.put(("a",), "passed", {}, ttl=1)
    store.put(("a",), "stays", {})
    held.wait(40)
    assert store.get(("a",), "read") is not None
    assert store.get(("a",), "passed", refresh_ttl=False) is not None
    held.wait(40)
    assert sorted(item.key for item in store.search(("a",), refresh_ttl=False)) == ["read", "stays"]
    held.wait(20)
    assert [item.key for item in store.search(("a",))] == ["stays"]
    assert store.get(("a",), "read") is None


def test_a_batch_is_done_and_answered_in_order(store: Store) -> None:
    at: dict[str, Any] = {"namespace": ("a",), "key": "k"}
    before, put, item, found, listed, deleted, after = store.batch(
        [
            {"op": "get", **at},
            {"op": "put", **at, "value": {"n": 1}},
            {"op": "get", **at},
            {"op": "search"},
            {"op": "list_namespaces"},
            {"op": "put", **at, "value": None},
            {"op": "get", **at},
        ]
    )
    assert (before, put, deleted, after) == (None, None, None, None)
    assert (item.value, found, listed) == ({"n": 1}, [item], [("a",)])
    assert store.batch([]) == []


def test_what_was_given_or_is_changed_afterwards_is_not_what_is_stored(store: Store) -> None:
    value: dict[str, Any] = {"list": [1]}
    store.put(("a",), "k", value)
    value["list"].append(2)
    given = store.get(("a",), "k")
    assert given is not None
    given.value["list"].append(3)
    assert store.search()[0].value == {"list": [1]}


class Dice:
    """Operations at random, over so few names and values that they meet."""

    def __init__(self, seed: int) -> None:
        self.pick = Random(seed)

    def labels(self, least: int, *more: str) -> list[str]:
        return self.pick.choices(["a", "ab", "b", "a\x01", "é", "\U0001f600", *more], k=self.pick.randint(least, 3))

    def scalar(self) -> Any:
        return self.pick.choice(
            [None, True, False, 0, 1, 1.0, -2.5, 10**20, "", "1", "a", "B", "é", "\U0001f600", "\uffff"]
        )

    def value(self, depth: int = 2) -> Any:
        kinds: list[Callable[[], Any]] = [self.scalar, self.scalar]
        if depth:
            kinds += [lambda: [self.value(depth - 1)], lambda: {self.pick.choice("xy"): self.value(depth - 1)}]
        return self.pick.choice(kinds)()

    def wanted(self) -> Any:
        operators = self.pick.sample(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"], k=self.pick.randint(1, 2))
        return self.pick.choice([self.value(), {operator: self.value(1) for operator in operators}])

    def op(self) -> dict[str, Any]:
        at = {"namespace": self.labels(1), "key": self.pick.choice("kl")}
        value = {name: self.value() for name in self.pick.sample("xyz", k=self.pick.randint(0, 3))}
        page = {"limit": self.pick.choice([1, 3, 100]), "offset": self.pick.choice([0, 0, 1])}
        wanted = {name: self.wanted() for name in self.pick.sample("xyz", k=self.pick.randint(0, 2))}
        refresh = {"refresh_ttl": self.pick.choice([True, False])}
        depth = {"max_depth": self.pick.randint(1, 3)} if self.pick.random() < 0.5 else {}
        ends = {"prefix": self.labels(0, "*"), "suffix": self.labels(0, "*")}
        choices: list[dict[str, Any]] = [
            *[{"op": "put", **at, "value": value, **self.pick.choice([{}, {"ttl": 1}, {"ttl": 2.5}])}] * 6,
            {"op": "delete", **at},
            {"op": "get", **at, **refresh},
            *[{"op": "search", "namespace_prefix": self.labels(0), "filter": wanted, **page, **refresh}] * 2,
            {"op": "search", "filter": wanted, **page, **refresh},
            *[{"op": "list_namespaces", **ends, **depth, **page}] * 2,
            {"op": "list_namespaces", **depth, **page},
        ]
        return self.pick.choice(choices)


@pytest.mark.parametrize("seed", range(16))
def test_memory_and_postgres_never_disagree(db: psycopg.Connection[Any], seed: int) -> None:
    dice, memory, postgres = Dice(seed), Held(None), Held(db)
    memory.now = postgres.scene.now if postgres.scene else memory.now
    for _ in range(60):
        ops = [dice.op() for _ in range(dice.pick.randint(1, 4))]
        assert memory.store_ops_in_thread(ops) == postgres.store_ops_in_thread(ops), ops
        seconds = dice.pick.choice([0, 0, 1, 40])
        memory.wait(seconds)
        postgres.wait(seconds)


# In nodes


@Graph(id="plain-memory")
class PlainMemory:
    @entrypoint
    @node
    def remember(self, state: Any, ctx: SyncContext) -> Any:
        ctx.store.put(("plain",), state["fact"], {"by": ctx.node})
        found = ctx.store.get(("plain",), state["fact"])
        assert found is not None
        return {"by": found.value["by"], "known": sorted(item.key for item in ctx.store.search(("plain",)))}


async def test_a_plain_node_uses_the_store_too() -> None:
    graph = PlainMemory()
    assert (await graph.arun({"fact": "a"})).output == {"fact": "a", "by": "remember", "known": ["a"]}
    assert (await graph.arun({"fact": "b"})).output["known"] == ["a", "b"]
    assert (await PlainMemory().arun({"fact": "c"})).output["known"] == ["c"], "each instance has its own"


async def test_a_coroutine_that_forgets_to_await_is_told() -> None:
    @Graph(id="forgetful")
    class Forgetful:
        @entrypoint
        @node
        async def forget(self, state: Any, ctx: Context) -> None:
            ctx.store.put(("a",), "k", {})

    result = await Forgetful().arun({})
    assert isinstance(result.exception, NodeError)
    assert "await ctx.store" in str(result.exception)


async def test_a_refused_operation_is_an_error_of_the_node() -> None:
    @Graph(id="wrong")
    class Wrong:
        @entrypoint
        @node
        async def put(self, state: Any, ctx: Context) -> None:
            await ctx.store.aput((), "k", {})

    result = await Wrong().arun({})
    assert (result.status, result.error["error"]) == ("error", "StoreError")  # type: ignore[index]  # it has one


async def test_an_attempt_that_was_superseded_writes_nothing() -> None:
    @Graph(id="late")
    class Late:
        @entrypoint
        @node
        async def put(self, state: Any, ctx: Context) -> None:
            run.claim("late")  # somebody else's from here on
            await ctx.store.aput(("a",), "k", {})

    graph = Late()
    run = graph.local.prepare({})
    with pytest.raises(LeaseLost):
        await Executor(graph, run.claim("late"), LocalJournal(run)).run()
    assert graph.local.store.search() == []


class Counting:
    """Counts what nodes did."""

    def __init__(self) -> None:
        self.puts = 0


def counting_graph(counted: Counting) -> Any:
    @Graph(id="counting")
    class Counts:
        @entrypoint
        @node
        async def visit(self, state: Any, ctx: Context) -> Any:
            await ctx.store.aput(("visits",), ctx.idempotency_key, {"n": 1})
            counted.puts += 1
            await ctx.step("once", self.count, ctx)
            return {"seen": interrupt("go on?")}

        async def count(self, ctx: Context) -> None:
            item = await ctx.store.aget(("total",), "visits")
            await ctx.store.aput(("total",), "visits", {"n": (item.value["n"] if item else 0) + 1})

    return Counts


async def test_a_node_that_runs_again_puts_again_and_a_step_does_not() -> None:
    counted = Counting()
    graph = counting_graph(counted)()
    await graph.arun({}, thread_id="t")
    await graph.arun(thread_id="t", resume="yes")
    assert counted.puts == 2, "once before the question, once with its answer"
    assert [item.value for item in graph.local.store.search(("visits",))] == [{"n": 1}]
    assert [item.value for item in graph.local.store.search(("total",))] == [{"n": 1}]


async def test_a_crash_anywhere_leaves_one_item_a_key() -> None:
    calls = [{"input": {"space": "s", "fact": "sky"}}, {"input": {"space": "s", "fact": "sea"}}]
    report = await crash_everywhere(toys.Memory, calls)
    assert report.final_states_differ == []
    played = await play(toys.Memory(), calls, crash_at=2)
    assert played.output["known"] == ["sea", "sky"]


# In a worker


@pytest.fixture
def plane() -> Iterator[ControlPlaneDouble]:
    double = ControlPlaneDouble()
    yield double
    double.http.stop()


async def test_a_call_is_repeated_until_the_control_plane_answers(plane: ControlPlaneDouble) -> None:
    plane.before("store", Answer(503, {"detail": "away"}), times=2)
    plane.drop_answer("store")
    async with working(plane, toys.Memory):
        run = plane.submit("memory", {"space": "s", "fact": "sky"})
        assert (await ended(plane, run))["status"] == "success"
    assert [item.key for item in Store(plane.items).search()] == ["sky"]
    assert len(plane.requests("store")) >= 5


async def test_what_the_control_plane_refuses_fails_the_node(plane: ControlPlaneDouble) -> None:
    async with working(plane, toys.Memory):
        run = plane.submit("memory", {"space": "a.b", "fact": "sky"})
        end = await ended(plane, run)
    assert (end["status"], end["error"]["error"]) == ("error", "StoreError")
    assert "periods" in end["error"]["message"]


async def test_a_plain_node_hears_of_a_lost_lease_too(plane: ControlPlaneDouble) -> None:
    gates, heard = Gates(), threading.Event()
    may_go = threading.Event()

    @Graph(id="held-plain")
    class HeldPlain:
        @entrypoint
        @node
        def put(self, state: Any, ctx: SyncContext) -> None:
            gates.started.append(True)
            may_go.wait(10)
            try:
                ctx.store.put(("a",), "k", {})
            except LeaseLost:
                heard.set()
                raise

    async with working(plane, HeldPlain) as worker:
        run = plane.submit("held-plain", {})
        await until(lambda: gates.started, "the node")
        plane.cancel(run, tell=False)
        may_go.set()
        await until(lambda: heard.is_set() and not worker.active_runs, "the run to stop")
    assert Store(plane.items).search() == []
    assert run not in plane.ended


async def test_a_lost_lease_stops_the_run(plane: ControlPlaneDouble) -> None:
    gates = Gates()

    @Graph(id="held")
    class HeldRun:
        @entrypoint
        @node
        async def put(self, state: Any, ctx: Context) -> None:
            gates.started.append(True)
            await gates.open.wait()
            try:
                await ctx.store.aput(("a",), "k", {})
            except (LeaseLost, asyncio.CancelledError):
                gates.cancelled.append(True)
                raise

    async with working(plane, HeldRun) as worker:
        run = plane.submit("held", {})
        await until(lambda: gates.started, "the node")
        plane.cancel(run, tell=False)
        gates.open.set()
        await until(lambda: not worker.active_runs, "the run to stop")
    assert gates.cancelled == [True]
    assert Store(plane.items).search() == []
    assert run not in plane.ended


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    """A control plane on PostgreSQL."""
    with server.database(server.template) as name, start(server.dsn(name)) as live:
        yield live.url


async def serve(url: str, graph: Any, use: Callable[[httpx.AsyncClient], Any]) -> Any:
    """Do something while a worker serves the graph."""
    worker = Worker(url, graphs=[graph], name=f"of-{graph.topology().graph_id}")
    task = asyncio.create_task(worker.arun())
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:

            async def known() -> bool:
                found = await client.post("/assistants/search", json={"graph_id": graph.topology().graph_id})
                return found.status_code == 200 and bool(found.json())

            await wait_for_async(known, what="the worker's registration")
            return await use(client)
    finally:
        worker.stop()
        await asyncio.wait_for(task, 15)


@pytest.mark.parametrize("graph", [toys.Memory, PlainMemory], ids=["coroutine", "plain"])
async def test_graphs_and_clients_share_the_store(url: str, graph: Any) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        graph_id = graph.topology().graph_id
        for fact, known in (("sky", ["sky"]), ("sea", ["sea", "sky"])):
            body = {"assistant_id": graph_id, "input": {"space": graph_id, "fact": fact}}
            assert (await client.post("/runs/wait", json=body)).json()["known"] == known
        place = f"facts.{graph_id}" if graph is toys.Memory else "plain"
        item = (await client.get("/store/items", params={"namespace": place, "key": "sky"})).json()
        assert item["value"] == ({"fact": "sky"} if graph is toys.Memory else {"by": "remember"})

    await serve(url, graph, use)
