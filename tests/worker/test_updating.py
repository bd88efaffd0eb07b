"""Changes of state from outside that need the code of a native graph: its reducers, routers and conditions."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import psycopg
import pytest

from duragraph_worker import END, Graph, entrypoint, node, router_node
from tests.worker import toy_graphs as toys
from tests.worker.test_executor_on_postgres import Stage


def longest(old: str, new: str) -> str:
    return max(old or "", new, key=len)


class Words(TypedDict, total=False):
    word: Annotated[str, longest]
    way: str
    seen: Annotated[list[str], lambda old, new: [*(old or []), *new]]


@Graph(id="routed", state=Words)
class Routed:
    @entrypoint
    @node()
    async def start(self, state):
        return {"seen": ["start"]}

    @router_node
    async def choose(self, state):
        return END if state.get("way") == "end" else state.get("way", "left")

    @node()
    async def left(self, state):
        return {"seen": ["left"]}

    @node()
    async def right(self, state):
        return {"seen": ["right"]}

    @node()
    async def join(self, state):
        return {"seen": ["join"]}

    start >> choose
    choose >> left
    choose >> right
    choose >> END
    [left, right] >> join


async def update(stage: Stage, *supersteps: list[dict[str, Any]]) -> Any:
    stage.register()
    run_id = stage.call("begin_update", 1, stage.thread_id, [{"updates": updates} for updates in supersteps])
    (claim,) = stage.call("claim_runs", stage.worker_key, 10)["runs"]
    await stage.execute(claim)
    return stage.call("run_output", 1, run_id)["output"]


async def played(db: psycopg.Connection[Any], graph: Any, **given: Any) -> Stage:
    stage = Stage(db, graph)
    await stage.play([{"input": given}])
    return stage


def state(stage: Stage) -> Any:
    return stage.call("get_state", 1, stage.thread_id, {})


async def test_a_conditional_edge_decides_on_the_state_as_the_update_leaves_it(db: psycopg.Connection[Any]):
    stage = await played(db, toys.Counter(), target=1)
    made = await update(stage, [{"values": {"target": 5}, "as_node": "prepare"}])
    assert state(stage)["next"] == ["increment"]
    assert state(stage)["checkpoint_id"] == made["checkpoint_id"]
    assert state(stage)["metadata"]["source"] == "update"
    await stage.run({"input": None})
    assert stage.output()["output"]["count"] == 5


@pytest.mark.parametrize(("way", "following"), [("right", ["right"]), ("left", ["left"]), ("end", [])])
async def test_a_router_is_asked_where_its_update_leads(way: str, following: list[str], db: psycopg.Connection[Any]):
    stage = await played(db, Routed(), way="end")
    await update(stage, [{"values": {"way": way}, "as_node": "choose"}])
    assert state(stage)["next"] == following


async def test_a_reducer_of_the_graphs_own_merges_the_update(db: psycopg.Connection[Any]):
    stage = await played(db, Routed(), way="end", word="four")
    await update(stage, [{"values": {"word": "two", "seen": ["by hand"], "unknown": 1}}])
    assert state(stage)["values"] == {"way": "end", "word": "four", "seen": ["start", "by hand"]}
    await update(stage, [{"values": {"word": "longer"}}])
    assert state(stage)["values"]["word"] == "longer"


async def test_a_join_waits_for_all_its_sources(db: psycopg.Connection[Any]):
    stage = await played(db, Routed(), way="end")
    await update(stage, [{"values": {}, "as_node": "left"}])
    assert state(stage)["next"] == []
    await update(stage, [{"values": {}, "as_node": "right"}])
    assert state(stage)["next"] == ["join"]


async def test_supersteps_make_a_checkpoint_each(db: psycopg.Connection[Any]):
    stage = await played(db, toys.Counter(), target=0)
    before = len(stage.call("get_history", 1, stage.thread_id, {"limit": 100}))
    steps = [[{"values": {"log": [str(n)]}, "as_node": "increment"}] for n in range(3)]
    await update(stage, *steps)
    assert len(stage.call("get_history", 1, stage.thread_id, {"limit": 100})) == before + 3
    assert state(stage)["values"]["log"][-3:] == ["0", "1", "2"]


async def test_what_cannot_be_is_refused_and_changes_nothing(db: psycopg.Connection[Any]):
    stage = await played(db, toys.Counter(), target=0)
    before = state(stage)
    for wrong, said in [
        ({"values": {"target": 1}, "as_node": "nowhere"}, "has no node 'nowhere'"),
        ({"values": {"count": "many"}, "as_node": "prepare"}, "count"),
    ]:
        refused = (await update(stage, [wrong]))["refused"]
        assert said in refused["message"]
        assert state(stage) == before


async def test_an_update_at_an_older_checkpoint_forks(db: psycopg.Connection[Any]):
    stage = await played(db, toys.Counter(), target=2)
    history = stage.call("get_history", 1, stage.thread_id, {"limit": 100})
    point = next(one for one in history if one["values"].get("count") == 1)
    stage.register()
    supersteps = [{"updates": [{"values": {"target": 4}, "as_node": "increment"}]}]
    stage.call("begin_update", 1, stage.thread_id, supersteps, point["checkpoint"])
    (claim,) = stage.call("claim_runs", stage.worker_key, 10)["runs"]
    await stage.execute(claim)
    assert state(stage)["parent_checkpoint"]["checkpoint_id"] == point["checkpoint_id"]
    assert (state(stage)["values"]["target"], state(stage)["next"]) == (4, ["increment"])


async def test_a_crash_before_the_update_is_written_does_it_once(db: psycopg.Connection[Any]):
    stage = await played(db, toys.Counter(), target=0)
    stage.register()
    run_id = stage.call(
        "begin_update", 1, stage.thread_id, [{"updates": [{"values": {"count": 5}, "as_node": "increment"}]}]
    )
    assert len(stage.call("claim_runs", stage.worker_key, 10)["runs"]) == 1  # and its worker dies
    db.execute("update duragraph.worker_heartbeats set expires_at = now() - interval '1 hour'")
    db.execute("update duragraph.leases set expires_at = now() - interval '1 hour'")
    stage.call("release_expired_leases", 100)
    db.execute("update duragraph.worker_heartbeats set expires_at = now() + interval '1 hour'")
    (claim,) = stage.call("claim_runs", stage.worker_key, 10)["runs"]
    await stage.execute(claim)
    assert stage.call("run_output", 1, run_id)["output"].keys() == {"checkpoint_id"}
    assert state(stage)["values"]["count"] == 5


def test_a_busy_thread_refuses_an_update(db: psycopg.Connection[Any]):
    stage = Stage(db, toys.Counter())
    stage.register()
    body = {"assistant_id": "counter", "if_not_exists": "create", "input": {}}
    stage.call("create_runs", 1, [{"thread_id": stage.thread_id, "body": body}])
    with pytest.raises(psycopg.Error, match="already running a task"):
        stage.call("begin_update", 1, stage.thread_id, [{"updates": []}])
