"""The graph of the benches: one node that does nothing but say when it began, on the clock that processes share."""

from __future__ import annotations

import time
from typing import TypedDict

from duragraph_worker import Graph, entrypoint, node


class State(TypedDict, total=False):
    """When the node began: time.monotonic(), which on one machine is the same clock in every process."""

    began: float


@Graph(id="noop", state=State)
class Noop:
    """One step."""

    @entrypoint
    @node()
    async def nothing(self, state: State) -> State:
        """Nothing."""
        return {"began": time.monotonic()}
