"""Tasks: work with a budget. Lives here: post, assign, submit, accept, reject, cancel, bill, and what silence does.

A task's money is in escrow: a hold from its assignment, an invoice from its submission. What becomes of the invoice is
decided there (`escrow.invoices`, `escrow.disputes`) and only read here.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, cast
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from escrow import events, holds, invoices, lifecycle, money, sessions
from escrow.errors import InvalidInput, NotFound, PolicyDenied, StateConflict
from escrow.models import Hold, Invoice, Session
from escrow.recipients import matches
from marketplace import agents
from marketplace.models import Agent, Payer, Provider, Task

SWEEP_LIMIT: Final = 500
"""Tasks that one sweep ends: a few seconds of work, so that the next sweep finds it done."""

READ_OFF_INVOICE: Final[Mapping[str, str]] = {
    Invoice.Status.SUBMITTED: "submitted",
    Invoice.Status.APPROVED: "accepted",
    Invoice.Status.REJECTED: "rejected",
    Invoice.Status.DISPUTED: "disputed",
    Invoice.Status.RULED: "closed",
    Invoice.Status.WITHDRAWN: "closed",
}
"""The status of a submitted task, by that of its invoice."""


def status_of(task: Task) -> str:
    """Return the task's status as everybody sees it: its own until it is submitted, then its invoice's."""
    return READ_OFF_INVOICE[task.invoice.status] if task.invoice else str(task.status)


def with_status(tasks: "QuerySet[Task]", status: str) -> "QuerySet[Task]":
    """Return the tasks that are in a status, as `status_of` says it."""
    of_invoice = [name for name, shown in READ_OFF_INVOICE.items() if shown == status]
    return tasks.filter(Q(invoice__status__in=of_invoice) | Q(invoice__isnull=True, status=status))


@transaction.atomic
def post(
    *,
    payer: Payer,
    session: Session,
    title: str,
    brief: Mapping[str, object],
    capability: str,
    budget_micros: int,
    now: datetime,
    agent_uri: str | None = None,
    due_in: timedelta | None = None,
) -> Task:
    """Post a task, and assign it at once when an agent is named; the budget is held only from then on.

    A task that says nothing about when it is due is due after ``settings.TASK_DEFAULT_DUE``.
    """
    agents.check_capability(capability)
    session = sessions.reread(session.pk)
    sessions.require_spending(session, now)
    due_in = due_in or settings.TASK_DEFAULT_DUE
    if not timedelta(0) < due_in <= settings.TASK_MAX_DUE:
        limit = int(settings.TASK_MAX_DUE.total_seconds())
        raise InvalidInput("due_in_seconds", f"must be from 1 to {limit}", f"{limit} or less")
    task = Task.objects.create(
        payer=payer,
        session=session,
        title=title,
        brief=dict(brief),
        capability=capability,
        budget_micros=budget_micros,
        due_at=now + due_in,
    )
    _tell(task, "task.posted")
    return assign(task=task, agent_uri=agent_uri, now=now) if agent_uri else task


@transaction.atomic
def assign(*, task: Task, agent_uri: str, now: datetime) -> Task:
    """Give a posted task to an agent: its budget moves from the session to a hold, under the session's policy."""
    task = _locked(task)
    agent = agents.find(uri=agent_uri)
    if task.capability not in agent.capabilities:
        offered = ", ".join(agent.capabilities) or "nothing yet"
        raise InvalidInput(
            "agent", f"does not offer {task.capability}", f"an agent that does; {agent_uri} offers {offered}"
        )
    _require(task, Task.Status.ASSIGNED)
    if task.due_at <= now:
        raise StateConflict("task", task.status, "The task is past its due time; post it again.")
    hold = holds.place(
        session=task.session, amount_micros=task.budget_micros, party=agent.provider.party, to=agent.uri,
        capability=task.capability, fingerprint=_fingerprint("task", task.pk, agent.uri),
    )  # fmt: skip
    lifecycle.move(task, Task.Status.ASSIGNED, agent=agent, hold=hold)
    _tell(task, "task.assigned")
    return task


@transaction.atomic
def submit(
    *, task: Task, deliverable: Mapping[str, object], amount_micros: int, number: str, now: datetime, memo: str = ""
) -> Task:
    """Deliver a task and invoice it, for its budget or less. Late is allowed until the task is cancelled or expires."""
    task = _locked(task)
    _require(task, Task.Status.SUBMITTED)
    invoice = invoices.submit(
        hold=cast("Hold", task.hold),
        amount_micros=amount_micros,
        number=number,
        memo=memo,
        task_ref=str(task.pk),
        deliverable=deliverable,
        now=now,
    )
    lifecycle.move(task, Task.Status.SUBMITTED, invoice=invoice)
    _tell(task, "task.submitted")
    return task


def accept(*, task: Task, now: datetime) -> Task:
    """Accept what was delivered: the invoice is approved, the rest of the hold goes back."""
    task.invoice = invoices.approve(invoice=_invoice_of(task), now=now)
    return task


def reject(*, task: Task, reason: str, now: datetime) -> Task:
    """Refuse what was delivered, with a reason. The money stays on hold; silence makes it a dispute."""
    task.invoice = invoices.reject(invoice=_invoice_of(task), reason=reason, now=now)
    return task


@transaction.atomic
def cancel(*, task: Task, now: datetime) -> Task:
    """Take a task back: a posted one at any time, an assigned one once it is past due. What was held goes back."""
    task = _locked(task)
    _require(task, Task.Status.CANCELLED)
    if task.status == Task.Status.ASSIGNED and now < task.due_at:
        due = task.due_at.isoformat().replace("+00:00", "Z")
        raise StateConflict("task", task.status, f"An agent has this task until {due}; it can be cancelled after that.")
    return _end(task, Task.Status.CANCELLED, now)


def bill(
    *,
    provider: Provider,
    session_id: UUID,
    agent_uri: str,
    amount_micros: int,
    number: str,
    now: datetime,
    memo: str = "",
    task_id: UUID | None = None,
) -> Invoice:
    """Invoice a session for an agent's work: for its task there, or for anything the two have agreed on.

    Without a task the money is set aside at once, and silence approves the invoice. So the session's policy has to name
    this very agent among its allowed recipients: a policy without recipients, or with a wildcard under which anybody can
    register, opens a session to its own payments, not to everybody's claims.
    """
    agent = agents.find(uri=agent_uri)
    if agent.provider_id != provider.pk:
        raise NotFound(f"{agent_uri} is not one of your agents.")
    if task_id is not None:
        task = Task.objects.filter(pk=task_id, session_id=session_id, agent=agent).first()
        if task is None:
            raise NotFound("There is no such task of this agent in this session.")
        task = submit(task=task, deliverable={}, amount_micros=amount_micros, number=number, memo=memo, now=now)
        return _invoice_of(task)
    session = sessions.reread(session_id)
    _require_named(session, agent)
    with transaction.atomic():
        hold = holds.place(
            session=session, amount_micros=amount_micros, party=agent.provider.party, to=agent.uri,
            fingerprint=_fingerprint("invoice", session.pk, agent.uri, number, amount_micros),
        )  # fmt: skip
        return invoices.submit(
            hold=hold, amount_micros=amount_micros, number=number, memo=memo, task_ref="", deliverable={}, now=now
        )


def expire_due(*, now: datetime, limit: int = SWEEP_LIMIT) -> int:
    """End tasks that nobody took or nobody delivered; return how many.

    A posted task ends when it is due. An assigned one ends ``settings.TASK_GRACE`` later, so that a buyer who wants
    to decide alone has had the time to.
    """
    over = now - settings.TASK_GRACE
    late = Q(status=Task.Status.POSTED, due_at__lte=now) | Q(status=Task.Status.ASSIGNED, due_at__lte=over)
    due = Task.objects.filter(late).order_by("due_at")
    return lifecycle.sweep(due, lambda task: _expire(task, now), name="late-tasks", limit=limit)


@transaction.atomic
def _expire(task: Task, now: datetime) -> bool:
    held = Task.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=task.pk, status=task.status)
    if not held.exists():
        return False
    _end(_locked(task), Task.Status.EXPIRED, now)
    return True


def _end(task: Task, status: Task.Status, now: datetime) -> Task:
    if task.hold is not None:
        task.hold = holds.give_back(hold=task.hold, now=now)
    lifecycle.move(task, status)
    _tell(task, f"task.{status}")
    return task


def _locked(task: Task) -> Task:
    related = Task.objects.select_related(
        "payer",
        "session__pool",
        "session__account",
        "agent__provider__party",
        "hold__session__pool",
        "hold__account",
        "invoice",
    )
    return related.select_for_update(no_key=True, of=("self",)).get(pk=task.pk)


def _require(task: Task, to: Task.Status) -> None:
    if to not in lifecycle.allowed(task):
        raise StateConflict("task", status_of(task), f"The task is {status_of(task)}; it cannot become {to}.")


def _invoice_of(task: Task) -> Invoice:
    if task.invoice is None:
        raise StateConflict("task", task.status, f"The task is {task.status}; nothing has been delivered yet.")
    return task.invoice


def _fingerprint(*parts: object) -> bytes:
    """Return what tells one request for a hold from any other, for a person's approval of it."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).digest()


def _require_named(session: Session, agent: Agent) -> None:
    listed = session.policy.get("allowed_recipients", [])
    named = [pattern for pattern in listed if "*" not in pattern]
    if not any(matches(name, agent.uri) for name in named):
        detail = f"An invoice without a task needs {agent.uri} among the policy's allowed recipients, by name."
        raise PolicyDenied("allowed_recipients", detail, limit=listed, would_allow=named or None)


def _tell(task: Task, type: str) -> None:
    payload = {
        "session_id": str(task.session_id),
        "title": task.title,
        "capability": task.capability,
        "budget": money.render(task.budget_micros),
        "agent": task.agent.uri if task.agent else None,
    }
    events.record(
        type=type,
        subject_type="task",
        subject_id=task.pk,
        payload=payload,
        pool=task.session.pool,
        party=task.agent.provider.party if task.agent else None,
    )
