"""The periodic duties: each is one function, and expired threads go without being asked for."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from duragraph import jobs
from duragraph.config import Settings
from duragraph.store import Store
from tests.api.conftest import Serving
from tests.sql.scene import Scene


async def test_expired_threads_go_however_many_they_are(fresh_db: str) -> None:
    # given more threads whose time is over than one sweep takes, and one with time left
    store = Store.of(Settings(database_url=fresh_db))
    await store.open()
    try:
        for _ in range(jobs.SWEEP_THREADS + 5):
            await store.create_thread(1, b'{"ttl": {"ttl": 0}}')
        await store.create_thread(1, b'{"ttl": {"ttl": 60}}')
        # when the duty is done
        await jobs.expire(store)
        # then only that one is left
        assert await store.count_threads(1, b"{}") == b"1"
    finally:
        await store.close()


async def test_old_stateless_runs_go_however_many_they_are(fresh_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # given more runs past their time than one sweep takes
    monkeypatch.setattr(jobs, "_SWEEP", 2)
    with psycopg.connect(fresh_db, autocommit=True) as connection:
        scene = Scene(connection)
        key = scene.worker()
        for _ in range(5):
            scene.run(None)
        for claim in scene.claim(key, 5):
            scene.commit(claim, end={"status": "success"})
        later = sql.Literal((scene.now + timedelta(days=40)).isoformat())
        connection.execute(
            sql.SQL("alter database {} set duragraph.time = {}").format(sql.Identifier(connection.info.dbname), later)
        )
        store = Store.of(Settings(database_url=fresh_db))
        await store.open()
        try:
            # when the duty is done
            await jobs.retain(store)
        finally:
            await store.close()
        # then none is left
        assert scene.value("select count(*) from duragraph.runs") == 0


def test_the_duties_are_done_on_time(serving: Serving) -> None:
    with serving() as live:
        queue = jobs.make_queue(live.deps.settings, live.deps.store, live.deps.hub, live.deps.webhooks)
        times = {one.task.name: one.cron for one in queue.periodic_registry.periodic_tasks.values()}
    assert times == {"minute": "* * * * *", "retain": "7 * * * *"}
