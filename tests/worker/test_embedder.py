"""Searching the store by meaning, from the worker that offers an embedder to the client that asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base.embed import get_text_at_path

from duragraph_worker import Context, Embedder, EmbeddingError, Graph, GraphError, Worker, entrypoint, node
from duragraph_worker.embedder import with_meanings
from duragraph_worker.langgraph_json import read_embedder
from duragraph_worker.loading import TargetError
from duragraph_worker.paths import texts_at
from tests.api.conftest import start
from tests.postgres import Server
from tests.waiting import wait_for, wait_for_async

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def letters(texts: Sequence[str]) -> list[list[float]]:
    """A toy: how often each letter occurs."""
    return [[float(text.lower().count(letter)) for letter in LETTERS] for text in texts]


def toy(**more: Any) -> Embedder:
    return Embedder(letters, dims=26, **more)


# What is embedded of an item

VALUE: dict[str, Any] = {
    "title": "Tea",
    "n": 3,
    "yes": True,
    "none": None,
    "author": {"name": "Ann", "tags": ["x", {"y": 1}]},
    "parts": [{"text": "one"}, {"text": "two", "more": ["é"]}, {"other": 1}, "plain"],
}
PATHS = [
    "$", "", "title", "n", "yes", "none", "gone", "author", "author.name", "author.name.deeper", "author.tags",
    "author.tags[0]", "author.tags[-1]", "author.tags[5]", "author.tags[x]", "author.*", "*", "parts[*].text",
    "parts[1]", "parts[*]", "parts.*.text", "parts.text", "[0]", "parts[1].more[*]", "{title,author.name}",
    "{ title , gone,none }", "author.{name,tags}", "title[0]", "parts[", "{title",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_path_finds_the_texts_that_langgraph_finds(path: str) -> None:
    assert texts_at(VALUE, path) == get_text_at_path(VALUE, path)


def test_an_embedder_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="dims is 0"):
        Embedder(letters, dims=0)
    with pytest.raises(TypeError, match="embeds nothing"):
        Embedder("letters", dims=1)
    with pytest.raises(ValueError, match="400 bytes"):
        Embedder(letters, dims=1, fields=["p" * 401])


def test_no_graph_takes_the_embedders_name() -> None:
    @Graph(id="__embed__")
    class Mine:
        @entrypoint
        @node
        def nothing(self, state: Any) -> None: ...

    with pytest.raises(GraphError, match="kept for the embedder"):
        Worker(graphs=[Mine])


class OfLangChain(Embeddings):
    """Tells queries and documents apart."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1, 0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [0, 1]


async def test_functions_and_objects_of_langchain_embed() -> None:
    async def later(texts: Sequence[str]) -> list[list[float]]:
        return letters(texts)

    for fn in (letters, later, lambda texts: later(texts)):
        embedder = Embedder(fn, dims=26)
        assert (await embedder.embed(["ab"]))[0][:3] == [1, 1, 0]
        assert await embedder.embed_queries(["!"]) == [None], "it means nothing"
    both = Embedder(OfLangChain(), dims=2)
    assert (await both.embed(["a"]), await both.embed_queries(["a"])) == ([[1, 0]], [[0, 1]])


@pytest.mark.parametrize(
    ("given", "said"), [([], "0 vectors for 1"), ([[1.0]], "1 numbers; dims is 2"), ([[1.0, float("nan")]], "is none")]
)
async def test_what_are_no_vectors_is_said(given: Any, said: str) -> None:
    with pytest.raises(EmbeddingError, match=said):
        await Embedder(lambda _: given, dims=2).embed(["a"])


async def test_a_worker_whose_embedder_fails_says_that_there_is_no_vector() -> None:
    def fails(texts: Any) -> Any:
        raise OSError("away")

    search, put = {"op": "search", "query": "q"}, {"op": "put", "query": "not one"}
    assert await with_meanings(Embedder(fails, dims=2), [search, put]) == [{**search, "vector": None}, put]
    assert (await with_meanings(toy(), [put, {**search, "query": "b"}]))[1]["vector"][:3] == [0, 1, 0]


class Journaled:
    """Where an embedder reads items and writes vectors."""

    def __init__(self, texts: int) -> None:
        self.value = {"texts": ["a"] * texts + ["!"]}
        self.requests: list[list[Any]] = []
        self.ends: list[Any] = []

    async def store(self, ops: list[Any]) -> list[Any]:
        self.requests.append(ops)
        return [{"value": self.value, "updated_at": "now"} if op["op"] == "get" else True for op in ops]

    async def commit(self, write: Any) -> None:
        self.ends.append(write["end"])


async def test_many_items_go_in_requests_that_are_not_too_large() -> None:
    journal = Journaled(texts=100)
    items = [{"namespace": ["n"], "key": str(n), "updated_at": "now"} for n in range(120)]
    items.append({"namespace": ["n"], "key": "changed", "updated_at": "before"})
    claim: Any = {"kwargs": {"input": {"items": items}}}
    outcome = await toy(fields=["texts[*]"]).execute(claim, journal)  # type: ignore[arg-type]  # what it needs of one
    writes = [ops for ops in journal.requests if ops[0]["op"] == "index"]
    assert (outcome.status, journal.ends) == ("success", [{"status": "success", "output": {}}])
    assert [op["key"] for ops in writes for op in ops] == [str(n) for n in range(120)], "each once, but the changed one"
    assert {len(op["vectors"]) for ops in writes for op in ops} == {100}, "a text that means nothing has none"
    assert writes[0][0]["vectors"][7]["path"] == "texts[*].7"
    assert max(len(json.dumps(ops)) for ops in journal.requests) < 8 * 2**20
    big = Embedder(lambda texts: [[0.123456789012345678] * 1536 for _ in texts], dims=1536, fields=["texts[*]"])
    await big.execute(claim, journal)  # type: ignore[arg-type]  # the same
    assert max(len(json.dumps(ops)) for ops in journal.requests) < 8 * 2**20


# A langgraph.json


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ({"index": {"embed": "./toys.py:embed"}}, 'write "store"'),
        ({"index": {"embed": "./toys.py", "dims": 2}}, 'write "store"'),
        ({"index": 5}, 'write "store"'),
        ({"index": {"embed": "./gone.py:embed", "dims": 2}}, "there is no file"),
        ({"index": {"embed": "./toys.py:gone", "dims": 2}}, 'has no "gone"'),
        ({"index": {"embed": "./toys.py:embed", "dims": 0}}, "dims is 0"),
        ({"index": {"embed": "./toys.py:number", "dims": 2}}, "embeds nothing"),
        ({"index": {"embed": "./toys.py:embed", "dims": 2, "fields": "title"}}, "must be a list"),
        ({"index": {"embed": "openai:text-embedding-3-small", "dims": 1536}}, "it takes langchain"),
    ],
)
def test_an_index_that_cannot_be_is_explained(tmp_path: Path, store: Any, said: str) -> None:
    (tmp_path / "toys.py").write_text("def embed(texts): ...\nnumber = 5\n")
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"a": "./a.py:a"}, "store": store}))
    with pytest.raises(TargetError, match=said):
        read_embedder(str(tmp_path / "langgraph.json"))


@pytest.mark.parametrize("store", [None, {}, {"ttl": {"default_ttl": 5}}, {"index": None}])
def test_without_an_index_there_is_no_embedder(tmp_path: Path, store: Any) -> None:
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"a": "./a.py:a"}, "store": store}))
    assert read_embedder(str(tmp_path / "langgraph.json")) is None


# On a control plane


@dataclass(frozen=True)
class Plane:
    """A control plane on PostgreSQL, and whether that ranks."""

    url: str
    dsn: str
    ranks: bool

    def value(self, query: str) -> Any:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute(query).fetchone()  # type: ignore[arg-type]  # tests write their own SQL
        assert row is not None
        return row[0]

    def vectors(self) -> int:
        count: int = self.value("select count(*) from duragraph.store_vectors")
        return count


@pytest.fixture
def plane(server: Server) -> Iterator[Plane]:
    with server.database(server.template) as name:
        dsn = server.dsn(name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            [(there,)] = connection.execute("select count(*) from pg_available_extensions where name = 'vector'")
            if there:
                connection.execute("create extension vector")
        with start(dsn) as live:
            yield Plane(live.url, dsn, bool(there))


@contextlib.asynccontextmanager
async def at_work(plane: Plane, *graphs: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client, while a worker serves."""
    worker = Worker(plane.url, graphs=graphs, **options)
    task = asyncio.create_task(worker.arun())
    try:
        async with httpx.AsyncClient(base_url=plane.url, timeout=30) as client:

            async def known() -> bool:
                workers = (await client.get("/workers")).json()
                return any(one["worker_id"] == worker.worker_id for one in workers.get("workers", workers))

            await wait_for_async(known, what="the worker's registration")
            yield client
    finally:
        worker.stop()
        await asyncio.wait_for(task, 15)


ITEMS = {"tea": "a cup of tea", "chess": "games of chess", "zebra": "zzz"}


async def put_items(client: httpx.AsyncClient, plane: Plane, **more: Any) -> None:
    """Put the items and wait until they are indexed."""
    for key, text in ITEMS.items():
        body = {"namespace": ["likes"], "key": key, "value": {"text": text}, **more}
        assert (await client.put("/store/items", json=body)).status_code == 204
    await indexed(plane)


async def indexed(plane: Plane) -> None:
    async def all_there() -> bool:
        return await asyncio.to_thread(plane.vectors) == len(ITEMS)

    await wait_for_async(all_there, what="the vectors")


async def search(client: httpx.AsyncClient, query: str) -> list[tuple[str, float | None]]:
    found = await client.post("/store/items/search", json={"namespace_prefix": ["likes"], "query": query})
    return [(item["key"], item["score"]) for item in found.json()["items"]]


LAST_FIRST = [("zebra", None), ("chess", None), ("tea", None)]


async def test_a_client_finds_what_it_means(plane: Plane) -> None:
    async with at_work(plane, embedder=toy(fields=["text"])) as client:
        await put_items(client, plane)
        if not plane.ranks:
            assert await search(client, "zz") == LAST_FIRST
            return
        [(key, score), *rest] = await search(client, "zz")
        assert (key, score) == ("zebra", pytest.approx(1))
        assert [one for one, _ in rest] == ["chess", "tea"], "equally far: the later one first"
        assert (await search(client, "cheese game"))[0][0] == "chess"
        assert await search(client, "?!") == LAST_FIRST, "it means nothing"
        assert [item["score"] for item in (await client.post("/store/items/search", json={})).json()["items"]] == [
            None
        ] * 3
        assert (await client.post("/assistants/search", json={})).json() == []
        run = await client.post("/runs", json={"assistant_id": "__embed__", "input": {"texts": ["a"]}})
        assert run.status_code == 422
        await client.put("/store/items", json={"namespace": ["likes"], "key": "tea", "value": {"text": "q"}})
        await indexed(plane)
        assert (await search(client, "q"))[0] == ("tea", pytest.approx(1))
    assert await search_without(plane, "zz") == [("tea", None), *LAST_FIRST[:2]], "nobody embeds any more"


async def search_without(plane: Plane, query: str) -> list[tuple[str, float | None]]:
    async with httpx.AsyncClient(base_url=plane.url, timeout=5) as client:
        return await search(client, query)


async def test_a_query_that_takes_too_long_is_not_waited_for(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go = threading.Event()

    def slow(texts: Sequence[str]) -> list[list[float]]:
        if texts == ["zz"]:
            may_go.wait(20)
        return letters(texts)

    monkeypatch.setattr("duragraph.api.embedding.PATIENCE", 0.2)
    async with at_work(plane, embedder=Embedder(slow, dims=26, fields=["text"])) as client:
        await put_items(client, plane)
        assert await search(client, "zz") == LAST_FIRST
        may_go.set()
    waiting = "select count(*) from duragraph.runs where status = 'pending'"
    assert plane.value(waiting) == 0, "the run is cancelled"


async def test_an_embedder_that_fails_is_tried_again_for_items_and_not_for_a_query(plane: Plane) -> None:
    calls = []

    def moody(texts: Sequence[str]) -> list[list[float]]:
        calls.append(list(texts))
        if len(calls) == 1 or texts == ["zz"]:
            raise OSError("too many requests")
        return letters(texts)

    async with at_work(plane, embedder=Embedder(moody, dims=26, fields=["text"]), max_concurrent_runs=1) as client:
        await put_items(client, plane)
        assert calls.count(["a cup of tea"]) == 2
        assert await search(client, "zz") == LAST_FIRST
        assert calls.count(["zz"]) == (1 if plane.ranks else 0)


@Graph(id="asks")
class Asks:
    @entrypoint
    @node
    async def ask(self, state: Any, ctx: Context) -> Any:
        await ctx.store.aput(("likes",), "secret", {"text": "zz"}, index=False)
        found = await ctx.store.asearch(("likes",), query=state["query"])
        return {"found": [[item.key, item.score] for item in found]}


async def ask(client: httpx.AsyncClient, graph: str, query: str) -> list[Any]:
    body = {"assistant_id": graph, "input": {"query": query}}
    found: list[Any] = (await client.post("/runs/wait", json=body)).json()["found"]
    return found


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_graph_finds_what_it_means(plane: Plane, where: str) -> None:
    """With one slot: the worker that has the embedder needs none for the query; another's embeds it in a run."""
    embedder = toy(fields=["text"])
    async with contextlib.AsyncExitStack() as stack:
        if where == "elsewhere":
            await stack.enter_async_context(at_work(plane, embedder=embedder))
        here = {"embedder": embedder} if where == "here" else {}
        client = await stack.enter_async_context(at_work(plane, Asks, max_concurrent_runs=1, **here))
        await put_items(client, plane)
        found = await ask(client, "asks", "zz")
        if not plane.ranks:
            assert found == [["secret", None], *map(list, LAST_FIRST)]
            return
        assert found[0] == ["zebra", pytest.approx(1)]
        assert found[-1] == ["secret", None]
        queries = plane.value("select count(*) from duragraph.runs where kwargs -> 'input' ->> 'texts' is not null")
        assert queries == (1 if where == "elsewhere" else 0)


AGENT = """
import os, pathlib
from typing import Any
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

FIRST = pathlib.Path(__file__).with_name("was-here")

class State(TypedDict, total=False):
    query: str
    found: Any

def embed(texts):
    if not FIRST.exists():
        FIRST.touch()
        os._exit(9)  # as if killed, while it indexes
    return [[float(text.lower().count(chr(97 + n))) for n in range(26)] for text in texts]

async def ask(state: State, runtime: Runtime):
    store = runtime.store
    await store.aput(("likes",), "secret", {"text": "zz"}, index=False)
    found = await store.asearch(("likes",), query=state["query"])
    return {"found": [[item.key, item.score] for item in found]}

graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile()
"""


@contextlib.contextmanager
def process(plane: Plane, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "duragraph_worker.cli", "run", "--config", str(config), "--url", plane.url]
    with subprocess.Popen([*command, "--lease-seconds", "1"], stderr=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.terminate()
            running.communicate(timeout=20)


async def test_a_graph_of_langgraph_searches_what_a_worker_that_died_left_to_be_indexed(
    plane: Plane, tmp_path: Path
) -> None:
    (tmp_path / "toy_agent.py").write_text(AGENT)
    config = tmp_path / "langgraph.json"
    index = {"embed": "./toy_agent.py:embed", "dims": 26, "fields": ["text"]}
    config.write_text(json.dumps({"graphs": {"asks-lg": "./toy_agent.py:graph"}, "store": {"index": index}}))
    registered = "select count(*) from duragraph.graphs where graph_id = '__embed__'"
    async with httpx.AsyncClient(base_url=plane.url, timeout=60) as client:
        with process(plane, config) as first:
            await asyncio.to_thread(wait_for, lambda: plane.value(registered), 60, what="the embedder")
            for key, text in ITEMS.items():
                body = {"namespace": ["likes"], "key": key, "value": {"text": text}}
                assert (await client.put("/store/items", json=body)).status_code == 204
            assert await asyncio.to_thread(first.wait, 30) == 9
        assert plane.vectors() == 0
        with process(plane, config):
            release = "select duragraph.release_expired_leases()::text"
            await asyncio.to_thread(
                wait_for, lambda: plane.value(release) and plane.vectors() == len(ITEMS), 60, what="the vectors"
            )
            assert plane.value("select max(attempt) from duragraph.runs") == 2
            found = await ask(client, "asks-lg", "zz")
    assert found[0] == (["zebra", pytest.approx(1)] if plane.ranks else ["secret", None])
