"""psql and `duragraph migrate` install the same engine, any number of times, from any number of processes."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest

from duragraph import sqlfiles
from duragraph.errors import Conflict, Unavailable
from duragraph.migrate import check, migrate, needed_version, status
from tests.postgres import Server
from tests.waiting import wait_for

LOCK_WAITERS = "select pid from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"


def name_of(dsn: str) -> str:
    return urlsplit(dsn).path[1:]


def dump(server: Server, dsn: str) -> str:
    text = server.run("pg_dump", name_of(dsn), "--schema-only", "--schema=duragraph").stdout
    # Newer versions wrap a dump in lines with a random word.
    return "\n".join(line for line in text.splitlines() if "restrict" not in line.split(" ")[0])


def psql_install(server: Server, dsn: str) -> subprocess.CompletedProcess[str]:
    return server.run("psql", name_of(dsn), "--no-psqlrc", "--quiet", "--file", sqlfiles.folder() / "install.sql")


def test_psql_and_migrate_install_the_same_schema(server: Server, empty_db: str) -> None:
    with server.database("template0") as other:
        psql_install(server, empty_db)
        migrate(server.dsn(other))
        assert dump(server, empty_db) == dump(server, server.dsn(other))


def test_psql_and_migrate_record_the_same_migrations(server: Server, empty_db: str, fresh_db: str) -> None:
    psql_install(server, empty_db)
    records = []
    for dsn in (empty_db, fresh_db):
        with psycopg.connect(dsn) as connection:
            records.append(connection.execute("select version, name, checksum from duragraph.migrations").fetchall())
    assert records[0] == records[1] != []


def test_installing_again_changes_nothing(server: Server, fresh_db: str) -> None:
    before = dump(server, fresh_db)
    assert migrate(fresh_db) == []
    psql_install(server, fresh_db)
    assert dump(server, fresh_db) == before


def test_psql_completes_what_migrate_began_and_the_other_way_round(server: Server, empty_db: str) -> None:
    psql_install(server, empty_db)
    assert migrate(empty_db) == []
    assert status(empty_db).pending == []


def test_migrate_says_what_it_applied(empty_db: str) -> None:
    assert status(empty_db).installed == 0
    assert migrate(empty_db) == [step.title for step in sqlfiles.migrations()]
    assert status(empty_db).installed == needed_version()


def test_two_processes_may_migrate_at_once(empty_db: str) -> None:
    with ThreadPoolExecutor(2) as both:
        applied = list(both.map(migrate, [empty_db, empty_db]))
    assert sorted(applied) == [[], [step.title for step in sqlfiles.migrations()]]


def test_a_second_migrate_waits_for_the_first(empty_db: str) -> None:
    with psycopg.connect(empty_db) as first, ThreadPoolExecutor(1) as second:
        first.execute(sqlfiles.bootstrap().encode())
        waiting = second.submit(migrate, empty_db)
        with psycopg.connect(empty_db, autocommit=True) as watcher:
            wait_for(lambda: watcher.execute(LOCK_WAITERS).fetchone(), what="the second migrate at the lock")
        first.commit()
        assert waiting.result(timeout=30) == [step.title for step in sqlfiles.migrations()]


def test_an_edited_migration_is_refused(fresh_db: str) -> None:
    with psycopg.connect(fresh_db) as connection:
        connection.execute("update duragraph.migrations set checksum = 'another' where version = 1")
    with pytest.raises(Conflict, match="0001_core was edited after it was applied"):
        migrate(fresh_db)


def test_a_newer_database_is_left_alone(server: Server, fresh_db: str) -> None:
    with psycopg.connect(fresh_db) as connection:
        connection.execute("insert into duragraph.migrations (version, name, checksum) values (9999, 'later', '')")
    with pytest.raises(Unavailable, match=f"schema is at 9999, this version needs {needed_version()}; upgrade"):
        migrate(fresh_db)
    with pytest.raises(AssertionError, match="the database is newer than these files"):
        psql_install(server, fresh_db)


def test_check_says_what_to_do(empty_db: str, fresh_db: str) -> None:
    with psycopg.connect(fresh_db) as connection:
        check(connection)
        connection.execute("delete from duragraph.migrations where version = 1")
        connection.execute("delete from duragraph.migrations")
        with pytest.raises(Unavailable, match='is not installed, this version needs .*; run "duragraph migrate"'):
            check(connection)
    with psycopg.connect(empty_db) as connection, pytest.raises(Unavailable, match="is not installed"):
        check(connection)


def test_a_migration_that_fails_leaves_nothing(empty_db: str) -> None:
    def broken() -> str:
        return "select nothing_like_it()"

    with pytest.raises(psycopg.errors.UndefinedFunction):
        migrate(empty_db, queue_schema=broken)
    assert status(empty_db).installed == 0


def test_the_job_queue_has_a_schema_of_its_own(db: psycopg.Connection) -> None:
    found = db.execute("select to_regclass('procrastinate.procrastinate_jobs') is not null").fetchone()
    assert found == (True,)
