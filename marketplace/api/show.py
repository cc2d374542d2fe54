"""From rows to shapes. Lives here: what a caller of one scope gets to see of each kind of row. No sums are made here.

What the other side must not see (a buyer's session, what it has left) is left out here, for every answer alike.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from escrow import authorisation, budgets, intents, receipts
from escrow import pools as escrow_pools
from escrow.models import Dispute, Event, Invoice, Party, Payment, Pool, Session, Transfer
from marketplace import offerings, tasks
from marketplace.api import account_shapes, actions, downloads, shapes, show_chain
from marketplace.api.auth import Actor
from marketplace.models import Agent, ApiKey, Offering, Task


def payments(rows: Sequence[Payment], actor: Actor) -> list[shapes.Payment]:
    """Show payments as they are now, with the chain transaction that settled each, whoever sent it."""
    batches = {row.record.batch_id for row in rows if row.record is not None}
    hashes = receipts.landed_by(batches) if batches else {}
    return [_payment(row, actor, hashes) for row in rows]


def payment(row: Payment, actor: Actor) -> shapes.Payment:
    """Show one payment as it is now."""
    return payments([row], actor)[0]


def _payment(row: Payment, actor: Actor, hashes: dict[UUID, str]) -> shapes.Payment:
    batch_id = row.record.batch_id if row.record else None
    return shapes.Payment.model_validate(
        {
            "id": row.pk,
            "session_id": row.session_id,
            "to": row.to,
            "agent": row.to,
            "provider_id": provider_id(row.party),
            "amount": row.amount_micros,
            "refunded": row.refunded_micros,
            "status": row.status,
            "kind": row.kind,
            "metadata": row.metadata,
            "capability": row.capability or None,
            "created_at": row.created_at,
            "remaining": row.remaining_micros if actor.is_buyer else None,
            "redeemed_at": row.redeemed_at,
            "batch_id": batch_id,
            "tx_hash": hashes.get(batch_id) if batch_id else None,
            "next_actions": actions.of_payment(row, actor),
        }
    )


def session(row: Session, actor: Actor) -> shapes.Session:
    """Show a session with what it has left."""
    balances = budgets.of(row)
    return shapes.Session.model_validate(
        {
            "id": row.pk,
            "pool_id": row.pool_id,
            "parent_id": row.parent_id,
            "name": row.name,
            "status": row.status,
            "budget": balances.budget,
            "spent": balances.spent,
            "held": balances.held,
            "delegated": balances.delegated,
            "remaining": balances.remaining,
            "checkpoints": row.policy.get("checkpoint_at", [*authorisation.DEFAULT_CHECKPOINTS]),
            "policy": row.policy,
            "policy_version": row.policy_version,
            "expires_at": row.expires_at,
            "created_at": row.created_at,
            "next_actions": actions.of_session(row, actor),
        }
    )


def ledger_lines(rows: Iterable[Transfer], of: Session) -> list[shapes.LedgerLine]:
    """Show transfers from a session's view: what leaves it is negative."""
    lines = []
    for row in rows:
        leaves = row.sender_id == of.account_id
        other = row.receiver if leaves else row.sender
        amount = -row.amount_micros if leaves else row.amount_micros
        lines.append(
            shapes.LedgerLine(
                id=row.pk, at=row.created_at, reason=row.reason, amount=amount, counterparty=other.code, ref=row.ref
            )
        )
    return lines


def ledger_cells(line: shapes.LedgerLine) -> list[str]:
    """Show a line as a spreadsheet's cells, in the order of the shape's members. An amount is a number: it keeps its sign."""
    shown = line.model_dump(mode="json")
    return [str(value) if name == "amount" else downloads.text(str(value)) for name, value in shown.items()]


def pool(row: Pool, actor: Actor) -> shapes.Pool:
    """Show a pool: where its money is, and what happens on chain for it."""
    sums = escrow_pools.balances(row)
    steps = intents.of_pool(row).values("kind", "status", "tx_hash", "gas_used")
    return shapes.Pool.model_validate(
        {
            "id": row.pk,
            "status": row.status,
            "chain_id": row.chain_id,
            "contract": row.contract_address,
            "pool_key": row.pool_key,
            "payer_address": row.payer_address,
            "deposited": sums.deposited,
            "available": sums.available,
            "in_sessions": sums.in_sessions,
            "held": sums.held,
            "payable": sums.payable,
            "settling": sums.settling,
            "credited": sums.credited,
            "disputed": sums.disputed,
            "withdrawn": sums.withdrawn,
            "fees": sums.fees,
            "reclaimed": sums.reclaimed,
            "expires_at": row.expires_at,
            "created_at": row.created_at,
            "terms": show_chain.terms(row),
            "chain_actions": [{**step, "tx_hash": step["tx_hash"] or None} for step in steps],
            "next_actions": actions.of_pool(row, actor),
        }
    )


def invoice(row: Invoice, actor: Actor) -> shapes.Invoice:
    """Show an invoice."""
    of_task = getattr(row, "task", None)
    dispute = getattr(row, "dispute", None)
    return shapes.Invoice.model_validate(
        {
            "id": row.pk,
            "number": row.number,
            "status": row.status,
            "amount": row.amount_micros,
            "approved_amount": row.payment.amount_micros if row.payment else None,
            "session_id": row.session_id,
            "provider_id": provider_id(row.party),
            "agent": row.to,
            "task_id": of_task.pk if of_task else None,
            "memo": row.memo,
            "reason": row.reason,
            "payment_id": row.payment_id,
            "dispute_id": dispute.pk if dispute else None,
            "review_by": row.review_by,
            "created_at": row.created_at,
            "next_actions": actions.of_invoice(row, actor),
        }
    )


def task(row: Task, actor: Actor, now: datetime) -> shapes.Task:
    """Show a task with its invoice. A provider that it is not assigned to does not see whose session it is."""
    concerned = actor.is_buyer or row.agent is not None
    claim = row.invoice
    return shapes.Task.model_validate(
        {
            "id": row.pk,
            "title": row.title,
            "brief": row.brief,
            "capability": row.capability,
            "budget": row.budget_micros,
            "status": tasks.status_of(row),
            "session_id": row.session_id if concerned else None,
            "agent": row.agent.uri if row.agent else None,
            "deliverable": claim.deliverable if claim else None,
            "invoice_id": claim.pk if claim else None,
            "invoice": invoice(claim, actor) if claim else None,
            "due_at": row.due_at,
            "review_by": claim.review_by if claim else None,
            "reason": claim.reason if claim else "",
            "created_at": row.created_at,
            "next_actions": actions.of_task(row, actor, now),
        }
    )


def dispute(row: Dispute, actor: Actor) -> shapes.Dispute:
    """Show a dispute, with its split once it is ruled."""
    to_provider = row.to_provider_micros
    return shapes.Dispute.model_validate(
        {
            "id": row.pk,
            "status": row.status,
            "session_id": row.session_id,
            "provider_id": provider_id(row.party),
            "invoice_id": row.invoice_id,
            "payment_id": row.payment_id,
            "amount": row.amount_micros,
            "reason": row.reason,
            "answer": row.answer,
            "to_provider": to_provider,
            "to_payer": None if to_provider is None else row.amount_micros - to_provider,
            "to_provider_bps": row.to_provider_bps,
            "ruling_reason": row.ruling_reason,
            "on_chain": row.on_chain,
            "answer_by": row.answer_by,
            "rule_by": row.rule_by,
            "created_at": row.created_at,
            "ruled_at": row.ruled_at,
            "next_actions": actions.of_dispute(row, actor),
        }
    )


def agent(row: Agent) -> shapes.Agent:
    """Show an agent with what it sells now."""
    return shapes.Agent(
        uri=row.uri,
        name=row.name,
        description=row.description,
        endpoint=row.endpoint,
        provider_id=row.provider_id,
        provider_name=row.provider.name,
        capabilities=row.capabilities,
        offerings=[offering(current) for current in offerings.current(row)],
        created_at=row.created_at,
    )


def offering(row: Offering) -> shapes.Offering:
    """Show one version of an offering."""
    return shapes.Offering.model_validate(
        {
            "id": row.pk,
            "version": row.version,
            "capability": row.capability,
            "pricing": row.pricing,
            "price": row.price_micros,
            "unit": row.unit,
            "description": row.description,
        }
    )


def key(row: ApiKey) -> account_shapes.Key:
    """Show a key: never its secret, which nobody has."""
    names = (
        "key_id",
        "scope",
        "session_id",
        "read_only",
        "name",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used_at",
    )
    facts = {name: getattr(row, name) for name in names}
    return account_shapes.Key.model_validate(
        {"id": row.pk, "ceiling": row.ceiling_micros, "rotated_from": row.rotated_from_id, **facts}
    )


def event(row: Event) -> account_shapes.Event:
    """Show a published event."""
    return account_shapes.Event(
        position=row.pk,
        type=row.type,
        at=row.created_at,
        subject_type=row.subject_type,
        subject_id=row.subject_id,
        payload=row.payload,
    )


def provider_id(party: Party) -> UUID:
    """Return the id of the provider that a party is; of a party that is none, its own."""
    seller = getattr(party, "provider", None)
    return seller.pk if seller is not None else party.pk
