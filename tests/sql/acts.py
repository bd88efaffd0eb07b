"""What many tests of the engine do and look at, in a word each."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import psycopg

from tests.sql.scene import Scene

PLACES = ("ready", "leases", "waiting", "scheduled")
HISTORY = ("runs", "events", "checkpoints", "channel_values", "steps", "interrupts")


def status(scene: Scene, run: str) -> str | None:
    """pending, running, success, ...; None for a run that is not there."""
    shown: str | None = scene.value("select duragraph.run_status(duragraph.shard_of(%s), %s)", run, run)
    return shown


def thread_status(scene: Scene, thread: str) -> str:
    """idle, busy, interrupted or error."""
    shown: str = scene.call("get_thread", thread)["status"]
    return shown


def places(scene: Scene, run: str) -> list[str]:
    """The queue tables in which a run is."""
    return [name for name in PLACES if scene.value(f"select count(*) from duragraph.{name} where run_id = %s", run)]


def line(scene: Scene, thread: str) -> tuple[str | None, list[str], list[str]] | None:
    """(active run, those that wait in order, those that wait for their time) of a busy thread."""
    found = scene.rows("select active_run_id, waiting, delayed from duragraph.slots where thread_id = %s", thread)
    if not found:
        return None
    [slot] = found
    waiting = scene.rows("select run_id from duragraph.waiting where thread_id = %s order by ord", thread)
    delayed = scene.rows(
        "select run_id from duragraph.scheduled where thread_id = %s and not holds_slot order by due_at, ord", thread
    )
    assert (slot["waiting"], slot["delayed"]) == (len(waiting), len(delayed))
    active = slot["active_run_id"]
    return active and str(active), [str(w["run_id"]) for w in waiting], [str(d["run_id"]) for d in delayed]


def create(scene: Scene, *requests: dict[str, Any]) -> list[str]:
    """Runs made in one call: {thread_id?, and a body}."""
    sent = [
        {"thread_id": r.pop("thread_id", None), "body": {"assistant_id": "counter", **r}} for r in map(dict, requests)
    ]
    return [run["run_id"] for run in scene.call("create_runs", sent)]


def finish(scene: Scene, claim: dict[str, Any], status: str = "success", **end: object) -> bool:
    """End a claimed run by complete_runs(); whether the engine took it."""
    write = {"run_id": claim["run_id"], "token": claim["token"], "end": {"status": status, **end}}
    return scene.bare("complete_runs", [write])["refused"] == []


def append(scene: Scene, claim: dict[str, Any], write_no: int, *names: str) -> bool:
    """Append events of these names; whether the engine took them."""
    events = [{"event": name, "data": {"n": n, "of": write_no}} for n, name in enumerate(names)]
    write = {"run_id": claim["run_id"], "token": claim["token"], "write_no": write_no, "events": events}
    return scene.bare("append_events", [write])["refused"] == []


def events(scene: Scene, run: str, after: int = 0, limit: int | None = None) -> list[tuple[int, str, Any]]:
    """(seq, event, data) as a stream would show them."""
    cursor = json.dumps([{"run_id": run, "after": after, "limit": limit}])
    [row] = scene.rows("select * from duragraph.read_events(%s)", cursor)
    frames = [frame.split(chr(31)) for frame in (row["frames"] or "").split(chr(30)) if frame]
    return [(int(seq), event, json.loads(data)) for seq, event, data in frames]


def everything(scene: Scene) -> dict[str, int]:
    """Rows of every table that belongs to runs."""
    return {name: scene.value(f"select count(*) from duragraph.{name}") for name in (*PLACES, "slots", *HISTORY)}


def silence(scene: Scene, seconds: float = 3600) -> list[dict[str, Any]]:
    """Let all workers be silent for so long; what the sweep then takes back."""
    scene.wait(seconds)
    taken: list[dict[str, Any]] = scene.bare("release_expired_leases")
    return taken


def some_thread_id() -> str:
    """An id that a client made."""
    return str(uuid4())


def weaken(connection: psycopg.Connection[Any], function: str, guard: str, instead: str = "") -> None:
    """Take a guard out of a function, in this database only: the broken twin of a test's subject."""
    found = connection.execute(
        "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'duragraph'::regnamespace and proname = %s",
        (function,),
    ).fetchall()
    [(source,)] = found
    assert guard in source, f"{function} has no such guard: {guard}"
    connection.execute(source.replace(guard, instead))
