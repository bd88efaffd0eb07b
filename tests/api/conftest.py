"""Fixtures of the API's tests: a live server on a port of its own, a client of it, and workers that play a script.

| fixture   | what a test gets                                                                                       |
|-----------|--------------------------------------------------------------------------------------------------------|
| `live`    | the session's server: `.url`, `.dsn`, `.deps` (its insides run in another thread's loop)               |
| `serving` | `with serving(heartbeat_seconds=0.1, ...) as live`: a server of a test's own, on a fresh database       |
| `api`     | an asynchronous client of `live`, with `api.worker()`: a worker that speaks the protocol over HTTP     |
| `acting`  | a synchronous client of `live`                                                                         |
"""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from duragraph.app import App, create_app
from duragraph.config import Settings
from duragraph.deps import Deps
from tests.api.acting import Acting
from tests.api.scripted import Api
from tests.postgres import Server
from tests.waiting import wait_for, wait_for_async

Serving = Callable[..., AbstractContextManager["Live"]]


@dataclass(frozen=True)
class Live:
    """A running server."""

    url: str
    dsn: str
    app: App
    uvicorn: uvicorn.Server

    @property
    def deps(self) -> Deps:
        """Its insides."""
        return self.app.deps

    async def holds(self, polls: int) -> None:
        """Wait until so many polls are held."""
        await self._until(lambda: self.deps.claims.held == polls, f"{polls} held polls")

    async def reads(self, readers: int) -> None:
        """Wait until so many readers follow runs."""
        await self._until(lambda: self.deps.hub.readers == readers, f"{readers} readers")

    async def _until(self, seen: Callable[[], bool], what: str) -> None:
        async def probe() -> bool:
            return seen()

        await wait_for_async(probe, what=what)

    def in_loop(self, do: Callable[[], None]) -> None:
        """Do something where the server's own code runs."""
        self.app.loop.call_soon_threadsafe(do)


@contextmanager
def start(dsn: str, **settings: Any) -> Iterator[Live]:
    """A server over the database, in a thread; stopped as by SIGTERM."""
    application = create_app(Settings(database_url=dsn, port=0, **settings))
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, log_config=None, access_log=False, timeout_keep_alive=75, timeout_graceful_shutdown=10
    )  # type: ignore[arg-type]  # an ASGI application all the same
    live = Live(f"http://127.0.0.1:{listening.getsockname()[1]}", dsn, application, uvicorn.Server(config))
    thread = threading.Thread(target=live.uvicorn.run, args=([listening],), name="server")
    thread.start()
    try:
        wait_for(lambda: live.uvicorn.started or not thread.is_alive(), what="the server's start")
        assert live.uvicorn.started, "the server did not start: see its log"
        yield live
    finally:
        if live.uvicorn.started:
            live.in_loop(live.deps.drain.begin)
        live.uvicorn.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def live(server: Server) -> Iterator[Live]:
    """The session's server; its database is shared, so tests use graphs and threads of their own."""
    with server.database(server.template) as name, start(server.dsn(name)) as running:
        yield running


@pytest.fixture
def serving(fresh_db: str) -> Serving:
    """Starts a server with settings of its own."""
    return lambda dsn=fresh_db, **settings: start(dsn, **settings)


@pytest.fixture
async def api(live: Live) -> AsyncIterator[Api]:
    """A client of the session's server."""
    async with Api.of(live.url, live.dsn) as client:
        yield client


@pytest.fixture
def acting(live: Live) -> Iterator[Acting]:
    """A synchronous client of the session's server."""
    with httpx.Client(base_url=live.url, timeout=30) as http:
        yield Acting(http)
