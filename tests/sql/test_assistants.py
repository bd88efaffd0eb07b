"""Assistants: made, versioned, found, drawn, deleted."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4, uuid5

import psycopg
import pytest

from tests.sql.scene import COUNTER, Scene

NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
MISSING = str(uuid4())


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.worker()
    return scene


def test_create_gives_back_what_was_sent(scene: Scene) -> None:
    made = scene.call(
        "create_assistant",
        {
            "graph_id": "counter",
            "name": "greeter",
            "description": "says hello",
            "metadata": {"team": "blue"},
            "config": {"tags": ["t1"], "recursion_limit": 9},
        },
    )
    assert (made["graph_id"], made["name"], made["description"]) == ("counter", "greeter", "says hello")
    assert made["config"] == {"tags": ["t1"], "recursion_limit": 9}
    assert (made["context"], made["metadata"], made["version"]) == ({}, {"team": "blue"}, 1)
    assert made["created_at"] == made["updated_at"]
    assert made["created_at"].endswith("+00:00")
    assert scene.call("get_assistant", made["assistant_id"]) == made


def test_a_name_is_not_needed(scene: Scene) -> None:
    assert scene.call("create_assistant", {"graph_id": "counter"})["name"] == "Untitled"


def test_the_same_id_twice_is_refused_or_gives_the_first(scene: Scene) -> None:
    first = scene.call("create_assistant", {"graph_id": "counter", "assistant_id": MISSING, "name": "first"})
    again = {"graph_id": "counter", "assistant_id": MISSING, "name": "second"}
    assert scene.refused("create_assistant", again) == ("DG409", "assistant_exists")
    assert scene.call("create_assistant", {**again, "if_exists": "do_nothing"}) == first


def test_an_unknown_graph_is_refused(scene: Scene) -> None:
    assert scene.refused("create_assistant", {"graph_id": "nope"}) == ("DG404", "graph_not_found")
    assert scene.refused("search_assistants", {"graph_id": "nope"}) == ("DG404", "graph_not_found")


def test_context_and_configurable_mirror_each_other(scene: Scene) -> None:
    by_context = scene.call("create_assistant", {"graph_id": "counter", "context": {"user": "cid"}})
    by_config = scene.call("create_assistant", {"graph_id": "counter", "config": {"configurable": {"user": "ann"}}})
    assert by_context["config"] == {"configurable": {"user": "cid"}}
    assert by_config["context"] == {"user": "ann"}
    both = {"graph_id": "counter", "context": {"a": 1}, "config": {"configurable": {"a": 1}}}
    assert scene.refused("create_assistant", both) == ("DG400", "context_and_configurable")


def test_every_update_is_a_new_version(scene: Scene) -> None:
    made = scene.call(
        "create_assistant", {"graph_id": "counter", "name": "one", "context": {"s": "a"}, "metadata": {"k": 1}}
    )
    changed = scene.call("update_assistant", made["assistant_id"], {"context": {"s": "b"}, "metadata": {"more": 2}})
    assert (changed["version"], changed["name"]) == (2, "one")
    assert (changed["context"], changed["config"]) == ({"s": "b"}, {"configurable": {"s": "b"}})
    assert changed["metadata"] == {"k": 1, "more": 2}
    versions = scene.call("list_assistant_versions", made["assistant_id"])
    assert [v["version"] for v in versions] == [2, 1]
    assert versions[1]["context"] == {"s": "a"}
    assert "updated_at" not in versions[0]


def test_what_is_not_sent_stays(scene: Scene) -> None:
    made = scene.call("create_assistant", {"graph_id": "counter", "description": "d", "config": {"tags": ["t"]}})
    changed = scene.call("update_assistant", made["assistant_id"], {"name": "new"})
    assert (changed["description"], changed["config"]) == ("d", {"tags": ["t"]})


def test_latest_points_back_and_updates_count_on(scene: Scene) -> None:
    made = scene.call("create_assistant", {"graph_id": "counter", "name": "one", "context": {"s": "old"}})
    scene.call("update_assistant", made["assistant_id"], {"name": "two", "context": {"s": "new"}})
    back = scene.call("set_latest_assistant", made["assistant_id"], 1)
    assert (back["version"], back["name"], back["context"]) == (1, "one", {"s": "old"})
    assert scene.call("get_assistant", made["assistant_id"]) == back
    assert scene.call("update_assistant", made["assistant_id"], {"name": "three"})["version"] == 3
    refused = scene.refused("set_latest_assistant", made["assistant_id"], 9)
    assert refused == ("DG404", "assistant_version_not_found")


def test_versions_page_and_filter(scene: Scene) -> None:
    made = scene.call("create_assistant", {"graph_id": "counter"})
    for n in range(3):
        scene.call("update_assistant", made["assistant_id"], {"metadata": {"n": n}})
    listed = scene.call("list_assistant_versions", made["assistant_id"], {"limit": 2, "offset": 1})
    assert [v["version"] for v in listed] == [3, 2]
    listed = scene.call("list_assistant_versions", made["assistant_id"], {"metadata": {"n": 1}})
    assert [v["version"] for v in listed] == [3]


def test_every_graph_has_a_system_assistant(scene: Scene) -> None:
    [found], total, following = scene.page("search_assistants", metadata={"created_by": "system"})
    assert found["assistant_id"] == str(uuid5(NAMESPACE, "counter"))
    assert (found["name"], found["version"], total, following) == ("counter", 1, 1, None)
    assert scene.refused("delete_assistant", found["assistant_id"]) == ("DG409", "system_assistant")
    assert [v["version"] for v in scene.call("list_assistant_versions", found["assistant_id"])] == [1]


def test_search_filters_sorts_and_pages(scene: Scene) -> None:
    for name in ("carol", "alice", "bob"):
        scene.call("create_assistant", {"graph_id": "counter", "name": name, "metadata": {"tag": {"deep": 1}}})
    search = {"metadata": {"tag": {"deep": 1}}, "sort_by": "name", "sort_order": "asc"}
    items, total, following = scene.page("search_assistants", **search, limit=2)
    assert ([a["name"] for a in items], total, following) == (["alice", "bob"], 3, 2)
    items, total, following = scene.page("search_assistants", **search, limit=2, offset=2)
    assert ([a["name"] for a in items], total, following) == (["carol"], 3, None)
    assert scene.call("count_assistants", {"metadata": {"tag": {"deep": 1}}}) == 3
    assert [a["name"] for a in scene.page("search_assistants", name="ALI")[0]] == ["alice"]
    assert scene.page("search_assistants", name="%")[0] == []


def test_search_selects_fields(scene: Scene) -> None:
    items, _, _ = scene.page("search_assistants", select=["name", "graph_id"])
    assert items == [{"name": "counter", "graph_id": "counter"}]


def test_search_cannot_be_told_what_to_execute(scene: Scene) -> None:
    hostile = "name; drop table duragraph.assistants"
    assert scene.refused("search_assistants", {"sort_by": hostile}) == ("DG422", "invalid_sort")
    items, _, _ = scene.page("search_assistants", sort_order=hostile, select=[hostile], name="'; select 1 --")
    assert items == []


def test_another_tenant_sees_nothing(scene: Scene) -> None:
    made = scene.call("create_assistant", {"graph_id": "counter"})
    other = Scene(scene.connection, tenant=2)
    assert other.refused("get_assistant", made["assistant_id"])[0] == "DG404"
    assert other.refused("update_assistant", made["assistant_id"], {"name": "x"})[0] == "DG404"
    assert other.refused("delete_assistant", made["assistant_id"])[0] == "DG404"
    assert other.page("search_assistants")[0] == []


def test_delete_takes_the_threads_when_asked(scene: Scene) -> None:
    made = scene.call("create_assistant", {"graph_id": "counter"})
    kept = scene.call("create_assistant", {"graph_id": "counter"})
    thread = scene.thread(metadata={"assistant_id": made["assistant_id"]})
    other = scene.thread(metadata={"assistant_id": kept["assistant_id"]})
    scene.call("delete_assistant", made["assistant_id"], True)
    assert scene.refused("get_assistant", made["assistant_id"]) == ("DG404", "assistant_not_found")
    assert scene.refused("get_thread", thread)[0] == "DG404"
    scene.call("delete_assistant", kept["assistant_id"])
    assert scene.call("get_thread", other)["thread_id"] == other


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("get_assistant", []),
        ("update_assistant", [{"name": "x"}]),
        ("delete_assistant", []),
        ("list_assistant_versions", []),
        ("set_latest_assistant", [1]),
        ("assistant_schemas", []),
        ("assistant_subgraphs", []),
        ("assistant_graph", []),
    ],
)
def test_a_missing_assistant_is_404(scene: Scene, function: str, arguments: list[object]) -> None:
    assert scene.refused(function, MISSING, *arguments) == ("DG404", "assistant_not_found")


def test_the_drawing_has_start_and_end(scene: Scene) -> None:
    graph = scene.call("assistant_graph", "counter")
    assert [n["id"] for n in graph["nodes"]] == ["__start__", "prepare", "increment", "finish", "__end__"]
    edges = {(e["source"], e["target"]): e.get("conditional", False) for e in graph["edges"]}
    assert edges == {
        ("__start__", "prepare"): False,
        ("prepare", "increment"): False,
        ("increment", "increment"): True,
        ("increment", "finish"): True,
        ("finish", "__end__"): False,
    }
    assert scene.call("assistant_graph", str(uuid5(NAMESPACE, "counter"))) == graph


def test_the_drawing_keeps_edges_that_are_said(scene: Scene) -> None:
    definition = {
        "nodes": [{"id": "__start__"}, {"id": "a"}, {"id": "__end__"}],
        "edges": [{"source": "__start__", "target": "a"}, {"source": "a", "target": "__end__", "conditional": True}],
    }
    scene.worker("worker-2", {"graph_id": "said", "definition": definition})
    graph = scene.call("assistant_graph", "said")
    assert [n["id"] for n in graph["nodes"]] == ["__start__", "a", "__end__"]
    assert graph["edges"] == [
        {"source": "__start__", "target": "a"},
        {"source": "a", "target": "__end__", "conditional": True},
    ]


def test_a_graph_registered_without_topology_still_draws(scene: Scene) -> None:
    scene.worker("worker-2", {"graph_id": "bare"})
    assert scene.call("assistant_graph", "bare")["edges"] == []
    assert scene.call("get_graph", "bare")["nodes"] == []


def test_schemas_name_their_graph(scene: Scene) -> None:
    schemas = scene.call("assistant_schemas", str(uuid5(NAMESPACE, "counter")))
    assert schemas["graph_id"] == "counter"
    assert schemas["input_schema"] == COUNTER["schemas"]["input_schema"]  # type: ignore[index]  # a literal of mixed values
    assert schemas["context_schema"] == {"type": "object"}


def test_subgraphs_by_namespace(scene: Scene) -> None:
    subgraphs: dict[str, Any] = {
        "child": {"state_schema": {}},
        "child|inner": {"state_schema": {}},
        "other": {"state_schema": {}},
    }
    scene.worker("worker-2", {"graph_id": "nested", "schemas": {"subgraphs": subgraphs}})
    assistant = str(uuid5(NAMESPACE, "nested"))
    assert set(scene.call("assistant_subgraphs", assistant)) == {"child", "other"}
    assert set(scene.call("assistant_subgraphs", assistant, None, True)) == {"child", "child|inner", "other"}
    assert set(scene.call("assistant_subgraphs", assistant, "child", True)) == {"child", "child|inner"}
    assert scene.call("assistant_subgraphs", str(uuid5(NAMESPACE, "counter"))) == {}


def test_a_graph_is_shown_as_registered(scene: Scene) -> None:
    graph = scene.call("get_graph", "counter")
    assert (graph["graph_id"], graph["entry_point"]) == ("counter", "prepare")
    assert graph["nodes"] == COUNTER["definition"]["nodes"]  # type: ignore[index]  # a literal of mixed values
    assert scene.refused("get_graph", "nope") == ("DG404", "graph_not_found")


def test_two_updates_at_once_make_two_versions(two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> None:
    one, other = Scene(two[0]), Scene(two[1])
    one.worker()
    made = one.call("create_assistant", {"graph_id": "counter"})["assistant_id"]
    with two[0].transaction():
        one.call("update_assistant", made, {"name": "by one"})
        # The other waits for the row; it cannot see the new version before it is committed.
        waits = two[1].execute("select set_config('lock_timeout', '50ms', false)")
        assert waits.fetchone() == ("50ms",)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.call("update_assistant", made, {"name": "by other"})
    assert other.call("update_assistant", made, {"name": "by other"})["version"] == 3


def test_subgraphs_are_drawn_open_to_a_depth(scene: Scene) -> None:
    def node(name: str, inside: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"id": name, "config": {"graph": inside} if inside else {}}

    deep = {"nodes": [node("only")], "edges": [], "entry_point": "only"}
    turns = [
        {"source": "one", "target": "two", "conditional": True},
        {"source": "one", "target": "__end__", "conditional": True},
    ]
    child = {"nodes": [node("one"), node("two", deep)], "edges": turns, "entry_point": "one"}
    edges = [{"source": "before", "target": "child"}, {"source": "child", "target": "after"}]
    definition = {
        "nodes": [node("before"), node("child", child), node("after")],
        "edges": edges,
        "entry_point": "before",
    }
    scene.worker("worker-2", {"graph_id": "nested", "definition": definition})

    def drawn(*depth: int) -> tuple[list[str], set[tuple[str, str, bool]]]:
        graph = scene.call("assistant_graph", "nested", *depth)
        pairs = {(e["source"], e["target"], e.get("conditional", False)) for e in graph["edges"]}
        return [n["id"] for n in graph["nodes"]][1:-1], pairs

    ends = {("__start__", "before", False), ("after", "__end__", False)}
    assert drawn() == (["before", "child", "after"], ends | {("before", "child", False), ("child", "after", False)})
    inside = {("before", "child:one", False), ("child:one", "after", True)}
    one_deep = ends | inside | {("child:one", "child:two", True), ("child:two", "after", False)}
    assert drawn(1) == (["before", "child:one", "child:two", "after"], one_deep)
    opened = ends | inside | {("child:one", "child:two:only", True), ("child:two:only", "after", False)}
    assert drawn(2) == drawn(100) == (["before", "child:one", "child:two:only", "after"], opened)
