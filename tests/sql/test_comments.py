r"""\d+, \df+ and \dv+ are the manual: everything in the schema says what it is for."""

from __future__ import annotations

import psycopg

RELATIONS = """
select c.relname
from pg_class c
where c.relnamespace = 'duragraph'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S') and not c.relispartition
  and obj_description(c.oid, 'pg_class') is null
  and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('i', 'a'))
order by 1
"""
FUNCTIONS = """
select p.oid::regprocedure::text
from pg_proc p
where p.pronamespace = 'duragraph'::regnamespace and obj_description(p.oid, 'pg_proc') is null
order by 1
"""


def test_every_table_and_view_says_what_it_is_for(db: psycopg.Connection) -> None:
    assert db.execute(RELATIONS).fetchall() == []


def test_every_function_says_what_it_is_for(db: psycopg.Connection) -> None:
    assert db.execute(FUNCTIONS).fetchall() == []
