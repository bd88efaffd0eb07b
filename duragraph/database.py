"""Which database a command means: the one of DATABASE_URL, else the one that `duragraph dev` runs in this folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from duragraph import migrate
from duragraph.config import Settings
from duragraph.desk import Desk
from duragraph.errors import Unavailable
from duragraph.postgres import DEFAULT_DATA_DIR, EmbeddedPostgres
from duragraph.store import explained


@dataclass(frozen=True)
class Database:
    """Where it is, and the name people know it by."""

    settings: Settings
    name: str

    @property
    def dsn(self) -> str:
        """How to connect."""
        return self.settings.database_url

    def status(self) -> migrate.Status:
        """Where its schema stands."""
        with explained():
            return migrate.status(self.dsn)

    def migrate(self) -> list[str]:
        """Bring the schema up to date; the titles of the migrations applied."""
        with explained():
            return migrate.migrate(self.dsn)

    def add_pgvector(self) -> None:
        """Let it rank by vectors, if it can."""
        with explained():
            migrate.add_pgvector(self.dsn)

    def desk(self) -> Desk:
        """A connection for questions; refuses a schema that is not this version's."""
        migrate.check_version(self.status().installed)
        return Desk(self.dsn)


def find(data_dir: Path | None = None) -> Database:
    """The database meant; a data folder that is named goes before DATABASE_URL. Raises `Unavailable` without one."""
    if data_dir is None and os.environ.get("DATABASE_URL"):
        return Database(Settings.from_environment(), "DATABASE_URL")
    folder = data_dir or DEFAULT_DATA_DIR
    server = EmbeddedPostgres(folder)
    if not server.is_running():
        raise Unavailable(_nobody(folder, data_dir), code="database_unreachable", hint=_remedy(data_dir))
    dsn = server.start()  # it runs: this only finds it
    server.release()
    return Database(Settings.from_environment(database_url=dsn, listen_url=dsn), str(folder))


def _nobody(folder: Path, named: Path | None) -> str:
    nobody = f'no "duragraph dev" runs in {folder}'
    return nobody if named else f"there is no database: DATABASE_URL is not set, and {nobody}"


def _remedy(named: Path | None) -> str:
    start = f'start "duragraph dev --data {named}"' if named else 'set DATABASE_URL, or start "duragraph dev"'
    return f"{start}, or name another folder with --data"
