"""A hosted LangGraph graph outlives its worker: killed in the middle of a run, which another one brings to its end."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.e2e.test_conformance import SUITE, free_port, process
from tests.postgres import Server
from tests.waiting import wait_for

CONFIG = str(SUITE / "graphs" / "langgraph.json")
STEPS = 6


@pytest.mark.timeout(180)
def test_a_run_goes_on_from_its_last_finished_step_when_its_worker_is_killed(server: Server, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def worker(name: str) -> list[str]:
        return ["duragraph_worker.cli", "run", "--config", CONFIG, "--url", url, "--name", name, "--lease-seconds", "2"]

    with ExitStack() as stack:
        dsn = server.dsn(stack.enter_context(server.database(server.template)))
        settings = {"DATABASE_URL": dsn, "DURAGRAPH_AWAIT_WORKERS": "1"}
        api = ["duragraph.cli", "serve", "--port", str(port)]
        stack.enter_context(process(tmp_path / "server.log", *api, **settings))
        first = stack.enter_context(process(tmp_path / "first.log", *worker("first")))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        wait_for(lambda: answers(client), 60, what="a server with a worker")
        thread = client.post("/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "slow", "input": {"steps": STEPS, "sleep": 0.5}, "stream_mode": ["values"]}
        run = client.post(f"/threads/{thread}/runs", json=body).json()["run_id"]
        wait_for(lambda: len(done(client, thread)) >= 2, 60, what="two finished steps")
        finished = len(done(client, thread))
        first.kill()
        stack.enter_context(process(tmp_path / "second.log", *worker("second")))
        output = client.get(f"/threads/{thread}/runs/{run}/join").json()
        assert output["done"] == [str(n) for n in range(1, STEPS + 1)]
        with psycopg.connect(dsn) as connection:
            ledger = connection.execute(
                "select l.what, l.worker_id, l.attempt from duragraph.run_ledger l where l.run_id = %s order by l.n",
                [run],
            ).fetchall()
        assert len(ledger) == STEPS, ledger
        by_first = [row for row in ledger if row[1] == "first"]
        assert len(by_first) >= finished
        assert {row[2] for row in ledger if row[1] == "second"} == {2}


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ok").status_code == 200
    except httpx.TransportError:
        return False


def done(client: httpx.Client, thread: str) -> list[Any]:
    state = client.get(f"/threads/{thread}/state").json()
    return list((state["values"] or {}).get("done", []))
