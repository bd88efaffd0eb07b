"""sql/README.md shows what its queries answer."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from duragraph import sqlfiles
from tests.postgres import Server
from tests.sql.readme import README, inputs, outputs, rendered, steady

TABLES = """
select c.relname from pg_class c
where c.relnamespace = 'duragraph'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
"""


def test_the_sessions_answer_what_is_shown(server: Server, fresh_db: str, tmp_path: Path) -> None:
    text = README.read_text()
    typed = inputs(text)
    assert len(typed) > 20
    answers = outputs(server, urlsplit(fresh_db).path[1:], typed, tmp_path)
    shown = steady(rendered(text, answers))
    assert shown == steady(text), "run: python -m tests.sql.readme"


def test_every_table_and_view_is_in_the_reference(db: psycopg.Connection) -> None:
    text = README.read_text()
    tables = {row[0] for row in db.execute(TABLES)}
    views = {path.stem for path in (sqlfiles.folder() / "views").glob("*.sql")}
    assert {name for name in tables | views if f"`{name}`" not in text} == {"events_default"} & tables


def test_what_is_named_exists(db: psycopg.Connection) -> None:
    named = set(re.findall(r"`duragraph\.(\w+)\(", README.read_text()))
    known = {row[0] for row in db.execute("select proname from pg_proc where pronamespace = 'duragraph'::regnamespace")}
    assert named
    assert named <= known
