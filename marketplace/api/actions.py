"""What makes sense next. Lives here: from the state of a row to the requests that its caller can send now.

The states and what may follow them are escrow's and the market's (`MOVES`); here they only become methods, paths and bodies. A
read-only key is told what to read.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from escrow.models import Approval, Dispute, Invoice, Kind, Payment, Pool, Session
from marketplace import tasks
from marketplace.api.auth import Actor
from marketplace.api.ways_on import THE_SAME, Action, get, post
from marketplace.models import Scope, Task

PAYMENT = Payment.Status
INVOICE = Invoice.Status
RETURNING = (PAYMENT.PAYABLE, PAYMENT.SETTLED, PAYMENT.OFFSET)
"""The states of a payment in which it can be refunded."""


UNSERVED: Final = {"reason": "The request could not be served."}
UNASKED: Final = {"reason": "It is not what was asked for."}
UNDONE: Final = "What was paid for did not come, or is not what was asked for."
"""Reasons that can be sent as they are; whoever has a better one says that."""


def of_payment(payment: Payment, actor: Actor) -> list[Action]:
    """A buyer asks for it back or disputes it; the provider redeems and refunds. What is in a batch can be proven."""
    path = f"/v1/payments/{payment.pk}"
    proof = [get(f"{path}/receipt", "Prove it against the chain.")] if payment.record_id else []
    if actor.is_buyer:
        can = payment.status in (PAYMENT.PAYABLE, PAYMENT.SETTLED)
        offers = [dispute_of(payment_id=payment.pk)] if can else []
        if payment.status in RETURNING and payment.unrefunded_micros and payment.kind != Payment.Kind.RULING:
            body = {"payment_id": str(payment.pk), "reason": UNDONE}
            offers.append(post("/v1/refunds", "Ask its provider for it, or for a part, with a reason.", body=body))
        return of(actor, offers + proof)
    offers = proof
    if payment.status == PAYMENT.PAYABLE and payment.kind == Payment.Kind.CALL and not payment.redeemed_hash:
        offers.append(post(f"{path}/redeem", "Bind it to the request that it buys.", "request_hash", keyed=False))
    if payment.status in RETURNING and payment.unrefunded_micros:
        offers.append(post(f"{path}/refund", "Give it back, or an amount of it.", body=UNSERVED))
    return of(actor, offers)


def of_sent(payment_id: UUID) -> list[Action]:
    """What the answer to a new payment says: always the same, so that a repeated request gets the same bytes."""
    return [
        get(f"/v1/payments/{payment_id}", "See what becomes of it."),
        dispute_of(payment_id=payment_id),
    ]


def of_session(session: Session, actor: Actor) -> list[Action]:
    """An open session spends; its payer tops it up and closes it."""
    path = f"/v1/sessions/{session.pk}"
    offers = [get(f"{path}/ledger", "See every transfer.")]
    governs = actor.scope == Scope.PAYER or session.pk != actor.key.session_id
    if session.status == Session.Status.OPEN and (actor.scope == Scope.PAYER or not governs):
        named = () if actor.key.session_id else ("session_id",)
        offers += [
            post("/v1/payments", "Pay an agent.", "to", "amount", *named),
            post("/v1/tasks", "Post a task.", "title", "capability", "budget", *named),
        ]
    if session.status == Session.Status.PAUSED and governs:
        offers.append(post(f"{path}/resume", "Let it spend again.", keyed=False))
    if session.status != Session.Status.CLOSED and governs:
        offers += [post(f"{path}/top-up", "Give it more.", "amount"), post(f"{path}/close", "Take back what is left.")]
    return of(actor, offers)


def of_approval(approval: Approval, actor: Actor) -> list[Action]:
    """A payer says yes or no while it waits; an agent reads it until it is answered, and then asks again."""
    path = f"/v1/approvals/{approval.pk}"
    if approval.status == Approval.Status.WAITING and actor.scope == Scope.PAYER:
        no = {"reason": "The payer does not want this."}
        offers = [
            post(f"{path}/approve", "Allow it.", keyed=False),
            post(f"{path}/refuse", "Refuse it, with a reason.", body=no, keyed=False),
        ]
        return of(actor, offers)
    if approval.status == Approval.Status.WAITING:
        return [get(path, "See whether a person has answered.")]
    if approval.status == Approval.Status.APPROVED and approval.kind == Kind.PAYMENT:
        return of(
            actor, [post("/v1/payments", "Send the same request again, with the same Idempotency-Key.", THE_SAME)]
        )
    return []


def of_pool(pool: Pool, actor: Actor) -> list[Action]:
    """A pool that opens or closes is waited for; an open one has sessions."""
    path = f"/v1/pools/{pool.pk}"
    if pool.status in (Pool.Status.OPENING, Pool.Status.CLOSING):
        return [get(path, f"It is {pool.status}; the chain decides when that ends.")]
    if pool.status != Pool.Status.OPEN:
        return []
    offers = [
        post("/v1/sessions", "Give an agent a budget.", "budget", "pool_id"),
        post(f"{path}/top-up", "Deposit more.", "amount"),
        post(f"{path}/close", "Settle what is owed and take back the rest."),
    ]
    return of(actor, offers)


def of_task(task: Task, actor: Actor, now: datetime) -> list[Action]:
    """A buyer assigns, cancels and reviews; the provider delivers."""
    path = f"/v1/tasks/{task.pk}"
    match tasks.status_of(task), actor.is_buyer:
        case "posted", True:
            offers = [post(f"{path}/assign", "Give it to an agent.", "agent"), post(f"{path}/cancel", "Take it back.")]
        case "assigned", True if now >= task.due_at:
            offers = [post(f"{path}/cancel", "It is past due: take it back.")]
        case "assigned", False:
            offers = [post(f"{path}/submit", "Deliver it, with an invoice.", "deliverable", "invoice")]
        case "submitted", True:
            offers = [post(f"{path}/accept", "Pay for it."), _reject(path)]
        case "rejected", True:
            offers = [post(f"{path}/accept", "Pay for it after all."), dispute_of(invoice_id=task.invoice_id)]
        case "rejected", False:
            offers = [_withdraw(task.invoice)]
        case "disputed", False:
            offers = [get("/v1/disputes", "Find the dispute and answer it.")]
        case _:
            offers = []
    return of(actor, offers)


def of_invoice(invoice: Invoice, actor: Actor) -> list[Action]:
    """A buyer approves, rejects or disputes; the provider can give up."""
    path = f"/v1/invoices/{invoice.pk}"
    match invoice.status, actor.is_buyer:
        case INVOICE.SUBMITTED, True:
            offers = [post(f"{path}/approve", "Pay it."), _reject(path)]
        case INVOICE.REJECTED, True:
            offers = [post(f"{path}/approve", "Pay it after all."), dispute_of(invoice_id=invoice.pk)]
        case ((INVOICE.SUBMITTED | INVOICE.REJECTED), False):
            offers = [_withdraw(invoice)]
        case _:
            offers = []
    return of(actor, offers)


def of_dispute(dispute: Dispute, actor: Actor) -> list[Action]:
    """The provider answers once; then an admin rules."""
    if dispute.status == Dispute.Status.OPEN and not actor.is_buyer:
        return of(
            actor, [post(f"/v1/disputes/{dispute.pk}/answer", "Say your side before answer_by.", "answer", keyed=False)]
        )
    if dispute.status in (Dispute.Status.RULED, Dispute.Status.FAILED):
        return []
    return [get(f"/v1/disputes/{dispute.pk}", "See whether it is ruled.")]


def dispute_of(**subject: UUID | None) -> Action:
    """Return a dispute of an invoice or of a payment, whichever is named."""
    body = {**{name: str(id) for name, id in subject.items()}, "reason": UNDONE}
    return post("/v1/disputes", "Dispute it, with a reason: the provider answers, an admin rules.", body=body)


def _reject(path: str) -> Action:
    return post(f"{path}/reject", "Refuse it, with a reason.", body=UNASKED)


def _withdraw(invoice: Any) -> Action:
    return post(f"/v1/invoices/{invoice.pk}/withdraw", "Give the claim up; the money goes back.")


def of(actor: Actor, offers: list[Action]) -> list[Action]:
    """Return what a key of the actor's can send: a read-only one only reads."""
    return [offer for offer in offers if offer.method == "GET"] if actor.key.read_only else offers
