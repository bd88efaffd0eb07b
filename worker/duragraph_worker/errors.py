"""The errors of the SDK: few, named, each saying what happened and what to do."""

from __future__ import annotations


class DuraGraphError(Exception):
    """Every error of this package."""


class GraphError(DuraGraphError):
    """A graph is declared wrongly; the message names the node. Raised when the class is declared."""


class StateError(DuraGraphError):
    """A value cannot be state: not JSON, an undeclared key, or two writers of a key without a reducer.

    `path` is where in the value, such as `messages[0].content`.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class InvalidUpdateError(StateError):
    """Two tasks of one superstep wrote a key that has no reducer, or a node returned what is no update."""


class EmptyInputError(DuraGraphError):
    """A run without input on a thread where nothing waits to go on."""


class GraphRecursionError(DuraGraphError, RecursionError):
    """A run took more supersteps than `config.recursion_limit` (25 unless set)."""


class NodeError(DuraGraphError):
    """A node cannot do what its decorator promises; the message names the node."""


class ToolError(DuraGraphError):
    """A tool call that cannot be made: an unknown tool or arguments that do not fit its schema."""


class ProviderError(DuraGraphError):
    """A model provider refused or failed. `status` is its HTTP status where there was one."""

    def __init__(self, message: str, *, status: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable


class MissingExtraError(DuraGraphError, ImportError):
    """An optional dependency is not installed; the message has the pip command."""


class EmbeddingError(DuraGraphError):
    """An embedder gave what are no vectors of its size, one for each text."""


class StoreError(DuraGraphError):
    """The store refused an operation; nothing of its batch was done. `field` names the part at fault (or is None)."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class LeaseLost(DuraGraphError):
    """The run belongs to someone else now (cancelled, or claimed anew): nothing written by this attempt counts."""
