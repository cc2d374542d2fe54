"""What the tests on a chain have in common: its blocks, its sweeps, what is owed on it, and processes that race for that.

Fixtures are conftest.py's.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

from django.db import connections

from escrow import ledger, pools
from escrow.chain import contract, deploy
from escrow.models import ChainAction, ChainLog, Party, Pool, Session
from tests.onchain.conftest import Chain

DEPOSIT = 10_000_000
DEPTH = 24
"""Blocks that stand on one that is final, itself among them, where reorganisations are played."""


def open_pools(chain: Chain, many: int, providers: Sequence[Party]) -> list[Session]:
    """Open pools of as many payers, each with one session that may spend it all; all of them at once."""
    payers = [uuid4() for _ in range(many)]
    rich = chain.somebody()
    for payer in payers:
        mint = contract.mint_test_usdc(chain.payer_address(payer), DEPOSIT)
        deploy.send(chain.client, rich, chain.token.address, mint)
    made = [
        pools.open(
            payer_id=payer,
            deposit_micros=DEPOSIT,
            now=chain.now(),
            providers=providers,
            dispute_window_seconds=0,
        )
        for payer in payers
    ]
    mine = Pool.objects.filter(pk__in=[pool.pk for pool in made])
    chain.until(lambda: not mine.exclude(status=Pool.Status.OPEN).exists(), "the pools are open")
    return [chain.session(pool, DEPOSIT) for pool in mine.order_by("pk")]


def owe(chain: Chain, sessions: list[Session], to: Party, micros: int = 300_000) -> None:
    for session in sessions:
        chain.pay(session, to, micros)


def credited(sessions: list[Session], to: Party) -> list[int]:
    return [ledger.balance(ledger.credited(session.pool, to)) for session in sessions]


def settling() -> ChainAction:
    return ChainAction.objects.filter(kind="settle").latest("pk")


def settlements() -> list[str]:
    return list(ChainAction.objects.filter(kind="settle").order_by("pk").values_list("status", flat=True))


def mine(chain: Chain, blocks: int) -> None:
    chain.client.request("anvil_mine", [hex(blocks)])


def mine_what_is_sent(chain: Chain) -> None:
    """Let the chain make a block when something is sent, and none by the clock."""
    chain.client.request("evm_setIntervalMining", [0])
    chain.client.request("evm_setAutomine", [True])


@contextmanager
def standing_still(chain: Chain) -> Iterator[None]:
    """Let no block be made meanwhile; then one at once, and others when something is sent and by the clock."""
    chain.client.request("evm_setAutomine", [False])
    chain.client.request("evm_setIntervalMining", [0])
    try:
        yield
    finally:
        chain.client.request("evm_mine", [])
        chain.client.request("evm_setAutomine", [True])
        chain.client.request("evm_setIntervalMining", [1])


def sweep(chain: Chain, times: int = 1) -> None:
    """Passes of what beat sends."""
    for _ in range(times):
        chain.relay()
        chain.index()


def settle_and_land(chain: Chain) -> None:
    """Sign the one batch that is due, and let it become final."""
    assert chain.settle() == 1
    chain.quiet()


def finish(chain: Chain) -> None:
    """Let all that is mined become final under DEPTH blocks, and be taken."""
    for _ in range(4):
        mine(chain, DEPTH)
        sweep(chain)
    open_ones = ChainAction.objects.exclude(status__in=ChainAction.ENDED)
    assert not open_ones.exists(), list(open_ones.values_list("kind", "status", "error"))
    assert not ChainLog.objects.exclude(tier="final").exists()


def in_processes(many: int, work: Callable[[int], None]) -> list[int]:
    """Run a function in as many processes at once, each with connections of its own; return how each ended."""
    connections.close_all()
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_run, args=(work, number)) for number in range(many)]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=120)
    return [process.exitcode if process.exitcode is not None else -1 for process in running]


def _run(work: Callable[[int], None], number: int) -> None:
    code = 1
    try:
        work(number)
        code = 0
    finally:
        connections.close_all()
        os._exit(code)  # nothing of the test run is torn down here
