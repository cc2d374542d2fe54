"""How long it takes until debts of many pools have landed, and in how few chain transactions, on a chain with slow blocks."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from django.db.models import Sum
from django.utils import timezone

from benchmarks.bench import SETTINGS, Bench, Row
from escrow import money, payments, sessions
from escrow.chain.client import ChainClient
from escrow.chain.signer import LocalSigner
from escrow.models import Batch, ChainAction, Party, Payment, Session
from escrow.policy import Policy

POOLS: Final = 50
PROVIDERS: Final = 20
BLOCK_SECONDS: Final = 2
PATIENCE_SECONDS: Final = 180.0


def settle_50(bench: Bench) -> Row:
    """Debts of 50 pools to 20 providers, all due at once: from the last payment until the last is seen on chain."""
    each = bench.options.settled // POOLS
    micros = int(SETTINGS["SETTLE_MIN_MICROS"]) // each + 1  # the last payment makes its pool's debts due
    parties = [_provider(number) for number in range(PROVIDERS)]
    opened = bench.market.open_pools(POOLS, money.render(micros * each), parties)
    now = timezone.now()
    purses = [sessions.open(pool=pool, budget_micros=micros * each, policy=Policy(), now=now) for pool in opened]
    for turn in range(each - 1):
        _pay(purses, parties[turn % PROVIDERS], micros, turn)
    mine = Payment.objects.filter(pool__in=opened)
    with _slow_blocks(ChainClient(bench.stack.urls.rpc)):
        begun = time.monotonic()
        _pay(purses, parties[(each - 1) % PROVIDERS], micros, each - 1)
        while Batch.objects.filter(pool__in=opened, status=Batch.Status.SETTLED).count() < POOLS:
            if time.monotonic() - begun > PATIENCE_SECONDS:
                break
            time.sleep(0.1)
        seconds = time.monotonic() - begun
    carriers = ChainAction.objects.filter(pk__in=Batch.objects.filter(pool__in=opened).values("action"))
    row = Row("settle_50", rate=round(each * POOLS / seconds, 1))
    row.extras = {
        "payments": each * POOLS,
        "pools": POOLS,
        "providers": PROVIDERS,
        "block_seconds": BLOCK_SECONDS,
        "seconds": round(seconds, 2),
        "chain_transactions": carriers.count(),
        "gas": carriers.aggregate(gas=Sum("gas_used"))["gas"],
    }
    if left := mine.exclude(status=Payment.Status.SETTLED).count():
        row.broken.append(f"{left} payments have not landed")
    return row


def _provider(number: int) -> Party:
    address = LocalSigner(secrets.token_bytes(32)).address
    return Party.objects.create(name=f"settled-{number}", address=address)


def _pay(purses: Sequence[Session], party: Party, micros: int, turn: int) -> None:
    for purse in purses:
        payments.send(
            session_id=purse.pk,
            party_id=party.pk,
            to="agent://settled.bench.dev",
            amount_micros=micros,
            metadata={},
            idempotency_key=f"settled-{turn}",
            request_hash=b"\1" * 32,
            now=timezone.now(),
        )


@contextmanager
def _slow_blocks(client: ChainClient) -> Iterator[None]:
    """Have the chain make a block every two seconds, and none at once, while the block runs."""
    client.request("evm_setAutomine", [False])
    client.request("evm_setIntervalMining", [BLOCK_SECONDS])
    try:
        yield
    finally:
        client.request("evm_setAutomine", [True])
        client.request("evm_setIntervalMining", [1])
