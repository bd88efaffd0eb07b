"""The worker's end of the worker protocol: register, claim, write, heartbeat, drain, deregister."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from duragraph_worker.backoff import Backoff
from duragraph_worker.client import ApiError, Unreachable, check_answer, check_url
from duragraph_worker.journal import Claim

log = logging.getLogger("duragraph_worker")

Json = dict[str, Any]

# Below the 5 s after which common servers close an idle connection, so that few requests meet a closing one.
_LIMITS = httpx.Limits(max_connections=20, keepalive_expiry=4.0)
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


@dataclass(frozen=True)
class Claimed:
    """The answer to a claim: `runs` to execute, and tokens of held runs that were `lost` (cancelled, or given away)."""

    runs: list[Claim] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)


class WorkerClient:
    """Speaks for one worker, whose registration is `{"worker_id", "capacity", "lease_seconds", "graphs": [...], ...}`.

    Every call is repeated with backoff (0.1 s to 5 s, jitter, Retry-After honoured) until the control plane answers;
    a 404 says that it does not know the worker (any more): the worker registers again and repeats the call. Only a
    refusal (another 4xx) is raised, as `ApiError`. A repeated write carries its write_no, so it counts once.
    """

    def __init__(self, url: str, registration: Json) -> None:
        self.url = check_url(url)
        self.registration = registration
        self.worker_id: str = registration["worker_id"]
        self.lease_seconds = float(registration["lease_seconds"])
        self.heartbeat_seconds = self.lease_seconds / 3
        self.poll_seconds = 25.0
        self._path = f"/workers/{quote(self.worker_id, safe='')}"
        self._http = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, limits=_LIMITS)
        self._registering = asyncio.Lock()
        self._registrations = 0
        self._away = False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def register(self) -> Json:
        """Make the worker and its graphs known. Raises `ApiError` where the control plane refuses them."""
        async with self._registering:
            return await self._register()

    async def claim(self, max_runs: int, wait_seconds: float, held: Sequence[int]) -> Claimed:
        """Up to `max_runs` runs; waits up to `wait_seconds` for one, or for a held run's cancellation."""
        body = {"max_runs": max_runs, "wait_seconds": wait_seconds, "held": list(held)}
        timeout = httpx.Timeout(wait_seconds + 15.0, connect=5.0)
        answer = await self._call("POST", f"{self._path}/claim", json.dumps(body).encode(), timeout)
        return Claimed(list(answer.get("runs") or ()), list(answer.get("lost") or ()))

    async def write(self, writes: Iterable[bytes]) -> dict[int, Json]:
        """Send Writes, each JSON text of one run, at most one a run; the results by token.

        Raises `ApiError` for a refusal, which one of the Writes may have caused; so does an answer of 500 when it comes
        again and again, as a Write that the control plane cannot take must not hold up the others for ever.
        """
        body = b'{"writes":[' + b",".join(writes) + b"]}"
        answer = await self._call("POST", f"{self._path}/writes", body, httpx.Timeout(60.0, connect=5.0), faults=5)
        return {result["token"]: result for result in answer.get("results") or () if "token" in result}

    async def read_checkpoints(self, run_id: str, token: int, reads: Sequence[Json]) -> list[list[Json]]:
        """What a hosted graph saved on the run's thread, for each read newest first. Raises as `store`."""
        answer = await self._leased("checkpoints", {"run_id": run_id, "token": token, "reads": reads})
        return list(answer.get("results") or ())

    async def store(self, run_id: str, token: int, ops: Sequence[Json]) -> list[Any]:
        """Do operations of the key-value store for a held run, all or nothing; their results, in order.

        Raises `ApiError` for a refusal, with code `lease_lost` where the run is held no longer; so does an answer of
        500 when it comes again and again. A call whose answer was lost is done again.
        """
        answer = await self._leased("store", {"run_id": run_id, "token": token, "ops": ops})
        return list(answer.get("results") or ())

    async def _leased(self, what: str, body: Json) -> Json:
        content = _JSON.encode(body).encode()
        return await self._call("POST", f"{self._path}/{what}", content, httpx.Timeout(60.0, connect=5.0), faults=5)

    async def drain(self) -> None:
        """From now on claims give nothing."""
        await self._once("POST", f"{self._path}/drain")

    async def deregister(self) -> None:
        """The worker is gone; what it still holds goes back to the queue at once."""
        await self._once("DELETE", self._path)

    def beat(self, http: httpx.Client, held: Sequence[int], details: Json) -> Json:
        """One heartbeat on `http`, from any thread: `{"lost": [tokens], "status": "active"|"draining"}`.

        Not repeated (the next beat is): raises httpx.TransportError, `Unreachable`, `ApiError`. Registers again on 404.
        """
        body = {"held": list(held), "active_runs": len(held), "details": details}
        response = http.post(f"{self._path}/heartbeat", json=body)
        if response.status_code == 404:
            self._adopt(_read(http.post("/workers", json=self.registration)))
            log.warning("registered again", extra={"worker_id": self.worker_id})
            response = http.post(f"{self._path}/heartbeat", json=body)
        return _read(response)

    def blocking_http(self) -> httpx.Client:
        """A client for `beat`, to be used and closed by one thread."""
        return httpx.Client(base_url=self.url, timeout=httpx.Timeout(10.0, connect=5.0), limits=_LIMITS)

    async def _call(
        self, method: str, path: str, content: bytes | None, timeout: httpx.Timeout, faults: int | None = None
    ) -> Json:
        """Repeat until answered; after `faults` answers of 500 in a row, raise them as `ApiError`."""
        backoff = Backoff()
        seen = 0
        while True:
            registrations = self._registrations
            try:
                answer = await self._send(method, path, content, timeout)
            except (httpx.TransportError, Unreachable) as problem:
                seen = seen + 1 if getattr(problem, "status", None) == 500 else 0
                if seen == faults:
                    raise ApiError(500, str(problem)) from problem
                self._note_away(problem)
                await asyncio.sleep(backoff.next(getattr(problem, "retry_after", None)))
            except ApiError as refusal:
                if refusal.status != 404:
                    raise
                await self._register_again(registrations)
                await asyncio.sleep(backoff.next())
            else:
                self._note_back()
                return answer

    async def _once(self, method: str, path: str) -> None:
        """A last word: tried three times, and not worth more, as the lease's end says the same."""
        backoff = Backoff()
        for _ in range(3):
            try:
                await self._send(method, path, None, httpx.Timeout(5.0))
            except (httpx.TransportError, Unreachable) as problem:
                await asyncio.sleep(backoff.next(getattr(problem, "retry_after", None)))
            except ApiError:
                return
            else:
                return

    async def _send(self, method: str, path: str, content: bytes | None, timeout: httpx.Timeout) -> Json:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        return _read(await self._http.request(method, path, content=content, headers=headers, timeout=timeout))

    async def _register(self) -> Json:
        backoff = Backoff()
        content = json.dumps(self.registration).encode()
        while True:
            try:
                answer = await self._send("POST", "/workers", content, _TIMEOUT)
            except (httpx.TransportError, Unreachable) as problem:
                self._note_away(problem)
                await asyncio.sleep(backoff.next(getattr(problem, "retry_after", None)))
            except ApiError as refusal:
                if not self._registrations:
                    raise
                # It knew us once: whatever stands in for it now, it may come back.
                log.error("registration refused: %s", refusal, extra={"worker_id": self.worker_id})
                await asyncio.sleep(max(1.0, backoff.next()))
            else:
                self._note_back()
                self._adopt(answer)
                return answer

    async def _register_again(self, seen: int) -> None:
        """Register unless another call has done so since `seen`: several may meet the same 404."""
        async with self._registering:
            if self._registrations == seen:
                await self._register()
                log.warning("registered again", extra={"worker_id": self.worker_id})

    def _adopt(self, answer: Json) -> None:
        self._registrations += 1
        self.lease_seconds = float(answer.get("lease_seconds") or self.lease_seconds)
        self.heartbeat_seconds = float(answer.get("heartbeat_seconds") or self.lease_seconds / 3)
        self.poll_seconds = float(answer.get("poll_seconds") or self.poll_seconds)

    def _note_away(self, problem: Exception) -> None:
        if not self._away:
            self._away = True
            reason = str(problem) or type(problem).__name__
            log.warning("control plane away, trying again: %s", reason, extra={"worker_id": self.worker_id})

    def _note_back(self) -> None:
        if self._away:
            self._away = False
            log.info("control plane back", extra={"worker_id": self.worker_id})


def _read(response: httpx.Response) -> Json:
    check_answer(response)
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        # A proxy's page, or half an answer; the control plane itself always answers an object.
        raise Unreachable(f"{response.request.url.path}: the answer is not a JSON object")
    return answer
