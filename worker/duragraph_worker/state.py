"""What a graph's state is: its schema, how updates are merged into it, and what changed for the checkpoint.

A schema is nothing (a plain dict), a TypedDict, a dataclass or a pydantic model. A key may name its reducer:

    class State(TypedDict, total=False):
        question: str                              # the last value wins; two writers in one superstep are an error
        log: Annotated[list[str], append]          # or operator.add: lists grow, numbers add up
        facts: Annotated[dict[str, str], merge]    # keys are laid over keys
        messages: Annotated[list[dict], messages]  # by id: a known id replaces, an unknown one is added
        best: Annotated[int, max]                  # any function of (old, new)

State is JSON and nothing else: a value that PostgreSQL could not give back unchanged is refused where it is made.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypedDict

from duragraph_worker.chat import normalise, remove_by_id
from duragraph_worker.errors import InvalidUpdateError, StateError

Reducer = Callable[[Any, Any], Any]
Delta = dict[str, dict[str, Any]]

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "MISSING", "__bool__": lambda _: False})()
_EMPTY: dict[type, Callable[[], Any]] = {list: list, dict: dict, int: int, float: float, str: str, bool: bool}


def append(old: Any, new: Any) -> Any:
    """A list grows: by the items of a list, or by one value that is no list."""
    return [*(old or []), *(new if isinstance(new, list) else [new])]


def merge(old: Any, new: Any) -> Any:
    """A dict is laid over a dict."""
    return {**(old or {}), **(new or {})}


def messages(old: Any, new: Any) -> list[dict[str, Any]]:
    """Chat messages by id: a known id replaces, `{"type": "remove", "id"}` removes, others are added and get an id."""
    added = normalise(new)
    at = {m.get("id"): i for i, m in enumerate(old or [])}
    if not any(m.get("id") in at or m["type"] == "remove" for m in added):
        return [*(old or []), *added]
    return remove_by_id(list(old or []), added)


class MessagesState(TypedDict, total=False):
    """State of a chat: one key, `messages`."""

    messages: Annotated[list[dict[str, Any]], messages]


@dataclasses.dataclass(frozen=True)
class Channel:
    """One key of the state."""

    name: str
    reducer: Reducer | None = None
    initial: Any = MISSING

    @property
    def reducer_name(self) -> str | None:
        """As it is published: append, add, merge, messages, or a function's own name; None: the last value wins."""
        if self.reducer is None:
            return None
        if self.reducer is operator.add:
            return "append" if isinstance(self.initial, list) else "add"
        return str(getattr(self.reducer, "__name__", type(self.reducer).__name__))

    def start(self) -> Any:
        """The value before any write: a fresh copy, or MISSING."""
        return self.initial.copy() if isinstance(self.initial, list | dict) else self.initial

    def reduce(self, old: Any, new: Any) -> Any:
        """The value after a write of `new`."""
        old = self.start() if old is MISSING else old
        return new if self.reducer is None or old is MISSING else self.reducer(old, new)

    def written(self, value: Any, path: str) -> Any:
        """A written value as it is recorded: JSON, and messages with their ids."""
        plain = to_json(value, path)
        return normalise(plain) if self.reducer is messages else plain


class Schema:
    """The channels of a graph and how node functions see them."""

    def __init__(self, declared: Any = None) -> None:
        self.declared = declared
        self.open = declared is None or declared is dict
        self.kind = _kind(declared)
        hints = {} if self.open else _hints(declared)
        self.channels = {name: _channel(name, hint) for name, hint in hints.items()}
        if self.open:
            self.channels["messages"] = Channel("messages", messages, [])

    def channel(self, key: str) -> Channel:
        """The channel of a key; in a graph without a schema any key is one."""
        return self.channels.get(key) or Channel(key)

    def has(self, key: str) -> bool:
        """Whether a node may write this key."""
        return self.open or key in self.channels

    def start(self) -> dict[str, Any]:
        """The values of a thread that nothing was written to: reducers begin with an empty value."""
        if self.open:
            return {}
        return {name: c.start() for name, c in self.channels.items() if c.reducer and c.initial is not MISSING}

    def view(self, values: Mapping[str, Any]) -> Any:
        """The state as a node gets it: its own containers, so that changing one in place changes nothing else."""
        own = {k: v.copy() if isinstance(v, list | dict) else v for k, v in values.items()}
        if self.kind == "dict":
            return own
        known = {k: v for k, v in own.items() if k in self.channels}
        return self.declared(**known)

    def update(self, returned: Any, node: str) -> dict[str, Any]:
        """What a node returned, as JSON by key. Raises InvalidUpdateError (no update), StateError (no JSON, no key)."""
        given = _as_dict(returned)
        if given is None:
            raise InvalidUpdateError(
                f"node '{node}' returned {type(returned).__name__}; return a dict of what changes, a Command or None"
            )
        for key in given:
            if not self.has(key):
                known = ", ".join(sorted(self.channels))
                raise StateError(
                    f"node '{node}' returned the key '{key}', which the state does not declare ({known})", key
                )
        try:
            return {_key(key, ""): self.channel(key).written(value, key) for key, value in given.items()}
        except StateError as problem:
            raise StateError(f"node '{node}' returned what cannot be state: {problem}", problem.path) from None

    def input(self, given: Any) -> dict[str, Any]:
        """A run's input, as JSON by key; keys that the state does not declare are left out."""
        fields = _as_dict(given)
        if fields is None:
            raise StateError(f"the input must be an object of state keys, not {type(given).__name__}")
        return {_key(k, ""): self.channel(k).written(v, k) for k, v in fields.items() if self.has(k)}

    def apply(
        self, values: Mapping[str, Any], updates: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> tuple[dict[str, Any], Delta]:
        """Merge the updates of (node, update) in order. Gives the new values and what changed.

        Raises InvalidUpdateError when two of them write a key that has no reducer.
        """
        after = dict(values)
        writer: dict[str, str] = {}
        for node, update in updates:
            for key, new in update.items():
                channel = self.channel(key)
                if channel.reducer is None:
                    if self.open and key in values and values[key] == new:
                        continue  # a node that returns the whole state writes only what it changed
                    if key in writer and after[key] != new:
                        raise InvalidUpdateError(
                            f"nodes '{writer[key]}' and '{node}' both wrote the key '{key}' in one superstep; "
                            "give it a reducer (Annotated[..., append], merge, ...) or let one of them write it",
                            key,
                        )
                    writer[key] = node
                after[key] = self._reduce(channel, after.get(key, MISSING), new, node)
        return after, self.delta(values, after)

    def _reduce(self, channel: Channel, old: Any, new: Any, node: str) -> Any:
        try:
            reduced = channel.reduce(old, new)
        except StateError:
            raise
        except Exception as problem:
            raise InvalidUpdateError(
                f"the reducer {channel.reducer_name} of the key '{channel.name}' failed on what node '{node}' wrote: "
                f"{type(problem).__name__}: {problem}",
                channel.name,
            ) from problem
        plain = channel.reducer in (None, append, merge, messages, operator.add)
        return reduced if plain else to_json(reduced, channel.name)

    def delta(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> Delta:
        """What changed, as checkpoints store it: `{"append": [...]}` where a list with a reducer only grew."""
        changed: Delta = {}
        for key, new in after.items():
            old = before.get(key, MISSING)
            if old is new or (old is not MISSING and same(old, new)):
                continue
            grew = isinstance(old, list) and isinstance(new, list) and len(new) > len(old) > 0
            if grew and self.channel(key).reducer and same(new[: len(old)], old):
                changed[key] = {"append": new[len(old) :]}
            else:
                changed[key] = {"set": new}
        return changed

    def json_schema(self) -> dict[str, Any]:
        """The schema as JSON Schema."""
        if self.open:
            return {"type": "object", "title": "State", "properties": {}, "additionalProperties": True}
        return json_schema(self.declared)


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same, `1`, `1.0` and `true` being different."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(x is y or same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return len(a) == len(b) and all(k in b and (v is b[k] or same(v, b[k])) for k, v in a.items())
    return bool(a == b)


def to_json(value: Any, path: str = "") -> Any:
    """A copy of `value` as plain JSON. Raises StateError naming the path of what is none.

    Tuples become lists and pydantic models objects. NaN and infinities, NUL and lone surrogates in text, and keys that
    are not text are refused: PostgreSQL would not give them back.
    """
    try:
        return _json(value, path)
    except RecursionError:
        raise StateError(f"{path or 'the value'} is nested too deeply, or contains itself", path) from None


def _json(value: Any, path: str) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() and "\0" not in value else _text(value, path)
    if value is None or kind is bool:
        return value
    if kind is int:
        return _int(value, path)
    if kind is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise StateError(f"{path or 'the value'} is {value}, which JSON has not; use None or a text", path)
        return value
    if kind is dict:
        return {_key(k, path): _json(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
    if kind is list or kind is tuple:
        return [_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return _other(value, path)


def _other(value: Any, path: str) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return _json(dump(mode="json"), path)
    for plain in (str, bool, int, float):
        if isinstance(value, plain):
            return _json(plain(value) if plain is not str else str.__str__(value), path)
    if isinstance(value, Mapping):
        return _json(dict(value), path)
    if isinstance(value, list | tuple):
        return _json(list(value), path)
    raise StateError(
        f"{path or 'the value'} is a {type(value).__module__}.{type(value).__qualname__}, which is no JSON; "
        "return text, numbers, booleans, None, lists and dicts (a date as text, a set as a list)",
        path,
    )


def _text(value: str, path: str) -> str:
    if "\0" in value:
        raise StateError(f"{path or 'the text'} contains the character NUL (\\u0000); remove it", path)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise StateError(f"{path or 'the text'} contains a lone surrogate, which is no Unicode text", path) from None
    return value


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise StateError(f"{path or 'the value'} has the key {key!r}, which is no text; use str({key!r})", path)
    return _text(key, f"the key {key!r} of {path or 'the value'}")


def _int(value: int, path: str) -> int:
    if value.bit_length() > 4096:
        raise StateError(f"{path or 'the value'} is a number of more than 1,200 digits; use a text", path)
    return value


def _as_dict(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    fields = getattr(value, "model_fields_set", None)
    if fields is not None:
        return {name: getattr(value, name) for name in type(value).model_fields if name in fields}
    return None


def _kind(declared: Any) -> str:
    if declared is None or declared is dict or typing.is_typeddict(declared):
        return "dict"
    if isinstance(declared, type) and (dataclasses.is_dataclass(declared) or hasattr(declared, "model_fields")):
        return "object"
    # typing_extensions has a TypedDict of its own before Python 3.12
    if isinstance(declared, type) and issubclass(declared, dict) and hasattr(declared, "__total__"):
        return "dict"
    raise StateError(f"state={declared!r} is no schema; give a TypedDict, a dataclass, a pydantic model or nothing")


def _hints(declared: Any) -> dict[str, Any]:
    module = sys.modules.get(declared.__module__)
    try:
        hints = typing.get_type_hints(declared, vars(module) if module else None, include_extras=True)
    except NameError as problem:
        raise StateError(
            f"the annotations of {declared.__name__} cannot be read: {problem}; a schema inside a function needs its "
            "names at module level"
        ) from None
    if hasattr(declared, "model_fields"):
        return {name: hint for name, hint in hints.items() if name in declared.model_fields}
    return hints


def _channel(name: str, hint: Any) -> Channel:
    while typing.get_origin(hint) in (typing.Required, typing.NotRequired):
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is not Annotated:
        return Channel(name)
    base, *marks = typing.get_args(hint)
    reducer = next((m for m in reversed(marks) if callable(m) and not isinstance(m, type)), None)
    if reducer is None:
        return Channel(name)
    origin = typing.get_origin(base) or base
    empty = list if reducer in (append, messages) else dict if reducer is merge else origin
    known = empty in (list, dict) or reducer is operator.add
    return Channel(name, reducer, _EMPTY[empty]() if known and empty in _EMPTY else MISSING)


def json_schema(declared: Any) -> dict[str, Any]:
    """JSON Schema of a TypedDict, dataclass or pydantic model; an open object where one cannot be made."""
    from pydantic import TypeAdapter  # heavy, and only registration needs it
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    try:
        return TypeAdapter(_for_pydantic(declared)).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError):
        names = list(_hints(declared))
        return {"type": "object", "title": declared.__name__, "properties": {name: {} for name in names}}


def _for_pydantic(declared: Any) -> Any:
    """A schema that pydantic takes: before Python 3.12 it wants TypedDicts from typing_extensions."""
    if not typing.is_typeddict(declared) or sys.version_info >= (3, 12):
        return declared
    from typing import NotRequired, Required

    from typing_extensions import TypedDict as Portable

    required: frozenset[str] = getattr(declared, "__required_keys__", frozenset())
    fields: dict[str, Any] = {
        name: (Required if name in required else NotRequired)[_bare(hint)] for name, hint in _hints(declared).items()
    }
    make: Any = Portable  # the functional form with computed fields is beyond type checkers
    return make(declared.__name__, fields)


def _bare(hint: Any) -> Any:
    """The hint without its reducer, and without Required and NotRequired."""
    while typing.get_origin(hint) in (Annotated, typing.Required, typing.NotRequired):
        hint = typing.get_args(hint)[0]
    return hint
