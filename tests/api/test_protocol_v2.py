"""Protocol v2 over HTTP and WebSockets: commands, events by channel, and the sessions of the official Python client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from langgraph_sdk import get_client
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from duragraph_worker import Worker
from tests.api.conftest import Live, Serving
from tests.api.scripted import MISSING, Api, Frame, Json, Stream, Work, echo
from tests.waiting import wait_for_async
from tests.worker.toy_graphs import Counter, Failing, Interrupting, Nested, Tokens

LIFECYCLE = {"channels": ["lifecycle"]}


async def command(api: Api, thread: str, method: str, **params: object) -> Json:
    """The answer to a command."""
    body = {"id": 3, "method": method, "params": params}
    answer: Json = await api.call("POST", f"/threads/{thread}/commands", body)
    assert answer["id"] == 3
    return answer


async def start(api: Api, thread: str, **params: object) -> str:
    """A run started by a command; its id."""
    answer = await command(api, thread, "run.start", assistant_id=api.graph_id, **{"input": 1, **params})
    assert answer["type"] == "success", answer
    return str(answer["result"]["run_id"])


async def refused(api: Api, thread: str, method: str, **params: object) -> str:
    answer = await command(api, thread, method, **params)
    assert answer["type"] == "error"
    assert isinstance(answer["message"], str)
    return str(answer["error"])


def events(api: Api, thread: str, **body: object) -> Any:
    return api.stream("POST", f"/threads/{thread}/stream/events", {**LIFECYCLE, **body})


async def until(stream: Stream, *last: str, runs: int = 1) -> list[Frame]:
    """Frames until so many root runs have come to one of these ends."""
    frames: list[Frame] = []
    while runs:
        frame = await asyncio.wait_for(anext(stream), 10)
        frames.append(frame)
        params = frame.data["params"]
        runs -= frame.event == "lifecycle" and not params["namespace"] and params["data"]["event"] in last
    return frames


def words(frames: list[Frame]) -> list[str]:
    return [frame.data["params"]["data"]["event"] for frame in frames if frame.event == "lifecycle"]


def same(frames: list[Frame]) -> list[tuple[int, str, str, object]]:
    """What must be equal at every reading."""
    seen = [frame.data for frame in frames]
    return [(one["seq"], one["event_id"], one["method"], one["params"]["data"]) for one in seen]


async def ask(work: Work) -> None:
    """Ask a question, or take its answer."""
    resume = (work.claim["kwargs"].get("command") or {}).get("resume")
    if resume is not None:
        await work.step({"answer": resume}, end={"status": "success"})
        return
    made = work.checkpoint({"asked": True}, ["a"])
    question = {"id": uuid4().hex, "value": "sure?"}
    await work.write(
        checkpoint_id=work.head,
        checkpoints=[made],
        events=[{"event": "updates", "data": {"__interrupt__": [question]}}],
        interrupts=[
            {
                "checkpoint_id": work.head,
                "task_id": made["tasks"][0]["id"],
                "ordinal": 0,
                "interrupt_id": question["id"],
                "node": "a",
                "value": "sure?",
            }
        ],
        end={"status": "success"},
    )


async def test_a_run_started_by_command_is_shown_by_channel(api: Api) -> None:
    thread = str(uuid4())
    async with api.working(echo), events(api, thread, channels=["values", "updates", "lifecycle"]) as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        run = await start(api, thread, input={"n": 5})
        frames = await until(stream, "completed")
    assert [frame.event for frame in frames] == ["lifecycle", "updates", "values", "lifecycle"]
    assert frames[2].data["params"]["data"] == {"seen": {"n": 5}}
    assert frames[0].data["event_id"] == f"synth:{run}:lc||running"
    assert frames[0].order == ["event", "data", "id"]
    assert [int(frame.id or 0) for frame in frames] == [frame.data["seq"] for frame in frames]
    kwargs = (await api.call("GET", f"/threads/{thread}/runs/{run}"))["kwargs"]
    assert (kwargs["subgraphs"], kwargs["resumable"]) == (True, True)
    assert {"values", "updates", "messages-tuple", "custom", "tasks", "checkpoints"} == set(kwargs["stream_mode"])


async def test_the_stream_stays_open_over_runs_and_replays_them_alike(api: Api) -> None:
    thread = await api.thread()
    body = {"channels": ["values", "lifecycle"]}
    live: list[Frame] = []
    async with api.working(echo), events(api, thread, **body) as stream:
        for n in (1, 2, 3):
            await start(api, thread, input=n)
            live += await until(stream, "completed")
        numbers = [frame.data["seq"] for frame in live]
        assert numbers == sorted(set(numbers))
        assert max(numbers) < 2**53
        async with events(api, thread, **body) as again:
            assert same(await until(again, "completed", runs=3)) == same(live)
        for n, seen in enumerate(live[:-1]):
            async with events(api, thread, **body, since=seen.data["seq"]) as rest:
                left = live[n + 1 :]
                assert same(await until(rest, "completed", runs=words(left).count("completed"))) == same(left)


async def test_a_client_that_comes_back_by_itself_gets_what_it_has_not_seen(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo):
        async with events(api, thread) as stream:
            await start(api, thread)
            live = await until(stream, "completed")
        place = f"/threads/{thread}/stream/events"
        async with api.stream("POST", place, LIFECYCLE, headers={"Last-Event-ID": live[0].id}) as stream:
            assert same(await until(stream, "completed")) == same(live[1:])
        refused = await api.refused("POST", place, LIFECYCLE, 400, headers={"Last-Event-ID": "x"})
        assert refused == ("invalid_cursor", "Last-Event-ID")


async def test_numbers_and_ids_survive_a_restart_and_the_deletion_of_earlier_runs(
    serving: Serving, fresh_db: str
) -> None:
    with serving() as one:
        async with Api.of(one.url, fresh_db) as api:
            thread = await api.thread()
            async with api.working(echo), events(api, thread) as stream:
                first = await start(api, thread)
                await start(api, thread)
                live = await until(stream, "completed", runs=2)
    with serving() as other:
        async with Api.of(other.url, fresh_db) as api:
            async with events(api, thread) as stream:
                assert same(await until(stream, "completed", runs=2)) == same(live)
            await api.call("DELETE", f"/threads/{thread}/runs/{first}", status=204)
            async with events(api, thread) as stream:
                assert same(await until(stream, "completed")) == same(live[2:])


async def test_runs_made_elsewhere_are_shown_as_far_as_their_modes_allow(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo), events(api, thread, channels=["values", "updates", "lifecycle"]) as stream:
        await api.run(thread)
        assert [frame.event for frame in await until(stream, "completed")] == ["lifecycle", "values", "lifecycle"]


async def test_an_idle_stream_stays_open(serving: Serving, fresh_db: str) -> None:
    with serving(heartbeat_seconds=0.05) as live:
        async with Api.of(live.url, fresh_db) as api:
            for thread in (await api.thread(), MISSING):
                async with api.working(echo), events(api, thread) as stream:
                    await stream.quiet(10)
                    await start(api, thread)
                    assert words(await until(stream, "completed")) == ["running", "completed"]


async def test_a_question_is_asked_and_answered(api: Api) -> None:
    thread = await api.thread()
    async with api.working(ask), events(api, thread, channels=["lifecycle", "input"]) as stream:
        await start(api, thread)
        frames = await until(stream, "interrupted")
        [asked] = [frame.data["params"]["data"] for frame in frames if frame.event == "input.requested"]
        assert asked["payload"] == "sure?"
        question = asked["interrupt_id"]
        assert await refused(api, thread, "input.respond", interrupt_id="nope", response=1) == "no_such_interrupt"
        answer = await command(
            api, thread, "input.respond", interrupt_id=question, namespace=[], response={"yes": True}
        )
        assert answer["type"] == "success"
        assert words(await until(stream, "completed")) == ["running", "completed"]
    state = await api.call("GET", f"/threads/{thread}/state")
    assert state["values"]["answer"] == {question: {"yes": True}}


async def test_of_two_answers_at_once_one_counts(api: Api) -> None:
    thread = await api.thread()
    worker = await api.worker()
    await start(api, thread)
    await ask(await worker.claim())
    [[question]] = (await api.call("GET", f"/threads/{thread}"))["interrupts"].values()
    given: dict[str, Any] = {"responses": [{"interrupt_id": question["id"], "namespace": [], "response": 1}]}
    answers = await asyncio.gather(*(command(api, thread, "input.respond", **given) for _ in range(4)))
    assert sorted(answer["type"] for answer in answers) == ["error", "error", "error", "success"]
    assert {answer.get("error") for answer in answers} == {None, "no_such_interrupt"}


async def test_runs_are_cancelled_attached_to_and_drawn_by_command(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    for method in ("run.cancel", "run.attach", "agent.getTree"):
        assert await refused(api, thread, method) == "no_such_run"
        assert await refused(api, thread, method, run_id=MISSING) == "no_such_run"
        assert await refused(api, thread, method, run_id="x") == "invalid_argument"
    async with events(api, thread) as stream:
        run = await start(api, thread)
        work = await worker.claim()
        await work.write(events=[{"event": "values|child:9", "data": {}}])
        assert (await command(api, thread, "run.attach"))["result"] == {"run_id": run}
        tree = (await command(api, thread, "agent.getTree"))["result"]["tree"]
        assert (tree["status"], tree["graph_name"]) == ("running", api.graph_id)
        assert [(child["namespace"], child["status"]) for child in tree["children"]] == [(["child:9"], "started")]
        assert (await command(api, thread, "run.cancel", run_id=run))["result"] == {"run_ids": [run]}
        assert words(await until(stream, "interrupted"))[0] == "running"
    assert await refused(api, thread, "run.cancel", run_id=run) == "no_such_run"
    ended = (await command(api, thread, "agent.getTree", run_id=run))["result"]["tree"]
    assert (ended["status"], ended["children"][0]["status"]) == ("interrupted", "interrupted")


async def test_a_change_of_state_that_a_worker_makes_is_no_run_of_the_thread(api: Api) -> None:
    await api.worker()
    thread = await api.thread(graph_id=api.graph_id)
    steps = '[{"updates": [{"values": {}}]}]'
    [[update]] = api.rows("select duragraph.begin_update(1, %s, %s)", thread, steps)
    for method in ("run.cancel", "run.attach", "agent.getTree"):
        assert await refused(api, thread, method) == "no_such_run"
        assert await refused(api, thread, method, run_id=str(update)) == "no_such_run"
    assert (await api.call("GET", f"/threads/{thread}"))["status"] == "busy"


async def test_a_failed_run_says_why(api: Api) -> None:
    async def fail(work: Work) -> None:
        await work.end("error", error={"error": "ValueError", "message": "kaboom"})

    thread = await api.thread()
    async with api.working(fail), events(api, thread) as stream:
        await start(api, thread)
        last = (await until(stream, "failed"))[-1]
    assert last.data["params"]["data"] == {"event": "failed", "graph_name": api.graph_id, "error": "kaboom"}


async def test_commands_that_cannot_be_carried_out_say_so(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    assert await refused(api, thread, "no.such") == "unknown_command"
    assert await refused(api, thread, "run.start") == "invalid_argument"
    assert await refused(api, thread, "run.start", assistant_id="nope") == "unknown_error"
    assert await refused(api, thread, "run.start", assistant_id=MISSING) == "unknown_error"
    for wrong in ({"config": 1}, {"multitask_strategy": "x"}, {"metadata": []}, {"input": 2**70}, {"input": "\x00"}):
        answer = await api.http.post(
            f"/threads/{thread}/commands",
            json={"id": 3, "method": "run.start", "params": {"assistant_id": api.graph_id, **wrong}},
        )
        assert answer.json()["error"] == "invalid_argument", wrong
    assert await refused(api, thread, "input.respond") == "invalid_argument"
    assert await refused(api, thread, "input.respond", responses=[]) == "invalid_argument"
    assert await refused(api, MISSING, "input.respond", interrupt_id="x") == "no_such_interrupt"
    assert await refused(api, thread, "subscription.subscribe", channels=["values"]) == "not_supported"
    assert await api.call("GET", f"/threads/{thread}/runs") == []


BAD_IDS = ['{"id":"x","method":"y"}', '{"id":true,"method":"y"}', '{"id":18446744073709551616,"method":"y"}']


@pytest.mark.parametrize("raw", ["", "{", "[]", "1", '{"id":1}', '{"method":"x"}', *BAD_IDS, "\x00"])
async def test_what_is_no_command_is_refused(api: Api, raw: str) -> None:
    answer = await api.http.post(f"/threads/{MISSING}/commands", content=raw)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["type"], body["error"]) == ("error", "invalid_argument")
    assert body["id"] is not True
    assert body["detail"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("invalid_field", "channels")),
        ({"channels": []}, ("invalid_field", "channels")),
        ({"channels": "values"}, ("invalid_field", "channels")),
        ({"channels": ["nope"]}, ("unknown_channel", "channels")),
        ({"channels": ["custom:"]}, ("unknown_channel", "channels")),
        ({"channels": ["values"], "since": "x"}, ("invalid_field", "since")),
        ({"channels": ["values"], "since": 2**63}, ("invalid_field", "since")),
        ({"channels": ["values"], "depth": -1}, ("invalid_field", "depth")),
        ({"channels": ["values"], "namespaces": ["x"]}, ("invalid_field", "namespaces.0")),
    ],
)
async def test_what_is_no_subscription_is_refused(api: Api, body: Json, expected: tuple[str, str]) -> None:
    assert await api.refused("POST", f"/threads/{MISSING}/stream/events", body, 400) == expected


async def test_a_thread_that_is_no_uuid_is_refused(api: Api) -> None:
    for place, body in (("commands", {"id": 1, "method": "x"}), ("stream/events", LIFECYCLE)):
        assert await api.refused("POST", f"/threads/nope/{place}", body, 400) == ("invalid_uuid", "thread_id")


async def test_a_far_since_gives_only_what_is_later_still(api: Api) -> None:
    thread = await api.thread()
    async with api.working(echo):
        await start(api, thread)
        for since in (2**53, 2**62):
            async with events(api, thread, since=since) as stream:
                assert stream.response.status_code == 200
        async with events(api, thread, since=-5) as stream:
            assert words(await until(stream, "completed")) == ["running", "completed"]


async def test_the_stream_of_a_deleted_thread_ends_here_too(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    async with events(api, thread) as stream:
        await start(api, thread)
        await api.call("DELETE", f"/threads/{thread}", status=204)
        async with asyncio.timeout(8):
            assert [frame async for frame in stream if frame.event != "lifecycle"] == []


# over a WebSocket


@asynccontextmanager
async def talking(live: Live, thread: str) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws{live.url.removeprefix('http')}/api/v1/threads/{thread}/stream/events") as socket:
        yield socket


async def say(socket: ClientConnection, method: str, number: int = 1, **params: object) -> Json:
    """The answer to a command; events before it are left out."""
    await socket.send(json.dumps({"id": number, "method": method, "params": params}))
    while True:
        answer: Json = json.loads(await asyncio.wait_for(socket.recv(), 10))
        if answer["type"] != "event":
            assert answer["id"] == number
            return answer


async def told(socket: ClientConnection, *ends: str) -> list[Json]:
    """Events until the run has come to one of these ends."""
    seen: list[Json] = []
    while not seen or seen[-1]["method"] != "lifecycle" or seen[-1]["params"]["data"]["event"] not in ends:
        seen.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
        assert seen[-1]["type"] == "event", seen[-1]
    return seen


async def test_commands_and_events_share_a_socket(api: Api, live: Live) -> None:
    thread = str(uuid4())
    async with api.working(echo), talking(live, thread) as socket:
        subscribed = await say(socket, "subscription.subscribe", 1, channels=["values", "lifecycle"])
        name = subscribed["result"]["subscription_id"]
        started = await say(socket, "run.start", 2, assistant_id=api.graph_id, input=1)
        assert started["type"] == "success"
        methods = [event["method"] for event in await told(socket, "completed")]
        assert methods == ["lifecycle", "values", "lifecycle"]
        assert (await say(socket, "subscription.unsubscribe", 3, subscription_id=name))["result"] == {}
        again = await say(socket, "subscription.unsubscribe", 4, subscription_id=name)
        assert again["error"] == "no_such_subscription"
        # A later subscription replays what was.
        await say(socket, "subscription.subscribe", 5, **LIFECYCLE)
        assert len(await told(socket, "completed")) == 2


async def test_what_is_no_command_does_not_end_the_conversation(api: Api, live: Live) -> None:
    async with talking(live, MISSING) as socket:
        for raw in ("{", "[]", '{"id":1}', b"\x00\x01"):
            await socket.send(raw)
            assert json.loads(await socket.recv())["error"] == "invalid_argument"
        assert (await say(socket, "no.such"))["error"] == "unknown_command"
        for wrong in ({}, {"channels": ["nope"]}, {"channels": []}):
            assert (await say(socket, "subscription.subscribe", **wrong))["error"] == "invalid_argument"
        assert (await say(socket, "subscription.unsubscribe"))["error"] == "invalid_argument"
        await socket.send(json.dumps({"id": 9, "method": "run.start", "params": {"assistant_id": "\ud800"}}))
        assert json.loads(await socket.recv())["error"] == "invalid_argument"


async def test_subscriptions_are_bounded(api: Api, live: Live) -> None:
    async with talking(live, MISSING) as socket:
        for _ in range(100):
            assert (await say(socket, "subscription.subscribe", **LIFECYCLE))["type"] == "success"
        assert (await say(socket, "subscription.subscribe", **LIFECYCLE))["error"] == "invalid_argument"


@pytest.mark.parametrize("path", ["/nope", "/ok"])
async def test_a_socket_to_nowhere_is_refused(live: Live, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws{live.url.removeprefix('http')}{path}")
    assert refused.value.response.status_code == 403


async def test_a_socket_to_no_thread_is_closed_with_the_reason(live: Live) -> None:
    async with talking(live, "nope") as socket:
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


async def test_sockets_are_closed_when_the_process_stops_and_leave_nothing_behind(
    serving: Serving, fresh_db: str
) -> None:
    with serving() as live:
        hub = live.deps.hub
        async with talking(live, MISSING) as socket:
            await say(socket, "subscription.subscribe", **LIFECYCLE)
            await live._until(lambda: hub.thread_readers == 1, "the reader")
        await live._until(lambda: hub.thread_readers == 0, "its going")
        async with talking(live, MISSING) as socket:
            await say(socket, "subscription.subscribe", **LIFECYCLE)
            live.in_loop(live.deps.drain.begin)
            with pytest.raises(ConnectionClosedError) as closed:
                await asyncio.wait_for(socket.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


# the official client


@pytest.fixture
async def toys(live: Live) -> AsyncIterator[None]:
    """A worker of this SDK that serves the toy graphs."""
    worker = Worker(live.url, graphs=[Tokens, Counter, Failing, Interrupting, Nested], name=f"toys-{uuid4().hex[:6]}")
    task = asyncio.create_task(worker.arun())
    try:
        async with Api.of(live.url, live.dsn) as api:

            async def known() -> bool:
                return (await api.http.get("/assistants/nested/graph")).status_code == 200

            await wait_for_async(known, what="the worker's registration")
        yield
    finally:
        worker.stop()
        worker.stop()
        await asyncio.wait_for(task, 15)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.usefixtures("toys")
async def test_a_session_of_the_official_client(live: Live, transport: Any) -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    async with get_client(url=live.url) as client:
        async with client.threads.stream(assistant_id="tokens", transport=transport) as session:
            await session.run.start(input=asked)
            messages = [message async for message in session.messages]
            assert [await message.text for message in messages] == ["you said hi and that is all"]
        async with client.threads.stream(assistant_id="counter", transport=transport) as session:
            await session.run.start(input={"target": 2})
            output = await asyncio.wait_for(session.output, 10)
            assert output["result"] == "counted to 2"
        async with client.threads.stream(assistant_id="failing", transport=transport) as session:
            await session.run.start(input={"message": "kaboom"})
            with pytest.raises(RuntimeError, match="kaboom"):
                await asyncio.wait_for(session.output, 10)
        async with client.threads.stream(assistant_id="interrupting", transport=transport) as session:
            await session.run.start(input={"request": "r"})
            async for _ in session.values:
                pass
            assert [asked["value"] for asked in session.interrupts] == [{"question": "approve r?", "number": 1}]
            await session.run.respond("yes")
            output = await asyncio.wait_for(session.output, 10)
            assert (output["answers"], output["status"]) == (["yes"], "done")
        async with client.threads.stream(assistant_id="nested", transport=transport) as session:
            await session.run.start(input={})
            children = [child async for child in session.subgraphs]
            assert [(child.graph_name, child.status) for child in children] == [("child", "completed")]
