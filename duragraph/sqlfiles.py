"""Finds the SQL files of the engine and reads their order from sql/install.sql; `--write` restates that list."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from pathlib import Path

from duragraph.errors import DuragraphError

_INCLUDE = re.compile(r"^\\ir\s+(\S+)\s*$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
# What cannot name another function at the moment this one is made: comments, bodies, strings.
_OPAQUE = re.compile(r"--[^\n]*|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'", re.DOTALL)
_NAME = re.compile(r"\bduragraph\.(\w+)")

_HEAD = """\
-- The table of contents of the engine: installs it, or brings it up to date. Running it again is harmless.
--
--     psql "$DATABASE_URL" -f sql/install.sql
--
-- One transaction: it happens as a whole or not at all. Migrations run once each; functions, views and grants are
-- restated every time. The list is written by `make sql-toc` from the files in this folder.
\\set ON_ERROR_STOP on
\\set ON_ERROR_ROLLBACK off
begin transaction isolation level read committed;
set local client_min_messages = warning;
-- A body may name what a later file makes.
set local check_function_bodies = off;

\\ir bootstrap.sql
"""

_GUARD = """
do $$
begin
  if exists (select from duragraph.migrations where version > {version}) then
    raise exception using
      errcode = 'DG503',
      message = 'the database is newer than these files',
      hint = 'take the files of the newer version';
  end if;
end
$$;
"""

_MIGRATE = """
select not exists (select from duragraph.migrations where version = {version}) as pending \\gset
\\if :pending
\\ir migrations/{file}
insert into duragraph.migrations (version, name, checksum)
values ({version}, '{name}', '{checksum}');
\\endif
"""


@dataclass(frozen=True)
class Migration:
    """One step forward of the tables."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def title(self) -> str:
        """The name of its file, without the ending: "0001_core"."""
        return f"{self.version:04}_{self.name}"


def folder() -> Path:
    """Where the SQL files are: inside the installed package, else in the checkout beside it."""
    package = Path(str(files("duragraph")))
    for place in (package / "sql", package.parent / "sql"):
        if (place / "bootstrap.sql").is_file():
            return place
    raise DuragraphError("the SQL files are missing from this installation", hint="install duragraph again")


def contents(sql: Path | None = None) -> list[str]:
    r"""The files install.sql includes with `\ir`, in its order: "bootstrap.sql", "migrations/0001_core.sql", ..."""
    return _INCLUDE.findall(_read((sql or folder()) / "install.sql"))


def bootstrap(sql: Path | None = None) -> str:
    """The text of bootstrap.sql."""
    return _read((sql or folder()) / "bootstrap.sql")


def migrations(sql: Path | None = None) -> list[Migration]:
    """The migrations install.sql lists, oldest first."""
    sql = sql or folder()
    return [_migration(sql / name) for name in contents(sql) if name.startswith("migrations/")]


def restated(sql: Path | None = None) -> list[tuple[str, str]]:
    """(file, text) of everything that is restated on each migrate: functions, views, grants."""
    sql = sql or folder()
    listed = [name for name in contents(sql) if name != "bootstrap.sql" and not name.startswith("migrations/")]
    return [(name, _read(sql / name)) for name in listed]


def table_of_contents(sql: Path) -> str:
    """What install.sql should say, given the files in the folder."""
    steps = [_migration(path) for path in sorted((sql / "migrations").glob("*.sql"))]
    for expected, step in enumerate(steps, start=1):
        if step.version != expected:
            raise DuragraphError(f"migration {step.title} should be number {expected}", hint="rename it")
    parts = [_HEAD, _GUARD.format(version=len(steps))]
    parts += [
        _MIGRATE.format(version=step.version, name=step.name, checksum=step.checksum, file=f"{step.title}.sql")
        for step in steps
    ]
    for kind in ("functions", "views"):
        parts.append("\n" + "".join(f"\\ir {kind}/{name}.sql\n" for name in _in_order(sql / kind)))
    if (sql / "grants.sql").is_file():
        parts.append("\n\\ir grants.sql\n")
    parts.append("\ncommit;\n")
    return "".join(parts)


def _in_order(place: Path) -> list[str]:
    """The files of a folder by name, except that one comes after those its declaration (not its body) names."""
    texts = {path.stem: _OPAQUE.sub(" ", _read(path)) for path in sorted(place.glob("*.sql"))}
    needs = {name: sorted((set(_NAME.findall(text)) & texts.keys()) - {name}) for name, text in texts.items()}
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as loop:
        raise DuragraphError(f"these files of {place.name}/ need each other: {', '.join(loop.args[1])}") from None


def _migration(path: Path) -> Migration:
    named = _MIGRATION.fullmatch(path.name)
    if not named:
        raise DuragraphError(f"{path.name} is not the name of a migration", hint='name it like "0002_add_crons.sql"')
    return Migration(version=int(named[1]), name=named[2], text=_read(path))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Print what install.sql should say, or with `--write` write it."""
    parser = argparse.ArgumentParser(prog="python -m duragraph.sqlfiles", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="write sql/install.sql")
    options = parser.parse_args(arguments)
    sql = folder()
    text = table_of_contents(sql)
    if options.write:
        (sql / "install.sql").write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
