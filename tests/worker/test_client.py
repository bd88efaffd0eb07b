"""The HTTP client: reconnects without losing or repeating an event, and says what the server refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from duragraph_worker.backoff import Backoff, retry_after
from duragraph_worker.client import ApiError, Client, RunFailed, Unreachable
from duragraph_worker.sse import FrameParser, StreamPart, read_lines
from tests.worker.doubles import Answer, HttpDouble, Request, free_port

STREAM = {"Content-Type": "text/event-stream", "Location": "/threads/t/runs/r/stream"}


def frame(event: str, data: Any, frame_id: int | None = None) -> bytes:
    lines = [f"event: {event}", f"data: {json.dumps(data)}"] + ([f"id: {frame_id}"] if frame_id else [])
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Scripted:
    """Answers each request with the next of its answers, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.http = HttpDouble(self._answer)
        self.requests = self.http.requests
        self.url = self.http.url

    def _answer(self, request: Request) -> Answer:
        return self.answers.pop(0)


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Scripted] = []

    def start(*answers: Answer) -> Scripted:
        servers.append(Scripted(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.http.stop()


async def test_a_cut_stream_goes_on_after_the_last_event_that_was_seen(serve: Any) -> None:
    first = [frame("metadata", {"run_id": "r"}, 1), frame("values", {"n": 1}, 2), b"event: values\r\ndata: {"]
    second = [b": heartbeat\r\n\r\n", frame("values", {"n": 2}, 3), frame("end", None)]
    server = serve(Answer(headers=STREAM, chunks=first, cut=True), Answer(headers=STREAM, chunks=second))

    async with Client(server.url) as client:
        parts = [part async for part in client.runs.stream("t", "graph", input={"a": 1})]

    assert parts == [
        StreamPart("metadata", {"run_id": "r"}, "1"),
        StreamPart("values", {"n": 1}, "2"),
        StreamPart("values", {"n": 2}, "3"),
        StreamPart("end", None),
    ]
    post, get = server.requests
    assert (post.method, post.body["stream_resumable"]) == ("POST", True)
    assert (get.method, get.path, get.headers["last-event-id"]) == ("GET", "/threads/t/runs/r/stream", "2")


async def test_a_stream_that_was_cut_before_its_first_event_is_read_from_the_start(serve: Any) -> None:
    server = serve(Answer(headers=STREAM, chunks=[], cut=True), Answer(headers=STREAM, chunks=[frame("end", None, 1)]))

    async with Client(server.url) as client:
        parts = [part.event async for part in client.runs.stream("t", "graph")]

    assert parts == ["end"]
    assert server.requests[1].headers["last-event-id"] == "-1"


async def test_a_stream_that_closed_without_a_word_is_joined_again_while_its_run_goes_on(serve: Any) -> None:
    server = serve(
        Answer(headers=STREAM, chunks=[frame("values", 1, 1)]),
        Answer(body={"run_id": "r", "status": "running"}),
        Answer(headers=STREAM, chunks=[frame("values", 2, 2)]),
        Answer(body={"run_id": "r", "status": "success"}),
    )

    async with Client(server.url) as client:
        data = [part.data async for part in client.runs.join_stream("t", "r")]

    assert data == [1, 2]
    assert [request.path for request in server.requests][1::2] == ["/threads/t/runs/r"] * 2


async def test_a_location_of_another_origin_is_not_followed(serve: Any) -> None:
    server = serve(
        Answer(headers={**STREAM, "Location": "//elsewhere.example/steal"}, chunks=[frame("values", 1, 1)], cut=True),
        Answer(headers=STREAM, chunks=[frame("end", None)]),
    )

    async with Client(server.url) as client:
        events = [part.event async for part in client.runs.join_stream("t", "r")]

    assert events == ["values", "end"]
    assert [request.path for request in server.requests] == ["/threads/t/runs/r/stream"] * 2


async def test_a_repeated_create_carries_the_same_idempotency_key(serve: Any) -> None:
    server = serve(Answer(drop=True), Answer(503, headers={"Retry-After": "0"}), Answer(body={"run_id": "r"}))

    async with Client(server.url) as client:
        run = await client.runs.create(None, "graph", input={})

    assert run == {"run_id": "r"}
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    assert [request.path for request in server.requests] == ["/runs"] * 3


async def test_a_write_without_a_key_is_not_repeated_when_it_may_have_been_done(serve: Any) -> None:
    server = serve(Answer(drop=True))

    async with Client(server.url) as client:
        with pytest.raises(Unreachable):
            await client.threads.update_state("t", {"a": 1})

    assert len(server.requests) == 1


async def test_wait_survives_a_cut_answer_and_raises_what_the_run_failed_with(serve: Any) -> None:
    failed = b'\n\n{"__error__": {"error": "ValueError", "message": "kaboom"}}'
    server = serve(
        Answer(headers={"Location": "/threads/t/runs/r/join"}, chunks=[b"\n\n"], cut=True), Answer(body=failed)
    )

    async with Client(server.url) as client:
        with pytest.raises(RunFailed, match="ValueError: kaboom"):
            await client.runs.wait("t", "graph")

    assert [request.path for request in server.requests] == ["/threads/t/runs/wait", "/threads/t/runs/r/join"]


async def test_a_refusal_says_what_the_server_said(serve: Any) -> None:
    refusal = {"detail": "assistant_id is missing. Give one.", "code": "invalid", "field": "assistant_id"}
    server = serve(Answer(422, refusal))

    async with Client(server.url) as client:
        with pytest.raises(ApiError, match="422 assistant_id is missing") as caught:
            await client.runs.create("t", "")

    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invalid", "assistant_id")


async def test_every_method_sends_what_the_api_expects(serve: Any) -> None:
    server = serve(*[Answer(body=body) for body in ({}, {}, [], {}, [{}], {}, [], [], {}, {})], Answer(202))

    async with Client(f"{server.url}/api/v1") as client:
        await client.assistants.create("g", name=None, config={"a": 1})
        await client.assistants.get("a")
        await client.assistants.search(graph_id="g")
        await client.threads.create(metadata={"m": 1})
        await client.threads.search(status="idle")
        await client.threads.state("t", checkpoint_id="c")
        await client.threads.history("t", limit=3)
        await client.runs.list("t", status="success")
        await client.runs.get("t", "r")
        await client.threads.update("t", metadata={"k": 1})
        assert await client.runs.cancel("t", "r", action="rollback") is None

    assert [(request.method, request.path.removeprefix("/api/v1"), request.body) for request in server.requests] == [
        ("POST", "/assistants", {"graph_id": "g", "config": {"a": 1}}),
        ("GET", "/assistants/a", None),
        ("POST", "/assistants/search", {"graph_id": "g"}),
        ("POST", "/threads", {"metadata": {"m": 1}}),
        ("POST", "/threads/search", {"status": "idle"}),
        ("GET", "/threads/t/state/c", None),
        ("POST", "/threads/t/history", {"limit": 3}),
        ("GET", "/threads/t/runs", None),
        ("GET", "/threads/t/runs/r", None),
        ("PATCH", "/threads/t", {"metadata": {"k": 1}}),
        ("POST", "/threads/t/runs/r/cancel", None),
    ]
    assert server.requests[7].query == {"limit": "10", "offset": "0", "status": "success"}
    assert server.requests[10].query == {"wait": "0", "action": "rollback"}


async def test_a_server_that_is_not_there_is_unreachable_after_five_tries() -> None:
    async with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(Unreachable, match="no answer from the control plane"):
            await client.threads.get("t")


def test_an_address_that_is_none_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="it looks like"):
        Client("localhost:8081")


@pytest.mark.parametrize("text", ["event: a\r\ndata: 1\r\n\r\ndata: 2\n\n", "event: a\rdata: 1\r\rdata: 2\n\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_frames_are_read_whatever_the_line_ends_and_the_chunks(text: str, size: int) -> None:
    async def chunks() -> AsyncIterator[str]:
        for start in range(0, len(text), size):
            yield text[start : start + size]

    parser = FrameParser()
    parts = [part async for line in read_lines(chunks()) if (part := parser.feed(line))]

    assert parts == [StreamPart("a", 1), StreamPart("message", 2)]


def test_line_separators_inside_json_do_not_end_a_frame() -> None:
    parser = FrameParser()
    assert parser.feed('data: "a\u2028b"') is None
    assert parser.feed("") == StreamPart("message", "a\u2028b")


def test_delays_double_up_to_the_limit_and_never_undercut_the_server() -> None:
    backoff = Backoff(first=1.0, limit=8.0)
    delays = [backoff.next() for _ in range(6)]
    for delay, ceiling in zip(delays, [1, 2, 4, 8, 8, 8], strict=True):
        assert ceiling / 2 <= delay <= ceiling
    assert backoff.next(retry_after=30.0) == 30.0
    backoff.reset()
    assert backoff.next() <= 1.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2", 2.0), ("1e9", 60.0), ("-5", 0.0), ("nan", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after_is_read_as_seconds_or_a_date_and_bounded(header: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": header}) == seconds
