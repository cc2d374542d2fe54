"""A real server, a network that loses its replies, and clients that are killed: one payment for one send, in the books."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentmarket
from agentmarket import Client, SyncClient
from escrow.models import Hold, Payment
from tests.escrow import books
from tests.lane.servers import Server, serving
from tests.marketplace.conftest import World, make_world

from .conftest import QUICK
from .proxy import Fault, Proxy, proxying

TO = "agent://lint.acme.dev"
BUDGET = 25_000_000
PRICE = 12_000

#: an agent as a program of its own: pays once, says what came of it
AGENT = """
import json, sys
import agentmarket
with agentmarket.SyncClient.from_env() as client:
    sent = client.payment.send(to="agent://lint.acme.dev", amount="0.012", metadata={"file": "a.py"})
    print(json.dumps({"id": sent.id, "replayed": sent.replayed}))
"""

#: one that works between holding and capturing; its first life ends there
WORKER = """
import sys
import agentmarket
def work():
    print("working", flush=True)
    sys.stdin.readline()
    return "work"
with agentmarket.SyncClient.from_env() as client:
    sent = client.payment.send(to="agent://lint.acme.dev", amount="0.012", capture="on_success", on_success=work)
    print(sent.id, flush=True)
"""


@pytest.fixture(scope="module")
def server(django_db_setup: None, django_db_blocker: Any) -> Iterator[Server]:
    """One server for all tests of this file: a database that is emptied between tests does not end it."""
    with django_db_blocker.unblock(), serving() as running:
        yield running


@pytest.fixture
def world(transactional_db: None) -> Iterator[World]:
    yield make_world()
    books.check_conservation()


@pytest.fixture
def proxy(server: Server, world: World) -> Iterator[Proxy]:
    with proxying(f"http://127.0.0.1:{server.port}") as between:
        yield between


def send(key: str, url: str, **more: Any) -> agentmarket.Sent[None]:
    with SyncClient(key, base_url=url, retries=QUICK) as client:
        return client.payment.send(to=TO, amount="0.012", metadata={"file": "a.py"}, **more)


def send_async(key: str, url: str, **more: Any) -> agentmarket.Sent[None]:
    async def scenario() -> agentmarket.Sent[None]:
        async with Client(key, base_url=url, retries=QUICK) as client:
            return await client.payment.send(to=TO, amount="0.012", metadata={"file": "a.py"}, **more)

    return asyncio.run(scenario())


Sending = Callable[..., agentmarket.Sent[None]]
BOTH = pytest.mark.parametrize("pay", [send, send_async])


def paid_once(world: World, sent_id: str) -> None:
    """The books have one payment, and the session paid for one."""
    [payment] = Payment.objects.filter(session=world.a.session)
    assert str(payment.pk) == sent_id
    assert books.balance(world.a.session.account) == BUDGET - PRICE


@BOTH
@pytest.mark.promise("S29")
def test_a_reply_that_is_lost_twice_is_one_payment(world: World, proxy: Proxy, pay: Sending) -> None:
    proxy.drop_next(2)
    sent = pay(world.a.by_session.key, proxy.url)
    assert proxy.answered == {1: 201, 2: 201, 3: 201}
    assert sent.replayed
    paid_once(world, sent.id)


@BOTH
def test_a_call_whose_replies_are_all_lost_is_repeated_as_it_was(world: World, proxy: Proxy, pay: Sending) -> None:
    proxy.drop_next(4)
    with pytest.raises(agentmarket.OutcomeUnknown):
        pay(world.a.by_session.key, proxy.url)
    sent = pay(world.a.by_session.key, proxy.url)
    assert (sent.replayed, len(proxy.answered)) == (True, 5)
    paid_once(world, sent.id)


@BOTH
def test_a_connection_that_breaks_before_anything_came_through_is_one_payment(
    world: World, proxy: Proxy, pay: Sending
) -> None:
    proxy.faults.update({1: "reset", 2: "drop", 3: "reset"})
    sent = pay(world.a.by_session.key, proxy.url)
    assert [*proxy.answered] == [2, 4]
    paid_once(world, sent.id)


def test_two_clients_that_pay_the_same_at_once_are_one_payment(world: World, proxy: Proxy) -> None:
    async def scenario() -> set[str]:
        async with Client(world.a.by_session.key, base_url=proxy.url) as client:
            same = [client.payment.send(to=TO, amount="0.012", metadata={"file": "a.py"}) for _ in range(20)]
            return {sent.id for sent in await asyncio.gather(*same)}

    proxy.drop_next(3)
    [sent_id] = asyncio.run(scenario())
    paid_once(world, sent_id)


@pytest.mark.parametrize("kills", [1, 3])
@pytest.mark.promise("S29")
def test_an_agent_that_is_killed_while_it_waits_and_started_again_pays_once(
    world: World, proxy: Proxy, kills: int
) -> None:
    proxy.faults.update(dict.fromkeys(range(1, kills + 1), "hold"))
    for number in range(1, kills + 1):
        with started(world.a.by_session.key, proxy.url) as agent:
            assert proxy.wait_answered(number) == 201
            agent.send_signal(signal.SIGKILL)
            assert agent.wait(30) == -signal.SIGKILL
    with started(world.a.by_session.key, proxy.url) as agent:
        said = json.loads(agent.communicate(timeout=30)[0])
    assert said["replayed"]
    paid_once(world, said["id"])


def test_an_agent_that_is_killed_while_it_works_finds_its_hold_again(world: World, proxy: Proxy) -> None:
    lives: list[dict[int, Fault]] = [{}, {2: "drop", 3: "drop"}]
    for faults in lives:  # the second life loses the replies to its capture, too
        proxy.faults = {proxy.count + number: fault for number, fault in faults.items()}
        with started(world.a.by_session.key, proxy.url, WORKER) as agent:
            assert agent.stdout is not None
            assert agent.stdout.readline() == "working\n"
            assert Hold.objects.get().status == Hold.Status.HELD
            assert not Payment.objects.exists()
            if not faults:
                agent.send_signal(signal.SIGKILL)
            said = agent.communicate("go on\n" if faults else None, timeout=30)[0]
    paid_once(world, said.strip())
    assert Hold.objects.get().status == Hold.Status.CAPTURED


def test_a_refusal_whose_reply_is_lost_moves_nothing(world: World, proxy: Proxy) -> None:
    proxy.drop_next(2)
    with (
        SyncClient(world.a.by_session.key, base_url=proxy.url, retries=QUICK) as client,
        pytest.raises(agentmarket.BudgetExhausted) as caught,
    ):
        client.payment.send(to=TO, amount="25.01")
    assert (caught.value.outcome, caught.value.remaining) == ("not_charged", "25.00")
    assert not Payment.objects.exists()
    assert books.balance(world.a.session.account) == BUDGET


def started(key: str, url: str, program: str = AGENT) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "AGENTMARKET_API_KEY": key,
        "AGENTMARKET_URL": url,
        "AGENTMARKET_TIMEOUT": "30",
        "AGENTMARKET_RETRIES": "3",
        "PYTHONPATH": str(Path(agentmarket.__file__).parents[1]),
    }
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
