"""Language models behind one small protocol; `get_provider` finds who serves a model.

    provider, model = get_provider("gpt-4o-mini")
    response = await provider.chat(LLMRequest(messages=[{"role": "user", "content": "Hello"}], model=model))

Messages are dicts in the OpenAI form: {"role": "system"|"user"|"assistant"|"tool", "content": ...}. Keys come from the
worker's environment and go to the provider only.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from duragraph_worker.llm.errors import (
    BadAnswer,
    BadRequest,
    ConnectionLost,
    ContextTooLong,
    LLMError,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    Refused,
    Unauthorized,
)

__all__ = [
    "BadAnswer",
    "BadRequest",
    "ConnectionLost",
    "ContextTooLong",
    "LLMChunk",
    "LLMError",
    "LLMProvider",
    "LLMRequest",
    "LLMResponse",
    "Overloaded",
    "ProviderUnavailable",
    "RateLimited",
    "Refused",
    "ToolCall",
    "Unauthorized",
    "Usage",
    "get_provider",
    "register_provider",
]


@dataclass(frozen=True)
class LLMRequest:
    """What a model is asked. `system` goes before the messages; `tools` are function specs in the OpenAI form.

    `response_format` is OpenAI's ({"type": "json_object"} or a json_schema). `extra` goes to the provider as it is
    ("timeout" in seconds is the time-out of this request).
    """

    messages: list[dict[str, Any]]
    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    system: str | None = None
    tools: Sequence[dict[str, Any]] = ()
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolCall:
    """A tool the model wants called, with its arguments parsed; `id` goes into the answering tool message."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """Tokens read and written, as the provider counted them; 0 where it did not say."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class LLMResponse:
    """What a model answered.

    `model` is the name the provider gave; `finish_reason` is "stop", "length", "tool_calls", ...
    """

    content: str
    model: str
    usage: Usage = field(default_factory=Usage)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass(frozen=True)
class LLMChunk:
    """A piece of a streamed answer; the last one has no content and carries the whole `response`."""

    content: str = ""
    response: LLMResponse | None = None


@runtime_checkable
class LLMProvider(Protocol):
    """Serves models. Both methods raise the errors of `duragraph_worker.llm.errors` and no others."""

    name: str

    async def chat(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once."""
        ...

    def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        """The answer as it comes; closing the iterator closes the connection."""
        ...


ProviderFactory = Callable[[str | None], LLMProvider]
"""Makes a provider for a base URL (None: the provider's own)."""

# Imported when first asked for, so that nobody pays for a client that is not used.
_SHIPPED = {
    "openai": ("duragraph_worker.llm.openai", "OpenAIProvider"),
    "extractive": ("duragraph_worker.llm.extractive", "ExtractiveProvider"),
}
_PREFIXES = {
    "gpt-": "openai",
    "chatgpt-": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "extractive": "extractive",
}
_registered: dict[str, ProviderFactory] = {}
_made: dict[tuple[str, str | None], LLMProvider] = {}


def register_provider(name: str, factory: ProviderFactory) -> None:
    """Make `get_provider("<name>:<model>")` and `get_provider(model, "<name>")` use `factory`."""
    _registered[name] = factory
    for key in [key for key in _made if key[0] == name]:
        del _made[key]


def get_provider(model: str, provider: str | LLMProvider | None = None) -> tuple[LLMProvider, str]:
    """The provider of a model, and the model's name there.

    `model` is a name whose maker is known ("gpt-4o-mini", "extractive"), "provider:model", or
    "openai:model@http://host/v1" for any server that speaks the provider's protocol; `provider` (a name or an object)
    decides where given. Raises `ProviderUnavailable`.
    """
    if provider is not None and not isinstance(provider, str):
        return provider, model
    name, rest = (provider, model) if provider else _split(model)
    model_name, _, base_url = rest.partition("@http")
    return _provider(name, f"http{base_url}" if base_url else None), model_name


def _split(model: str) -> tuple[str, str]:
    name, colon, rest = model.partition(":")
    if colon and (name in _registered or name in _SHIPPED):
        return name, rest
    for prefix, owner in _PREFIXES.items():
        if model.startswith(prefix):
            return owner, model
    known = ", ".join(sorted({*_SHIPPED, *_registered}))
    raise ProviderUnavailable(
        f'no provider is known for the model "{model}"; write "provider:model" (providers: {known}), '
        f'or "openai:{model}@http://host:port/v1" for a server that speaks the OpenAI protocol'
    )


def _provider(name: str, base_url: str | None) -> LLMProvider:
    key = (name, base_url)
    if key not in _made:
        _made[key] = _factory(name)(base_url)
    return _made[key]


def _factory(name: str) -> ProviderFactory:
    if name in _registered:
        return _registered[name]
    if name not in _SHIPPED:
        known = ", ".join(sorted({*_SHIPPED, *_registered}))
        raise ProviderUnavailable(f'there is no provider "{name}"; there are: {known}')
    module, attribute = _SHIPPED[name]
    factory: ProviderFactory = getattr(importlib.import_module(module), attribute)
    return factory
