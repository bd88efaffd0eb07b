"""`ctx.store`: what graphs and clients remember across threads, JSON objects by namespace and key.

    async def remember(self, state, ctx):
        await ctx.store.aput(("facts", state["user"]), "tea", {"likes": True})
        items = await ctx.store.asearch(("facts", state["user"]), filter={"likes": True})

A plain node calls `put`, `get`, `delete`, `search`, `list_namespaces` and `batch`.

What is put is there at once, for everybody, and not only when the node is done. A node that runs again after a crash
puts again: that does no harm, for the key is the same. What must not be done twice, such as counting up, belongs into
`ctx.step`. A run whose lease is lost writes nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from duragraph_worker.state import to_json

Op = dict[str, Any]
Namespace = tuple[str, ...]
Index = Literal[False] | Sequence[str] | None


@dataclass(frozen=True)
class Item:
    """What is stored under a namespace and a key. `score` is how well it fits a search that ranks, else None."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    score: float | None = None


class Backend(Protocol):
    """Does operations in order, all or nothing, and gives their results as JSON, in order."""

    async def store_ops(self, ops: list[Op]) -> list[Any]:
        """From the loop. Raises StoreError, LeaseLost."""
        ...

    def store_ops_in_thread(self, ops: list[Op]) -> list[Any]:
        """From a thread of its own."""
        ...


class Store:
    """Items by namespace and key, as LangGraph's BaseStore has them.

    A namespace is a tuple of labels, not empty and without periods: `("users", "ann")`. A value is a JSON object and is
    replaced whole. `ttl` is in minutes; reading an item begins its time anew unless `refresh_ttl=False`. `index` names
    the paths whose texts an item is found by, such as `["title", "chapters[*].text"]`, instead of the embedder's own;
    with False it is not indexed. A filter is `{field: value}` or `{field: {"$gte": 3}}` with $eq, $ne, $gt, $gte, $lt,
    $lte; a missing field matches nothing. Raises StoreError for what is refused, StateError for a value that is no
    JSON, LeaseLost as every write does.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def aput(
        self,
        namespace: Sequence[str],
        key: str,
        value: Mapping[str, Any],
        *,
        ttl: float | None = None,
        index: Index = None,
    ) -> None:
        """Store an item; one that is there is replaced."""
        await self.abatch([_put(namespace, key, value, ttl, index)])

    async def aget(self, namespace: Sequence[str], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """The item, or None."""
        item: Item | None = (await self.abatch([_get(namespace, key, refresh_ttl)]))[0]
        return item

    async def adelete(self, namespace: Sequence[str], key: str) -> None:
        """Delete the item, if it is there."""
        await self.abatch([_delete(namespace, key)])

    async def asearch(
        self,
        namespace_prefix: Sequence[str] = (),
        /,
        *,
        query: str | None = None,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[Item]:
        """Items in and under a namespace, last updated first.

        With a `query` those that fit it best, by their `score`, where a worker offers an embedder and the database has
        pgvector; else it has no effect, and every `score` is None.
        """
        op = _search(namespace_prefix, query, filter, limit, offset, refresh_ttl)
        found: list[Item] = (await self.abatch([op]))[0]
        return found

    async def alist_namespaces(
        self,
        *,
        prefix: Sequence[str] | None = None,
        suffix: Sequence[str] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """The namespaces that hold items; "*" in `prefix` and `suffix` is any label, `max_depth` shortens."""
        found: list[Namespace] = (await self.abatch([_list(prefix, suffix, max_depth, limit, offset)]))[0]
        return found

    async def abatch(self, ops: Iterable[Mapping[str, Any]]) -> list[Any]:
        """Do operations in order, in one commit, and give their results in order.

        `{"op": "put", "namespace", "key", "value", "ttl"?, "index"?}` (with None as value it deletes),
        `{"op": "get" | "delete", "namespace", "key"}`,
        `{"op": "search", "namespace_prefix", "filter"?, "limit"?, ...}`, `{"op": "list_namespaces", "prefix"?, ...}`.
        """
        sent = _sent(ops)
        return _given(sent, await self._backend.store_ops(sent))

    def put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Mapping[str, Any],
        *,
        ttl: float | None = None,
        index: Index = None,
    ) -> None:
        """As `aput`, from a plain node."""
        self.batch([_put(namespace, key, value, ttl, index)])

    def get(self, namespace: Sequence[str], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """As `aget`, from a plain node."""
        item: Item | None = self.batch([_get(namespace, key, refresh_ttl)])[0]
        return item

    def delete(self, namespace: Sequence[str], key: str) -> None:
        """As `adelete`, from a plain node."""
        self.batch([_delete(namespace, key)])

    def search(
        self,
        namespace_prefix: Sequence[str] = (),
        /,
        *,
        query: str | None = None,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[Item]:
        """As `asearch`, from a plain node."""
        found: list[Item] = self.batch([_search(namespace_prefix, query, filter, limit, offset, refresh_ttl)])[0]
        return found

    def list_namespaces(
        self,
        *,
        prefix: Sequence[str] | None = None,
        suffix: Sequence[str] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """As `alist_namespaces`, from a plain node."""
        found: list[Namespace] = self.batch([_list(prefix, suffix, max_depth, limit, offset)])[0]
        return found

    def batch(self, ops: Iterable[Mapping[str, Any]]) -> list[Any]:
        """As `abatch`, from a plain node."""
        sent = _sent(ops)
        return _given(sent, self._backend.store_ops_in_thread(sent))


def _put(namespace: Sequence[str], key: str, value: Mapping[str, Any], ttl: float | None, index: Index) -> Op:
    return {"op": "put", "namespace": namespace, "key": key, "value": value, "ttl": ttl, "index": index}


def _get(namespace: Sequence[str], key: str, refresh_ttl: bool | None) -> Op:
    return {"op": "get", "namespace": namespace, "key": key, "refresh_ttl": refresh_ttl}


def _delete(namespace: Sequence[str], key: str) -> Op:
    return {"op": "delete", "namespace": namespace, "key": key}


def _search(
    prefix: Sequence[str],
    query: str | None,
    filter: Mapping[str, Any] | None,
    limit: int,
    offset: int,
    refresh_ttl: bool | None,
) -> Op:
    return {
        "op": "search",
        "namespace_prefix": prefix,
        "query": query,
        "filter": filter,
        "limit": limit,
        "offset": offset,
        "refresh_ttl": refresh_ttl,
    }


def _list(
    prefix: Sequence[str] | None, suffix: Sequence[str] | None, max_depth: int | None, limit: int, offset: int
) -> Op:
    return {
        "op": "list_namespaces",
        "prefix": prefix,
        "suffix": suffix,
        "max_depth": max_depth,
        "limit": limit,
        "offset": offset,
    }


def _sent(ops: Iterable[Mapping[str, Any]]) -> list[Op]:
    sent: list[Op] = []
    for op in ops:
        sent.append(to_json({name: given for name, given in op.items() if given is not None}, str(op.get("op"))))
    return sent


def _given(ops: list[Op], results: list[Any]) -> list[Any]:
    return [_result(op, result) for op, result in zip(ops, results, strict=True)]


def _result(op: Op, result: Any) -> Any:
    if op["op"] == "search":
        return [_item(found) for found in result]
    if op["op"] == "list_namespaces":
        return [tuple(namespace) for namespace in result]
    return None if result is None else _item(result)


def _item(found: Mapping[str, Any]) -> Item:
    created, updated = (datetime.fromisoformat(found[name]) for name in ("created_at", "updated_at"))
    return Item(tuple(found["namespace"]), found["key"], found["value"], created, updated, found.get("score"))
