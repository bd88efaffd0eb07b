"""State: schemas, reducers, what a checkpoint stores of a change, and what is refused."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Annotated, Any, NotRequired, TypedDict

import pytest
from pydantic import BaseModel

from duragraph_worker import Graph, InvalidUpdateError, StateError, append, merge, messages, node
from duragraph_worker.chat import for_provider, normalise
from duragraph_worker.state import Schema, same, to_json


class Typed(TypedDict, total=False):
    last: str
    log: Annotated[list[str], append]
    more: Annotated[list[int], operator.add]
    count: Annotated[int, operator.add]
    facts: Annotated[dict[str, int], merge]
    best: Annotated[int, max]
    chat: Annotated[list[dict[str, Any]], messages]
    maybe: NotRequired[Annotated[list[str], append]]


@dataclass
class Classic:
    name: str = "nobody"
    log: Annotated[list[str], append] = field(default_factory=list)


class Model(BaseModel):
    name: str = "nobody"
    age: int = 0
    log: Annotated[list[str], append] = []


def after(schema: Any, values: dict[str, Any], *updates: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    made = Schema(schema)
    return made.apply(values, [(f"n{i}", made.update(u, f"n{i}")) for i, u in enumerate(updates)])


def test_reducers_begin_empty_and_the_rest_begins_absent():
    assert Schema(Typed).start() == {"log": [], "more": [], "count": 0, "facts": {}, "chat": [], "maybe": []}


@pytest.mark.parametrize(
    ("key", "old", "new", "value"),
    [
        ("last", "a", "b", "b"),
        ("log", ["a"], ["b", "c"], ["a", "b", "c"]),
        ("log", ["a"], "b", ["a", "b"]),
        ("more", [1], [2], [1, 2]),
        ("count", 2, 3, 5),
        ("facts", {"a": 1, "b": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ("best", 5, 3, 5),
        ("maybe", [], ["x"], ["x"]),
    ],
)
def test_a_reducer_merges_the_new_value_into_the_old(key: str, old: Any, new: Any, value: Any):
    assert after(Typed, {key: old}, {key: new})[0] == {key: value}


def test_a_custom_reducer_takes_the_first_value_as_it_is():
    assert after(Typed, {}, {"best": -5})[0] == {"best": -5}


def test_a_list_that_only_grew_is_stored_as_what_was_added():
    assert after(Typed, {"log": ["a"]}, {"log": ["b"]}, {"log": ["c"]})[1] == {"log": {"append": ["b", "c"]}}
    assert after(Typed, {"log": []}, {"log": ["a"]})[1] == {"log": {"set": ["a"]}}
    assert after(Typed, {"last": "a", "log": ["a"]}, {"last": "b"})[1] == {"last": {"set": "b"}}


def test_what_did_not_change_is_not_stored():
    assert after(Typed, {"last": "a", "log": ["a"], "count": 1}, {"last": "a", "log": [], "count": 0})[1] == {}
    assert after(Typed, {"last": "1"}, {"last": "2"}, {})[1] == {"last": {"set": "2"}}


def test_true_and_one_are_different_values():
    assert not same({"a": [1]}, {"a": [True]})
    assert not same(1, 1.0)
    assert same({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]})
    assert after(None, {"a": 1}, {"a": 2})[1] == {"a": {"set": 2}}


def test_messages_are_merged_by_id():
    first, delta = after(Typed, {"chat": []}, {"chat": [{"role": "user", "content": "hi"}]})
    assert [(m["type"], m["content"]) for m in first["chat"]] == [("human", "hi")]
    assert delta == {"chat": {"set": first["chat"]}}
    second, delta = after(Typed, first, {"chat": {"role": "assistant", "content": "hello", "id": "x"}})
    assert delta == {"chat": {"append": second["chat"][1:]}}
    third, delta = after(Typed, second, {"chat": [{"type": "ai", "content": "hello!", "id": "x"}]})
    assert [m["content"] for m in third["chat"]] == ["hi", "hello!"]
    assert "set" in delta["chat"]
    gone, _ = after(Typed, third, {"chat": [{"type": "remove", "id": "x"}]})
    assert [m["content"] for m in gone["chat"]] == ["hi"]
    fresh, _ = after(Typed, third, {"chat": [{"type": "remove", "id": "__remove_all__"}, "again"]})
    assert [m["content"] for m in fresh["chat"]] == ["again"]
    with pytest.raises(StateError, match="'y' cannot be removed"):
        after(Typed, third, {"chat": [{"type": "remove", "id": "y"}]})


def test_a_message_has_the_form_that_chat_front_ends_read():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    human, ai, tool = normalise(
        [
            ("user", "hi"),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "1", "tool_call_id": "c"},
        ]
    )
    assert human == {
        "type": "human",
        "content": "hi",
        "id": human["id"],
        "name": None,
        "additional_kwargs": {},
        "response_metadata": {},
    }
    assert ai["tool_calls"] == [{"name": "f", "args": {"a": 1}, "id": "c", "type": "tool_call"}]
    assert (ai["content"], tool["status"]) == ("", "success")
    assert normalise([human, ai, tool]) == [human, ai, tool]
    assert for_provider([human, ai, tool]) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [{**call, "type": "function"}]},
        {"role": "tool", "content": "1", "tool_call_id": "c"},
    ]


@pytest.mark.parametrize("bad", [5, {"content": "x"}, {"role": "king", "content": "x"}, [5]])
def test_what_is_no_message_is_refused(bad: Any):
    with pytest.raises(StateError, match="message"):
        normalise(bad)


def test_two_writers_of_a_key_without_a_reducer_are_refused_and_named():
    with pytest.raises(InvalidUpdateError, match="'n0' and 'n1' both wrote the key 'last'"):
        after(Typed, {}, {"last": "a"}, {"last": "b"})
    assert after(Typed, {}, {"last": "a"}, {"last": "a"})[0] == {"last": "a"}


def test_nodes_may_return_the_whole_state_when_there_is_no_schema():
    values, delta = after(None, {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3})
    assert values == {"a": 2, "b": 3}
    assert delta == {"a": {"set": 2}, "b": {"set": 3}}


def test_a_key_that_is_not_declared_is_refused_from_a_node_and_left_out_of_an_input():
    with pytest.raises(StateError, match=r"node 'n0' returned the key 'oops', which the state does not declare"):
        after(Typed, {}, {"oops": 1})
    assert Schema(Typed).input({"oops": 1, "last": "x"}) == {"last": "x"}


def test_a_reducer_that_fails_says_which_and_on_whose_update():
    with pytest.raises(InvalidUpdateError, match="the reducer add of the key 'count' failed on what node 'n0' wrote"):
        after(Typed, {"count": 1}, {"count": "x"})


@pytest.mark.parametrize(
    ("value", "place", "why"),
    [
        ({"a": [{"b": object()}]}, "a[0].b", "builtins.object"),
        ({"a": {1, 2}}, "a", "builtins.set"),
        ({"a": date(2026, 1, 1)}, "a", "datetime.date"),
        ({"a": b"x"}, "a", "builtins.bytes"),
        ({"a": {1: "x"}}, "a", "str(1)"),
        ({"a": float("nan")}, "a", "nan"),
        ({"a": [1, float("-inf")]}, "a[1]", "-inf"),
        ({"a": "x\0y"}, "a", "NUL"),
        ({"a": "\ud800"}, "a", "surrogate"),
        ({"a": {"x\0": 1}}, "the key 'x\\x00' of a", "NUL"),
        ({"a": {"\udfff": 1}}, "the key '\\udfff' of a", "surrogate"),
        ({"a": 10**5000}, "a", "digits"),
    ],
    ids=lambda v: None,
)
def test_what_is_no_json_is_refused_and_its_place_named(value: Any, place: str, why: str):
    with pytest.raises(StateError) as refused:
        Schema().update(value, "work")
    assert refused.value.path == place
    assert why in str(refused.value)
    assert str(refused.value).startswith("node 'work' returned what cannot be state: " + place)


def test_a_value_that_contains_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(StateError, match="nested too deeply, or contains itself"):
        to_json(loop)


def test_json_is_copied_and_made_plain():
    class Colour(str, Enum):  # noqa: UP042  # the older form is the harder one
        RED = "red"

    given = {"t": (1, 2), "e": Colour.RED, "m": Model(name="x"), "é": "\U0001f600", "n": None, "f": 1e300}
    plain = to_json(given)
    assert plain == {
        "t": [1, 2],
        "e": "red",
        "m": {"name": "x", "age": 0, "log": []},
        "é": "\U0001f600",
        "n": None,
        "f": 1e300,
    }
    assert type(plain["e"]) is str


def test_a_node_gets_its_own_containers():
    schema = Schema(Typed)
    values = {"log": ["a"], "facts": {"x": 1}}
    view = schema.view(values)
    view["log"].append("b")
    view["facts"]["y"] = 2
    assert values == {"log": ["a"], "facts": {"x": 1}}


def test_dataclass_state_reads_as_the_dataclass_and_takes_dicts_or_itself():
    schema = Schema(Classic)
    seen = schema.view({"name": "Ada", "log": ["a"]})
    assert seen == Classic("Ada", ["a"])
    assert schema.view({}) == Classic()
    assert schema.update(Classic("Bob", ["b"]), "n") == {"name": "Bob", "log": ["b"]}


def test_pydantic_state_reads_as_the_model_validated_and_updates_with_what_was_set():
    schema = Schema(Model)
    assert schema.view({"name": "Ada", "age": "36"}) == Model(name="Ada", age=36)
    assert schema.update(Model(name="Bob"), "n") == {"name": "Bob"}
    with pytest.raises(ValueError, match="age"):
        schema.view({"age": "many"})


async def test_a_state_that_does_not_fit_the_model_fails_the_run():
    @Graph(id="g", state=Model)
    class Strict:
        @node
        def work(self, state: Model):
            return {"name": state.name.upper()}

    assert (await Strict().arun({"name": "ada"})).output == {"name": "ADA", "log": []}
    failed = await Strict().arun({"age": "many"})
    assert failed.error is not None
    assert failed.error["error"] == "ValidationError"


@pytest.mark.parametrize("schema", [Typed, Classic, Model], ids=lambda s: s.__name__)
def test_every_schema_is_published_as_json_schema(schema: Any):
    published = Schema(schema).json_schema()
    assert published["type"] == "object"
    assert published["properties"]["log"]["items"] == {"type": "string"}


def test_no_schema_is_published_as_an_open_object():
    assert Schema().json_schema()["additionalProperties"] is True


def test_what_is_no_schema_is_refused():
    with pytest.raises(StateError, match="is no schema"):
        Schema(list)


def test_reducers_are_published_by_name():
    names = {name: c.reducer_name for name, c in Schema(Typed).channels.items()}
    assert names == {
        "last": None,
        "log": "append",
        "more": "append",
        "count": "add",
        "facts": "merge",
        "best": "max",
        "chat": "messages",
        "maybe": "append",
    }
