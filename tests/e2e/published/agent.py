"""Graphs and a worker written with the published SDK 0.3.3: `python agent.py URL NAME`."""

import sys

from duragraph import Graph, entrypoint, human_node, node, router_node
from duragraph.edges import Edge
from duragraph.worker import Worker


@Graph(id="published_linear")
class Linear:
    @entrypoint
    @node()
    def first(self, state):
        return {"trail": [*state.get("trail", []), "first"]}

    @node()
    async def second(self, state):
        return {"trail": [*state["trail"], "second"], "answer": state.get("x", 0) * 2}

    first >> second


@Graph(id="published_routing")
class Routing:
    @entrypoint
    @router_node()
    def pick(self, state):
        return state.get("go", "left")

    @node()
    def left(self, state):
        return {"went": "left"}

    @node()
    def right(self, state):
        return {"went": "right"}


@Graph(id="published_failing")
class Failing:
    @entrypoint
    @node()
    def boom(self, state):
        raise ValueError("kaboom")


@Graph(id="published_asking")
class Asking:
    @entrypoint
    @node()
    def prepare(self, state):
        return {"prepared": True}

    @human_node(prompt="Is this right?")
    def review(self, state):
        return {}

    prepare >> review


def main() -> None:
    worker = Worker(sys.argv[1], name=sys.argv[2], poll_interval=0.05, heartbeat_interval=1.0)
    for made in (Linear(), Routing(), Failing(), Asking()):
        definition = made._get_definition()
        if made._graph_id == "published_routing":
            definition.edges.append(Edge("pick", {"left": "left", "right": "right"}))
        worker.register_graph(definition, instance=made)
    worker.run()


if __name__ == "__main__":
    main()
