"""How processes hear of each other: notifications as hints, and progress without them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from duragraph.hub import GONE, Frame, parse_frames
from tests.api.conftest import Live, Serving
from tests.api.scripted import Api, Work
from tests.postgres import Server
from tests.waiting import wait_for, wait_for_async

NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing"


@asynccontextmanager
async def clients(dsn: str, *lives: Live) -> AsyncIterator[list[Api]]:
    """A client of each server, all with the same graph."""
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(Api.of(live.url, dsn)) for live in lives]
        for api in apis[1:]:
            api.graph_id = apis[0].graph_id
        yield apis


async def cross(here: Api, there: Api) -> float:
    """A run created and followed here, and worked on there; how long it took in seconds."""
    worker = await there.worker()
    held = asyncio.create_task(worker.claim(25))
    await worker.beat()
    began = time.monotonic()
    async with here.stream("POST", "/runs/stream", {"assistant_id": here.graph_id}) as stream:
        assert (await anext(stream)).event == "metadata"
        work = await held
        await work.step({"n": 1}, "a")
        assert (await anext(stream)).data == {"n": 1}
        waiting = asyncio.create_task(here.call("GET", f"/runs/{work.run_id}/join"))
        await work.step({"n": 2}, end={"status": "success"})
        assert [(frame.event, frame.data) async for frame in stream] == [("values", {"n": 2}), ("end", None)]
        assert await waiting == {"n": 2}
    return time.monotonic() - began


async def test_processes_hear_of_each_other_at_once(serving: Serving, fresh_db: str) -> None:
    with serving() as one, serving() as other:
        assert (one.deps.hub.listening, other.deps.hub.listening) == (True, True)
        async with clients(fresh_db, one, other) as (here, there):
            assert await cross(here, there) < 2


async def test_a_cancel_reaches_a_worker_at_another_process(serving: Serving, fresh_db: str) -> None:
    with serving() as one, serving() as other:
        async with clients(fresh_db, one, other) as (here, there):
            worker = await there.worker()
            run = await here.run(await here.thread())
            work = await worker.claim()
            held = asyncio.create_task(worker.poll(1, 25, (work.token,)))
            await worker.beat(work.token)
            await here.call("POST", f"/runs/{run['run_id']}/cancel", status=202)
            assert (await asyncio.wait_for(held, 3))["lost"] == [work.token]


async def test_without_listen_there_is_progress_by_polling(serving: Serving, fresh_db: str) -> None:
    with serving(listen_url=NOWHERE) as one, serving(listen_url=NOWHERE) as other:
        assert not one.deps.hub.listening
        assert one.deps.hub.problem
        async with clients(fresh_db, one, other) as (here, there):
            health = await here.http.get("/health")
            assert "LISTEN" in health.text
            assert await cross(here, there) < 6


async def test_lost_notifications_cost_latency_only(serving: Serving, fresh_db: str, server: Server) -> None:
    """Each listens in a database of its own: what it hears there is only itself."""
    with (
        server.database() as elsewhere,
        server.database() as far,
        serving(listen_url=server.dsn(elsewhere)) as one,
        serving(listen_url=server.dsn(far)) as other,
    ):
        assert (one.deps.hub.listening, other.deps.hub.listening) == (True, True)
        async with clients(fresh_db, one, other) as (here, there):
            assert await cross(here, there) < 25


async def test_a_killed_listener_comes_back(serving: Serving, fresh_db: str) -> None:
    with serving() as one, serving() as other:
        async with clients(fresh_db, one, other) as (here, there):
            await cross(here, there)
            killed = here.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'duragraph hub' and datname = current_database()"
            )
            assert len(killed) >= 2
            wait_for(lambda: not one.deps.hub.listening or None, what="the loss to be seen")
            wait_for(lambda: (one.deps.hub.listening and other.deps.hub.listening) or None, what="LISTEN to come back")
            assert await cross(here, there) < 2


async def test_killed_pool_connections_are_not_seen_by_clients(serving: Serving, fresh_db: str) -> None:
    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            await api.worker()
            for _ in range(5):
                await asyncio.gather(*[api.run(None) for _ in range(5)])
                idle = (
                    "from pg_stat_activity"
                    " where application_name = 'duragraph' and datname = current_database() and state = 'idle'"
                )
                killed = api.rows(f"select pid, pg_terminate_backend(pid) {idle}")
                gone = f"select not exists (select {idle} and pid = any(%s))"
                wait_for(lambda: api.rows(gone, [pid for pid, _ in killed])[0][0], what="the backends to be gone")  # noqa: B023  # called before the next round
                assert (await api.run(None))["status"] == "pending"
            assert api.rows("select count(*) from duragraph.runs") == [(30,)]


async def test_a_run_that_ends_before_its_reader_comes_is_answered_at_once(api: Api) -> None:
    async def at_once(work: Work) -> None:
        await work.end()

    async with api.working(at_once):
        began = time.monotonic()
        for _ in range(20):
            await api.call("POST", "/runs/wait", {"assistant_id": api.graph_id})
            frames = await api.frames("POST", "/runs/stream", {"assistant_id": api.graph_id})
            assert [frame.event for frame in frames] == ["metadata", "end"]
        assert time.monotonic() - began < 40 * 0.5, "without waiting for the next look"


async def test_a_run_from_psql_is_claimed_and_followed(api: Api, live: Live) -> None:
    worker = await api.worker()
    held = asyncio.create_task(worker.claim(20))
    await live.holds(1)
    began = time.monotonic()
    [(run_id,)] = api.rows("select duragraph.submit_run(%s, '{\"n\": 5}')", api.graph_id)
    work = await asyncio.wait_for(held, 5)
    assert time.monotonic() - began < 2
    assert work.run_id == str(run_id)
    waiting = asyncio.create_task(api.call("GET", f"/runs/{run_id}/join"))
    await work.step({"n": 1}, end={"status": "success"})
    assert await waiting == {"n": 1}


async def test_a_run_cancelled_from_psql_ends_its_stream(api: Api) -> None:
    worker = await api.worker()
    run = await api.run(await api.thread())
    await worker.claim()
    async with api.stream("GET", f"/runs/{run['run_id']}/stream") as stream:
        assert (await anext(stream)).event == "metadata"
        api.rows("select duragraph.cancel_run(%s)", run["run_id"])
        assert [frame.event async for frame in stream] == ["end"]


async def test_a_cursor_past_the_end_takes_nothing_from_other_readers(api: Api) -> None:
    worker = await api.worker()
    run = await api.run(await api.thread())
    work = await worker.claim()
    path = f"/runs/{run['run_id']}/stream"
    async with (
        api.stream("GET", path, headers={"Last-Event-ID": "2147483647"}) as beyond,
        api.stream("GET", path, headers={"Last-Event-ID": "-1"}) as whole,
    ):
        assert (await anext(whole)).event == "metadata"
        await work.step({"n": 1}, "a")
        assert (await anext(whole)).data == {"n": 1}
        await work.step({"n": 2}, end={"status": "success"})
        assert [(frame.event, frame.data) async for frame in whole] == [("values", {"n": 2}), ("end", None)]
        assert [frame.event async for frame in beyond] == ["end"]


async def test_a_stream_ends_whose_events_retention_has_taken(api: Api) -> None:
    async def work(work: Work) -> None:
        await work.step({"n": 1}, end={"status": "success"})

    async with api.working(work):
        run = await api.run(await api.thread())
        await api.call("GET", f"/runs/{run['run_id']}/join")
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("delete from duragraph.events where run_id = %s", (run["run_id"],))
    async with asyncio.timeout(10):
        frames = await api.frames("GET", f"/runs/{run['run_id']}/stream", headers={"Last-Event-ID": "-1"})
    assert [frame.event for frame in frames] == ["metadata", "end"]


async def test_a_reader_that_lags_behind_is_let_go_when_its_run_is_deleted(api: Api, live: Live) -> None:
    worker = await api.worker()
    run = await api.run(await api.thread())
    work = await worker.claim()
    async with live.deps.hub.reader(UUID(run["run_id"])) as ahead, live.deps.hub.reader(UUID(run["run_id"])) as behind:
        await work.step({"n": 1}, "a")
        assert await ahead.next(5)
        await api.call("DELETE", f"/runs/{run['run_id']}", status=204)
        async with asyncio.timeout(10):
            assert await ahead.next(5) is None
            assert await behind.next(5) is None
        assert behind.status == GONE


async def test_readers_that_are_gone_are_forgotten(serving: Serving, fresh_db: str) -> None:
    with serving(heartbeat_seconds=0.05) as live:
        async with Api.of(live.url, fresh_db) as api:
            await api.worker()
            for _ in range(5):
                async with api.stream("POST", "/runs/stream", {"assistant_id": api.graph_id}) as stream:
                    await anext(stream)

            async def none_left() -> bool:
                return live.deps.hub.readers == 0

            await wait_for_async(none_left, what="the readers to be let go")


OF_A_MINUTE = 30
"""Statements, at most: with them too it is less than one a second."""


@pytest.mark.slow
async def test_an_idle_server_asks_the_database_less_than_once_a_second(
    serving: Serving, fresh_db: str, server: Server
) -> None:
    def transactions() -> int:
        # Every statement of the server is a transaction of its own.
        with psycopg.connect(server.admin_dsn, autocommit=True) as watching:
            query = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
            row = watching.execute(query, (psycopg.conninfo.conninfo_to_dict(fresh_db)["dbname"],)).fetchone()
            assert row is not None
            return int(row[0])

    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            worker = await api.worker()
            held = asyncio.create_task(worker.poll(1, 25))
            minute = datetime.now(UTC).minute
            await asyncio.sleep(11)  # an idle backend tells its statistics within 10 s: what the start cost is in them
            before = transactions()
            await asyncio.sleep(12)
            asked = transactions() - before
            # What is done once a minute is told up to 10 s later.
            assert asked <= 12 + (0 if datetime.now(UTC).minute == minute else OF_A_MINUTE)
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)


def test_frames_are_packed_without_loss() -> None:
    packed = b'1\x1fvalues\x1f{"a": 1}\x1e2\x1fupdates|n:1\x1fnull'
    frames = parse_frames(packed)
    assert [(frame.seq, frame.event, frame.data) for frame in frames] == [
        (1, "values", b'{"a": 1}'),
        (2, "updates|n:1", b"null"),
    ]
    assert parse_frames(b"") == []


def test_a_frame_cannot_forge_another() -> None:
    frame = Frame(1, b"x\r\n\r\nevent: end", b'{"a":\r\n1}')
    assert frame.text.count(b"\r\n") == 2
