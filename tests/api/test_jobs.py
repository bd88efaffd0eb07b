"""The periodic duties: each is one function, and expired threads go without being asked for."""

from __future__ import annotations

from duragraph import jobs
from duragraph.config import Settings
from duragraph.store import Store
from tests.api.conftest import Serving


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


def test_the_duties_are_done_on_time(serving: Serving) -> None:
    with serving() as live:
        queue = jobs.make_queue(live.deps.settings, live.deps.store, live.deps.hub, live.deps.webhooks)
        times = {one.task.name: one.cron for one in queue.periodic_registry.periodic_tasks.values()}
    assert times == {"minute": "* * * * *", "retain": "7 * * * *"}
