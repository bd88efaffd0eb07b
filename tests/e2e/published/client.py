"""What the published SDK's REST client can do against a server: `python client.py URL` prints a JSON line."""

import asyncio
import json
import sys

from duragraph import AsyncDuraGraphClient, DuraGraphClient


def synchronous(url: str) -> dict:
    with DuraGraphClient(url) as client:
        assistant = client.create_assistant(
            "Mine", graph_id="published_linear", metadata={"of": "the published client"}
        )
        thread = client.create_thread(metadata={"a": 1})
        run = client.create_run(thread["thread_id"], assistant["assistant_id"], input={"x": 21})
        joined = client.join_run(thread["thread_id"], run["run_id"])
        found = {
            "assistant": client.get_assistant(assistant["assistant_id"])["name"],
            "assistants": len(client.list_assistants()["assistants"]),
            "searched": len(client.search_assistants(graph_id="published_linear")),
            "updated": client.update_assistant(assistant["assistant_id"], name="Ours") is not None,
            "joined": joined,
            "status": client.get_run(run["run_id"], thread_id=thread["thread_id"])["status"],
            "by_id": client.get_run(run["run_id"])["run_id"] == run["run_id"],
            "runs": len(client.list_runs(thread["thread_id"])),
            "values": client.get_thread_state(thread["thread_id"])["values"],
            "history": len(client.get_thread_history(thread["thread_id"])),
            "threads": len(client.list_threads()["threads"]),
            "thread": client.update_thread(thread["thread_id"], metadata={"b": 2}) is not None,
            "waited": client.wait_for_run(assistant["assistant_id"], input={"x": 2}),
            "stateless": client.create_stateless_run(assistant["assistant_id"], input={"x": 3})["status"],
        }
        held = client.create_run(
            thread["thread_id"], client.create_assistant("No worker", graph_id="published_asking")["assistant_id"]
        )
        found["cancelled"] = client.cancel_run(thread["thread_id"], held["run_id"]) is not None
        found["store"] = store(client)
        found["deleted"] = [
            client.delete_thread(thread["thread_id"]),
            client.delete_assistant(assistant["assistant_id"]),
        ]
        return found


def store(client: DuraGraphClient) -> dict:
    space = ["published", "notes"]
    client.put_store_item(space, "short", {"n": 1}, ttl_seconds=3600)
    client.put_store_item(space, "k", {"n": 2})
    found = {
        "value": client.get_store_item(space, "k")["value"],
        "missing": client.get_store_item(space, "nothing"),
        "searched": [item["key"] for item in client.search_store(["published"], filter={"n": 2})["items"]],
        "namespaces": client.list_namespaces(prefix=["published"])["namespaces"],
    }
    for key in ("k", "short"):
        client.delete_store_item(space, key)
    found["left"] = client.search_store(space)["items"]
    return found


async def asynchronous(url: str) -> dict:
    async with AsyncDuraGraphClient(url) as client:
        assistant = await client.create_assistant("Async", graph_id="published_linear")
        thread = await client.create_thread()
        run = await client.create_run(thread["thread_id"], assistant["assistant_id"], input={"x": 5})
        await client.put_store_item(["async"], "k", {"n": 1})
        return {
            "stored": (await client.get_store_item(["async"], "k"))["value"],
            "found": len((await client.search_store(["async"]))["items"]),
            "run": run["status"],
            "got": (await client.get_run(run["run_id"], thread_id=thread["thread_id"]))["run_id"] == run["run_id"],
        }


if __name__ == "__main__":
    print(json.dumps({"sync": synchronous(sys.argv[1]), "async": asyncio.run(asynchronous(sys.argv[1]))}))
