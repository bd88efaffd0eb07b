"""What can go wrong with a language model, the same small tree for every provider."""

from __future__ import annotations

from typing import ClassVar

from duragraph_worker.errors import ProviderError


class LLMError(ProviderError):
    """A model gave no usable answer.

    `provider` and `model` name who was asked, `status` is the HTTP status (None without an answer), `retry_after` is in
    seconds where the provider said one, `retryable` says whether the same request may succeed later.
    """

    may_succeed_later: ClassVar[bool] = False
    what_to_do: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        model: str,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        hint = f"; {self.what_to_do}" if self.what_to_do else ""
        super().__init__(f"{provider} ({model}): {message}{hint}", status=status, retryable=self.may_succeed_later)
        self.provider = provider
        self.model = model
        self.retry_after = retry_after


class RateLimited(LLMError):
    """Too many requests or tokens for the account's limit, or its quota is used up."""

    may_succeed_later = True
    what_to_do = "wait, or raise the limit of the account"


class Overloaded(LLMError):
    """The provider failed or has no capacity (HTTP 5xx)."""

    may_succeed_later = True
    what_to_do = "try again later, or use another provider"


class ConnectionLost(LLMError):
    """No answer: no connection, a time-out, or the answer was cut in the middle."""

    may_succeed_later = True
    what_to_do = "check the address and the network"


class BadAnswer(LLMError):
    """The answer is not what the protocol says: no JSON, no choice, tool arguments that are no JSON object."""

    may_succeed_later = True
    what_to_do = "try again; if it stays, the model or the server behind base_url does not fit"


class ContextTooLong(LLMError):
    """The messages are longer than the model takes."""

    what_to_do = "send less, or use a model with a larger context"


class Refused(LLMError):
    """The model, or the provider's filter, declined to answer."""

    what_to_do = "rephrase what is asked"


class BadRequest(LLMError):
    """The provider does not understand the request: an unknown model, an unsupported parameter, a bad tool schema."""

    what_to_do = "correct the request"


class Unauthorized(LLMError):
    """The key is missing, wrong, or may not use this model."""

    what_to_do = "check the key in the worker's environment"


class ProviderUnavailable(ProviderError):
    """No provider is known for this model. The message says what to write instead."""
