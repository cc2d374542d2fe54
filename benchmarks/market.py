"""What the scenarios pay with: pools opened on chain, sessions in them with their keys, and a provider that is paid.

Everything goes through the domain's own verbs and the worker's relay, as it does for everybody else.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from benchmarks.load.plan import Caller
from escrow import money, pools
from escrow.chain.keyring import Keyring
from escrow.chain.signer import LocalSigner
from escrow.models import Party, Pool, Session
from escrow.policy import Policy
from marketplace import agents, keys
from marketplace.management.stack import sample
from marketplace.models import Payer, Provider, Scope

AGENT: Final = "agent://paid.bench.dev"
PRICE: Final = "0.0001"
PRICE_MICROS: Final = 100
POLICY: Final = Policy.from_document({"max_per_tx": "10", "allowed_recipients": [AGENT]})
"""A policy as people write it, so that its rules are in what is measured."""
OPENINGS: Final = 250
"""Pools asked for at once: the node and the relay stay busy, and neither has a long queue."""
PATIENCE_SECONDS: Final = 240.0


@dataclass(frozen=True)
class Purse:
    """A session, the pool that it is in, and the caller who spends it."""

    pool: Pool
    session: Session
    caller: Caller


class Market:
    """One payer, one provider with one agent; pools and sessions as they are wanted."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Register the two of them."""
        self.say = say
        self.payer: Payer = agents.register_payer(name="Benchmark")
        address = LocalSigner(secrets.token_bytes(32)).address
        self.provider: Provider = agents.register_provider(name="Benchmark provider", payout_address=address)
        agents.register(provider=self.provider, uri=AGENT, name="Paid")
        now = timezone.now()
        self.provider_key = keys.issue(scope=Scope.PROVIDER, provider=self.provider, now=now, name="benchmark")[1]
        self.opening_seconds = 0.0

    def open_pools(self, count: int, deposit: str, parties: Sequence[Party] = ()) -> list[Pool]:
        """Open pools on chain, many at once, and wait until the chain has said so."""
        begun = time.monotonic()
        micros, payable = money.parse(deposit), parties or [self.party]
        payer_key = Keyring.load(settings.SIGNER_KEYS_DIR).payer(str(self.payer.pk))
        sample.mint(payer_key.address, micros * count)
        opened: list[Pool] = []
        while len(opened) < count:
            now = timezone.now()
            with transaction.atomic():
                asked = [
                    pools.open(payer_id=self.payer.pk, deposit_micros=micros, now=now, providers=payable)
                    for _ in range(min(OPENINGS, count - len(opened)))
                ]
            wait_open(asked)
            opened += asked
            if count > OPENINGS:
                self.say(f"{len(opened)} of {count} pools are open on chain after {time.monotonic() - begun:.0f} s")
        self.opening_seconds += time.monotonic() - begun
        return opened

    def purses(self, opened: Sequence[Pool], budget: str) -> list[Purse]:
        """Open a session with a key in each of these pools."""
        found = []
        for pool in opened:
            session, key = keys.open_session(
                pool=pool, budget_micros=money.parse(budget), policy=POLICY, now=timezone.now(), name="benchmark"
            )
            found.append(Purse(pool, session, Caller(key, AGENT, PRICE, refund_token=self.provider_key)))
        return found

    @property
    def party(self) -> Party:
        """Who is paid."""
        return self.provider.party


def wait_open(asked: Sequence[Pool]) -> None:
    """Wait until the chain has opened all of them, and read them again."""
    wanted, deadline = Pool.objects.filter(pk__in=[pool.pk for pool in asked]), time.monotonic() + PATIENCE_SECONDS
    while wanted.filter(status=Pool.Status.OPEN).count() < len(asked):
        if time.monotonic() > deadline or wanted.filter(status=Pool.Status.FAILED).exists():
            raise RuntimeError("the chain did not open every pool: look into the worker's log")
        time.sleep(0.1)
    for pool in asked:
        pool.refresh_from_db()
