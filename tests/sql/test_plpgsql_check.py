"""PostgreSQL takes misspelt columns inside plpgsql until the line runs; plpgsql_check does not."""

from __future__ import annotations

import psycopg
import pytest

PROBLEMS = """
select p.oid::regprocedure::text, c.lineno, c.level, c.sqlstate, c.message, c.detail, c.hint, c.query
from pg_proc p
join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
cross join lateral plpgsql_check_function_tb(p.oid, fatal_errors => false, extra_warnings => true) c
where p.pronamespace = 'duragraph'::regnamespace and p.prorettype <> 'trigger'::regtype
  -- The checker folds constants, and so runs a function that only raises: that is our own error, not a mistake.
  and c.sqlstate not like 'DG%'
  -- A literal default such as '{}' goes through its text form, once a call.
  and not (c.sqlstate = '42804' and c.detail like 'cast "text" value to %')
order by 1, 2
"""
AVAILABLE = "select exists (select from pg_available_extensions where name = 'plpgsql_check')"


@pytest.fixture
def checked_db(fresh_db: str) -> psycopg.Connection:
    connection = psycopg.connect(fresh_db, autocommit=True)
    if connection.execute(AVAILABLE).fetchone() != (True,):
        connection.close()
        pytest.skip("this server has no plpgsql_check; Debian's PostgreSQL 15 has it in postgresql-15-plpgsql-check")
    connection.execute("create extension plpgsql_check")
    return connection


def test_plpgsql_check_finds_nothing(checked_db: psycopg.Connection) -> None:
    with checked_db:
        problems = checked_db.execute(PROBLEMS).fetchall()
    assert problems == [], "\n" + "\n".join(map(str, problems))


def test_plpgsql_check_would_find_a_misspelt_column(checked_db: psycopg.Connection) -> None:
    with checked_db:
        checked_db.execute(
            "create function duragraph.broken() returns void language plpgsql as "
            "$$ begin perform versoin from duragraph.migrations; end $$"
        )
        found = [problem[4] for problem in checked_db.execute(PROBLEMS).fetchall()]
    assert any('column "versoin" does not exist' in message for message in found)
