"""What each event of the contract does to the ledger, once it is final. Lives here: one effect for each.

Which events there are, in which order and how final, is the logbook's and the indexer's. What has no room in our books
stops the indexer with a reason, for a person to look: nothing is guessed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import singledispatch
from typing import Final

from escrow import disputes, events, funding, ledger, lifecycle, money, payouts, pools
from escrow.chain import events as chain
from escrow.ledger import Move
from escrow.logbook import Unexplained
from escrow.models import Account, Batch, Party, Payment, Pool, Reason

OF_NO_POOL: Final = (chain.DepositsPaused, chain.TvlCapSet)
"""The guardian's: they bind whoever opens a pool, and move nothing."""


@dataclass(frozen=True)
class Place:
    """Where an event stands: the reference for its transfers, and its block's time."""

    ref: str
    at: datetime


def mirror(event: chain.PoolEvent, pool: Pool | None, where: Place) -> None:
    """Do to the ledger what an event has done on chain. Raises Unexplained, or the error of the room that refuses it."""
    if isinstance(event, chain.FeesWithdrawn):
        payouts.fees_withdrawn(amount_micros=event.amount, ref=where.ref)
    elif pool is not None:
        apply(event, pool, where)
    elif isinstance(event, chain.Withdrawn):
        # A pool that others opened on the same contract is none of ours, but its fees join ours there.
        payouts.foreign_fee(fee_micros=event.fee, ref=where.ref)


@singledispatch
def apply(event: chain.PoolEvent, pool: Pool, where: Place) -> None:
    """Do what an event of a pool of ours has done; of every kind there is one below. Raises Unexplained."""
    raise Unexplained(f"{type(event).__name__} is an event that nothing here knows.")


@apply.register
def _(event: chain.PoolOpened, pool: Pool, where: Place) -> None:
    funding.opened(pool, deposit_micros=event.deposit, ref=where.ref, at=where.at)


@apply.register
def _(event: chain.PoolToppedUp, pool: Pool, where: Place) -> None:
    funding.topped_up(pool, amount_micros=event.amount, ref=where.ref)


@apply.register
def _(event: chain.ProvidersAllowed, pool: Pool, where: Place) -> None:
    pools.providers_allowed(pool, addresses=event.providers, at=where.at)


@apply.register
def _(event: chain.Credited, pool: Pool, where: Place) -> None:
    """The batch's own event follows and names them all."""


@apply.register(chain.ItemRejected)
@apply.register(chain.WithdrawalRejected)
def _(event: chain.PoolEvent, pool: Pool, where: Place) -> None:
    """Nothing happened: whoever sent it asks again."""


@apply.register
def _(event: chain.AuthorizerChangeRequested, pool: Pool, where: Place) -> None:
    funding.authorizer_leaves(pool, next=event.next, at=where.at)


@apply.register(chain.AuthorizerChanged)
@apply.register(chain.PayoutChangeRequested)
def _(event: chain.PoolEvent, pool: Pool, where: Place) -> None:
    """No money moves. What another authorizer means was taken care of when it was asked for, which is told before."""


@apply.register
def _(event: chain.BatchSettled, pool: Pool, where: Place) -> None:
    batch = Batch.objects.select_related("account", "pool").filter(pool=pool, first_seq=event.first_seq).first()
    if batch is None or batch.root != f"0x{event.root.hex()}" or batch.status != Batch.Status.SIGNED:
        raise Unexplained(f"Batch {event.first_seq} of {pool} settled on chain, and is not one that we wait for.")
    if (batch.records.count(), _total(batch)) != (event.count, event.total):
        raise Unexplained(f"{batch} settled on chain with other records than ours.")
    credit(batch, where)


@apply.register
def _(event: chain.Withdrawn, pool: Pool, where: Place) -> None:
    payouts.withdrawn(pool, _party(event.provider), net_micros=event.net, fee_micros=event.fee, ref=where.ref)


@apply.register
def _(event: chain.CloseRequested, pool: Pool, where: Place) -> None:
    reclaimable_at = datetime.fromtimestamp(event.reclaimable_at, UTC)
    pools.close_requested(pool, reclaimable_at=reclaimable_at, at=where.at)


@apply.register
def _(event: chain.Reclaimed, pool: Pool, where: Place) -> None:
    pools.reclaimed(pool, amount_micros=event.amount, ref=where.ref, at=where.at)


@apply.register
def _(event: chain.Disputed, pool: Pool, where: Place) -> None:
    reference = f"0x{event.ref.hex()}"
    party = _party(event.provider)
    disputes.disputed(pool, party, reference=reference, amount_micros=event.amount, ref=where.ref, at=where.at)


@apply.register
def _(event: chain.DisputeResolved, pool: Pool, where: Place) -> None:
    disputes.resolved(
        pool,
        _party(event.provider),
        reference=f"0x{event.ref.hex()}",
        to_provider=event.to_provider,
        to_payer=event.to_payer,
        by_timeout=event.by_timeout,
        ref=where.ref,
        at=where.at,
    )


def _total(batch: Batch) -> int:
    return sum(record.amount_micros for record in batch.records.all())


def credit(batch: Batch, where: Place) -> None:
    """Take a batch that has landed, whoever landed it: what it pays is the providers' in the contract."""
    records = list(batch.records.select_related("party").order_by("party_id"))
    owed: dict[Party, int] = {}
    for record in records:
        owed[record.party] = owed.get(record.party, 0) + record.amount_micros
    accounts: dict[Party, Account] = {party: ledger.credited(batch.pool, party) for party in owed}
    lifecycle.move(batch, Batch.Status.SETTLED, settled_at=where.at)
    settling = Payment.objects.filter(record__batch=batch)
    lifecycle.move_all(settling, frm=Payment.Status.SETTLING, to=Payment.Status.SETTLED)
    ledger.post(
        [Move(batch.account, accounts[party], micros, Reason.CREDIT, where.ref) for party, micros in owed.items()]
    )
    for party, micros in owed.items():
        payload = {"pool_id": str(batch.pool_id), "amount": money.render(micros), "tx": where.ref.partition(":")[0]}
        events.record(type="batch.settled", subject_type="batch", subject_id=batch.pk, payload=payload, party=party)
    total = {
        "pool_id": str(batch.pool_id),
        "amount": money.render(sum(owed.values())),
        "tx": where.ref.partition(":")[0],
    }
    events.record(type="batch.settled", subject_type="batch", subject_id=batch.pk, payload=total, pool=batch.pool)


def _party(address: str) -> Party:
    party = Party.objects.filter(address=address).first()
    if party is None:
        raise Unexplained(f"{address} is no party that we know.")
    return party
