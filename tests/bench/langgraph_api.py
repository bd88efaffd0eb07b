"""The official in-memory server of the LangGraph API beside ours: the same graphs, the same client, in turns.

It comes from its package into an environment of its own below build/; it is run as it is, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from langgraph_sdk import get_client

from tests.bench.figures import Figure, Target, percentile
from tests.bench.machine import Meter, busy_cpu, own_cpu, tree_cpu, wait_until_quiet
from tests.bench.processes import free_port, stop, system, until
from tests.bench.scale import Scale
from tests.postgres import Server

_ROOT = Path(__file__).parents[2]
_PINS = _ROOT / "requirements" / "langgraph_api.txt"
_SERVE = _ROOT / "tests" / "conformance" / "graphs" / "serve_oracle.sh"
OUR_GRAPHS = _ROOT / "tests" / "worker" / "toy_graphs.py"
_AT_ONCE = 50
_INPUT = {"messages": [{"role": "user", "content": "hello"}]}
_WIDTHS = (1, 10, 50)
_FASTER = Target(">=", 20)
_SOONER = Target("<=", 1 / 20)
_Round = dict[str, float]


async def measure(server: Server, scale: Scale) -> list[Figure]:
    """Runs a second, and milliseconds on the client's clock; both servers run as many runs at once."""
    python = await asyncio.to_thread(_environment)
    async with AsyncExitStack() as stack:
        dsn = server.dsn(stack.enter_context(server.database(server.template)))
        ours = await stack.enter_async_context(system(dsn, 1, OUR_GRAPHS, _AT_ONCE))
        peer, pid = await stack.enter_async_context(_official(python))
        meter = Meter(dsn)
        stack.callback(meter.close)
        parts = [ours.api, *ours.workers, pid]
        return await compare(
            str(ours.client.base_url), peer, scale, lambda: own_cpu() + meter.server_cpu() + sum(map(tree_cpu, parts))
        )


async def compare(ours: str, peer: str, scale: Scale, cpu: Callable[[], float] = busy_cpu) -> list[Figure]:
    """Rounds in which each of the two servers is asked the same, one after the other.

    `cpu` is what all that belongs to the bench has used so far; what else the machine did is the load of others.
    """
    load: list[float] = []
    async with get_client(url=ours, api_key=None) as us, get_client(url=peer, api_key=None) as them:
        for client in (us, them):
            await _round(client, 0)
        rounds: list[tuple[_Round, _Round]] = []
        for n in range(scale.rounds):
            await asyncio.to_thread(wait_until_quiet, scale.patience)
            first, second = (us, them) if n % 2 else (them, us)
            began, others = time.monotonic(), busy_cpu() - cpu()
            took = {id(client): await _round(client, scale.turn) for client in (first, second)}
            load.append(max(0.0, busy_cpu() - cpu() - others) / (time.monotonic() - began))
            rounds.append((took[id(us)], took[id(them)]))

    def figure(what: str, unit: str, target: Target | None = None) -> Figure:
        ours, peers = ([one[side][what] for one in rounds] for side in (0, 1))
        return Figure(f"langgraph_api.{what}", unit, ours, peers, target, more_is_better=unit.endswith("/s"))

    return [
        *(figure(f"wait.x{width}", "runs/s", _FASTER if width == 10 else None) for width in _WIDTHS),
        *(figure(f"wait.x{width}.p50", "ms") for width in _WIDTHS),
        figure("first_event.p50", "ms", _SOONER),
        figure("first_token.p50", "ms"),
        figure("token_streams.x10", "runs/s"),
        figure("token_streams.x10.events", "events/s"),
        Figure("langgraph_api.other_load", "cores", load),
    ]


async def _round(client: Any, turn: float) -> _Round:
    took: _Round = {}
    for width in _WIDTHS:
        times, seconds = await _many(lambda: _wait(client), width, turn)
        took[f"wait.x{width}"] = len(times) / seconds
        took[f"wait.x{width}.p50"] = percentile(times, 50) * 1000
    for what, graph, mode, event in (
        ("first_event", "echo", "values", "metadata"),
        ("first_token", "tokens", "messages-tuple", "messages"),
    ):
        firsts: list[float] = []
        await _many(lambda: _first(client, graph, mode, event, firsts), 1, turn)  # noqa: B023  # awaited within its turn
        took[f"{what}.p50"] = percentile(firsts, 50) * 1000
    events: list[int] = []
    times, seconds = await _many(lambda: _stream(client, events), 10, turn)
    took["token_streams.x10"] = len(times) / seconds
    took["token_streams.x10.events"] = sum(events) / seconds
    return took


async def _many(job: Callable[[], Awaitable[None]], width: int, turn: float) -> tuple[list[float], float]:
    """Do the job `width` at a time until the turn is over, at least once each; how long each took, and all."""
    times: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        while True:
            start = time.perf_counter()
            await job()
            times.append(time.perf_counter() - start)
            if time.perf_counter() - began > turn:
                return

    await asyncio.gather(*(caller() for _ in range(width)))
    return times, time.perf_counter() - began


async def _wait(client: Any) -> None:
    answer = await client.runs.wait(None, "echo", input=_INPUT)
    assert answer["messages"][-1]["content"] == "echo: hello", answer


async def _first(client: Any, graph: str, mode: str, event: str, firsts: list[float]) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    began, got = time.perf_counter(), None
    async for part in client.runs.stream(thread_id, graph, input=_INPUT, stream_mode=mode):
        if got is None and part.event == event:
            got = time.perf_counter() - began
    assert got is not None, f"no {event} came"
    firsts.append(got)


async def _stream(client: Any, events: list[int]) -> None:
    modes = ["messages-tuple", "values"]
    names = [part.event async for part in client.runs.stream(None, "tokens", input=_INPUT, stream_mode=modes)]
    assert names.count("messages") > 5, names
    assert "error" not in names, names
    events.append(len(names))


def _environment() -> Path:
    """The interpreter of an environment that holds the official server; made once for each set of pins."""
    mark = hashlib.sha256(_PINS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = _ROOT / "build" / f"langgraph-api-{mark}"
    interpreter, done = home / "bin" / "python", home / ".done"
    if not done.exists():
        venv.create(home, with_pip=True, clear=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", str(_PINS)], check=True)
        done.touch()
    return interpreter


@asynccontextmanager
async def _official(python: Path) -> AsyncIterator[tuple[str, int]]:
    """Its address and process, while it runs."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        more = {"PATH": path, "PORT": str(port), "JOBS": str(_AT_ONCE), "RUN_DIR": folder}
        process = subprocess.Popen(["bash", str(_SERVE)], stdout=said, stderr=said, env=os.environ | more, cwd=folder)
        try:
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                await until(client, "/ok", lambda answer: answer.status_code == 200, [process], said)
            yield url, process.pid
        finally:
            await asyncio.to_thread(stop, process)
