"""OpenAI, and every server that speaks its chat completions protocol, through the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from duragraph_worker.errors import MissingExtraError
from duragraph_worker.llm import LLMChunk, LLMRequest, LLMResponse, ToolCall, Usage
from duragraph_worker.llm.errors import (
    BadAnswer,
    BadRequest,
    ConnectionLost,
    ContextTooLong,
    LLMError,
    Overloaded,
    RateLimited,
    Refused,
    Unauthorized,
)

# What the client takes beside the request's body.
_CLIENT_OPTIONS = frozenset({"timeout", "extra_headers", "extra_query", "extra_body"})
# These models take only the newer name of max_tokens, which compatible servers may not know.
_NEW_LIMIT_NAME = ("o1", "o3", "o4", "gpt-5")
_TRANSPORTS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "anyio", "ssl", "socket"})


class OpenAIProvider:
    """Chat completions. Address: `base_url`, else OPENAI_BASE_URL, else OpenAI's own. Key: OPENAI_API_KEY.

    A server of one's own may need no key; OpenAI's does. The client itself tries twice more after 429, 5xx or a lost
    connection, honouring Retry-After, as long as no token has been streamed. `timeout` is in seconds, between bytes.
    """

    name = "openai"

    def __init__(self, base_url: str | None = None, *, max_retries: int = 2, timeout: float = 300.0) -> None:
        self._package = _import_openai()
        self._base_url = base_url
        self._max_retries = max_retries
        self._timeout = timeout
        # A connection belongs to the event loop that opened it.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str | None, str], _Held]] = (
            WeakKeyDictionary()
        )

    async def chat(self, request: LLMRequest) -> LLMResponse:
        """The whole answer. Raises the errors of `duragraph_worker.llm.errors`."""
        with self._mapped_errors(request.model):
            client = await self._client(request.model)
            completion = await client.chat.completions.create(**_arguments(request))
            return _response(completion, request.model)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """The answer token by token, then the whole of it. Closing the generator closes the connection."""
        with self._mapped_errors(request.model):
            client = await self._client(request.model)
            options = {"stream": True, "stream_options": {"include_usage": True}}
            stream = await client.chat.completions.create(**_arguments(request), **options)
            answer = _Answer(request.model)
            try:
                async for chunk in stream:
                    if text := answer.add(chunk):
                        yield LLMChunk(content=text)
            finally:
                await stream.close()
            yield LLMChunk(response=answer.response())

    async def _client(self, model: str) -> Any:
        base_url = self._base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = os.environ.get("OPENAI_API_KEY") or ("none" if base_url else "")
        if not key:
            raise Unauthorized("OPENAI_API_KEY is not set", provider=self.name, model=model)
        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        if (base_url, key) not in clients:
            client = self._package.AsyncOpenAI(
                base_url=base_url,
                api_key=key,
                max_retries=self._max_retries,
                timeout=self._package.Timeout(self._timeout, connect=10.0),
            )
            clients[base_url, key] = await _hold(client)
        return clients[base_url, key].client

    @contextlib.contextmanager
    def _mapped_errors(self, model: str) -> Iterator[None]:
        try:
            yield
        except LLMError:
            raise
        except json.JSONDecodeError as problem:
            raise BadAnswer("the answer is no JSON", provider=self.name, model=model) from problem
        except Exception as problem:
            mapped = self._mapped(problem, model)
            if mapped is None:
                raise
            raise mapped from problem

    def _mapped(self, problem: Exception, model: str) -> LLMError | None:
        api = self._package
        if isinstance(problem, api.APIStatusError):
            return _status_error(problem, model)
        if isinstance(problem, api.APIResponseValidationError):
            return BadAnswer(str(problem), provider=self.name, model=model)
        if isinstance(problem, api.APITimeoutError):
            return ConnectionLost("no answer in time", provider=self.name, model=model)
        if isinstance(problem, api.APIConnectionError) or type(problem).__module__.split(".")[0] in _TRANSPORTS:
            return ConnectionLost(_reason(problem), provider=self.name, model=model)
        if isinstance(problem, api.APIError):  # an error object in the middle of a stream
            return Overloaded(str(problem), provider=self.name, model=model)
        return None


@dataclass(frozen=True)
class _Held:
    client: Any
    closer: AsyncGenerator[None, None]


async def _hold(client: Any) -> _Held:
    """Keep a client open as long as its event loop: asyncio.run closes open async generators before the loop."""

    async def closer() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await client.close()

    held = _Held(client, closer())
    await anext(held.closer)
    return held


@dataclass
class _Answer:
    """Puts a streamed answer together."""

    model: str
    content: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None

    def add(self, chunk: Any) -> str:
        """Take a chunk; gives its text."""
        self.model = chunk.model or self.model
        if chunk.usage:
            self.usage = _usage(chunk.usage)
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        delta = choice.delta
        if delta is None:
            return ""
        if getattr(delta, "refusal", None):
            self.refusal.append(delta.refusal)
        for part in delta.tool_calls or ():
            self._add_call(part)
        text = delta.content or ""
        if text:
            self.content.append(text)
        return text

    def _add_call(self, part: Any) -> None:
        # Arguments come in pieces; the id and the name come once, with the first (some servers repeat them empty).
        call = self.calls.setdefault(part.index or 0, {"id": "", "name": "", "arguments": ""})
        call["id"] = part.id or call["id"]
        if part.function is not None:
            call["name"] = part.function.name or call["name"]
            call["arguments"] += part.function.arguments or ""

    def response(self) -> LLMResponse:
        """The whole answer. Raises `ConnectionLost` where the stream ended before the model did."""
        if self.finish_reason is None:
            raise ConnectionLost("the stream ended in the middle of the answer", provider="openai", model=self.model)
        content = "".join(self.content)
        _check_refusal("".join(self.refusal), content, self.finish_reason, self.model)
        calls = [
            _tool_call(call["id"], call["name"], call["arguments"], self.model)
            for _, call in sorted(self.calls.items())
        ]
        return LLMResponse(content, self.model, self.usage, calls, self.finish_reason)


def _import_openai() -> ModuleType:
    try:
        import openai
    except ImportError as problem:
        raise MissingExtraError(
            'the OpenAI client is not installed; run: pip install "duragraph-worker[openai]"'
        ) from problem
    return openai


def _arguments(request: LLMRequest) -> dict[str, Any]:
    messages = list(request.messages)
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    limit = "max_completion_tokens" if request.model.startswith(_NEW_LIMIT_NAME) else "max_tokens"
    optional = {
        "temperature": request.temperature,
        limit: request.max_tokens,
        "tools": list(request.tools) or None,
        "response_format": request.response_format,
        "seed": request.seed,
    }
    options = {name: value for name, value in request.extra.items() if name in _CLIENT_OPTIONS}
    body = {name: value for name, value in request.extra.items() if name not in _CLIENT_OPTIONS}
    if body:
        options["extra_body"] = {**body, **(options.get("extra_body") or {})}
    present = {name: value for name, value in optional.items() if value is not None}
    return {"model": request.model, "messages": messages, **present, **options}


def _response(completion: Any, model: str) -> LLMResponse:
    if isinstance(completion, str) or not getattr(completion, "choices", None):
        raise BadAnswer("the answer has no choices", provider="openai", model=model)
    choice = completion.choices[0]
    content = choice.message.content or ""
    _check_refusal(getattr(choice.message, "refusal", None), content, choice.finish_reason, model)
    calls = [
        _tool_call(call.id, call.function.name, call.function.arguments, model)
        for call in _function_calls(choice.message.tool_calls)
    ]
    usage = _usage(completion.usage) if completion.usage else Usage()
    return LLMResponse(content, completion.model or model, usage, calls, choice.finish_reason)


def _function_calls(calls: Sequence[Any] | None) -> list[Any]:
    return [call for call in calls or () if getattr(call, "function", None) is not None]


def _tool_call(call_id: str, name: str, arguments: str, model: str) -> ToolCall:
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError as problem:
        raise BadAnswer(f'the arguments for tool "{name}" are no JSON', provider="openai", model=model) from problem
    if not isinstance(parsed, dict):
        raise BadAnswer(f'the arguments for tool "{name}" are no JSON object', provider="openai", model=model)
    return ToolCall(call_id, name, parsed)


def _usage(usage: Any) -> Usage:
    return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def _check_refusal(refusal: str | None, content: str, finish_reason: str | None, model: str) -> None:
    if refusal:
        raise Refused(refusal, provider="openai", model=model)
    if finish_reason == "content_filter" and not content:
        raise Refused("the answer was filtered", provider="openai", model=model)


def _status_error(problem: Any, model: str) -> LLMError:
    status: int = problem.status_code
    code = str(getattr(problem, "code", None) or "")
    message = _reason(problem)
    return _kind(status, code, message)(
        message, provider="openai", model=model, status=status, retry_after=_retry_after(problem)
    )


def _kind(status: int, code: str, message: str) -> type[LLMError]:
    if status == 429:
        return RateLimited
    if status in (401, 403):
        return Unauthorized
    if status == 408:
        return ConnectionLost
    if status >= 500:
        return Overloaded
    if code == "context_length_exceeded" or status == 413 or "context length" in message.lower():
        return ContextTooLong
    if code in ("content_policy_violation", "content_filter"):
        return Refused
    return BadRequest


def _reason(problem: Exception) -> str:
    body = getattr(problem, "body", None)
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    cause = problem.__cause__
    return " ".join(filter(None, [str(problem) or type(problem).__name__, f"({cause})" if cause else ""]))


def _retry_after(problem: Any) -> float | None:
    # A missing header, or a date instead of a number, is as none: the retry policy has its own delay.
    with contextlib.suppress(KeyError, ValueError):
        return float(problem.response.headers["retry-after"])
    return None
