"""Settlement: debts become one signed batch on chain. Lives here: choosing what is due, netting, signing, and both outcomes.

All calls that one party is owed are netted into one record; an invoice or a ruling is a record of its own. Every debt is a
leaf of the batch's Merkle root, so that each can be proven from the chain's event alone.

Money in a batch stays in ``settling:<batch>`` until the chain has taken the batch, or can take it no more: anyone may land
a signed batch until its deadline, so nothing is ever signed twice while the first signature is alive.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum

from escrow import crashpoints, events, intents, ledger, lifecycle, money, receipts
from escrow.chain import typed, wire
from escrow.chain.client import ChainClient, newest_from
from escrow.chain.contract import BudgetPool
from escrow.chain.signer import Signer
from escrow.chain.wire import Record
from escrow.ledger import Move
from escrow.models import (
    Account,
    Batch,
    BatchRecord,
    ChainAction,
    ChainCursor,
    Party,
    Payment,
    Pool,
    PoolProvider,
    Reason,
)

Kind = Account.Kind


@dataclass(frozen=True)
class Line:
    """A record to be: one party, and the debts that it nets."""

    party: Party
    payments: Sequence[Payment]

    @property
    def micros(self) -> int:
        """The sum of what is due of the debts."""
        return sum(payment.due_micros for payment in self.payments)


def settle_due(*, authorizer: Signer, now: datetime) -> int:
    """Sign a batch for each pool whose debts are due; return how many batches were signed."""
    with intents.exclusively("escrow.settlement") as free:
        if not free:
            return 0
        signed = lifecycle.sweep(
            due(now),
            lambda pool: settle(pool=pool, authorizer=authorizer, now=now),
            name="settlements",
            limit=settings.SWEEP_LIMIT,
        )
    crashpoints.reach("settle.committed")
    return signed


def due(now: datetime) -> "QuerySet[Pool]":
    """Return pools that owe enough, or have owed for long enough, or are on their way out."""
    aged = now - timedelta(seconds=settings.SETTLE_MAX_AGE)
    # What is owed is read off the accounts and how long off an index, so that a look does not cost more the more is owed.
    debts = Account.objects.filter(pool=OuterRef("pk"), kind=Kind.PAYABLE).values("pool")
    oldest = Payment.objects.filter(pool=OuterRef("pk"), status=Payment.Status.PAYABLE).order_by("created_at")
    owing = (
        Pool.objects.filter(status__in=[Pool.Status.OPEN, Pool.Status.CLOSING], expires_at__gt=now)
        .exclude(reclaimable_at__lte=now)
        .annotate(owed=Subquery(debts.annotate(owed=Sum(F("received_micros") - F("sent_micros"))).values("owed")))
        .filter(owed__gt=0)
        .annotate(oldest=Subquery(oldest.values("created_at")[:1]))
        .filter(Q(owed__gte=settings.SETTLE_MIN_MICROS) | Q(oldest__lte=aged) | Q(status=Pool.Status.CLOSING))
    )
    return owing.order_by("oldest")


@transaction.atomic
def settle(*, pool: Pool, authorizer: Signer, now: datetime) -> Batch | None:
    """Net what a pool owes into one batch and sign it; None when nothing can be settled now. `dispatch` sees it land."""
    deadline = min(now + timedelta(seconds=settings.SETTLE_DEADLINE), _end_of(pool) - timedelta(seconds=1))
    if deadline <= now:
        return None
    locked = ledger.lock(_owing(pool))
    lines = _lines(pool, [account.party_id for account in locked.values()])
    if not lines:
        return None
    pool = Pool.objects.select_for_update(no_key=True).get(pk=pool.pk)
    batch = _sign(pool, lines, authorizer, deadline.replace(microsecond=0), now)
    owed = _by_party((line.party, line.micros) for line in lines)
    ledger.post(
        [
            Move(ledger.payable(pool, party), batch.account, micros, Reason.SETTLE, str(batch.pk))
            for party, micros in owed.items()
        ]
    )
    _allow(pool, owed, batch)
    _tell(batch, "batch.signed", owed)
    crashpoints.reach("settle.signed")
    return batch


@transaction.atomic
def void(*, batch: Batch) -> Batch:
    """Give the debts of a batch that can no longer land back to what is payable."""
    owed = _by_party((record.party, record.amount_micros) for record in batch.records.select_related("party"))
    back = {party: ledger.payable(batch.pool, party) for party in owed}
    ledger.lock([batch.account, *back.values()])
    lifecycle.move(batch, Batch.Status.VOID)
    settling = Payment.objects.filter(record__batch=batch)
    lifecycle.move_all(settling, frm=Payment.Status.SETTLING, to=Payment.Status.PAYABLE, record=None)
    ref = str(batch.pk)
    ledger.post([Move(batch.account, back[party], owed[party], Reason.SETTLE_VOID, ref) for party in owed])
    _tell(batch, "batch.voided", owed)
    return batch


def void_expired(*, landed: Callable[[Batch, int], bool], limit: int) -> int:
    """Void batches whose deadline the indexed chain has passed without them; return how many.

    The contract itself is asked (`landed`) whether the batch is on chain by the cursor's block: a node that lost a log
    must never make a debt payable twice. From its deadline on the contract refuses it.
    """
    cursor = ChainCursor.objects.filter(chain_id=settings.CHAIN_ID, contract_address=settings.ESCROW_ADDRESS).first()
    if cursor is None or cursor.stopped_reason:
        return 0
    late = Batch.objects.filter(status=Batch.Status.SIGNED, deadline__lt=cursor.block_time)
    # A pool that was reclaimed past us took what was settling with it: there is nothing to give back.
    late = late.exclude(pool__status=Pool.Status.CLOSED).select_related("pool", "account")

    def void_unless_landed(batch: Batch) -> Batch:
        if landed(batch, cursor.block_number):
            raise RuntimeError(f"{batch} has landed, and the indexer was not told")
        return void(batch=batch)

    voided = lifecycle.sweep(late.order_by("deadline"), void_unless_landed, name="late-batches", limit=limit)
    crashpoints.reach("void.committed")
    return voided


def landed_on(client: ChainClient) -> Callable[[Batch, int], bool]:
    """Return a function that asks the contract whether a batch has landed by a block.

    The newest state is asked: nodes forget older ones, and past its deadline a batch lands in none.
    """
    contract = BudgetPool(client, settings.ESCROW_ADDRESS)

    def landed(batch: Batch, block: int) -> bool:
        newest = newest_from(client, block)
        return contract.is_settled(batch.pool.key, batch.first_seq, block=newest)

    return landed


def _sign(pool: Pool, lines: Sequence[Line], authorizer: Signer, deadline: datetime, now: datetime) -> Batch:
    pool_key, first_seq = pool.key, pool.next_seq
    packed = wire.encode_batch(first_seq, [Record(line.party.address, line.micros) for line in lines])
    leaves = [
        receipts.leaf(
            pool_key=pool_key,
            seq=first_seq + at,
            payment_id=payment.pk,
            address=line.party.address,
            amount_micros=payment.due_micros,
            metadata=payment.metadata,
        )
        for at, line in enumerate(lines)
        for payment in line.payments
    ]
    root = wire.merkle_root(leaves)
    domain = wire.pool_domain(pool.chain_id, pool.contract_address)
    until = int(deadline.astimezone(UTC).timestamp())
    message = typed.Batch(domain, pool_key, packed, root, until, leaves=tuple(leaves))
    batch_id = uuid4()
    batch = Batch.objects.create(
        id=batch_id,
        pool=pool,
        account=ledger.open_account(Kind.SETTLING, pool=pool, subject=batch_id),
        first_seq=first_seq,
        packed=packed,
        root=f"0x{root.hex()}",
        signature=authorizer.sign_typed(message),
        deadline=deadline,
        next_at=now,
    )
    Pool.objects.filter(pk=pool.pk).update(next_seq=first_seq + len(lines))
    _attach(batch, lines)
    return batch


def _attach(batch: Batch, lines: Sequence[Line]) -> None:
    records = BatchRecord.objects.bulk_create(
        BatchRecord(batch=batch, party=line.party, seq=batch.first_seq + at, amount_micros=line.micros)
        for at, line in enumerate(lines)
    )
    for record, line in zip(records, lines, strict=True):
        chosen = Payment.objects.filter(pk__in=[payment.pk for payment in line.payments])
        moved = lifecycle.move_all(chosen, frm=Payment.Status.PAYABLE, to=Payment.Status.SETTLING, record=record)
        if moved != len(line.payments):
            raise RuntimeError(f"{len(line.payments) - moved} payments left {batch} while it was made")


def _lines(pool: Pool, parties: Sequence[UUID | None]) -> list[Line]:
    """Net the debts to the parties whose accounts are locked: another's may be on its way in right now."""
    debts = (
        Payment.objects.filter(pool=pool, status=Payment.Status.PAYABLE, party__in=parties)
        .select_related("party")
        .order_by("created_at", "pk")
    )
    chosen = list(debts.select_for_update(no_key=True, of=("self",))[: settings.SETTLE_MAX_PAYMENTS])
    chosen.sort(key=lambda payment: (payment.party_id, payment.created_at, payment.pk))
    lines: list[Line] = []
    for _, of_party in groupby(chosen, key=lambda payment: payment.party_id):
        owed = list(of_party)
        lines += [Line(payment.party, [payment]) for payment in owed if payment.kind != Payment.Kind.CALL]
        lines += _netted([payment for payment in owed if payment.kind == Payment.Kind.CALL])
    # As much as the authorizer signs at once: whoever asks for more gets nothing.
    sums = list(accumulate(line.micros for line in lines[: settings.SETTLE_MAX_RECORDS]))
    return lines[: max(1, bisect_right(sums, settings.SIGNER_MAX_BATCH_MICROS))]


def _netted(calls: Sequence[Payment]) -> list[Line]:
    """Return as few records as carry the calls of one party: one, unless their sum passes what a record can hold."""
    lines: list[list[Payment]] = []
    room = 0
    for payment in calls:
        if payment.due_micros > room or not lines:
            lines.append([])
            room = min(wire.MAX_AMOUNT, settings.SIGNER_MAX_BATCH_MICROS)
        lines[-1].append(payment)
        room -= payment.due_micros
    return [Line(line[0].party, line) for line in lines]


def _by_party(debts: Iterable[tuple[Party, int]]) -> dict[Party, int]:
    summed: dict[Party, int] = {}
    for party, micros in debts:
        summed[party] = summed.get(party, 0) + micros
    return summed


def _allow(pool: Pool, parties: Iterable[Party], batch: Batch) -> None:
    """Put parties that the chain does not allow yet on the pool's allow-list, with the payer's signature."""
    allowed = set(PoolProvider.objects.filter(pool=pool, allowed_at__isnull=False).values_list("party", flat=True))
    fresh = sorted((party for party in parties if party.pk not in allowed), key=lambda party: party.pk)
    if not fresh:
        return
    PoolProvider.objects.bulk_create((PoolProvider(pool=pool, party=party) for party in fresh), ignore_conflicts=True)
    params = {"parties": [str(party.pk) for party in fresh], "nonce": str(batch.pk)}
    intents.record(ChainAction.Kind.ALLOW_PROVIDERS, dedupe_key=f"allow:{batch.pk}", pool=pool, params=params)


def _owing(pool: Pool) -> "QuerySet[Account]":
    return Account.objects.filter(pool=pool, kind=Kind.PAYABLE, received_micros__gt=F("sent_micros"))


def _end_of(pool: Pool) -> datetime:
    return min(filter(None, [pool.expires_at, pool.reclaimable_at]))


def _tell(batch: Batch, type: str, owed: Mapping[Party, int]) -> None:
    """Tell the payer of the whole batch, and each party of its part: a party can land the batch that pays it."""
    about = {"pool_id": str(batch.pool_id), "records": batch.records.count()}
    for party, micros in owed.items():
        payload = {**about, "amount": money.render(micros)}
        events.record(type=type, subject_type="batch", subject_id=batch.pk, payload=payload, party=party)
    whole = {**about, "amount": money.render(sum(owed.values()))}
    events.record(type=type, subject_type="batch", subject_id=batch.pk, payload=whole, pool=batch.pool)
