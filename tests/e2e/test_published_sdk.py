"""The published SDK 0.3.3, unchanged, as worker and as client: from an environment of its own, over HTTP."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.conftest import Live, start
from tests.postgres import Server
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
PUBLISHED = Path(__file__).parent / "published"
PINS = ROOT / "requirements" / "published.txt"

pytestmark = pytest.mark.xdist_group("published-sdk")


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter of an environment that holds the published SDK: its import name is ours, so it needs its own."""
    mark = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = ROOT / "build" / f"published-sdk-{mark}"
    interpreter = home / "bin" / "python"
    done = home / ".done"
    if not done.exists():
        venv.create(home, with_pip=True, clear=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", str(PINS)], check=True)
        done.touch()
    return str(interpreter)


@pytest.fixture(scope="module")
def published(server: Server) -> Iterator[Live]:
    """A server of this file's own."""
    with server.database(server.template) as name, start(server.dsn(name)) as running:
        yield running


@contextmanager
def worker(python: str, url: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([python, "-I", str(PUBLISHED / "agent.py"), url, name], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def ask(live: Live, method: str, path: str, body: Any = None) -> Any:
    answer = httpx.request(method, f"{live.url}{path}", json=body, timeout=30)
    assert answer.status_code < 300, (answer.status_code, answer.text)
    return answer.json()


def serves(live: Live, name: str) -> bool:
    return any(w["worker_id"] == name and w["healthy"] for w in ask(live, "GET", "/api/v1/workers")["workers"])


@pytest.fixture(scope="module")
def served(published: Live, python: str) -> Iterator[Live]:
    """The server with a worker of the published SDK."""
    with worker(python, published.url, "published"):
        wait_for(lambda: serves(published, "published"), what="the worker's registration", timeout=30)
        yield published


def test_its_client_does_its_whole_repertoire(served: Live, python: str) -> None:
    printed = subprocess.run(
        [python, "-I", str(PUBLISHED / "client.py"), served.url], check=True, capture_output=True, text=True, timeout=90
    )
    found = json.loads(printed.stdout)
    sync = found["sync"]
    assert sync["joined"] == {"x": 21, "trail": ["first", "second"], "answer": 42}
    assert sync["values"] == sync["joined"]
    assert sync["waited"] == {"x": 2, "trail": ["first", "second"], "answer": 4}
    assert (sync["status"], sync["by_id"], sync["runs"]) == ("success", True, 1)
    assert min(sync["history"], sync["assistants"], sync["threads"], sync["searched"]) > 0
    assert (sync["assistant"], sync["updated"], sync["thread"], sync["cancelled"]) == ("Mine", True, True, True)
    assert sync["store"] == {
        "value": {"n": 2},
        "missing": None,
        "searched": ["k"],
        "namespaces": [["published", "notes"]],
        "left": [],
    }
    assert found["async"] == {"run": "pending", "got": True, "stored": {"n": 1}, "found": 1}


@pytest.mark.parametrize("way", ["left", "right"])
def test_a_conditional_edge_registers_and_routes(served: Live, way: str) -> None:
    done = ask(served, "POST", "/runs/wait", {"assistant_id": "published_routing", "input": {"go": way}})
    assert done == {"go": way, "went": way}


def test_a_failing_graph_ends_its_run_with_the_message(served: Live) -> None:
    done = ask(served, "POST", "/runs/wait", {"assistant_id": "published_failing", "input": {}})
    assert done["__error__"]["message"] == "kaboom"


def test_a_human_node_stops_the_run_and_its_answer_completes_it(served: Live) -> None:
    thread = ask(served, "POST", "/threads", {})["thread_id"]
    body = {"assistant_id": "published_asking", "input": {}}
    asked = ask(served, "POST", f"/threads/{thread}/runs/wait", body)
    assert asked["prepared"] is True
    assert asked["__interrupt__"][0]["value"]["prompt"] == "Is this right?"
    assert ask(served, "GET", f"/threads/{thread}")["status"] == "interrupted"
    answer = {"assistant_id": "published_asking", "command": {"resume": {"approved": True}}}
    assert ask(served, "POST", f"/threads/{thread}/runs/wait", answer)["approved"] is True
    assert ask(served, "GET", f"/threads/{thread}")["status"] == "idle"


def test_what_its_nodes_did_is_streamed(served: Live) -> None:
    body = {"assistant_id": "published_linear", "input": {"x": 1}, "stream_mode": ["updates", "values"]}
    with httpx.stream("POST", f"{served.url}/runs/stream", json=body, timeout=30) as answer:
        events = [line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event:")]
    assert events[0] == "metadata"
    assert events.count("updates") == 2
    assert events[-1] == "end"


def test_a_run_waits_for_a_worker_and_survives_its_death(server: Server, python: str) -> None:
    """Nobody serves it at first; then its worker dies while it works and another finishes it."""
    with server.database(server.template) as name, start(server.dsn(name)) as alone:
        capable = {"worker_id": "late", "capabilities": {"graphs": ["published_linear"]}}
        ask(alone, "POST", "/workers/register", capable)
        run = ask(alone, "POST", "/runs", {"assistant_id": "published_linear", "input": {"x": 4}})
        taken = ask(alone, "POST", "/workers/late/poll", {"max_tasks": 1})["tasks"]
        assert [task["run_id"] for task in taken] == [run["run_id"]]
        with psycopg.connect(alone.dsn, autocommit=True) as connection:
            connection.execute("update duragraph.worker_heartbeats set expires_at = now() - interval '1 hour'")
            connection.execute("update duragraph.leases set expires_at = now() - interval '1 hour'")
        with worker(python, alone.url, "second"):
            done = ask(alone, "GET", f"/runs/{run['run_id']}/join")
        assert done == {"x": 4, "trail": ["first", "second"], "answer": 8}
