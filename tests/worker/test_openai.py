"""The OpenAI provider against a server on a real port: streams, tools, and each fault as one typed error."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from duragraph_worker.errors import MissingExtraError
from duragraph_worker.llm import (
    BadAnswer,
    BadRequest,
    ConnectionLost,
    ContextTooLong,
    LLMChunk,
    LLMError,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    Refused,
    ToolCall,
    Unauthorized,
    Usage,
    get_provider,
    register_provider,
)
from duragraph_worker.llm.openai import OpenAIProvider
from tests.worker.doubles import Answer, HttpDouble, Request, free_port

Json = dict[str, Any]
HELLO = [{"role": "user", "content": "Hello"}]


class OpenAIDouble:
    """Answers chat completions with what the test put in `answers`, in order; the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.http = HttpDouble(self._answer)
        self.url = f"{self.http.url}/v1"

    def _answer(self, request: Request) -> Answer:
        assert request.path == "/v1/chat/completions"
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def last(self) -> Json:
        body: Json = self.http.requests[-1].body
        return body


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIDouble]:
    double = OpenAIDouble()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    yield double
    double.http.stop()


def provider_of(server: OpenAIDouble, **options: Any) -> OpenAIProvider:
    return OpenAIProvider(server.url, max_retries=options.pop("max_retries", 0), **options)


def completion(message: Json | None = None, finish_reason: str = "stop", **fields: Any) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-test-2026",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi.", **(message or {})},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        **fields,
    }


def sse(*payloads: Any) -> list[bytes]:
    return [f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n".encode() for one in payloads]


def chunk(delta: Json, finish_reason: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-test-2026", "choices": [choice]}


USAGE = {**chunk({}), "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
STREAM = {"Content-Type": "text/event-stream"}


def refusal(status: int, code: str, message: str = "no", headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "t", "param": None, "code": code}}, headers or {})


async def test_a_chat_gives_the_text_the_model_and_what_it_cost(server: OpenAIDouble) -> None:
    server.answers = [Answer(body=completion())]

    response = await provider_of(server).chat(
        LLMRequest(
            HELLO,
            "gpt-test",
            temperature=0.2,
            max_tokens=5,
            system="Be kind.",
            seed=7,
            extra={"top_k": 3, "timeout": 9},
        )
    )

    assert response == LLMResponse("Hi.", "gpt-test-2026", Usage(7, 3), [], "stop")
    assert server.last == {
        "model": "gpt-test",
        "messages": [{"role": "system", "content": "Be kind."}, *HELLO],
        "temperature": 0.2,
        "max_tokens": 5,
        "seed": 7,
        "top_k": 3,
    }
    assert server.http.requests[-1].headers["authorization"] == "Bearer sk-canary"


async def test_a_stream_gives_each_token_and_then_the_whole(server: OpenAIDouble) -> None:
    chunks = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({"content": " there"})]
    server.answers = [Answer(headers=STREAM, chunks=sse(*chunks, chunk({}, "stop"), USAGE, "[DONE]"))]

    seen = [one async for one in provider_of(server).stream(LLMRequest(HELLO, "gpt-test"))]

    assert seen == [
        LLMChunk("Hi"),
        LLMChunk(" there"),
        LLMChunk(response=LLMResponse("Hi there", "gpt-test-2026", Usage(7, 3), [], "stop")),
    ]
    assert server.last["stream_options"] == {"include_usage": True}


async def test_tool_calls_are_parsed_and_may_come_several_at_once(server: OpenAIDouble) -> None:
    calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": "add", "arguments": json.dumps({"a": i})}}
        for i in (1, 2)
    ]
    server.answers = [Answer(body=completion({"content": None, "tool_calls": calls}, "tool_calls"))]
    spec = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}

    response = await provider_of(server).chat(LLMRequest(HELLO, "gpt-test", tools=(spec,)))

    assert response.tool_calls == [ToolCall("call_1", "add", {"a": 1}), ToolCall("call_2", "add", {"a": 2})]
    assert (response.content, response.finish_reason) == ("", "tool_calls")
    assert server.last["tools"] == [spec]


async def test_streamed_tool_arguments_are_put_together_per_call(server: OpenAIDouble) -> None:
    def piece(index: int, arguments: str, **start: str) -> Json:
        function = {"arguments": arguments, **({"name": start["name"]} if start else {})}
        return chunk({"tool_calls": [{"index": index, "id": start.get("id"), "function": function}]})

    chunks = [
        piece(0, "", id="a", name="add"),
        piece(0, '{"x"'),
        piece(1, '{"city": "Os', id="b", name="weather"),
        piece(0, ": 1}"),
        piece(1, 'lo"}'),
        chunk({}, "tool_calls"),
    ]
    server.answers = [Answer(headers=STREAM, chunks=sse(*chunks, USAGE, "[DONE]"))]

    *_, last = [one async for one in provider_of(server).stream(LLMRequest(HELLO, "gpt-test"))]

    assert last.response is not None
    assert last.response.tool_calls == [ToolCall("a", "add", {"x": 1}), ToolCall("b", "weather", {"city": "Oslo"})]


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (refusal(429, "rate_limit_exceeded", headers={"Retry-After": "7"}), RateLimited, 429),
        (refusal(401, "invalid_api_key"), Unauthorized, 401),
        (refusal(403, "forbidden"), Unauthorized, 403),
        (refusal(404, "model_not_found"), BadRequest, 404),
        (refusal(400, "context_length_exceeded"), ContextTooLong, 400),
        (refusal(400, "", "This model's maximum context length is 8 tokens"), ContextTooLong, 400),
        (refusal(400, "content_filter"), Refused, 400),
        (refusal(400, "invalid_value"), BadRequest, 400),
        (refusal(500, "server_error"), Overloaded, 500),
        (refusal(503, "overloaded"), Overloaded, 503),
        (Answer(502, b"<html>bad gateway</html>"), Overloaded, 502),
        (Answer(body=b"{not json"), BadAnswer, None),
        (Answer(body={"choices": []}), BadAnswer, None),
        (Answer(body=completion({"refusal": "I will not."})), Refused, None),
        (Answer(body=completion({"content": None}, "content_filter")), Refused, None),
        (Answer(drop=True), ConnectionLost, None),
        (Answer(body=completion(), cut=True), ConnectionLost, None),
    ],
)
async def test_each_fault_is_one_typed_error_that_says_who_and_what_to_do(
    server: OpenAIDouble, answer: Answer, kind: type[LLMError], status: int | None
) -> None:
    server.answers = [answer]

    with pytest.raises(LLMError) as caught:
        await provider_of(server).chat(LLMRequest(HELLO, "gpt-test"))

    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.retryable == (kind in (RateLimited, Overloaded, ConnectionLost, BadAnswer))
    assert str(caught.value).startswith("openai (gpt-test): ")
    assert "sk-canary" not in str(caught.value)


async def test_retry_after_reaches_whoever_retries(server: OpenAIDouble) -> None:
    server.answers = [refusal(429, "rate_limit_exceeded", headers={"Retry-After": "7"})]

    with pytest.raises(RateLimited) as caught:
        await provider_of(server).chat(LLMRequest(HELLO, "gpt-test"))

    assert caught.value.retry_after == 7.0


async def test_the_client_itself_waits_as_the_server_asked_and_tries_again(server: OpenAIDouble) -> None:
    server.answers = [refusal(429, "busy", headers={"Retry-After": "0.1"}), Answer(body=completion())]

    response = await provider_of(server, max_retries=1).chat(LLMRequest(HELLO, "gpt-test"))

    assert response.content == "Hi."
    assert len(server.http.requests) == 2


@pytest.mark.parametrize("ending", ["cut", "clean"])
async def test_a_stream_that_ends_in_the_middle_is_a_lost_connection(server: OpenAIDouble, ending: str) -> None:
    half = sse(chunk({"content": "Hi"}))
    server.answers = [Answer(headers=STREAM, chunks=half, cut=ending == "cut")]
    stream = provider_of(server).stream(LLMRequest(HELLO, "gpt-test"))

    assert await anext(stream) == LLMChunk("Hi")
    with pytest.raises(ConnectionLost):
        await anext(stream)


@pytest.mark.parametrize(
    ("payloads", "kind"),
    [
        (["{not json"], BadAnswer),
        ([{"error": {"message": "overloaded", "code": "x"}}], Overloaded),
        ([chunk({"refusal": "No."}), chunk({}, "stop")], Refused),
        (
            [
                chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{oops"}}]}),
                chunk({}, "tool_calls"),
            ],
            BadAnswer,
        ),
    ],
)
async def test_a_fault_inside_a_stream_is_typed_too(
    server: OpenAIDouble, payloads: list[Any], kind: type[LLMError]
) -> None:
    server.answers = [Answer(headers=STREAM, chunks=sse(*payloads, "[DONE]"))]

    with pytest.raises(kind):
        [one async for one in provider_of(server).stream(LLMRequest(HELLO, "gpt-test"))]


async def test_no_server_and_no_answer_in_time_are_lost_connections(server: OpenAIDouble) -> None:
    over = threading.Event()

    def late() -> Iterator[bytes]:
        over.wait(20)
        yield b"{}"

    nobody = OpenAIProvider(f"http://127.0.0.1:{free_port()}/v1", max_retries=0)
    with pytest.raises(ConnectionLost):
        await nobody.chat(LLMRequest(HELLO, "gpt-test"))

    server.answers = [Answer(chunks=late())]
    with pytest.raises(ConnectionLost, match="in time"):
        await provider_of(server).chat(LLMRequest(HELLO, "gpt-test", extra={"timeout": 0.2}))
    over.set()


async def test_leaving_a_stream_early_closes_its_connection(server: OpenAIDouble) -> None:
    endless = itertools.repeat(sse(chunk({"content": "x" * 1000}))[0])
    server.answers = [Answer(headers=STREAM, chunks=endless)]
    stream = provider_of(server).stream(LLMRequest(HELLO, "gpt-test"))
    await anext(stream)
    await stream.aclose()

    assert await asyncio.to_thread(server.http.hung_up.wait, 10)


def test_one_provider_serves_several_event_loops(server: OpenAIDouble) -> None:
    server.answers = [Answer(body=completion())]
    provider = provider_of(server)

    for _ in range(3):
        assert asyncio.run(provider.chat(LLMRequest(HELLO, "gpt-test"))).content == "Hi."


def test_newer_models_get_the_newer_name_of_the_limit(server: OpenAIDouble) -> None:
    server.answers = [Answer(body=completion())]

    asyncio.run(provider_of(server).chat(LLMRequest(HELLO, "gpt-5-mini", max_tokens=5)))

    assert server.last["max_completion_tokens"] == 5
    assert "max_tokens" not in server.last


async def test_without_a_key_openai_itself_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    with pytest.raises(Unauthorized, match="OPENAI_API_KEY is not set"):
        await OpenAIProvider().chat(LLMRequest(HELLO, "gpt-test"))


async def test_a_server_of_ones_own_needs_no_key_and_may_come_from_the_environment(
    server: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.answers = [Answer(body=completion())]
    provider, model = get_provider("openai:qwen2.5:7b")

    assert model == "qwen2.5:7b"
    assert (await provider.chat(LLMRequest(HELLO, model))).content == "Hi."


def test_a_model_finds_its_provider() -> None:
    for model in ("gpt-4o-mini", "o3-mini", "chatgpt-4o-latest"):
        provider, name = get_provider(model)
        assert (provider.name, name) == ("openai", model)
    assert get_provider("gpt-4o")[0] is get_provider("gpt-4o-mini")[0]
    local, name = get_provider("openai:llama-3@http://127.0.0.1:8000/v1")
    assert (local.name, name) == ("openai", "llama-3")
    assert local is not get_provider("gpt-4o")[0]
    assert get_provider("anything", provider=local) == (local, "anything")
    assert get_provider("llama-3", provider="openai")[1] == "llama-3"
    assert isinstance(local, LLMProvider)


def test_a_model_nobody_serves_is_named_with_what_to_write() -> None:
    with pytest.raises(ProviderUnavailable, match='"openai:mystral@http'):
        get_provider("mystral")
    with pytest.raises(ProviderUnavailable, match='no provider "nobody"; there are: extractive, openai'):
        get_provider("x", provider="nobody")


def test_a_provider_of_ones_own_can_be_registered() -> None:
    class Own:
        name = "own"

        def __init__(self, base_url: str | None) -> None:
            self.base_url = base_url

        async def chat(self, request: LLMRequest) -> LLMResponse:
            return LLMResponse("own", request.model)

        async def stream(self, request: LLMRequest) -> Any:
            yield LLMChunk(response=await self.chat(request))

    register_provider("own", Own)
    provider, model = get_provider("own:m@https://host/v1")

    assert isinstance(provider, Own)
    assert (provider.base_url, model) == ("https://host/v1", "m")


def test_a_missing_client_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_openai(name: str, *rest: Any, **named: Any) -> Any:
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "openai", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_openai)

    with pytest.raises(MissingExtraError, match=r'pip install "duragraph-worker\[openai\]"'):
        OpenAIProvider()
