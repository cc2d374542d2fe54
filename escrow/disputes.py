"""Disputes: money that two parties disagree on. Lives here: opening, answering and ruling.

Unsettled money waits in ``dispute:<id>`` and a ruling splits it in the ledger. Settled money that is still in the contract's
hold window is disputed on chain by the payer's key and ruled by the arbiter's; the indexer mirrors both.
"""

from datetime import datetime
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from escrow import events, families, holds, intents, invoices, ledger, lifecycle, money, payments, sessions
from escrow.errors import InvalidInput, StateConflict, require_text
from escrow.ledger import Move
from escrow.models import Account, ChainAction, Dispute, Invoice, Party, Payment, Pool, Reason, Session

Kind = Account.Kind
Status = Dispute.Status
SILENCE = "silence"
"""Who ruled when nobody did."""


@transaction.atomic
def open_for_invoice(*, invoice: Invoice, reason: str, now: datetime) -> Dispute:
    """Dispute an invoice that is not approved: its money leaves the hold and waits for a ruling."""
    require_text("reason", reason)
    invoice = invoices.locked(invoice)
    lifecycle.move(invoice, Invoice.Status.DISPUTED)
    dispute_id = uuid4()
    account = ledger.open_account(
        Kind.DISPUTE, pool=invoice.hold.session.pool, subject=dispute_id, party=invoice.hold.party
    )
    holds.dispute(hold=invoice.hold, dispute_account=account, amount_micros=invoice.amount_micros, ref=str(dispute_id))
    return _create(
        id=dispute_id, account=account, now=now, reason=reason, amount_micros=invoice.amount_micros, invoice=invoice,
        session=invoice.hold.session, party=invoice.hold.party, status=Status.OPEN, on_chain=False,
    )  # fmt: skip


@transaction.atomic
def open_for_payment(*, payment: Payment, reason: str, now: datetime, amount_micros: int | None = None) -> Dispute:
    """Dispute a payment: at once while it is payable, on chain while it is settled and in the contract's hold window.

    Without an amount it is all that can be; of a payable payment, nothing less can be. Raises InvalidInput, or StateConflict
    while a batch is on its way.
    """
    require_text("reason", reason)
    payable = ledger.payable(payment.pool, payment.party)
    ledger.lock([payable])
    related = Payment.objects.select_related("session__account", "session__pool", "party", "pool")
    payment = related.select_for_update(no_key=True, of=("self",)).get(pk=payment.pk)
    if payment.kind == Payment.Kind.RULING:
        raise StateConflict("payment", payment.status, "The payment carries out a ruling, and a ruling is final.")
    if payment.status == Payment.Status.SETTLED:
        return _open_on_chain(payment, amount_micros, reason, now)
    if payment.status != Payment.Status.PAYABLE or payment.pool.status == Pool.Status.CLOSED:
        raise StateConflict("payment", payment.status, f"The payment is {payment.status}; it cannot be disputed now.")
    if amount_micros not in (None, payment.due_micros):
        whole = money.render(payment.due_micros)
        raise InvalidInput("amount", "must be all that is left of the payment until it is settled", f'"{whole}"')
    dispute_id = uuid4()
    account = ledger.open_account(Kind.DISPUTE, pool=payment.pool, subject=dispute_id, party=payment.party)
    lifecycle.move(payment, Payment.Status.DISPUTED, reason=reason)
    ledger.post([Move(payable, account, payment.due_micros, Reason.DISPUTE, str(dispute_id))])
    return _create(
        id=dispute_id, account=account, now=now, reason=reason, amount_micros=payment.due_micros, payment=payment,
        session=payment.session, party=payment.party, status=Status.OPEN, on_chain=False,
    )  # fmt: skip


@transaction.atomic
def answer(*, dispute: Dispute, answer: str, now: datetime) -> Dispute:
    """Give the provider's side, once."""
    require_text("answer", answer)
    dispute = _locked(dispute)
    rule_by = sessions.timer(dispute.session.pool, settings.RULING_WINDOW, now)
    lifecycle.move(dispute, Status.ANSWERED, answer=answer, answered_at=now, rule_by=rule_by)
    _tell(dispute, "dispute.answered")
    return dispute


@transaction.atomic
def rule(*, dispute: Dispute, to_provider_bps: int, reason: str, ruled_by: str, now: datetime) -> Dispute:
    """Split the money: ``to_provider_bps`` ten-thousandths, floored, to the provider, the rest to the payer's side.

    Raises InvalidInput, or StateConflict when it is ruled already. On chain the arbiter's key carries the ruling out.
    """
    require_text("reason", reason)
    if not 0 <= to_provider_bps <= money.BASIS_POINTS:
        raise InvalidInput("to_provider_bps", "must be 0 to 10000", "7000 for 70 % to the provider")
    dispute = locked_with_accounts(dispute)
    session = dispute.session
    if session.pool.status == Pool.Status.CLOSED and not dispute.on_chain:
        raise StateConflict(
            "dispute", dispute.status, "The payer has reclaimed the pool; there is nothing left to split."
        )
    to_provider = money.share(dispute.amount_micros, to_provider_bps)
    ruling = {
        "to_provider_bps": to_provider_bps,
        "to_provider_micros": to_provider,
        "ruling_reason": reason,
        "ruled_by": ruled_by,
    }
    if dispute.on_chain:
        lifecycle.move(dispute, Status.RULING, **ruling)
        resolve(dispute)
        return dispute
    lifecycle.move(dispute, Status.RULED, ruled_at=now, **ruling)
    _split(dispute, ledger.payable(session.pool, dispute.party), to_provider)
    _tell(dispute, "dispute.ruled", to_provider=money.render(to_provider))
    return dispute


def resolve(dispute: Dispute) -> ChainAction:
    """Ask the arbiter's key to carry a ruling out on chain; only one that reverted is really sent again."""
    key, pool = f"resolve:{dispute.pk}", dispute.session.pool
    return intents.record(ChainAction.Kind.RESOLVE, dedupe_key=key, pool=pool, subject_id=dispute.pk)


def reference(dispute_id: UUID) -> str:
    """Return the 32 bytes, in hex, by which the contract knows a dispute: its id, then zeros."""
    return f"0x{dispute_id.hex.ljust(64, '0')}"


@transaction.atomic
def opening_failed(dispute_id: UUID, *, reason: str) -> None:
    """Note that the contract did not take a dispute, for example because the money had matured. No money moved."""
    dispute = _locked(Dispute.objects.get(pk=dispute_id))
    if dispute.status == Status.OPENING:
        lifecycle.move(dispute, Status.FAILED, ruling_reason=reason)
        _tell(dispute, "dispute.failed", reason=reason)


def disputed(pool: Pool, party: Party, *, reference: str, amount_micros: int, ref: str, at: datetime) -> None:
    """Mirror Disputed: credited money is contested. One that the payer opened past us has an account but no row here."""
    contested = ledger.open_account(Kind.CONTESTED, pool=pool, subject=reference, party=party)
    ledger.post([Move(ledger.credited(pool, party), contested, amount_micros, Reason.DISPUTE, ref)])
    dispute = Dispute.objects.filter(account=contested).first()
    if dispute is not None:
        lifecycle.move(dispute, Status.OPEN)
        _tell(dispute, "dispute.opened")


def resolved(
    pool: Pool,
    party: Party,
    *,
    reference: str,
    to_provider: int,
    to_payer: int,
    by_timeout: bool,
    ref: str,
    at: datetime,
) -> None:
    """Mirror DisputeResolved: the provider's part is credited again, the payer's part is free in the pool."""
    contested = ledger.open_account(Kind.CONTESTED, pool=pool, subject=reference, party=party)
    ledger.post(
        [
            Move(contested, ledger.credited(pool, party), to_provider, Reason.RULING, ref),
            Move(contested, ledger.free(pool), to_payer, Reason.RULING, ref),
        ]
    )
    dispute = Dispute.objects.filter(account=contested).first()
    if dispute is None:
        return
    changes: dict[str, object] = {"ruled_at": at, "to_provider_micros": to_provider}
    if by_timeout or dispute.to_provider_bps is None:
        changes |= {"ruling_reason": "The contract's time-out gave it to the provider.", "ruled_by": SILENCE}
        changes["to_provider_bps"] = to_provider * money.BASIS_POINTS // dispute.amount_micros
    lifecycle.move(dispute, Status.RULED, **changes)
    _tell(dispute, "dispute.ruled", to_provider=money.render(to_provider))


def _open_on_chain(payment: Payment, amount_micros: int | None, reason: str, now: datetime) -> Dispute:
    earlier = Dispute.objects.filter(payment=payment).exclude(status=Status.FAILED)
    # What has gone back is not given back a second time, and the contract holds no more of the payment than has landed.
    most = min(payment.due_micros, payment.unrefunded_micros)
    left = most - (earlier.aggregate(total=Sum("amount_micros"))["total"] or 0)
    amount_micros = left if amount_micros is None else amount_micros
    if not 0 < amount_micros <= left:
        limit = money.render(max(left, 0))
        rule = f"must be at most the {limit} that was neither given back nor disputed yet"
        raise InvalidInput("amount", rule, f'"{limit}" or less')
    _require_unmatured(payment, now)
    dispute_id = uuid4()
    account = ledger.open_account(Kind.CONTESTED, pool=payment.pool, subject=reference(dispute_id), party=payment.party)
    dispute = _create(
        id=dispute_id, account=account, now=now, reason=reason, amount_micros=amount_micros, payment=payment,
        session=payment.session, party=payment.party, status=Status.OPENING, on_chain=True,
    )  # fmt: skip
    key = f"dispute:{dispute_id}"
    intents.record(ChainAction.Kind.DISPUTE, dedupe_key=key, pool=payment.pool, subject_id=dispute_id)
    return dispute


def _require_unmatured(payment: Payment, now: datetime) -> None:
    """Refuse what has matured: the contract knows a party's credits only by their age, and would take newer ones."""
    window = payment.pool.dispute_window_seconds
    settled_at = payment.record.batch.settled_at if payment.record else None
    if settled_at is None:
        raise StateConflict("payment", payment.status, "The payment is in no batch.")
    matures = (int(settled_at.timestamp()) // window + 2) * window if window else 0
    if now.timestamp() >= matures:
        detail = "The hold window of this payment has ended; what is paid out is final."
        raise StateConflict("payment", payment.status, detail)


def _split(dispute: Dispute, payable: Account, to_provider: int) -> None:
    session = sessions.reread(dispute.session_id)
    back = families.return_account(session)
    ledger.post([Move(dispute.account, back, dispute.amount_micros - to_provider, Reason.RULING, str(dispute.pk))])
    if to_provider:
        dispute.ruled_payment = payments.owe(
            session=session,
            party=dispute.party,
            source=dispute.account,
            payable=payable,
            to=dispute.invoice.to if dispute.invoice else dispute.payment.to if dispute.payment else "",
            amount_micros=to_provider,
            kind=Payment.Kind.RULING,
            reason=Reason.RULING,
            idempotency_key=f"ruling {dispute.pk}",  # no caller's key has a space in it
            remaining_micros=ledger.balance(session.account),
        )
        dispute.save(update_fields=["ruled_payment"])
    if dispute.invoice is not None:
        lifecycle.move(dispute.invoice, Invoice.Status.RULED)


def _create(*, now: datetime, session: Session, **fields: object) -> Dispute:
    answer_by = sessions.timer(session.pool, settings.ANSWER_WINDOW, now)
    rule_by = sessions.timer(session.pool, settings.ANSWER_WINDOW + settings.RULING_WINDOW, now)
    dispute = Dispute.objects.create(session=session, answer_by=answer_by, rule_by=rule_by, **fields)
    _tell(dispute, "dispute.requested" if dispute.on_chain else "dispute.opened")
    return dispute


def _locked(dispute: Dispute) -> Dispute:
    related = Dispute.objects.select_related(
        "session__pool", "session__account", "party", "account", "invoice", "payment"
    )
    return related.select_for_update(no_key=True, of=("self",)).get(pk=dispute.pk)


def locked_with_accounts(dispute: Dispute) -> Dispute:
    """Return a dispute as it is now, locked after the accounts that a ruling moves money between."""
    session = dispute.session
    payable = ledger.payable(session.pool, dispute.party)
    ledger.lock([dispute.account, payable, session.account, *families.ways_back(session)])
    return _locked(dispute)


def _tell(dispute: Dispute, type: str, **more: object) -> None:
    payload = {"session_id": str(dispute.session_id), "amount": money.render(dispute.amount_micros), **more}
    pool = dispute.session.pool
    events.record(
        type=type, subject_type="dispute", subject_id=dispute.pk, payload=payload, pool=pool, party=dispute.party
    )
