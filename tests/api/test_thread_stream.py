"""The stream of a thread: all its runs and state updates, in order, exactly once, without end."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.api.conftest import Live, Serving
from tests.api.scripted import MISSING, Api, Frame, Json, Stream, Work, echo
from tests.waiting import wait_for_async

NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing"
ALL = {"Last-Event-ID": "-"}


async def run_on(api: Api, thread: str, **body: object) -> str:
    """A run brought to its end; its id."""
    answer = await api.http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": api.graph_id, **body})
    return str(answer.headers["content-location"].rsplit("/", 1)[1])


async def until_done(stream: Stream, runs: int = 1) -> list[Frame]:
    """Frames until so many runs are done."""
    frames: list[Frame] = []
    while runs:
        frame = await asyncio.wait_for(anext(stream), 10)
        frames.append(frame)
        runs -= frame.event == "metadata" and frame.data.get("status") == "run_done"
    return frames


def opening(run: str) -> tuple[str, Json]:
    return "metadata", {"run_id": run, "attempt": 1}


def closing(run: str) -> tuple[str, Json]:
    return "metadata", {"status": "run_done", "run_id": run}


def shown(frames: list[Frame]) -> list[tuple[str, Any]]:
    return [(frame.event, frame.data) for frame in frames]


def ids(frames: list[Frame]) -> list[tuple[int, int]]:
    parts = [(frame.id or "").split("-") for frame in frames]
    return [(int(ms), int(seq)) for ms, seq in parts]


async def test_every_run_is_shown_between_its_beginning_and_its_end(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo), api.stream("GET", f"/threads/{thread}/stream") as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        runs = [await run_on(api, thread, input=n) for n in (1, 2)]
        frames = await until_done(stream, 2)
    assert shown(frames) == [
        part for n, run in enumerate(runs, 1) for part in (opening(run), ("values", {"seen": n}), closing(run))
    ]
    assert ids(frames) == sorted(set(ids(frames)))
    assert [ms for ms, _ in ids(frames)] == [UUID(run).int >> 80 for run in runs for _ in range(3)]


async def test_each_cursor_gives_what_comes_after_it_over_all_runs(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo):
        for n in (1, 2):
            await run_on(api, thread, input=n)
        async with api.stream("GET", f"/threads/{thread}/stream", headers=ALL) as stream:
            everything = await until_done(stream, 2)
        for n, seen in enumerate(everything):
            headers = {"Last-Event-ID": seen.id or ""}
            async with api.stream("GET", f"/threads/{thread}/stream", headers=headers) as stream:
                left = shown(everything[n + 1 :])
                rest = await until_done(stream, sum("status" in str(data) for _, data in left))
                assert shown(rest) == left, f"after {seen}"
                # Then it is live.
                new = await run_on(api, thread, input=7)
                assert shown(await until_done(stream)) == [opening(new), ("values", {"seen": 7}), closing(new)]
                everything_new = await api.call("DELETE", f"/threads/{thread}/runs/{new}", status=204)
                assert everything_new is None


@pytest.mark.parametrize("start", ["-", "0", "0-0"])
async def test_the_start_is_asked_for_by_a_dash_or_a_zero(api: Api, start: str) -> None:
    thread = await api.thread()
    async with api.working(echo):
        run = await run_on(api, thread)
        async with api.stream("GET", f"/threads/{thread}/stream", headers={"Last-Event-ID": start}) as stream:
            assert shown(await until_done(stream))[0] == opening(run)


async def test_a_reader_without_a_cursor_joins_the_run_in_progress(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    run = await api.run(thread)
    work = await worker.claim()
    await work.step({"n": 1}, "a")
    async with api.stream("GET", f"/threads/{thread}/stream") as stream:
        await work.step({"n": 2}, end={"status": "success"})
        assert shown(await until_done(stream)) == [("values", {"n": 2}), closing(run["run_id"])]


async def test_lifecycle_shows_only_beginnings_and_ends(api: Api) -> None:
    thread = await api.thread()
    async with (
        api.working(echo),
        api.stream("GET", f"/threads/{thread}/stream", params={"stream_modes": "lifecycle"}) as stream,
    ):
        run = await run_on(api, thread)
        assert shown(await until_done(stream)) == [opening(run), closing(run)]


@pytest.mark.parametrize(
    "query",
    ["stream_modes=state_update", "stream_mode=state_update", 'stream_mode=["state_update"]'],
)
async def test_a_state_update_is_a_frame_of_its_own_and_is_kept(api: Api, query: str) -> None:
    thread = await api.thread()
    async with api.working(echo):
        await run_on(api, thread)
    async with api.stream("GET", f"/threads/{thread}/stream?{query}") as stream:
        await api.call("POST", f"/threads/{thread}/state", {"values": {"seen": "changed"}})
        live = await asyncio.wait_for(anext(stream), 5)
    state = await api.call("GET", f"/threads/{thread}/state")
    assert (live.event, live.data) == ("state_update", {"state": state, "thread_id": thread})
    async with api.stream("GET", f"/threads/{thread}/stream?{query}", headers=ALL) as stream:
        kept = await asyncio.wait_for(anext(stream), 5)
        assert (kept.id, kept.data) == (live.id, live.data)
    headers = {"Last-Event-ID": str(live.id)}
    async with api.stream("GET", f"/threads/{thread}/stream?{query}", headers=headers) as stream:
        await api.call("POST", f"/threads/{thread}/state", {"values": {"seen": "again"}})
        following = await asyncio.wait_for(anext(stream), 5)
        assert following.data["state"]["values"]["seen"] == "again"
        assert ids([live]) < ids([following])


async def test_updates_and_runs_come_in_the_order_in_which_they_happened(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo):
        await run_on(api, thread)
        await api.call("POST", f"/threads/{thread}/state", {"values": {"seen": 2}})
        await run_on(api, thread)
        query = "stream_modes=run_modes,state_update"
        async with api.stream("GET", f"/threads/{thread}/stream?{query}", headers=ALL) as stream:
            frames = await until_done(stream, 2)
    names = [frame.event for frame in frames]
    assert names == ["metadata", "values", "metadata", "state_update", "metadata", "values", "metadata"]
    assert ids(frames) == sorted(ids(frames))


async def test_modes_of_runs_are_filters(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo):
        run = await run_on(api, thread, stream_mode=["values", "updates"])
        async with api.stream("GET", f"/threads/{thread}/stream?stream_mode=updates", headers=ALL) as stream:
            frames = await until_done(stream)
    assert shown(frames) == [opening(run), ("updates", {"a": {"seen": None}}), closing(run)]


async def test_a_failed_run_shows_its_error_once(api: Api) -> None:
    error = {"error": "ValueError", "message": "kaboom"}

    async def said(work: Work) -> None:
        events = [{"event": "error", "data": error}] if work.claim["kwargs"]["input"] == "said" else []
        await work.write(events=events, end={"status": "error", "error": error})

    thread = await api.thread()
    async with api.working(said):
        for how in ("said", "unsaid"):
            run = await run_on(api, thread, input=how)
            async with api.stream("GET", f"/threads/{thread}/stream", headers=ALL) as stream:
                frames = (await until_done(stream, 1 + (how == "unsaid")))[-3:]
            assert shown(frames) == [opening(run), ("error", error), closing(run)]
            async with api.stream(
                "GET", f"/threads/{thread}/stream", headers={"Last-Event-ID": frames[1].id}
            ) as stream:
                assert shown(await until_done(stream)) == [closing(run)]


async def test_a_cancelled_run_is_closed_even_when_it_never_began(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    async with api.stream("GET", f"/threads/{thread}/stream") as stream:
        first, second = await api.run(thread), await api.run(thread)
        work = await worker.claim()
        await api.call("POST", f"/threads/{thread}/runs/{second['run_id']}/cancel", status=202)
        await work.step({"n": 1}, end={"status": "success"})
        run, other = first["run_id"], second["run_id"]
        assert shown(await until_done(stream, 2)) == [
            *(opening(run), ("values", {"n": 1}), closing(run)),
            *(opening(other), closing(other)),
        ]


async def test_a_delayed_run_comes_where_it_began_and_none_is_missed(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo):
        later = await api.run(thread, after_seconds=0.3)
        sooner = await run_on(api, thread)
        async with api.stream("GET", f"/threads/{thread}/stream", headers=ALL) as stream:
            frames = await until_done(stream)
            assert shown(frames)[0] == opening(sooner)
        async with api.stream("GET", f"/threads/{thread}/stream", headers={"Last-Event-ID": frames[-1].id}) as stream:
            assert shown(await until_done(stream))[0] == opening(later["run_id"])


async def test_runs_of_another_process_are_shown(serving: Serving, fresh_db: str) -> None:
    await shown_across(serving, fresh_db)


async def test_runs_of_another_process_are_shown_without_notifications(serving: Serving, fresh_db: str) -> None:
    await shown_across(serving, fresh_db, listen_url=NOWHERE)


async def shown_across(serving: Serving, dsn: str, **settings: Any) -> None:
    with serving(**settings) as one, serving(**settings) as other:
        async with AsyncExitStack() as stack:
            here, there = [await stack.enter_async_context(Api.of(live.url, dsn)) for live in (one, other)]
            thread = await here.thread()
            await stack.enter_async_context(there.working(echo))
            stream = await stack.enter_async_context(here.stream("GET", f"/threads/{thread}/stream"))
            update = await stack.enter_async_context(
                here.stream("GET", f"/threads/{thread}/stream?stream_modes=state_update")
            )
            for n in (1, 2):
                run = await run_on(there, thread, input=n)
                assert shown(await until_done(stream)) == [opening(run), ("values", {"seen": n}), closing(run)]
            await there.call("POST", f"/threads/{thread}/state", {"values": {"seen": 3}})
            assert (await asyncio.wait_for(anext(update), 10)).data["state"]["values"] == {"seen": 3}


async def test_a_cursor_of_one_process_goes_on_at_another(serving: Serving, fresh_db: str) -> None:
    with serving() as one:
        async with Api.of(one.url, fresh_db) as api:
            thread = await api.thread()
            async with api.working(echo), api.stream("GET", f"/threads/{thread}/stream") as stream:
                await run_on(api, thread)
                last = (await until_done(stream))[1].id
    with serving() as other:
        async with Api.of(other.url, fresh_db) as api:
            headers = {"Last-Event-ID": str(last)}
            async with api.stream("GET", f"/threads/{thread}/stream", headers=headers) as stream:
                assert [frame.data["status"] for frame in await until_done(stream)] == ["run_done"]


async def test_an_idle_stream_beats_and_hardly_asks(serving: Serving, fresh_db: str) -> None:
    with serving(heartbeat_seconds=0.05) as live:
        async with Api.of(live.url, fresh_db) as api:
            thread = await api.thread()
            async with api.stream("GET", f"/threads/{thread}/stream") as stream:
                await stream.quiet(2)
                assert counted(live, "thread_entries", "thread_stamps") == 0
                await stream.quiet(30)
                # The first look after the first page, and at most one of the poll that all streams share.
                assert counted(live, "thread_entries", "thread_stamps") <= 3


def counted(live: Live, *names: str) -> int:
    """How often a method of the store was called since this was first asked."""
    store: Any = live.deps.store
    if not hasattr(store, "_counted"):
        store._counted = 0
        for name in names:
            setattr(store, name, _counting(store, getattr(store, name)))
    return int(store._counted)


def _counting(store: Any, method: Any) -> Any:
    async def call(*given: Any, **named: Any) -> Any:
        store._counted += 1
        return await method(*given, **named)

    return call


async def test_the_stream_of_a_pruned_thread_ends(api: Api) -> None:
    thread = await api.thread()
    async with api.stream("GET", f"/threads/{thread}/stream") as stream:
        assert await api.call("POST", "/threads/prune", {"thread_ids": [thread]}) == {"pruned_count": 1}
        async with asyncio.timeout(4):
            assert [frame async for frame in stream] == []


async def test_the_stream_of_a_deleted_thread_ends(api: Api) -> None:
    worker = await api.worker()
    for busy in (False, True):
        thread = await api.thread()
        async with api.stream("GET", f"/threads/{thread}/stream") as stream:
            if busy:
                await api.run(thread)
                await (await worker.claim()).step({"n": 1}, "a")
                await anext(stream)
            await api.call("DELETE", f"/threads/{thread}", status=204)
            async with asyncio.timeout(5):
                left = [frame.event async for frame in stream]
            assert set(left) <= {"values", "metadata"}


async def test_a_reader_that_goes_leaves_nothing_behind(api: Api, live: Live) -> None:
    thread = await api.thread()
    before = live.deps.hub.thread_readers
    async with api.stream("GET", f"/threads/{thread}/stream"):
        await wait_for_async(lambda: asyncio.sleep(0, live.deps.hub.thread_readers == before + 1), what="the reader")
    await wait_for_async(lambda: asyncio.sleep(0, live.deps.hub.thread_readers == before), what="its going")


async def test_streams_end_when_the_process_stops(serving: Serving, fresh_db: str) -> None:
    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            thread = await api.thread()
            async with api.stream("GET", f"/threads/{thread}/stream") as stream:
                await wait_for_async(lambda: asyncio.sleep(0, live.deps.hub.thread_readers == 1), what="the reader")
                live.in_loop(live.deps.drain.begin)
                async with asyncio.timeout(5):
                    assert [frame async for frame in stream] == []


async def test_what_cannot_be_meant_is_refused_by_name(api: Api) -> None:
    thread = await api.thread()
    place = f"/threads/{thread}/stream"
    for wrong in ("-1", "x", "1-x", "1-2-3", "9" * 40):
        refused = await api.refused("GET", place, headers={"Last-Event-ID": wrong})
        assert refused == ("invalid_cursor", "Last-Event-ID"), wrong
    assert await api.refused("GET", f"{place}?stream_modes=nope") == ("invalid_parameter", "stream_modes")
    assert await api.refused("GET", f"{place}?stream_mode=nope") == ("invalid_parameter", "stream_mode")
    assert await api.refused("GET", f"/threads/{MISSING}/stream", status=404) == ("thread_not_found", "thread_id")
    assert await api.refused("GET", "/threads/nope/stream") == ("invalid_uuid", "thread_id")


async def test_an_unknown_or_far_cursor_gives_what_is_later(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo):
        run = await run_on(api, thread)
        ms = UUID(run).int >> 80
        for cursor, runs in ((f"{ms - 1}-3", [run]), ("99999999999999-1", [])):
            headers = {"Last-Event-ID": cursor}
            async with api.stream("GET", f"/threads/{thread}/stream", headers=headers) as stream:
                frames = await until_done(stream, len(runs))
                assert [frame.data["run_id"] for frame in frames[:1]] == runs


async def test_many_runs_are_given_page_by_page(serving: Serving, fresh_db: str) -> None:
    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            await api.worker()
            thread = await api.thread()
            await api.run(thread)
            with psycopg.connect(fresh_db, autocommit=True) as connection:
                # More than a page of runs, all of one moment.
                connection.execute(
                    "insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, status,"
                    " kwargs, ended_at, started_at)"
                    " select r.shard, duragraph.make_id(r.shard), 1, r.thread_id, r.assistant_id, r.graph_key,"
                    " 'success', r.kwargs, now(), now() from duragraph.runs r, generate_series(1, 1200)"
                )
            params = {"stream_modes": "lifecycle"}
            async with api.stream("GET", f"/threads/{thread}/stream", headers=ALL, params=params) as stream:
                frames = await until_done(stream, 1200)
    seen = [frame.data["run_id"] for frame in frames if "status" in frame.data]
    assert len(set(seen)) == 1200


async def test_what_shows_late_is_not_missed_and_nothing_is_shown_twice(serving: Serving, fresh_db: str) -> None:
    """A transaction may have begun before another and be committed after it."""
    insert = (
        "insert into duragraph.runs (shard, run_id, tenant_id, thread_id, assistant_id, graph_key, status, kwargs,"
        " started_at, ended_at) select r.shard, duragraph.make_id(r.shard), 1, r.thread_id, r.assistant_id,"
        " r.graph_key, 'success', r.kwargs, r.started_at + interval '1 microsecond', now()"
        " from duragraph.runs r where r.run_id = %s returning run_id::text"
    )
    touch = "update duragraph.threads set updated_at = clock_timestamp() where thread_id = %s"
    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            thread = await api.thread()
            params = {"stream_modes": "lifecycle"}
            async with api.working(echo), api.stream("GET", f"/threads/{thread}/stream", params=params) as stream:
                with psycopg.connect(fresh_db) as late, psycopg.connect(fresh_db, autocommit=True) as other:
                    first = await run_on(api, thread)
                    await until_done(stream)
                    row = late.execute(insert, (first,)).fetchone()
                    assert row is not None
                    second = await run_on(api, thread)
                    assert shown(await until_done(stream)) == [opening(second), closing(second)]
                    late.commit()
                    other.execute(touch, (thread,))
                    live.in_loop(lambda: live.deps.hub.changed((UUID(first),)))
                    assert shown(await until_done(stream)) == [opening(row[0]), closing(row[0])]
                third = await run_on(api, thread)
                assert shown(await until_done(stream)) == [opening(third), closing(third)]


async def test_an_outage_of_the_database_does_not_end_an_idle_stream(serving: Serving, fresh_db: str) -> None:
    with serving(heartbeat_seconds=0.05) as live:
        async with Api.of(live.url, fresh_db) as api:
            thread = await api.thread()
            async with api.working(echo), api.stream("GET", f"/threads/{thread}/stream") as stream:
                await stream.quiet(2)
                with psycopg.connect(fresh_db, autocommit=True) as connection:
                    connection.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where datname = current_database() and pid <> pg_backend_pid()"
                    )
                await stream.quiet(4)

                async def worked() -> bool:
                    answer = await api.http.post(f"/threads/{thread}/runs", json={"assistant_id": api.graph_id})
                    return answer.status_code == 200

                await wait_for_async(worked, what="the database to be back")
                assert len(await until_done(stream)) == 3


async def test_a_slow_reader_is_not_waited_for_and_misses_nothing(serving: Serving, fresh_db: str) -> None:
    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            worker = await api.worker()
            thread = await api.thread()
            async with api.stream("GET", f"/threads/{thread}/stream") as stream:
                await api.run(thread)
                work = await worker.claim()
                blob = "x" * 200_000
                for _ in range(60):
                    await work.say(("custom", blob))
                await work.end()
                frames = await until_done(stream)
    assert sum(frame.event == "custom" for frame in frames) == 60
    assert all(a < b for a, b in itertools.pairwise(ids(frames)))
