"""Brings a database to the schema this version needs, in one transaction, safe to run from many processes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from duragraph import sqlfiles
from duragraph.errors import Conflict, Unavailable
from duragraph.sqlfiles import Migration

_APPLIED = "select version, checksum from duragraph.migrations order by version"
_RECORD = "insert into duragraph.migrations (version, name, checksum) values (%s, %s, %s)"
_HAS_RECORD = "select to_regclass('duragraph.migrations') is not null"
_VERSION = "select coalesce(max(version), 0) from duragraph.migrations"
_QUEUE = "procrastinate"


@dataclass(frozen=True)
class Status:
    """Where a database stands: version 0 means that nothing is installed."""

    installed: int
    needed: int
    pending: list[str]
    server_version: int


def migrate(dsn: str, queue_schema: Callable[[], str] | None = None) -> list[str]:
    """Apply what is missing and restate functions, views and grants. Returns the titles of the migrations applied.

    `queue_schema` gives the statements of the job queue; the default asks `duragraph.jobs`.
    Raises `Conflict` when an applied migration was edited or the database is newer than this version.
    """
    with psycopg.connect(dsn, autocommit=True) as connection, connection.transaction():
        connection.execute("set transaction isolation level read committed")
        connection.execute("set local client_min_messages = warning")
        connection.execute("set local check_function_bodies = off")
        # A migration waits for the locks it needs, however long the role's own time-outs are.
        connection.execute("set local statement_timeout = 0")
        _execute(connection, sqlfiles.bootstrap())
        applied = _apply_missing(connection)
        # Before the grants, which cover it.
        _install_queue(connection, queue_schema or _queue_schema)
        for _, text in sqlfiles.restated():
            _execute(connection, text)
    return applied


def add_pgvector(dsn: str) -> None:
    """Let the database rank by vectors, where its server brings what that takes. For a database that is ours alone."""
    with psycopg.connect(dsn, autocommit=True) as connection, connection.transaction():
        connection.execute("set local client_min_messages = warning")
        connection.execute("select pg_advisory_xact_lock(hashtext('duragraph.pgvector'))")
        if connection.execute("select from pg_available_extensions where name = 'vector'").fetchone() is not None:
            connection.execute("create extension if not exists vector")


def status(dsn: str) -> Status:
    """Where the database stands, without changing it."""
    known = sqlfiles.migrations()
    with psycopg.connect(dsn, autocommit=True) as connection:
        installed = installed_version(connection)
        return Status(
            installed=installed,
            needed=needed_version(),
            pending=[step.title for step in known if step.version > installed],
            server_version=connection.info.server_version,
        )


def needed_version() -> int:
    """The version of the schema that this version of DuraGraph works with."""
    return max((step.version for step in sqlfiles.migrations()), default=0)


def installed_version(connection: psycopg.Connection) -> int:
    """The version of the schema in the database, 0 when there is none."""
    if not _one(connection.execute(_HAS_RECORD).fetchone()):
        return 0
    return int(_one(connection.execute(_VERSION).fetchone()))


async def installed_version_async(connection: psycopg.AsyncConnection) -> int:
    """The version of the schema in the database, 0 when there is none."""
    if not _one(await (await connection.execute(_HAS_RECORD)).fetchone()):
        return 0
    return int(_one(await (await connection.execute(_VERSION)).fetchone()))


def check(connection: psycopg.Connection) -> None:
    """Raise `Unavailable`, saying what to do, unless the schema is the one this version needs."""
    check_version(installed_version(connection))


async def check_async(connection: psycopg.AsyncConnection) -> None:
    """Raise `Unavailable`, saying what to do, unless the schema is the one this version needs."""
    check_version(await installed_version_async(connection))


def check_version(installed: int) -> None:
    """Raise `Unavailable`, saying what to do, unless the version is the one needed."""
    needed = needed_version()
    if installed == needed:
        return
    remedy = 'run "duragraph migrate"' if installed < needed else "upgrade duragraph"
    where = f"is at {installed}" if installed else "is not installed"
    raise Unavailable(
        f"duragraph: schema {where}, this version needs {needed}", code="schema_version_mismatch", hint=remedy
    )


def _apply_missing(connection: psycopg.Connection) -> list[str]:
    checksums: dict[int, str] = dict(connection.execute(_APPLIED).fetchall())
    known = sqlfiles.migrations()
    _refuse_newer(checksums, known)
    missing = [step for step in known if not _is_applied(step, checksums)]
    for step in missing:
        _execute(connection, step.text)
        connection.execute(_RECORD, (step.version, step.name, step.checksum))
    return [step.title for step in missing]


def _refuse_newer(checksums: dict[int, str], known: list[Migration]) -> None:
    if len(checksums) > len(known):
        # Restating older functions over newer tables would break the newer processes that use them.
        check_version(max(checksums))


def _is_applied(step: Migration, checksums: dict[int, str]) -> bool:
    recorded = checksums.get(step.version)
    if recorded is not None and recorded != step.checksum:
        raise Conflict(
            f"migration {step.title} was edited after it was applied to this database",
            code="migration_edited",
            hint="restore the file and add a new migration, or start from an empty database",
        )
    return recorded is not None


def _install_queue(connection: psycopg.Connection, queue_schema: Callable[[], str]) -> None:
    present = connection.execute("select to_regclass(%s) is not null", (f"{_QUEUE}.procrastinate_jobs",))
    if _one(present.fetchone()):
        return
    name = sql.Identifier(_QUEUE)
    connection.execute(sql.SQL("create schema if not exists {}").format(name))
    connection.execute(sql.SQL("set local search_path = {}").format(name))
    _execute(connection, queue_schema())
    connection.execute("set local search_path to default")


def _queue_schema() -> str:
    # Here and not above: importing the job queue is dear, and most callers only check the version.
    from duragraph.jobs import queue_schema_sql

    return queue_schema_sql()


def _execute(connection: psycopg.Connection, text: str) -> None:
    # Bytes: the text is a file of ours, and without parameters PostgreSQL takes many statements at once.
    connection.execute(text.encode())


def _one(row: tuple[object, ...] | None) -> bool | int:
    assert row is not None, "an aggregate always returns a row"
    assert isinstance(row[0], bool | int)
    return row[0]
