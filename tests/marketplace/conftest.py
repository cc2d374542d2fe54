"""A market with two of everybody, so that each test can try what is the other's. Pools hold money without a chain."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import uuid4

import pytest
from django.db.models import Max
from django.utils import timezone

from escrow import events, ledger
from escrow.ledger import Move
from escrow.models import Account, Event, Pool, Reason, Session, Transfer
from escrow.policy import Policy
from marketplace import agents, keys
from marketplace.models import Agent, Payer, Pricing, Provider, Scope, Terms
from tests.marketplace.client import Caller

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

_addresses = count(0x1000)


@dataclass
class Buyer:
    """A payer with a pool of 100 USDC and a session of 25 USDC in it, and a caller for each of its keys."""

    payer: Payer
    pool: Pool
    session: Session
    by_payer: Caller
    by_session: Caller


@dataclass
class Seller:
    """A provider with one agent that sells ``code.lint`` at 0.012 a file and ``review`` at 2.40, and a caller."""

    provider: Provider
    agent: Agent
    by_provider: Caller


@dataclass
class World:
    """Two buyers, two sellers, and callers that may do nothing."""

    a: Buyer
    b: Buyer
    one: Seller
    two: Seller
    nobody: Caller = field(default_factory=lambda: Caller(None))


@pytest.fixture
def world(db: None) -> World:
    """Return a market at rest."""
    return make_world()


def make_world() -> World:
    """Make the two buyers and the two sellers."""
    return World(
        a=buyer("payer A"), b=buyer("payer B"), one=seller("lint", "acme.dev"), two=seller("check", "example.dev")
    )


def buyer(name: str, policy: Policy | None = None) -> Buyer:
    """Make a buyer with 75 USDC free in its pool and 25 USDC in its session."""
    payer = agents.register_payer(name=name)
    pool = funded_pool(payer, 100_000_000)
    session, text = keys.open_session(
        pool=pool, budget_micros=25_000_000, policy=policy or Policy(), now=timezone.now()
    )
    _, payer_text = keys.issue(scope=Scope.PAYER, payer=payer, now=timezone.now())
    return Buyer(payer, pool, session, Caller(payer_text), Caller(text))


def seller(label: str, domain: str) -> Seller:
    """Make a seller of linting and reviews."""
    provider = agents.register_provider(name=f"provider of {domain}", payout_address=f"0x{next(_addresses):040x}")
    agent = agents.register(
        provider=provider,
        uri=f"agent://{label}.{domain}",
        name=label,
        endpoint=f"https://{label}.{domain}",
        capabilities=["code.lint", "review"],
        terms=[
            Terms(capability="code.lint", pricing=Pricing.PER_CALL, price_micros=12_000, unit="file"),
            Terms(capability="review", pricing=Pricing.PER_OUTCOME, price_micros=2_400_000, unit="brief"),
        ],
    )
    _, text = keys.issue(scope=Scope.PROVIDER, provider=provider, now=timezone.now())
    return Seller(provider, agent, Caller(text))


def funded_pool(payer: Payer, micros: int) -> Pool:
    """Make an open pool that holds an amount, as the indexer would leave it."""
    tag = uuid4().hex
    pool = Pool.objects.create(
        payer_id=payer.pk,
        status=Pool.Status.OPEN,
        chain_id=31337,
        contract_address="0x" + "11" * 20,
        requested_micros=micros,
        salt=f"0x{tag * 2}",
        fee_bps=100,
        dispute_window_seconds=3600,
        close_delay_seconds=3600,
        pool_key=f"0x{tag[::-1] * 2}",
        payer_address="0x" + "22" * 20,
        expires_at=timezone.now() + timedelta(days=7),
    )
    ledger.post([Move(ledger.world(pool), ledger.free(pool), micros, Reason.DEPOSIT, f"0x{tag}:0")])
    return pool


def publish() -> None:
    """Publish every event so far. Another database transaction, even an autovacuum, may hold the mark back for a moment."""
    last, deadline = Event.objects.aggregate(last=Max("pk"))["last"] or 0, time.monotonic() + 30
    while events.publish_due() < last:
        assert time.monotonic() < deadline, "the mark of the event feed is stuck"
        time.sleep(0.01)


def money() -> dict[str, tuple[int, int]]:
    """Return what every account has sent and received; where they are equal nothing has moved."""
    sums = Account.objects.values_list("code", "sent_micros", "received_micros")
    held = {code: (sent, received) for code, sent, received in sums if sent or received}
    held["transfers"] = (Transfer.objects.count(), 0)
    return held


@contextmanager
def _unmoved() -> Iterator[None]:
    before = money()
    yield
    assert money() == before, "money moved"


@pytest.fixture
def unmoved() -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which no money may move."""
    return _unmoved
