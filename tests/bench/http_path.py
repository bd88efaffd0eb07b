"""From a create to its first events and to its answer, through the real API and a real worker, one run at a time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator

import httpx
import psycopg

from tests.bench.figures import Figure, Target, percentile
from tests.bench.machine import Meter, tree_cpu, wait_until_quiet
from tests.bench.processes import System, system
from tests.bench.scale import Scale
from tests.postgres import Server

_ROUNDS = 3
_TARGETS = {50: Target("<=", 10, "ours"), 99: Target("<=", 50, "ours")}
_STREAM = {"assistant_id": "noop", "input": {}, "stream_mode": "updates"}
_WAIT = {"assistant_id": "noop", "input": {}}
_COSTS = (
    ("api_cpu", "ms/run"),
    ("worker_cpu", "ms/run"),
    ("client_cpu", "ms/run"),
    ("postgres_cpu", "ms/run"),
    ("other_load", "cores"),
)
_Round = dict[str, list[float]]


async def measure(server: Server, scale: Scale) -> list[Figure]:
    """p50 and p99 in milliseconds on the client's clock."""
    each = max(1, scale.requests // _ROUNDS)
    with server.database(server.template) as name:
        async with system(server.dsn(name), workers=1) as running:
            meters = Meters(server.dsn(name), running)
            await _round(running, min(10, each))
            rounds = []
            for _ in range(_ROUNDS):
                await asyncio.to_thread(wait_until_quiet, scale.patience)
                meters.start()
                took = await _round(running, each)
                rounds.append(took | meters.stop(2 * each))
            meters.close()
        _expect_ended(server.dsn(name), 2 * (_ROUNDS * each + min(10, each)))
    latencies = [
        Figure(f"http_path.{what}.p{percent}", "ms", [percentile(one[what], percent) for one in rounds], target=target)
        for what, targets in (
            ("first_sse_event", _TARGETS),
            ("node_start", _TARGETS),
            ("first_worker_event", _TARGETS),
            ("stream_end", dict.fromkeys(_TARGETS)),
            ("wait", dict.fromkeys(_TARGETS)),
        )
        for percent, target in targets.items()
    ]
    return latencies + [Figure(f"http_path.{what}", unit, [one[what][0] for one in rounds]) for what, unit in _COSTS]


class Meters:
    """What a run costs each process, and what others took of the machine meanwhile."""

    def __init__(self, dsn: str, running: System) -> None:
        self._meter = Meter(dsn)
        self._running = running

    def start(self) -> None:
        """From here on."""
        self._meter.start()
        self._api, self._workers = self._read()

    def stop(self, runs: int) -> _Round:
        """As `_COSTS` names them."""
        cost = self._meter.stop(runs)
        api, workers = self._read()
        api, workers = api - self._api, workers - self._workers
        return {
            "api_cpu": [api / runs * 1000],
            "worker_cpu": [workers / runs * 1000],
            "client_cpu": [cost.client_us / 1000],
            "postgres_cpu": [cost.server_us / 1000],
            "other_load": [max(0.0, cost.other_cores - (api + workers) / cost.seconds)],
        }

    def close(self) -> None:
        """Hang up."""
        self._meter.close()

    def _read(self) -> tuple[float, float]:
        return tree_cpu(self._running.api), sum(map(tree_cpu, self._running.workers))


async def _round(running: System, times: int) -> _Round:
    took: _Round = {"first_sse_event": [], "node_start": [], "first_worker_event": [], "stream_end": [], "wait": []}
    for _ in range(times):
        await _pause()
        await _stream(running.client, took)
        await _pause()
        began = time.monotonic()
        answer = await running.client.post("/runs/wait", json=_WAIT)
        took["wait"].append((time.monotonic() - began) * 1000)
        assert answer.status_code == 200, answer.text
        assert answer.json()["began"] > began, answer.text
    return took


async def _stream(client: httpx.AsyncClient, took: _Round) -> None:
    began = time.monotonic()
    seen = []
    async with client.stream("POST", "/runs/stream", json=_STREAM) as response:
        assert response.status_code == 200, await response.aread()
        async for event, data in _events(response):
            at = time.monotonic()
            if not seen:
                took["first_sse_event"].append((at - began) * 1000)
            if event == "updates":
                took["first_worker_event"].append((at - began) * 1000)
                took["node_start"].append((json.loads(data)["nothing"]["began"] - began) * 1000)
            seen.append(event)
    took["stream_end"].append((time.monotonic() - began) * 1000)
    assert seen.count("updates") == 1, f"the stream showed {seen}"
    assert "error" not in seen, f"the stream showed {seen}"


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """(event, data) of each frame, as soon as it is complete."""
    event, data = "message", ""
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        if name == "event":
            event = value.strip()
        elif name == "data":
            data = value.strip()
        elif not line and data:
            yield event, data
            event, data = "message", ""


async def _pause() -> None:
    """Low load: the next request does not come in the wake of the last one."""
    await asyncio.sleep(random.uniform(0.01, 0.03))


def _expect_ended(dsn: str, runs: int) -> None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select count(*), count(*) filter (where status = 'success' and attempt = 1) from duragraph.runs"
        ).fetchone()
        left = connection.execute("select from duragraph.ready union all select from duragraph.leases").fetchall()
    assert row == (runs, runs), f"(runs, ended well at once) are {row}, expected {runs}"
    assert not left, "nothing is left in the queue"
