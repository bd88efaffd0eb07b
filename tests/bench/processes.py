"""The real thing as processes of its own: an API under uvicorn, and workers of the SDK."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import httpx

_ROOT = Path(__file__).parents[2]
_GRAPH = Path(__file__).with_name("noop_graph.py")
_PATIENCE = 30.0


class System:
    """One API process and its workers; `client` speaks to it."""

    def __init__(self, client: httpx.AsyncClient, api: int, workers: Sequence[int]) -> None:
        self.client = client
        self.api = api
        self.workers = workers


@asynccontextmanager
async def system(dsn: str, workers: int, graphs: Path = _GRAPH, runs_at_once: int = 10) -> AsyncIterator[System]:
    """Running until the block ends; what the processes say is shown when one of them fails."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DURAGRAPH_")}
    environment |= {"DATABASE_URL": dsn, "PYTHONPATH": str(_ROOT)}
    started: list[subprocess.Popen[bytes]] = []

    with tempfile.TemporaryFile() as said:

        def start(*command: str) -> int:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=said, stderr=said, env=environment, cwd=_ROOT
            )
            started.append(process)
            return process.pid

        try:
            async with httpx.AsyncClient(base_url=url, timeout=_PATIENCE) as client:
                api = start("uvicorn", "--factory", "duragraph.app:from_environment", "--port", str(port))
                await until(client, "/ok", lambda answer: answer.status_code == 200, started, said)
                worker = ["duragraph_worker.cli", "run", str(graphs), "--max-concurrent-runs", str(runs_at_once)]
                pids = [start(*worker, "--url", url) for _ in range(workers)]
                await until(client, "/workers", lambda answer: answer.json()["total"] == workers, started, said)
                yield System(client, api, pids)
        finally:
            for process in reversed(started):
                await asyncio.to_thread(stop, process)


async def until(client: httpx.AsyncClient, path: str, ready: Any, started: Any, said: IO[bytes]) -> None:
    """Returns when the answer to the path is `ready`."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                if any(process.poll() is not None for process in started):
                    raise RuntimeError(f"a process of the bench ended:\n{_words(said)}")
                try:
                    if ready(await client.get(path)):
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise RuntimeError(f"{path} is not as awaited after {_PATIENCE:g} s:\n{_words(said)}") from None


def _words(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")[-4000:]


def stop(process: subprocess.Popen[bytes]) -> None:
    """In order, or by force."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """One that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
