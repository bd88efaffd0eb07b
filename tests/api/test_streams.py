"""Event streams: frames, order, ids, resuming, heartbeats, endings, disconnects."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest

from tests.api.conftest import Live, Serving
from tests.api.scripted import MISSING, Api, Frame, Work, echo
from tests.waiting import wait_for_async


async def three_steps(work: Work) -> None:
    """Values after each of three steps, then the end."""
    for n in (1, 2):
        await work.step({"n": n}, "a")
    await work.step({"n": 3}, end={"status": "success"})


def shown(frames: list[Frame]) -> list[tuple[str, object]]:
    return [(frame.event, frame.data) for frame in frames]


async def test_the_wire_form(api: Api) -> None:
    async with api.working(echo):
        thread = await api.thread()
        body = {"assistant_id": api.graph_id, "input": 1, "stream_resumable": True}
        response = await api.http.post(f"/threads/{thread}/runs/stream", json=body)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        place = response.headers["content-location"]
        run_id = place.rsplit("/", 1)[1]
        assert place == f"/threads/{thread}/runs/{run_id}"
        assert response.headers["location"] == f"{place}/stream"
        ms = UUID(run_id).int >> 80
        assert response.text == (
            f'event: metadata\r\ndata: {{"run_id":"{run_id}","attempt":1}}\r\nid: {ms}-00000000\r\n\r\n'
            f'event: values\r\ndata: {{"seen":1}}\r\nid: {ms}-00000001\r\n\r\n'
            "event: end\r\ndata: null\r\n\r\n"
        )


async def test_a_plain_run_has_no_ids_and_a_stateless_one_its_own_place(api: Api) -> None:
    async with api.working(echo), api.stream("POST", "/api/v1/runs/stream", {"assistant_id": api.graph_id}) as stream:
        frames = [frame async for frame in stream]
        run_id = frames[0].data["run_id"]
        assert stream.response.headers["content-location"] == f"/runs/{run_id}", "without the prefix"
        assert stream.response.headers["location"] == f"/runs/{run_id}/stream"
        assert [frame.id for frame in frames] == [None] * 3


async def test_the_metadata_frame_comes_before_any_worker(api: Api) -> None:
    await api.worker()
    async with api.stream("POST", "/runs/stream", {"assistant_id": api.graph_id}) as stream:
        first = await asyncio.wait_for(anext(stream), 2)
        assert (first.event, first.data["attempt"]) == ("metadata", 1)


async def test_modes_interleave_as_they_happen(api: Api) -> None:
    async with api.working(three_steps):
        body = {"assistant_id": api.graph_id, "stream_mode": ["values", "updates"]}
        frames = await api.frames("POST", "/runs/stream", body)
    assert shown(frames)[1:] == [
        *[
            (event, {"a": {"n": n}} if event == "updates" else {"n": n})
            for n in (1, 2, 3)
            for event in ("updates", "values")
        ],
        ("end", None),
    ]


async def test_the_run_is_terminal_when_its_stream_ends(api: Api) -> None:
    async with api.working(three_steps):
        thread = await api.thread()
        frames = await api.frames("POST", f"/threads/{thread}/runs/stream", {"assistant_id": api.graph_id})
        run = await api.call("GET", f"/threads/{thread}/runs/{frames[0].data['run_id']}")
        assert run["status"] == "success"
        assert (await api.call("GET", f"/threads/{thread}"))["status"] == "idle"


async def test_an_error_is_the_last_frame(api: Api) -> None:
    async def fail(work: Work) -> None:
        error = {"error": "ValueError", "message": "kaboom"}
        await work.write(events=[{"event": "error", "data": error}], end={"status": "error", "error": error})

    async with api.working(fail):
        frames = await api.frames("POST", "/runs/stream", {"assistant_id": api.graph_id})
    assert shown(frames)[1:] == [("error", {"error": "ValueError", "message": "kaboom"})]


async def test_a_run_that_ends_in_error_without_an_event_says_so_all_the_same(api: Api) -> None:
    async def fail(work: Work) -> None:
        await work.end("error", error={"error": "Lost", "message": "no event"})

    async with api.working(fail):
        frames = await api.frames("POST", "/runs/stream", {"assistant_id": api.graph_id})
    assert shown(frames)[1:] == [("error", {"error": "Lost", "message": "no event"})]


async def test_a_cancelled_run_just_ends_its_stream(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    async with api.stream("POST", f"/threads/{thread}/runs/stream", {"assistant_id": api.graph_id}) as stream:
        run_id = (await anext(stream)).data["run_id"]
        await (await worker.claim()).step({"n": 1}, "a")
        assert (await anext(stream)).data == {"n": 1}
        await api.call("POST", f"/threads/{thread}/runs/{run_id}/cancel", status=202)
        assert [frame.event async for frame in stream] == ["end"]


async def test_a_deleted_run_just_ends_its_stream(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    async with api.stream("POST", f"/threads/{thread}/runs/stream", {"assistant_id": api.graph_id}) as stream:
        run_id = (await anext(stream)).data["run_id"]
        await api.call("DELETE", f"/threads/{thread}/runs/{run_id}", status=204)
        assert [frame.event async for frame in stream] == ["end"]


async def test_every_resumption_gives_the_exact_suffix(api: Api) -> None:
    async with api.working(three_steps):
        thread = await api.thread()
        body = {"assistant_id": api.graph_id, "stream_mode": ["values", "updates"], "stream_resumable": True}
        whole = await api.frames("POST", f"/threads/{thread}/runs/stream", body)
    path = f"/threads/{thread}/runs/{whole[0].data['run_id']}/stream"
    ids = [frame.id for frame in whole[:-1]]
    assert all(ids)
    assert ids == sorted(set(map(str, ids))), "strictly rising, as text too"
    for start in ("-1", "0", "-"):
        again = await api.frames("GET", path, headers={"Last-Event-ID": start})
        assert [(f.event, f.data, f.id) for f in again] == [(f.event, f.data, f.id) for f in whole]
    for n, event_id in enumerate(ids):
        rest = await api.frames("GET", path, headers={"Last-Event-ID": str(event_id)})
        assert [(f.event, f.data, f.id) for f in rest] == [(f.event, f.data, f.id) for f in whole[n + 1 :]]
    for bare in ("2", "0-2"):
        rest = await api.frames("GET", path, headers={"Last-Event-ID": bare})
        assert shown(rest) == shown(whole[3:])
    past = await api.frames("GET", path, headers={"Last-Event-ID": "99999"})
    assert shown(past) == [("end", None)]


@pytest.mark.parametrize("cursor", ["x", "1-2-3", "-5", "1.5", "9" * 40, "é"])
async def test_a_bad_cursor_is_refused(api: Api, cursor: str) -> None:
    await api.worker()
    run = await api.run(await api.thread())
    path = f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
    headers = {b"Last-Event-ID": cursor.encode()}
    assert await api.refused("GET", path, headers=headers) == ("invalid_cursor", "Last-Event-ID")


async def test_a_reader_that_comes_late_sees_what_follows(api: Api, live: Live) -> None:
    worker = await api.worker()
    thread = await api.thread()
    run = await api.run(thread)
    work = await worker.claim()
    await work.step({"n": 1}, "a")
    path = f"/threads/{thread}/runs/{run['run_id']}/stream"
    async with api.stream("GET", path) as stream:
        await live.reads(1)
        await work.step({"n": 2}, end={"status": "success"})
        assert shown([frame async for frame in stream]) == [("values", {"n": 2}), ("end", None)]
    assert shown(await api.frames("GET", path)) == [("end", None)], "nothing follows any more"


async def test_two_readers_see_the_same(api: Api, live: Live) -> None:
    worker = await api.worker()
    run = await api.run(await api.thread(), stream_resumable=True)
    path = f"/runs/{run['run_id']}/stream"
    work = await worker.claim()
    await work.step({"n": 1}, "a")

    async def read() -> list[Frame]:
        return await api.frames("GET", path, headers={"Last-Event-ID": "-1"})

    early = [asyncio.create_task(read()) for _ in range(3)]
    await live.reads(3)
    await work.step({"n": 2}, "a")
    late = asyncio.create_task(read())
    await live.reads(4)
    await work.step({"n": 3}, end={"status": "success"})
    seen = [[(f.event, f.data, f.id) for f in await task] for task in [*early, late]]
    assert seen[1:] == seen[:1] * 3
    assert [data for event, data, _ in seen[0] if event == "values"] == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_a_join_filters_by_mode_and_lets_subgraphs_through(api: Api) -> None:
    async def nested(work: Work) -> None:
        await work.say(
            ("updates", {"p": 1}),
            ("updates|child:1", {"c": 1}),
            ("custom", 5),
            ("messages/partial", []),
            ("messages", []),
        )
        await work.end()

    async with api.working(nested):
        run = await api.run(await api.thread(), stream_resumable=True)
        path = f"/runs/{run['run_id']}"
        await api.call("GET", f"{path}/join")

    async def events(query: str) -> list[str]:
        frames = await api.frames("GET", f"{path}/stream{query}", headers={"Last-Event-ID": "-1"})
        return [frame.event for frame in frames if frame.event not in ("metadata", "end")]

    assert await events("?stream_mode=updates") == ["updates", "updates|child:1"]
    assert await events("?stream_mode=custom&stream_mode=messages") == ["custom", "messages/partial"]
    assert await events('?stream_mode=["custom","messages-tuple"]') == ["custom", "messages"]
    assert await events("?stream_mode=values") == []
    refused = await api.refused("GET", f"{path}/stream?stream_mode=nope")
    assert refused == ("invalid_parameter", "stream_mode")


async def test_an_unknown_run_is_404_before_any_frame(api: Api) -> None:
    thread = await api.thread()
    for path in (f"/threads/{thread}/runs/{MISSING}", f"/runs/{MISSING}", f"/threads/{MISSING}/runs/{MISSING}"):
        for ending in ("", "/stream", "/join"):
            assert await api.refused("GET", path + ending, status=404) == ("run_not_found", "run_id")
    await api.worker()
    run = await api.run(thread)
    other = await api.thread()
    assert await api.refused("GET", f"/threads/{other}/runs/{run['run_id']}/stream", status=404)


async def test_disconnecting_cancels_only_where_asked(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    ends = []
    for choice in ("continue", "cancel"):
        body = {"assistant_id": api.graph_id, "on_disconnect": choice}
        async with api.stream("POST", f"/threads/{thread}/runs/stream", body) as stream:
            ends.append((await anext(stream)).data["run_id"])
    kept, cancelled = ({"thread_id": thread, "run_id": run_id} for run_id in ends)

    async def interrupted() -> bool:
        return await api.run_status(cancelled) == "interrupted"

    await wait_for_async(interrupted, what="the run's cancellation")
    assert await api.run_status(kept) == "pending"
    async with api.stream("GET", f"/runs/{kept['run_id']}/stream?cancel_on_disconnect=1") as stream:
        assert (await anext(stream)).event == "metadata"

    async def kept_interrupted() -> bool:
        return await api.run_status(kept) == "interrupted"

    await wait_for_async(kept_interrupted, what="the joined run's cancellation")


async def test_a_second_attempt_is_announced(api: Api) -> None:
    worker = await api.worker()
    async with api.stream("POST", "/runs/stream", {"assistant_id": api.graph_id, "stream_resumable": True}) as stream:
        first = await worker.claim()
        await first.step({"n": 1}, "a")
        await first.end("retry", retry_after=0)
        second = await worker.claim(10)
        await second.step({"n": 2}, end={"status": "success"})
        frames = [frame async for frame in stream]
    assert [(f.event, (f.data or {}).get("attempt")) for f in frames] == [
        ("metadata", 1),
        ("values", None),
        ("metadata", 2),
        ("values", None),
        ("end", None),
    ]


async def test_a_long_stream_is_whole_however_slowly_it_is_read(api: Api) -> None:
    worker = await api.worker()
    async with api.stream("POST", "/runs/stream", {"assistant_id": api.graph_id, "stream_mode": "custom"}) as stream:
        work = await worker.claim()
        for start in range(0, 6000, 500):
            await work.say(*[("custom", {"n": n, "pad": "x" * 200}) for n in range(start, start + 500)])
        await work.end()
        frames = [frame async for frame in stream]
    assert [frame.data["n"] for frame in frames if frame.event == "custom"] == list(range(6000))


async def test_line_breaks_in_names_and_data_break_no_frame(api: Api) -> None:
    worker = await api.worker()
    async with api.stream("POST", "/runs/stream", {"assistant_id": api.graph_id}) as stream:
        work = await worker.claim()
        spaced = json.dumps(work.envelope(events=[{"event": "custom", "data": {"text": "a\nb\r\nc"}}]), indent=2)
        await api.call("POST", f"{worker.path}/writes", content=f'{{"writes":[{spaced}]}}'.encode())
        refused = await work.say(("bad\r\ndata: 1\r\n\r\nevent: forged", 1))
        assert (refused["ok"], refused["reason"]) == (False, "invalid")
        await work.end()
        frames = [frame async for frame in stream]
    assert frames[1].data == {"text": "a\nb\r\nc"}
    assert [(frame.event, frame.order) for frame in frames] == [
        (name, ["event", "data"]) for name in ("metadata", "custom", "end")
    ]


async def test_heartbeats_and_line_breaks_keep_quiet_answers_alive(serving: Serving, fresh_db: str) -> None:
    with serving(heartbeat_seconds=0.05) as live:
        async with Api.of(live.url, fresh_db) as api:
            worker = await api.worker()
            body = {"assistant_id": api.graph_id}
            async with api.stream("POST", "/runs/stream", body) as stream:
                work = await worker.claim()
                assert (await anext(stream)).event == "metadata"
                await stream.quiet(3)
                await work.end()
                assert [frame.event async for frame in stream] == ["end"]
            async with api.http.stream("POST", "/runs/wait", json=body) as response:
                pieces = response.aiter_text()
                assert [await anext(pieces) for _ in range(3)] == ["\n"] * 3
                await (await worker.claim()).step({"n": 1}, end={"status": "success"})
                assert json.loads("".join([piece async for piece in pieces])) == {"n": 1}


async def test_draining_closes_streams_for_their_clients_to_go_on(serving: Serving, fresh_db: str) -> None:
    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            worker = await api.worker()
            body = {"assistant_id": api.graph_id, "stream_resumable": True, "on_disconnect": "cancel"}
            async with api.stream("POST", "/runs/stream", body) as stream:
                run_id = (await anext(stream)).data["run_id"]
                work = await worker.claim()
                await work.step({"n": 1}, "a")
                last = await anext(stream)
                held = asyncio.create_task(worker.poll(1, 25))
                await live.holds(1)
                live.in_loop(live.deps.drain.begin)
                assert [frame async for frame in stream] == [], "closed without an end: the client asks again"
            assert await asyncio.wait_for(held, 5) == {"runs": [], "lost": []}
            assert (await work.step({"n": 2}, end={"status": "success"}))["ok"], "what runs is finished"
            body = {"max_runs": 1, "wait_seconds": 1}
            assert await api.refused("POST", f"{worker.path}/claim", body, 503) == ("draining", None)
    with serving() as live:
        async with Api.of(live.url, fresh_db) as api:
            rest = await api.frames("GET", f"/runs/{run_id}/stream", headers={"Last-Event-ID": str(last.id)})
            assert shown(rest) == [("values", {"n": 2}), ("end", None)]
