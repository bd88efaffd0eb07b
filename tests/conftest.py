"""Fixtures of every test: one PostgreSQL a session, shared by all its processes.

| fixture    | what a test gets                                                                        | cost   |
|------------|-----------------------------------------------------------------------------------------|--------|
| `db`       | a connection inside a transaction that is rolled back; `commit` is refused              | 1 ms   |
| `fresh_db` | the DSN of a migrated database of its own, dropped afterwards                           | 40 ms  |
| `two`      | two autocommit connections to a fresh_db, for races: `with one.transaction(): ...`      | 45 ms  |
| `empty_db` | the DSN of a database in which nothing is installed                                     | 40 ms  |
| `server`   | the server itself: `.database()`, `.run("pg_dump", name, ...)`, `.dsn(name)`            |        |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from tests import postgres
from tests.postgres import Server

# A suite with a configuration of its own: tests/e2e/test_conformance.py runs it.
collect_ignore = ["conformance"]

_stack = pytest.StashKey[ExitStack]()
_server = pytest.StashKey[Server]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """With xdist the first process starts the server, before any worker, and tells them where it is."""
    try:
        found = _start(node.config)
    except Exception as problem:  # tests without a database still run; the others fail with this
        node.workerinput["postgres_problem"] = str(problem)
    else:
        node.workerinput["postgres"] = (found.admin_dsn, found.bin_dir, found.prefix)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whoever started the server stops it."""
    if stack := config.stash.get(_stack, None):
        stack.close()


def _start(config: pytest.Config) -> Server:
    if _server not in config.stash:
        stack = config.stash[_stack] = ExitStack()
        config.stash[_server] = stack.enter_context(postgres.server())
    return config.stash[_server]


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Server:
    """The session's PostgreSQL."""
    told: dict[str, Any] = getattr(pytestconfig, "workerinput", {})
    if "postgres_problem" in told:
        pytest.fail(told["postgres_problem"])
    return Server(*told["postgres"]) if "postgres" in told else _start(pytestconfig)


class RolledBack(psycopg.Connection[Any]):
    """A connection whose transaction is never committed."""

    def commit(self) -> None:
        """Refused: what `db` does is not there for anybody else to see."""
        raise AssertionError("db is rolled back after the test; a test that commits uses fresh_db or two")


@pytest.fixture(scope="session")
def _shared_db(server: Server) -> Iterator[str]:
    with server.database(server.template) as name:
        yield server.dsn(name)


@pytest.fixture(scope="session")
def _shared_connection(_shared_db: str) -> Iterator[list[RolledBack]]:
    connections = [RolledBack.connect(_shared_db)]
    yield connections
    connections[0].close()


@pytest.fixture
def db(_shared_db: str, _shared_connection: list[RolledBack]) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a migrated database, in a transaction that is rolled back."""
    if _shared_connection[0].closed:
        _shared_connection[0] = RolledBack.connect(_shared_db)
    connection = _shared_connection[0]
    connection.execute("select")  # begins, so that a test's own transaction() is a savepoint
    yield connection
    if not connection.closed:
        connection.rollback()


@pytest.fixture
def fresh_db(server: Server) -> Iterator[str]:
    """The DSN of a migrated database of its own."""
    with server.database(server.template) as name:
        yield server.dsn(name)


@pytest.fixture
def empty_db(server: Server) -> Iterator[str]:
    """The DSN of a database in which nothing is installed."""
    with server.database("template0") as name:
        yield server.dsn(name)


@pytest.fixture
def two(fresh_db: str) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Connection[Any]]]:
    """Two autocommit connections to one database."""
    with psycopg.connect(fresh_db, autocommit=True) as one, psycopg.connect(fresh_db, autocommit=True) as other:
        yield one, other
