"""Webhooks over the wire: what a receiver sees, whatever it does, and where no request ever goes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from duragraph import jobs, webhooks
from duragraph.config import Settings
from duragraph.egress import Address, Egress
from duragraph.errors import Invalid
from duragraph.store import Store
from duragraph.webhooks import Webhooks
from tests.api.conftest import Live, Serving
from tests.api.receiver import Receiver, receiver, status
from tests.api.scripted import Api, Work
from tests.sql.acts import create, finish
from tests.sql.scene import Scene
from tests.waiting import wait_for_async

SECRET = "whsec_" + base64.b64encode(b"a key of the tests").decode()


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as got:
        yield got


@asynccontextmanager
async def client(live: Live) -> AsyncIterator[Api]:
    async with Api.of(live.url, live.dsn) as api:
        yield api


async def ends(work: Work) -> None:
    """Each run succeeds."""
    await work.end("success")


# what a receiver sees


async def test_the_end_of_a_run_is_told_within_a_second_and_signed(serving: Serving, hooks: Receiver) -> None:
    with serving(webhook_allow_loopback=True, webhook_secret=SECRET) as live:
        async with client(live) as api, api.working(ends):
            thread = await api.thread()
            run = await api.run(thread, webhook=hooks.url("/done?x=1"), metadata={"m": 1})
            [call] = await hooks.got(1)
            ended = (await api.call("GET", f"/threads/{thread}/runs/{run['run_id']}"))["updated_at"]
    assert (call.path, call.headers["host"]) == ("/done?x=1", f"127.0.0.1:{hooks.port}")
    assert call.headers["content-type"] == "application/json"
    body = call.body
    assert (body["run_id"], body["thread_id"], body["status"]) == (run["run_id"], thread, "success")
    assert (body["metadata"]["m"], body["kwargs"]["webhook"]) == (1, hooks.url("/done?x=1"))
    assert body["run_ended_at"] == ended
    assert body["run_started_at"] <= body["run_ended_at"] <= body["webhook_sent_at"]
    given, sent_at = call.headers["webhook-id"], call.headers["webhook-timestamp"]
    assert abs(int(sent_at) - time.time()) < 30
    signed = hmac.new(b"a key of the tests", f"{given}.{sent_at}.".encode() + call.raw, hashlib.sha256).digest()
    assert call.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"


async def test_an_end_from_psql_and_one_by_another_process_are_told_as_well(serving: Serving, hooks: Receiver) -> None:
    with serving(webhook_allow_loopback=True) as live:
        async with client(live) as api:
            await api.worker()
            run = await api.run(None, webhook=hooks.url())
            began = time.monotonic()
            api.rows("select duragraph.cancel_run(%s)", run["run_id"])
            [call] = await hooks.got(1)
            assert time.monotonic() - began < 1
            assert (call.body["status"], call.body["values"]) == ("interrupted", None)
            assert "webhook-signature" not in call.headers
            thread = await api.thread()
            run = await api.run(thread, webhook=hooks.url())
            await api.call("POST", f"/threads/{thread}/runs/{run['run_id']}/cancel?action=rollback", status=202)
            assert (await hooks.got(2))[1].body["status"] == "rollback"


async def test_a_cron_carries_its_webhook(serving: Serving, hooks: Receiver) -> None:
    with serving(webhook_allow_loopback=True) as live:
        async with client(live) as api, api.working(ends):
            body = {"assistant_id": api.graph_id, "schedule": "0 0 1 1 *", "webhook": hooks.url("/cron")}
            made = await api.call("POST", "/runs/crons", body)
            api.rows("update duragraph.crons set next_run_date = now() returning 1")
            fired = jobs.fire_crons(live.deps.store, live.deps.hub)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fired, live.app.loop))
            [call] = await hooks.got(1)
    assert (call.path, call.body["metadata"]["cron_id"]) == ("/cron", made["cron_id"])


# a process that delivers, and a receiver that is difficult


class Desk:
    """One delivering process in the test's own loop, over a database where runs end as the test likes."""

    def __init__(self, dsn: str, **options: Any) -> None:
        resolve = options.pop("resolve", None)
        settings = Settings(database_url=dsn, **{"webhook_allow_loopback": True, **options})
        self.store = Store.of(settings)
        self.webhooks = Webhooks(self.store, settings, resolve)
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.scene = Scene(self.connection)
        self.key = self.scene.worker()

    def ended(self, url: str) -> None:
        """A run with this webhook ends."""
        create(self.scene, {"webhook": url})
        finish(self.scene, self.scene.claim(self.key)[0])
        self.webhooks.kick()

    def again(self) -> None:
        """The time of the next attempt has come."""
        self.connection.execute(
            "update duragraph.webhook_deliveries set next_attempt_at = now() where status = 'pending'"
        )
        self.webhooks.kick()

    async def log(self, attempt: int, status: str) -> dict[str, Any]:
        """The one delivery, when this attempt of it has come to that."""

        async def probe() -> dict[str, Any] | None:
            [row] = self.scene.rows("select * from duragraph.webhook_log")
            settled = row["last_error"] is not None or row["status"] == "delivered"
            return row if (row["attempt"], row["status"]) == (attempt, status) and settled else None

        return await wait_for_async(probe, timeout=20, what=f"attempt {attempt} to be {status}")


@asynccontextmanager
async def desk(dsn: str, **options: Any) -> AsyncIterator[Desk]:
    it = Desk(dsn, **options)
    await it.store.open()
    running = asyncio.create_task(it.webhooks.run())
    try:
        yield it
    finally:
        await it.webhooks.close()
        await running
        await it.store.close()
        it.connection.close()


async def test_a_failure_is_tried_again_under_the_same_id(fresh_db: str, hooks: Receiver) -> None:
    hooks.answers = [status(500, b"not now\0"), status(200, b"thanks")]
    async with desk(fresh_db) as it:
        it.ended(hooks.url())
        failed = await it.log(1, "pending")
        assert failed["last_error"] == "HTTP 500: not now"
        it.again()
        assert (await it.log(2, "delivered"))["last_error"] is None
    first, second = hooks.calls
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == str(failed["delivery_id"])
    assert first.body["webhook_sent_at"] < second.body["webhook_sent_at"]


async def test_a_retry_comes_by_itself(fresh_db: str, hooks: Receiver) -> None:
    hooks.answers = [status(503)]
    async with desk(fresh_db) as it:
        it.connection.execute(
            "create or replace function duragraph.webhook_delays() returns integer[] language sql immutable"
            " as $$ select array[0, 0] $$"
        )
        it.ended(hooks.url())
        await it.log(2, "delivered")


async def test_a_redirect_is_not_followed(fresh_db: str, hooks: Receiver) -> None:
    with receiver() as inside:
        hooks.answers = [status(307, Location=inside.url("/secret"))]
        async with desk(fresh_db) as it:
            it.ended(hooks.url())
            assert (await it.log(1, "pending"))["last_error"] == "HTTP 307"
        assert inside.connections == []


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Ten gigabytes, if they were read."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10 * 2**30))
    handler.end_headers()
    for _ in range(10 * 2**14):
        handler.wfile.write(b"x" * 65536)


async def test_an_endless_answer_is_read_for_a_moment_only(fresh_db: str, hooks: Receiver) -> None:
    hooks.answers = [endless]
    async with desk(fresh_db) as it:
        it.ended(hooks.url())
        await it.log(1, "delivered")


async def test_a_receiver_that_hangs_and_one_that_drips_are_left(
    fresh_db: str, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_PATIENCE", 0.3)

    def hang(handler: BaseHTTPRequestHandler) -> None:
        hooks.released.wait(20)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not hooks.released.wait(0.02):
            handler.wfile.write(b"x")

    hooks.answers = [hang, drip]
    async with desk(fresh_db) as it:
        it.ended(hooks.url())
        assert "no answer within" in (await it.log(1, "pending"))["last_error"]
        it.again()
        assert "no answer within" in (await it.log(2, "pending"))["last_error"]


async def test_no_database_connection_is_held_while_receivers_hang(fresh_db: str, hooks: Receiver) -> None:
    hooks.answers = [lambda handler: hooks.released.wait(20) and None] * 12
    async with desk(fresh_db, pool_min=1, pool_max=1) as it:
        for _ in range(12):
            it.ended(hooks.url())
        await hooks.got(12)
        async with asyncio.timeout(5):
            assert (await it.store.now()) is not None
        hooks.released.set()


async def test_nobody_listens_there(fresh_db: str) -> None:
    with receiver() as gone:
        url = gone.url()
    async with desk(fresh_db) as it:
        it.ended(url)
        assert (await it.log(1, "pending"))["last_error"]


async def test_what_is_being_sent_at_the_stop_is_finished_and_nothing_else_is_taken(
    fresh_db: str, hooks: Receiver
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        reached.set()
        go_on.wait(10)
        status(200)(handler)

    hooks.answers = [slow]
    async with desk(fresh_db) as it:
        it.ended(hooks.url())
        await asyncio.to_thread(reached.wait, 10)
        it.webhooks.stop()
        it.ended(hooks.url())
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await it.webhooks.close()
        rows = it.scene.rows("select status, attempt from duragraph.webhook_log order by delivery_id")
    assert [(row["status"], row["attempt"]) for row in rows] == [("delivered", 1), ("pending", 0)]


async def test_many_are_sent_by_two_processes_each_once(fresh_db: str, hooks: Receiver) -> None:
    async with desk(fresh_db) as it:
        other = Webhooks(it.store, Settings(database_url=fresh_db, webhook_allow_loopback=True))
        running = asyncio.create_task(other.run())
        for n in range(60):
            it.ended(hooks.url(f"/{n}"))
            other.kick()

        async def done() -> bool:
            return bool(it.scene.value("select count(*) = 60 from duragraph.webhook_log where status = 'delivered'"))

        await wait_for_async(done, what="60 deliveries")
        await other.close()
        await running
    assert sorted(call.path for call in hooks.calls) == sorted(f"/{n}" for n in range(60))


# where no request goes


def names(**known: list[str]) -> Any:
    """A resolver that knows these names; what it was asked is kept."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address(address) for address in known[host.replace(".", "_")]]

    resolve.asked = asked  # type: ignore[attr-defined]  # a function can carry a note
    return resolve


async def test_the_address_that_was_checked_is_the_one_that_is_called(fresh_db: str, hooks: Receiver) -> None:
    resolve = names(hooks_test=["127.0.0.1"])
    async with desk(fresh_db, resolve=resolve) as it:
        it.ended(hooks.url(host="hooks.test"))
        await it.log(1, "delivered")
    assert hooks.calls[0].headers["host"] == f"hooks.test:{hooks.port}"
    assert resolve.asked == ["hooks.test"]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["10.1.2.3"]])
async def test_a_name_that_leads_inside_fails_for_good_and_gets_nothing(
    fresh_db: str, hooks: Receiver, addresses: list[str]
) -> None:
    async with desk(fresh_db, resolve=names(evil_test=addresses), webhook_allow_loopback=False) as it:
        it.ended(hooks.url(host="evil.test"))
        failed = await it.log(1, "failed")
    assert "evil.test is at" in failed["last_error"]
    assert hooks.connections == []


async def test_a_name_that_changes_its_mind_is_not_asked_twice(
    fresh_db: str, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_CONNECT_PATIENCE", 0.2)
    answers = iter([["93.184.215.14"], ["127.0.0.1"], ["127.0.0.1"]])
    asked = []

    async def rebinding(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address(address) for address in next(answers)]

    async with desk(fresh_db, resolve=rebinding, webhook_allow_loopback=False) as it:
        it.ended(hooks.url(host="rebind.test"))
        await it.log(1, "pending")
        assert asked == ["rebind.test"]
        it.again()
        assert "loopback" in (await it.log(2, "failed"))["last_error"]
    assert hooks.connections == []


async def test_an_address_that_came_in_past_the_api_is_refused_at_delivery(fresh_db: str, hooks: Receiver) -> None:
    async with desk(fresh_db, webhook_allow_loopback=False) as it:
        it.ended(hooks.url())
        assert "loopback" in (await it.log(1, "failed"))["last_error"]
    assert hooks.connections == []


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for hooks.test and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "hooks.pem"
    asked = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=hooks.test -addext subjectAltName=DNS:hooks.test"
    key = path.with_suffix(".key")
    subprocess.run(["openssl", *asked.split(), "-keyout", key, "-out", path], check=True, capture_output=True)
    path.write_text(path.read_text() + key.read_text())
    return path


async def test_tls_asks_for_the_name_although_the_address_is_called(
    fresh_db: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: ssl.create_default_context(cafile=str(certificate)))
    resolve = names(hooks_test=["127.0.0.1"], other_test=["127.0.0.1"])
    with receiver(certificate) as secure:
        async with desk(fresh_db, resolve=resolve) as it:
            it.ended(f"https://hooks.test:{secure.port}/")
            await it.log(1, "delivered")
            it.connection.execute("delete from duragraph.webhook_deliveries")
            it.ended(f"https://other.test:{secure.port}/")
            assert "CERTIFICATE_VERIFY_FAILED" in (await it.log(1, "pending"))["last_error"]
        assert len(secure.calls) == 1


FORBIDDEN = [
    *Path(__file__).with_name("forbidden_urls.txt").read_text("utf-8").split(),
    "",
    " ",
    "not an address",
    "http://exa mple.com/",
    "http://example.com:port/",
    "http://\x7f/",
]


@pytest.mark.parametrize("url", FORBIDDEN)
def test_what_is_plainly_no_address_to_call_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        Egress().check(url)
    assert (refused.value.code, refused.value.field) == ("invalid_webhook", "webhook")


def test_the_corpus_is_large() -> None:
    assert len(FORBIDDEN) > 60


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?x=1",
        "http://example.com:8080/",
        "HTTPS://EXAMPLE.COM/",
        "https://bücher.example/",
        "http://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
        "http://127.0.0.1.example.com/",
        "http://localhost.example/",
        "https://10.example/",
    ],
)
def test_what_is_public_is_taken(url: str) -> None:
    assert Egress().check(url).host


@pytest.mark.parametrize(
    ("allowed", "taken", "refused"),
    [
        ({"allow_loopback": True}, ["127.0.0.1", "::1"], ["10.0.0.1", "169.254.169.254", "fe80::1", "::", "0.0.0.0"]),
        (
            {"allow_private": True},
            ["10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "fd12::1"],
            ["127.0.0.1", "::1", "169.254.169.254", "100.100.100.200", "fd00:ec2::254", "::ffff:10.0.0.1", "224.0.0.1"],
        ),
    ],
)
def test_the_settings_open_what_they_name_and_no_more(allowed: dict, taken: list[str], refused: list[str]) -> None:
    egress = Egress(**allowed)
    assert [one for one in taken if egress.refused(ipaddress.ip_address(one))] == []
    assert [one for one in refused if not egress.refused(ipaddress.ip_address(one))] == []


BAD = [
    "not an address",
    "/relative",
    "ftp://example.com/",
    "http://u:p@example.com/",
    "http://127.0.0.1/x",
    "http://10.0.0.1/",
]


@pytest.mark.parametrize("url", BAD)
async def test_a_bad_address_is_refused_at_creation_and_leaves_nothing(api: Api, url: str) -> None:
    await api.worker()
    thread = await api.thread()
    body = {"assistant_id": api.graph_id, "webhook": url}
    for path in (f"/threads/{thread}/runs", f"/threads/{thread}/runs/wait", "/runs", "/runs/stream"):
        assert await api.refused("POST", path, body) == ("invalid_webhook", "webhook")
    assert await api.refused("POST", "/runs/batch", [{"assistant_id": api.graph_id}, body]) == (
        "invalid_webhook",
        "webhook",
    )
    cron = {**body, "schedule": "* * * * *"}
    assert await api.refused("POST", "/runs/crons", cron) == ("invalid_webhook", "webhook")
    assert await api.call("GET", f"/threads/{thread}/runs") == []
    assert await api.refused("POST", "/runs", {**body, "webhook": 5}) == ("invalid_field", "webhook")
