"""The BaseStore of a hosted run: its operations go to the control plane in one request, fenced by the run's lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from duragraph_worker.errors import DuraGraphError
from duragraph_worker.hosting.rendering import jsonable

SendOps = Callable[[list[dict[str, Any]]], Awaitable[list[Any]]]


class RunStore(BaseStore):
    """What `runtime.store` is in a hosted graph. Values are JSON; `ttl` is in minutes."""

    supports_ttl = True

    def __init__(self, send: SendOps) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """The results, in order. Raises LeaseLost when the run belongs to someone else."""
        asked = list(ops)
        if not asked:
            return []
        results = await self._send([_asked(op) for op in asked])
        return [_answered(op, result) for op, result in zip(asked, results, strict=True)]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As `abatch`, from a thread of the graph's."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            raise DuraGraphError("an async node called the store's sync method; await its async one (aput, aget, ...)")
        return asyncio.run_coroutine_threadsafe(self.abatch(ops), self._loop).result()


def _asked(op: Op) -> dict[str, Any]:
    if isinstance(op, PutOp):
        put = {"op": "put", "namespace": list(op.namespace), "key": op.key, "value": jsonable(op.value)}
        if op.index is not None:
            put["index"] = op.index
        return {**put, **({"ttl": op.ttl} if isinstance(op.ttl, int | float) else {})}
    if isinstance(op, GetOp):
        return {"op": "get", "namespace": list(op.namespace), "key": op.key, "refresh_ttl": op.refresh_ttl}
    if isinstance(op, SearchOp):
        return {
            "op": "search",
            "namespace_prefix": list(op.namespace_prefix),
            "filter": jsonable(op.filter),
            "limit": op.limit,
            "offset": op.offset,
            "query": op.query,
            "refresh_ttl": op.refresh_ttl,
        }
    if isinstance(op, ListNamespacesOp):
        ends: dict[str, Any] = {
            condition.match_type: list(condition.path) for condition in op.match_conditions or () if condition.path
        }
        return {"op": "list_namespaces", "max_depth": op.max_depth, "limit": op.limit, "offset": op.offset, **ends}
    raise DuraGraphError(f"the store cannot do {type(op).__name__}")


def _answered(op: Op, result: Any) -> Result:
    if isinstance(op, SearchOp):
        return [SearchItem(**_fields(one), score=one.get("score")) for one in result]
    if isinstance(op, ListNamespacesOp):
        return [tuple(one) for one in result]
    if isinstance(op, GetOp) and result is not None:
        return Item(**_fields(result))
    return None


def _fields(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "namespace": tuple(item["namespace"]),
        "key": item["key"],
        "value": item["value"],
        "created_at": datetime.fromisoformat(item["created_at"]),
        "updated_at": datetime.fromisoformat(item["updated_at"]),
    }
