"""What the fixtures promise to every other test."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.waiting import wait_for


@pytest.mark.parametrize("_round", [1, 2])
def test_what_db_writes_is_gone_in_the_next_test(db: psycopg.Connection, _round: int) -> None:
    with db.transaction():
        db.execute("create table duragraph.scratch ()")
    found = db.execute("select to_regclass('duragraph.scratch') is not null").fetchone()
    assert found == (True,)


@pytest.mark.parametrize("_round", [1, 2])
def test_db_survives_a_test_that_loses_it(db: psycopg.Connection, _round: int) -> None:
    assert db.execute("select 1").fetchone() == (1,)
    db.close()


def test_db_refuses_to_commit(db: psycopg.Connection) -> None:
    with pytest.raises(AssertionError, match="uses fresh_db or two"):
        db.commit()


def test_two_see_each_others_commits(two: tuple[psycopg.Connection, psycopg.Connection]) -> None:
    one, other = two
    one.execute("create table duragraph.scratch as select 1 as a")
    assert other.execute("select a from duragraph.scratch").fetchone() == (1,)


def test_wait_for_names_what_did_not_come() -> None:
    with pytest.raises(AssertionError, match=r"waited 0 s for the second coming; last seen: 0"):
        wait_for(lambda: 0, timeout=0, what="the second coming")


def test_wait_for_returns_what_came() -> None:
    came: list[str] = []
    threading.Timer(0.02, came.append, ["here"]).start()
    assert wait_for(lambda: came, what="the timer") == ["here"]
