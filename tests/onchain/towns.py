"""Several pools at once on one chain, and processes that race for what is due in them."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from uuid import uuid4

from django.db import connections

from escrow import pools
from escrow.chain import contract, deploy
from escrow.models import Party, Pool, Session
from tests.onchain.conftest import Chain

DEPOSIT = 10_000_000


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
