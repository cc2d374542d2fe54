"""Celery's entries that ask a node or a signer: a few lines each, and each may run twice. What they do lives in what they call.

Every message is only a hint: beat sends each sweep again and again, and the rows say what is due. A node that hangs holds these
up; what asks nobody is in `offchain`.
"""

import logging
from functools import cache

from celery import Task, shared_task
from django.conf import settings

from escrow import attesting, clock, dispatch, indexer, pulse, settlement
from escrow.chain import sources
from escrow.chain.client import ChainClient
from escrow.chain.signer import Role, Signers
from escrow.relay import Relay

log = logging.getLogger(__name__)


@cache
def chain_client() -> ChainClient:
    """Return this process's client of the chain."""
    return ChainClient(
        settings.RPC_URL, settings.RPC_TIMEOUT_SECONDS, finality=settings.FINALITY, chain_id=settings.CHAIN_ID
    )


@cache
def keyring() -> Signers:
    """Return this process's signers: keys that it read itself, or ways to ask whoever holds them."""
    return sources.open_signers(
        settings.SIGNERS,
        keys=settings.SIGNER_KEYS_DIR,
        relayers=settings.RELAYERS,
        timeout=settings.SIGNER_TIMEOUT_SECONDS,
    )


@shared_task(name="escrow.relay_sweep")
def relay_sweep() -> None:
    """Sign, send and confirm what is due on chain."""
    Relay(chain_client(), keyring(), clock.now()).run()


@shared_task(name="escrow.index_sweep")
def index_sweep() -> None:
    """Read what the contract has told since the last time."""
    indexer.index(client=chain_client(), now=clock.now())


@shared_task(name="escrow.settle_sweep")
def settle_sweep() -> None:
    """Sign batches of due debts, send them on their way, and give back those that can no longer land."""
    settlement.void_expired(landed=settlement.landed_on(chain_client()), limit=settings.SWEEP_LIMIT)
    settlement.settle_due(authorizer=keyring().signer(Role.AUTHORIZER), now=clock.now())
    dispatch.dispatch_due(now=clock.now(), limit=settings.DISPATCH_LIMIT)


@shared_task(name="escrow.pulse_sweep", bind=True)
def pulse_sweep(self: "Task[[], None]") -> None:
    """Write down that this worker is alive, and what it sees of the chain."""
    pulse.take(client=chain_client(), worker=self.request.hostname or "worker", now=clock.now())


@shared_task(name="escrow.reconcile")
def reconcile_sweep() -> None:
    """Compare the books with the chain, keep what came of it, and raise an alarm for what nothing explains."""
    attesting.prove_due(client=chain_client())
