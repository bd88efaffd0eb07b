"""What a worker serves besides its own graphs: graphs of another library, which execute their runs themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from duragraph_worker.journal import Claim, Journal

if TYPE_CHECKING:
    from duragraph_worker.executor import Outcome


class HostedJournal(Journal, Protocol):
    """A journal that also gives back what was saved."""

    async def read_checkpoints(self, reads: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """For each of [{checkpoint_ns, checkpoint_id?, before?, filter?, limit = 1}] what was saved, newest first."""
        ...


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
    async def execute(self, claim: Claim, journal: HostedJournal) -> Outcome:
        """One attempt at a run. Raises LeaseLost and CancelledError; a failing node ends the run instead."""
