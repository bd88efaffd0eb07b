"""What a worker serves besides its own graphs: graphs of another library, which execute their runs themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from duragraph_worker.journal import Claim, Journal

if TYPE_CHECKING:
    from duragraph_worker.executor import Outcome


class Served(Protocol):
    """What a hosted run may ask of the control plane; each call is fenced by the run's token, and raises LeaseLost."""

    async def read_checkpoints(
        self, run_id: str, token: int, reads: Sequence[dict[str, Any]]
    ) -> list[list[dict[str, Any]]]:
        """For each of [{checkpoint_ns, checkpoint_id?, before?, filter?, limit = 1}] what was saved, newest first."""

    async def store(self, run_id: str, token: int, ops: Sequence[dict[str, Any]]) -> list[Any]:
        """The results of operations on the store, in order."""


class HostedGraph(ABC):
    """A graph that a worker serves as it is."""

    graph_id: str

    @abstractmethod
    async def prepare(self) -> None:
        """Get to know the graph; the worker awaits it before it registers."""

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """What is registered: `{nodes, edges, hosted, ...}`."""

    @abstractmethod
    def schemas(self) -> dict[str, Any]:
        """JSON Schemas: `{input_schema, output_schema, state_schema, config_schema, context_schema}`."""

    @abstractmethod
    async def execute(self, claim: Claim, journal: Journal, served: Served) -> Outcome:
        """One attempt at a run. Raises LeaseLost and CancelledError; a failing node ends the run instead."""
