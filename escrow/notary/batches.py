"""A batch against what it pays. Lives here: the look at the database that the authorizer takes before it signs.

The asker says which payments are in the batch; all else is read here, over a connection of the notary's own, and the leaves
are made anew: when their root is the batch's, it pays exactly these payments, to these parties, these amounts. Reads only.
What was signed before is the journal's to know, not the database's.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Coalesce

from escrow import money, policy, receipts
from escrow.chain import typed, wire
from escrow.chain.errors import SignerRefused
from escrow.chain.events import BatchSettled
from escrow.errors import EscrowError, PolicyDenied
from escrow.models import DUE, ChainLog, Payment, Pool, SessionPolicy
from escrow.notary import rules
from escrow.policy import Policy

_OWED: Final = (Payment.Status.PAYABLE, Payment.Status.SETTLING)
_VERSION: Final = Coalesce(
    "policy_version",
    "hold__policy_version",
    "invoice__hold__policy_version",
    "ruling__invoice__hold__policy_version",
)
"""Of a payment by hold, invoice or ruling: the version that its hold was decided under."""


@dataclass(frozen=True)
class Line:
    """What the asker says of one payment: the sequence number of its record, and what is due of it in micro-USDC."""

    seq: int
    payment_id: UUID
    micros: int


@dataclass(frozen=True)
class _Owed:
    """What the database says of one payment."""

    payment_id: UUID
    pool_id: UUID
    status: str
    due: int
    amount: int
    address: str
    metadata: Mapping[str, object]
    session_id: UUID
    to: str
    created_at: datetime
    version: int | None


def opened(message: typed.Batch, lines: Sequence[Line], *, max_micros: int) -> wire.Batch:
    """Return the records of a batch that its lines add up to. Raises SignerRefused. Pure."""
    try:
        batch = wire.decode_batch(message.packed)
    except wire.WireError as error:
        raise SignerRefused("packed", str(error)) from None
    if len({line.payment_id for line in lines}) != len(lines):
        raise SignerRefused("leaves", "a payment is in it twice")
    sums: Counter[int] = Counter()
    for line in lines:
        sums[line.seq] += line.micros
    records = {batch.first_seq + at: record.amount for at, record in enumerate(batch.records)}
    if dict(sums) != records:
        raise SignerRefused("sums", "the payments do not add up to the records, one by one")
    total = sum(records.values())
    if total > max_micros:
        raise SignerRefused("batch", f"{money.render(total)} USDC is over {money.render(max_micros)} for one batch")
    return batch


def check(message: typed.Batch, batch: wire.Batch, lines: Sequence[Line], *, authorizer: str, arbiter: str) -> None:
    """Return when the database owes what a batch pays; else raise SignerRefused with the rule that is broken."""
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:  # one state of all rows, and nothing that could be written by mistake
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        pool = _pool(message, authorizer=authorizer, arbiter=arbiter)
        owed = {payment.payment_id: payment for payment in _read([line.payment_id for line in lines])}
        leaves = [_leaf(message, batch, line, owed.get(line.payment_id), pool) for line in lines]
        if wire.merkle_root(leaves) != message.root:
            raise SignerRefused("root", "the payments give another root: the batch would prove something else")
        _check_policies(list(owed.values()))


def landings(pool_id: bytes, first_seq: int, records: int) -> list[str]:
    """Return the chain transactions that landed something at these sequence numbers, as the database has it: a hint."""
    told = ChainLog.objects.filter(pool__pool_key=f"0x{pool_id.hex()}", event=BatchSettled.__name__)
    last = first_seq + records
    near = told.filter(args__first_seq__lt=last).order_by("-args__first_seq").values_list("args", "tx_hash")
    return [tx for args, tx in near[:records] if args["first_seq"] + args["count"] > first_seq]


def _pool(message: typed.Batch, *, authorizer: str, arbiter: str) -> Pool:
    pool = Pool.objects.filter(pool_key=f"0x{message.pool_id.hex()}").first()
    if pool is None or pool.terms is None:
        raise SignerRefused("pool", f"no pool here has the id 0x{message.pool_id.hex()}")
    bound = {**pool.terms, **{name: bytes.fromhex(pool.terms[name]) for name in ("providers_hash", "salt")}}
    terms = wire.Terms(**bound)
    if wire.pool_id(message.domain, terms) != message.pool_id:
        raise SignerRefused("terms", "the pool's terms here are not the ones that its id is made of")
    rules.check_terms(terms, authorizer=authorizer, arbiter=arbiter)
    return pool


def _read(payments: Sequence[UUID]) -> list[_Owed]:
    rows = Payment.objects.filter(pk__in=payments).annotate(due=DUE, version=_VERSION)
    columns = ("pk", "pool_id", "status", "due", "amount_micros", "party__address", "metadata")
    return [_Owed(*row) for row in rows.values_list(*columns, "session_id", "to", "created_at", "version")]


def _leaf(message: typed.Batch, batch: wire.Batch, line: Line, owed: _Owed | None, pool: Pool) -> wire.Leaf:
    if owed is None or owed.pool_id != pool.pk:
        raise SignerRefused("payment", f"{line.payment_id} is no payment of the pool")
    if owed.status not in _OWED:
        raise SignerRefused("status", f"{line.payment_id} is {owed.status}: it is not owed")
    if owed.due != line.micros:
        raise SignerRefused("due", f"{line.payment_id} is due {owed.due}, not {line.micros}")
    paid = batch.records[line.seq - batch.first_seq].provider
    if owed.address != paid:
        raise SignerRefused("party", f"{line.payment_id} is owed to {owed.address}, not to {paid}")
    return receipts.leaf(
        pool_key=message.pool_id,
        seq=line.seq,
        payment_id=line.payment_id,
        address=paid,
        amount_micros=line.micros,
        metadata=owed.metadata,
    )


def _check_policies(owed: Sequence[_Owed]) -> None:
    """Hold each payment to the policy that it was decided under: its amount, and its recipient."""
    versions: dict[UUID, dict[int, Policy]] = defaultdict(dict)
    found = SessionPolicy.objects.filter(session__in={payment.session_id for payment in owed})
    for session_id, version, document in found.values_list("session_id", "version", "policy"):
        try:
            read = Policy.from_document(document)
        except EscrowError as error:
            raise SignerRefused("policy", str(error)) from None
        # Hours and the end were looked at when it was decided, and the time of that is the database's to tell.
        versions[session_id][version] = replace(read, expires_at=None, windows=(), allowed_capabilities=())
    for payment in owed:
        limits = None if payment.version is None else versions[payment.session_id].get(payment.version)
        if limits is None:
            raise SignerRefused("policy", f"{payment.payment_id} was decided under no policy that is kept")
        try:
            policy.check(limits, to=payment.to, capability=None, now=payment.created_at)
        except PolicyDenied as denied:
            raise SignerRefused("policy", f"{payment.payment_id}: {denied}") from None
        if limits.max_per_tx is not None and payment.amount > limits.max_per_tx:
            allowed = money.render(limits.max_per_tx)
            raise SignerRefused("policy", f"{payment.payment_id}: {money.render(payment.amount)} is over {allowed}")
