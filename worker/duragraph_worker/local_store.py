"""The key-value store of local runs: in memory, with the rules of the control plane's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from duragraph_worker.errors import StoreError
from duragraph_worker.state import MISSING, to_json
from duragraph_worker.store import Namespace, Op

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda a, b: bool(a > b),
    "$gte": lambda a, b: bool(a >= b),
    "$lt": lambda a, b: bool(a < b),
    "$lte": lambda a, b: bool(a <= b),
}
_NAME_BYTES = 2000
_TICK = timedelta(microseconds=1)
_MAX_TTL = 3_153_600_000
_MAX_LIMIT = 10_000


@dataclass(frozen=True)
class _Kept:
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl: timedelta | None
    expires_at: datetime | None


class LocalStore:
    """Items in memory. `clock` tells the time, for tests that hold it."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._items: dict[tuple[Namespace, str], _Kept] = {}
        # Runs of one graph may be at work in several threads.
        self._lock = threading.Lock()

    async def store_ops(self, ops: list[Op]) -> list[Any]:
        """Do operations in order, all or nothing; their results as JSON. Raises StoreError."""
        return self.store_ops_in_thread(ops)

    def store_ops_in_thread(self, ops: list[Op]) -> list[Any]:
        """The same from plain code."""
        # What is refused is refused here, before anything is done.
        calls = [self._call(op) for op in ops]
        with self._lock:
            return [to_json(call()) for call in calls]

    def _call(self, op: Op) -> Callable[[], Any]:
        match op.get("op"):
            case "put":
                return self._put(op)
            case "get":
                place, refresh = _place(op), op.get("refresh_ttl", True)
                return lambda: self._get(place, refresh)
            case "delete":
                place = _place(op)
                return lambda: self._items.pop(place, None) and None
            case "search":
                return self._search(op)
            case "list_namespaces":
                return self._list(op)
        raise StoreError("op is none that the store knows; use put, get, delete, search or list_namespaces", field="op")

    def _put(self, op: Op) -> Callable[[], Any]:
        place, value, ttl = _place(op), op.get("value"), _ttl(op)
        if place[0][0] == "langgraph":
            raise StoreError('namespace: its root cannot be "langgraph"', field="namespace")
        _check_index(op.get("index"))
        if value is None:
            return lambda: self._items.pop(place, None) and None
        if not isinstance(value, dict):
            raise StoreError("value must be an object; wrap it", field="value")

        def put() -> None:
            now = self._clock()
            known = self._alive(place)
            born = known.created_at if known else now
            updated = max(now, known.updated_at + _TICK) if known else now
            self._items[place] = _Kept(to_json(value), born, updated, ttl, now + ttl if ttl else None)

        return put

    def _get(self, place: tuple[Namespace, str], refresh: bool) -> Any:
        kept = self._alive(place)
        if kept is None:
            return None
        self._read(place, refresh)
        return _shown(place, kept)

    def _search(self, op: Op) -> Callable[[], Any]:
        prefix, wanted = _labels(op, "namespace_prefix"), op.get("filter") or {}
        limit, offset = _number(op, "limit", 10), _number(op, "offset", 0)
        refresh = op.get("refresh_ttl", True)
        _check_filter(wanted)

        def search() -> Any:
            found = [
                (place, kept)
                for place, kept in self._all()
                if place[0][: len(prefix)] == prefix
                and all(_matches(kept.value.get(field, MISSING), want) for field, want in wanted.items())
            ]
            found.sort(key=lambda entry: entry[0])
            found.sort(key=lambda entry: entry[1].updated_at, reverse=True)
            page = found[offset : offset + limit]
            for place, _ in page:
                self._read(place, refresh)
            return [{**_shown(place, kept), "score": None} for place, kept in page]

        return search

    def _list(self, op: Op) -> Callable[[], Any]:
        prefix, suffix = _labels(op, "prefix"), _labels(op, "suffix")
        limit, offset, depth = _number(op, "limit", 100), _number(op, "offset", 0), op.get("max_depth")
        if depth is not None and (type(depth) is not int or depth < 1):
            raise StoreError("max_depth must be an integer from 1", field="max_depth")

        def listed() -> Any:
            full = {place[0] for place, _ in self._all()}
            found = {ns[:depth] for ns in full if _begins(ns, prefix) and _begins(ns[::-1], suffix[::-1])}
            return sorted(found)[offset : offset + limit]

        return listed

    def _alive(self, place: tuple[Namespace, str]) -> _Kept | None:
        kept = self._items.get(place)
        if kept is not None and kept.expires_at is not None and kept.expires_at <= self._clock():
            del self._items[place]
            return None
        return kept

    def _all(self) -> Iterator[tuple[tuple[Namespace, str], _Kept]]:
        for place in list(self._items):
            if kept := self._alive(place):
                yield place, kept

    def _read(self, place: tuple[Namespace, str], refresh: bool) -> None:
        kept = self._items[place]
        if refresh and kept.ttl is not None:
            self._items[place] = replace(kept, expires_at=self._clock() + kept.ttl)


def _shown(place: tuple[Namespace, str], kept: _Kept) -> dict[str, Any]:
    times = {name: getattr(kept, name).isoformat(timespec="microseconds") for name in ("created_at", "updated_at")}
    return {"namespace": list(place[0]), "key": place[1], "value": kept.value, **times}


def _labels(op: Op, field: str) -> Namespace:
    given = op.get(field) or ()
    if not isinstance(given, list | tuple) or not all(isinstance(label, str) for label in given):
        raise StoreError(f"{field} must be a list of texts, for example ['users', 'ann']", field=field)
    if any(not label or "." in label for label in given):
        raise StoreError(f"{field}: a label must be a non-empty text without periods", field=field)
    return tuple(given)


def _place(op: Op) -> tuple[Namespace, str]:
    namespace, key = _labels(op, "namespace"), op.get("key")
    if not namespace:
        raise StoreError("namespace: it cannot be empty; an item needs at least one label", field="namespace")
    if not isinstance(key, str) or not key:
        raise StoreError("key must be a non-empty text", field="key")
    if len("".join((*namespace, key)).encode()) + 8 * len(namespace) > _NAME_BYTES:
        raise StoreError(f"namespace and key are too long together; they may take {_NAME_BYTES} bytes", field="key")
    return namespace, key


def _ttl(op: Op) -> timedelta | None:
    ttl = op.get("ttl")
    if ttl is None:
        return None
    if not _is_number(ttl) or not 0 < ttl <= _MAX_TTL:
        raise StoreError("ttl must be a number above 0, in minutes", field="ttl")
    return timedelta(minutes=ttl)


def _number(op: Op, field: str, default: int) -> int:
    given = op.get(field)
    if given is None:
        return default
    high = _MAX_LIMIT if field == "limit" else 2**31 - 1
    if type(given) is not int or not 0 <= given <= high:
        raise StoreError(f"{field} must be an integer from 0 to {high}", field=field)
    return given


def _begins(namespace: Namespace, labels: Namespace) -> bool:
    return len(namespace) >= len(labels) and all(
        want in ("*", label) for label, want in zip(namespace, labels, strict=False)
    )


def _check_index(index: Any) -> None:
    paths = index if isinstance(index, list) else ()
    fine = len(paths) <= 100 and all(isinstance(path, str) and len(path.encode()) <= 400 for path in paths)
    if not (index is None or index is False or (isinstance(index, list) and fine)):
        raise StoreError("index must be false or a list of at most 100 paths", field="index")


def _check_filter(wanted: Any) -> None:
    if not isinstance(wanted, dict):
        raise StoreError("filter must be an object, for example {'color': 'red'}", field="filter")
    for inner in wanted.values():
        if isinstance(inner, dict) and any(name.startswith("$") for name in inner):
            if not inner.keys() <= {"$eq", "$ne", *_OPERATORS}:
                raise StoreError("filter: not an operator; use $eq, $ne, $gt, $gte, $lt or $lte", field="filter")
        elif isinstance(inner, dict):
            _check_filter(inner)


def _matches(value: Any, wanted: Any) -> bool:
    if value is MISSING:
        return False
    if not isinstance(wanted, dict):
        return _same(value, wanted)
    if any(name.startswith("$") for name in wanted):
        return all(_compares(value, name, operand) for name, operand in wanted.items())
    return isinstance(value, dict) and all(_matches(value.get(k, MISSING), want) for k, want in wanted.items())


def _compares(value: Any, operator: str, operand: Any) -> bool:
    if operator in ("$eq", "$ne"):
        return _same(value, operand) is (operator == "$eq")
    texts = isinstance(value, str) and isinstance(operand, str)
    return (texts or (_is_number(value) and _is_number(operand))) and _OPERATORS[operator](value, operand)


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: in Python 1 is also True."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    return bool(a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
