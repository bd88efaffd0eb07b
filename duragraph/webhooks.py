"""Tells webhooks that runs have ended: takes what is due, sends it, writes down what came of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address

import httpx

from duragraph import __version__
from duragraph.config import Settings
from duragraph.egress import Address, Egress, host_of
from duragraph.errors import DuragraphError, Invalid
from duragraph.store import Delivery, Store, sleep_or

log = logging.getLogger("duragraph.webhooks")

Resolve = Callable[[str, int], Awaitable[list[Address]]]

_AT_ONCE = 20
_PATIENCE = 10.0
_CONNECT_PATIENCE = 4.0
_HOLD = 3 * _PATIENCE
_RETRY_AFTER = 1.0
_STOP_PATIENCE = 3.0
_READ = 64 * 1024
_SHOWN = 200
_ADDRESSES = 4
_RESOLVERS = 4


class Refused(Exception):
    """The address may not be called, now or later."""


class Webhooks:
    """The deliveries of one process. `kick()` says that there may be something to send.

    No connection to the database is held while a receiver is waited for. An attempt is taken for a while: if this
    process dies with it, another goes on.
    """

    def __init__(self, store: Store, settings: Settings, resolve: Resolve | None = None) -> None:
        self.look_every: Callable[[], float | None] = lambda: None
        """How long to wait for a kick before looking anyway, in seconds; None: for ever."""
        self._store = store
        self._egress = Egress.of(settings)
        self._key = signing_key(settings.webhook_secret)
        self._dns = ThreadPoolExecutor(_RESOLVERS, "webhook names")
        self._resolve = resolve or self._look_up
        self._client: httpx.AsyncClient | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._stopping = False

    def kick(self) -> None:
        """There may be something to send."""
        self._woken.set()

    def stop(self) -> None:
        """Take no more; what is being sent goes on."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Send until stopped."""
        while not self._stopping:
            self._woken.clear()
            try:
                await self._take()
            except DuragraphError as problem:
                log.warning("webhooks unreadable, trying again", extra={"problem": problem.message})
                await sleep_or(self._woken, _RETRY_AFTER)
                continue
            await sleep_or(self._woken, self.look_every())

    async def close(self) -> None:
        """Wait a moment for what is being sent; what is not done by then another process sends again."""
        self.stop()
        if self._sending:
            await asyncio.wait(self._sending, timeout=_STOP_PATIENCE)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
        self._dns.shutdown(wait=False, cancel_futures=True)

    async def _take(self) -> None:
        """What is due, as much of it as can be sent at once."""
        while (free := _AT_ONCE - len(self._sending)) > 0 and not self._stopping:
            taken = await self._store.claim_webhooks(free, _HOLD)
            for delivery in taken:
                task = asyncio.create_task(self._deliver(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sent)
            if len(taken) < free:
                return

    def _sent(self, task: asyncio.Task[None]) -> None:
        if len(self._sending) == _AT_ONCE:
            self.kick()  # there was no room for more
        self._sending.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("webhook lost its way, another attempt follows", exc_info=problem)

    async def _deliver(self, delivery: Delivery) -> None:
        problem, final = None, False
        try:
            async with asyncio.timeout(_PATIENCE):
                problem = await self._attempt(delivery)
        except TimeoutError:
            problem = f"no answer within {_PATIENCE:g} s"
        except Refused as refused:
            problem, final = str(refused), True
        except (httpx.HTTPError, OSError, UnicodeError) as error:
            problem = str(error) or type(error).__name__
        again = await self._store.settle_webhook(
            delivery.delivery_id, delivery.attempt, problem and problem.replace("\0", ""), final
        )
        about = {"delivery_id": str(delivery.delivery_id), "attempt": delivery.attempt}
        if problem is None:
            log.info("webhook delivered", extra=about)
        else:
            log.warning("webhook failed", extra={**about, "problem": problem, "next_in": again and round(again, 1)})
        if again is not None:
            asyncio.get_running_loop().call_later(again, self.kick)

    async def _attempt(self, delivery: Delivery) -> str | None:
        """What is wrong with the answer, if anything. What cannot be sent at all raises."""
        try:
            url = self._egress.check(delivery.url)
        except Invalid as invalid:
            raise Refused(invalid.message) from None
        host = host_of(url)
        addresses = await self._resolve(host, url.port or (443 if url.scheme == "https" else 80))
        for address in addresses:
            if reason := self._egress.refused(address):
                raise Refused(f"{host} is at {address}, {reason}")
        if not addresses:
            raise OSError(f"{host} has no address")
        headers = self._headers(delivery, url)
        for address in addresses[: _ADDRESSES - 1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._post(url, address, headers, delivery.body)
        return await self._post(url, addresses[-1], headers, delivery.body)

    async def _post(self, url: httpx.URL, address: Address, headers: dict[str, str], body: bytes) -> str | None:
        """Send to the address that was checked, which is not looked up again; TLS still asks for the name."""
        request = self._http().build_request(
            "POST",
            url.copy_with(host=str(address), fragment=None),
            headers=headers,
            content=body,
            extensions={"sni_hostname": host_of(url)} if url.scheme == "https" else {},
        )
        response = await self._http().send(request, stream=True)
        try:
            said = b""
            async for chunk in response.aiter_raw():
                said += chunk
                if len(said) >= _READ:
                    break
        finally:
            await response.aclose()
        if response.is_success:
            return None
        return f"HTTP {response.status_code}: {said[:_SHOWN].decode(errors='replace')}".rstrip(": ")

    def _headers(self, delivery: Delivery, url: httpx.URL) -> dict[str, str]:
        """As Standard Webhooks has them: https://www.standardwebhooks.com"""
        given, sent_at = str(delivery.delivery_id), str(int(time.time()))
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"duragraph/{__version__}",
            "webhook-id": given,
            "webhook-timestamp": sent_at,
        }
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, given, sent_at, delivery.body)
        return headers

    def _http(self) -> httpx.AsyncClient:
        """No proxy, no redirect, and no connection used twice: one that was opened for a name belongs to that name."""
        if self._client is None:
            context: ssl.SSLContext = httpx.create_ssl_context()
            self._client = httpx.AsyncClient(
                verify=context,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(_PATIENCE, connect=_CONNECT_PATIENCE),
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        return self._client

    async def _look_up(self, host: str, port: int) -> list[Address]:
        """All addresses of a name. In threads of our own: a slow name must not keep the database's from being found."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._dns, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(ip_address(str(address[0]).partition("%")[0]) for *_, address in found))


def signing_key(secret: str) -> bytes | None:
    """The key in a secret: base64 after "whsec_", as Standard Webhooks writes it, or else the text itself."""
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"))
    return secret.encode() or None


def sign(key: bytes, delivery_id: str, sent_at: str, body: bytes) -> str:
    """The signature of one sending."""
    signed = hmac.new(key, b"%b.%b.%b" % (delivery_id.encode(), sent_at.encode(), body), hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"
