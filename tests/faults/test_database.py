"""Rows 10 and 11: the network before PostgreSQL. An answer is lost after the commit; nothing comes back at all; all is refused.

The server is a process of its own that reaches its database through a proxy. Both doors: the lane's and Django's.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection

from escrow.models import Hold, Payment
from marketplace.management.faults.tcp_proxy import TcpProxy
from tests.escrow import books
from tests.lane.servers import Server
from tests.marketplace.conftest import World, make_world

pytestmark = pytest.mark.django_db(transaction=True)

BUDGET, PRICE = 25_000_000, 10_000
PATIENCE = 30
PATHS = ("/v1/payments", "/v1/holds")
CALLERS = 4  # as many as Django has threads: all of them wait
LINT = {"to": "agent://lint.acme.dev", "amount": "0.01"}
SHORT = {"LANE_STATEMENT_TIMEOUT_MS": "300", "DATABASE_STATEMENT_TIMEOUT_MS": "300", "WEB_DATABASE_ANSWER_MS": "600"}


@dataclass
class Web:
    """A server behind a network that fails, and a caller of it."""

    server: Server
    proxy: TcpProxy
    token: str

    def post(self, path: str, key: str) -> tuple[int, dict[str, Any], bool]:
        """Ask; return the status, the document, and whether it is told as a repetition."""
        wire = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key, "Content-Type": "application/json"}
        try:
            wire.request("POST", path, json.dumps(LINT), headers)
            answer = wire.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers.get("Idempotent-Replayed") == "true"
        finally:
            wire.close()

    def connections(self) -> int:
        """Return how many connections of the server the database has."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )
            return int(cursor.fetchone()[0])


@pytest.fixture
def market(transactional_db: None) -> Iterator[World]:
    yield make_world()
    books.check_conservation()


@pytest.fixture
def web(market: World) -> Iterator[Web]:
    place = connection.settings_dict
    port = f":{place['PORT']}" if place["PORT"] else ""
    with TcpProxy(f"postgres://{place['USER']}@{quote(place['HOST'], safe='')}{port}/{place['NAME']}") as proxy:
        server = Server(DATABASE_URL=proxy.url, **SHORT)
        try:
            found = Web(server, proxy, str(market.a.by_session.key))
            for path in PATHS:  # everything is connected and prepared from here on
                assert found.post(path, "first")[0] == 201
            yield found
        finally:
            server.close()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.01)


def check_moved(world: World, times: int) -> None:
    """Check that the first payment and the first hold moved money, and so many others."""
    assert books.balance(world.a.session.account) == BUDGET - (2 + times) * PRICE


def test_a_hold_whose_commit_is_done_and_whose_answer_is_lost_is_one_hold(market: World, web: Web) -> None:
    first = Hold.objects.get()
    web.proxy.fault("cut_answer", times=1, after=b"COMMIT")
    status, document, _ = web.post("/v1/holds", "again")
    assert web.proxy.met("cut_answer") == 1
    assert (status, document["code"], document["outcome"], document["retryable"]) == (
        503,
        "unavailable",
        "unknown",
        True,
    )
    new = Hold.objects.exclude(pk=first.pk).get()  # it is there, and the caller does not know
    status, document, is_replay = web.post("/v1/holds", "again")
    assert (status, is_replay, document["id"]) == (201, True, str(new.pk))
    assert Hold.objects.count() == 2
    check_moved(market, 1)


def test_a_payment_whose_answer_is_lost_is_asked_for_again_by_the_lane_and_is_one_payment(
    market: World, web: Web
) -> None:
    web.proxy.fault("cut_answer", times=1, after=b"again")
    status, document, _ = web.post("/v1/payments", "again")
    assert (status, web.proxy.met("cut_answer")) == (201, 1)
    assert str(Payment.objects.get(idempotency_key="again").pk) == document["id"]
    check_moved(market, 1)


def test_a_database_that_says_nothing_is_said_in_time_and_every_connection_is_used_again(
    market: World, web: Web
) -> None:
    before = web.connections()
    for path in PATHS:
        web.proxy.fault("blackhole")
        with ThreadPoolExecutor(CALLERS) as callers:
            waiting = [callers.submit(web.post, path, f"k-{number}") for number in range(CALLERS)]
            answers = [answer.result(PATIENCE) for answer in waiting]
        assert {(status, document["code"], document["outcome"]) for status, document, _ in answers} == {
            (503, "unavailable", "unknown")
        }
        web.proxy.clear()
        for number in range(CALLERS):  # a thread may find out only now that its connection was given up
            until(lambda path=path, number=number: web.post(path, f"k-{number}")[0] == 201)  # type: ignore[misc]
    check_moved(market, 2 * CALLERS)
    assert web.connections() <= before + CALLERS  # what waited holds none for ever


def test_a_database_that_refuses_is_said_and_its_return_is_noticed(market: World, web: Web) -> None:
    for path in PATHS:
        web.proxy.fault("refuse")
        with books.unmoved():
            answers = [web.post(path, f"k-{number}") for number in range(3)]
        assert {(status, document["code"]) for status, document, _ in answers} == {(503, "unavailable")}
        web.proxy.clear()
        for number in range(3):
            until(lambda path=path, number=number: web.post(path, f"k-{number}")[0] == 201)  # type: ignore[misc]
    check_moved(market, 2 * 3)
