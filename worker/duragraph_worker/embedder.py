"""What a worker offers to search the store by meaning: a function that turns texts into vectors.

    Worker(url, graphs=[Agent], embedder=Embedder(embed, dims=384, fields=["title", "chapters[*].text"]))

It is served as a graph of its own, `__embed__`, which is nobody's assistant: the control plane makes its runs, to index
what is put into the store and to learn what a query means, and they are claimed, repeated and fenced as all runs are.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from duragraph_worker.errors import EmbeddingError, LeaseLost
from duragraph_worker.executor import Outcome
from duragraph_worker.hosted import HostedGraph, HostedJournal
from duragraph_worker.journal import Claim, EndItem, Write
from duragraph_worker.paths import texts_at
from duragraph_worker.running import in_thread

log = logging.getLogger("duragraph_worker")

GRAPH_ID = "__embed__"
PATIENCE = 10.0
"""How long a search waits for what its query means, in seconds."""
_ITEMS_AT_ONCE = 50
_NUMBERS_AT_ONCE = 200_000
"""Of vectors, in one request: some 4 MB, where the control plane takes 16."""

Vector = list[float]
EmbedFn = Callable[[list[str]], Sequence[Sequence[float]] | Awaitable[Sequence[Sequence[float]]]]


class Embedder(HostedGraph):
    """Turns texts into vectors of `dims` numbers by `fn`: a function of a list of texts, plain (it runs in a thread) or
    async, or an `Embeddings` object of LangChain.

    `fields` are the paths whose texts make an item known, where a put does not name others: `$` is the whole value,
    `title` and `author.name` are fields, `chapters[*].text` those of each item of a list, `{title,summary}` both.
    """

    graph_id = GRAPH_ID

    def __init__(self, fn: EmbedFn | Any, *, dims: int, fields: Iterable[str] = ("$",)) -> None:
        if not 1 <= dims <= 16000:
            raise ValueError(f"dims is {dims}; a vector has 1 to 16000 numbers")
        self.fields = tuple(fields)
        if any(len(path.encode()) > 400 for path in self.fields):
            raise ValueError("a path of fields takes at most 400 bytes")
        if not callable(fn) and not hasattr(fn, "aembed_documents"):
            raise TypeError(f"{fn!r} embeds nothing; give a function of a list of texts")
        self.dims = dims
        self._fn = fn

    async def prepare(self) -> None:
        """Nothing is to be known before."""

    def definition(self) -> dict[str, Any]:
        """Its size and its fields."""
        return {"graph_id": GRAPH_ID, "nodes": [], "edges": [], "dims": self.dims, "fields": list(self.fields)}

    def schemas(self) -> dict[str, Any]:
        """None: clients do not start it."""
        return {}

    async def embed(self, texts: list[str]) -> list[Vector]:
        """The vectors of texts that are kept. Raises `EmbeddingError` for what are none, and whatever `fn` raises."""
        if not texts:
            return []
        if hasattr(self._fn, "aembed_documents"):
            return self._checked(await self._fn.aembed_documents(texts), texts)
        return self._checked(await self._call(texts), texts)

    async def embed_queries(self, texts: list[str]) -> list[Vector | None]:
        """What queries mean; None for one that means nothing."""
        if hasattr(self._fn, "aembed_query"):
            made = self._checked([await self._fn.aembed_query(text) for text in texts], texts)
        else:
            made = await self.embed(texts)
        return [vector if any(vector) else None for vector in made]

    async def execute(self, claim: Claim, journal: HostedJournal) -> Outcome:
        """Embed `{texts}`, or index `{items}` of the store."""
        asked: dict[str, Any] = (claim.get("kwargs") or {}).get("input") or {}
        texts: list[str] = asked.get("texts") or []
        end = EndItem(status="success", output={})
        problem: Exception | None = None
        try:
            if texts:
                end["output"] = {"vectors": await self.embed_queries(texts)}
            items: list[dict[str, Any]] = asked.get("items") or []
            for start in range(0, len(items), _ITEMS_AT_ONCE):
                await self._index(items[start : start + _ITEMS_AT_ONCE], journal)
        except LeaseLost:
            raise
        except Exception as raised:
            # What an embedder fails at, a provider that is away or has had enough, often works a little later.
            problem = raised
            error = {"error": type(raised).__name__, "message": str(raised)}
            end = EndItem(status="retry" if asked.get("items") else "error", error=error)
        await journal.commit(Write(end=end))
        if problem is None:
            return Outcome("success")
        return Outcome("error", error=end["error"], exception=problem)

    async def _index(self, items: list[dict[str, Any]], journal: HostedJournal) -> None:
        at = [{"namespace": item["namespace"], "key": item["key"]} for item in items]
        now = await journal.store([{"op": "get", **place, "refresh_ttl": False} for place in at])
        found: list[tuple[dict[str, Any], list[tuple[str, str]]]] = []
        for item, stored in zip(items, now, strict=True):
            # A value put since then has a run of its own.
            if stored is not None and stored["updated_at"] == item["updated_at"]:
                found.append((item, self._texts(stored["value"], item.get("fields"))))
        vectors = iter(await self.embed([text for _, texts in found for _, text in texts]))
        ops: list[dict[str, Any]] = []
        numbers = 0
        for item, texts in found:
            if numbers > _NUMBERS_AT_ONCE:
                await journal.store(ops)
                ops, numbers = [], 0
            made = [{"path": path, "vector": next(vectors)} for path, _ in texts]
            op = {"op": "index", **{name: item[name] for name in ("namespace", "key", "updated_at")}}
            ops.append({**op, "vectors": [one for one in made if any(one["vector"])]})
            numbers += len(made) * self.dims
        if ops:
            await journal.store(ops)

    def _texts(self, value: Any, fields: Sequence[str] | None) -> list[tuple[str, str]]:
        """(path, text) of an item; several texts of one path are numbered."""
        named: dict[str, str] = {}
        for path in self.fields if fields is None else fields:
            texts = texts_at(value, path)
            named |= {path if len(texts) == 1 else f"{path}.{n}": text for n, text in enumerate(texts)}
        return list(named.items())

    async def _call(self, texts: list[str]) -> Any:
        returned = self._fn(texts) if _is_async(self._fn) else await in_thread(lambda: self._fn(texts))
        return await returned if inspect.isawaitable(returned) else returned

    def _checked(self, vectors: Any, texts: list[str]) -> list[Vector]:
        made = [[float(number) for number in vector] for vector in vectors]
        if len(made) != len(texts):
            raise EmbeddingError(f"the embedder gave {len(made)} vectors for {len(texts)} texts")
        for vector in made:
            if len(vector) != self.dims:
                raise EmbeddingError(f"the embedder gave a vector of {len(vector)} numbers; dims is {self.dims}")
            if not all(map(math.isfinite, vector)):
                raise EmbeddingError("the embedder gave a vector with a number that is none")
        return made


async def with_meanings(embedder: Embedder, ops: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operations of the store, each search with the vector of its query: None where it takes too long, or fails.

    So a worker that has an embedder needs no second run, for which it may have no slot.
    """
    places = [n for n, op in enumerate(ops) if op.get("op") == "search" and op.get("query")]
    if not places:
        return list(ops)
    vectors: Sequence[Vector | None] = [None] * len(places)
    try:
        async with asyncio.timeout(PATIENCE):
            vectors = await embedder.embed_queries([ops[n]["query"] for n in places])
    except Exception as problem:
        log.warning("query not embedded: %s", str(problem) or type(problem).__name__)
    meant = dict(zip(places, vectors, strict=True))
    return [{**op, "vector": meant[n]} if n in meant else op for n, op in enumerate(ops)]


def _is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(fn.__call__)
