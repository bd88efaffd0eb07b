"""What the tests of resources act with: a client of the API, which can also be a worker that runs nothing."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import uuid4

import httpx
from pydantic import BaseModel, TypeAdapter

from duragraph.answers import Error
from tests.sql.scene import COUNTER, question, step, task_id

M = TypeVar("M", bound=BaseModel)
MISSING = "00000000-0000-7000-8000-000000000000"


class Acting:
    """Calls the API at a base URL; a call says which status it expects."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        # Of its own, so that its workers are given nobody else's runs.
        self.graph_id = f"counter-{uuid4().hex[:8]}"

    def call(self, method: str, path: str, body: object = None, status: int = 200, **options: Any) -> httpx.Response:
        """The response, which must have that status and, for an error, its form."""
        if body is not None:
            options["json"] = body
        response = self.http.request(method, path, **options)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        if status >= 400:
            Error.model_validate(response.json())
            assert response.headers["content-type"] == "application/json"
        if status == 204:
            assert response.content == b""
        return response

    def get(self, path: str, status: int = 200, **options: Any) -> Any:
        """The JSON of a GET."""
        return self.call("GET", path, None, status, **options).json()

    def post(self, path: str, body: object = None, status: int = 200, **options: Any) -> Any:
        """The JSON of a POST."""
        return self.call("POST", path, body, status, **options).json()

    def shape(self, model: type[M], value: object) -> M:
        """The value as the description says it is."""
        return model.model_validate(value)

    def shapes(self, model: type[M], values: object) -> list[M]:
        """As `shape`, for a list."""
        return TypeAdapter(list[model]).validate_python(values)  # type: ignore[valid-type]  # a model is a type

    def refused(
        self, method: str, path: str, body: object = None, status: int = 422, **options: Any
    ) -> tuple[str, Any]:
        """(code, field) of an error."""
        error = self.call(method, path, body, status, **options).json()
        return error["code"], error.get("field")

    # threads, and a worker

    def thread(self, **request: object) -> str:
        """A new thread's id."""
        thread_id: str = self.post("/threads", request)["thread_id"]
        return thread_id

    def worker(self, *graphs: dict[str, Any], worker_id: str | None = None) -> str:
        """Register a worker; its id."""
        own = {**COUNTER, "graph_id": self.graph_id}
        request = {"worker_id": worker_id or f"worker-{uuid4().hex[:8]}", "graphs": list(graphs) or [own]}
        registered: str = self.post("/workers", request)["worker_id"]
        return registered

    def run(self, thread_id: str) -> None:
        """A new run on the thread."""
        self.post(f"/threads/{thread_id}/runs", {"assistant_id": self.graph_id, "input": {"target": 1}})

    def claim(self, worker_id: str) -> dict[str, Any]:
        """The one run there is for the worker."""
        [claim] = self.post(f"/workers/{worker_id}/claim", {"max_runs": 1, "wait_seconds": 5})["runs"]
        return dict(claim)

    def write(self, worker_id: str, claim: dict[str, Any], **write: object) -> None:
        """One write of the claimed run, which must be taken."""
        claim["write_no"] = claim.get("write_no", 0) + 1
        whole = {"run_id": claim["run_id"], "token": claim["token"], "write_no": claim["write_no"], **write}
        [result] = self.post(f"/workers/{worker_id}/writes", {"writes": [whole]})["results"]
        assert result["ok"], result

    def stopped_at(
        self, thread_id: str, *following: str, asks: object = None, worker_id: str | None = None
    ) -> dict[str, Any]:
        """Run the graph until these nodes are next, with a question of the first when `asks`; the checkpoint."""
        worker_id = worker_id or self.worker()
        self.run(thread_id)
        claim = self.claim(worker_id)
        head = (claim["checkpoint"] or {}).get("checkpoint_id")
        at = str(uuid4())
        checkpoint = {
            "checkpoint_id": at,
            "parent_checkpoint_id": head,
            "step": (claim["checkpoint"] or {"step": -1})["step"] + 1,
            "source": "loop",
            "channels": {"count": {"set": 1}, "log": {"append": ["prepare"]}},
            "next": list(following),
            "tasks": [{"id": task_id(at, node), "name": node, "path": ["__pull__", node]} for node in following],
        }
        steps = [step(head or at, "prepare", {"count": 1})]
        asked = [question(at, following[0], asks)] if asks is not None else []
        self.write(worker_id, claim, checkpoint_id=at, checkpoints=[checkpoint], steps=steps, interrupts=asked)
        self.write(worker_id, claim, end={"status": "success"})
        return checkpoint
