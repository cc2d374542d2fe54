"""The nouns of work for an outcome: tasks, invoices, disputes. Each verb is one request."""

from collections.abc import Collection, Mapping
from typing import Any

from agentmarket import wire
from agentmarket.amounts import to_wire
from agentmarket.answers import Dispute, Invoice, Task
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.resources.policies import Amount
from agentmarket.steps import Steps, wait_for

#: the states a task does not leave by itself or by its provider
SETTLED_TASK = frozenset({"accepted", "rejected", "disputed", "closed", "cancelled", "expired"})


class Tasks(Resource[S_co]):
    @operation
    def post(
        self,
        *,
        title: str,
        brief: Mapping[str, Any],
        capability: str,
        budget: Amount,
        session: str | None = None,
        agent: str | None = None,
        due_in_seconds: int | None = None,
        key: str | None = None,
    ) -> Steps[Task]:
        """Post a task; with an `agent` it is assigned, and its budget held, at once."""
        body = {
            "title": title,
            "brief": brief,
            "capability": capability,
            "budget": to_wire(budget, field="budget"),
            "session_id": session,
            "agent": agent,
            "due_in_seconds": due_in_seconds,
        }
        return self._move(Task, "/v1/tasks", body, key=key)

    @operation
    def get(self, task_id: str) -> Steps[Task]:
        return self._read(task_id)

    @listing
    def list(
        self,
        *,
        session: str | None = None,
        status: str | None = None,
        role: str | None = None,
        open: bool | None = None,
        limit: int | None = None,
    ) -> Listing[Task]:
        """A buyer's own tasks; for a provider those assigned to its agents, or with `open` those it could take."""
        request = wire.get("/v1/tasks", session_id=session, status=status, role=role, open=open, limit=limit)
        return Listing(request, Task)

    @operation
    def assign(self, task_id: str, *, agent: str, key: str | None = None) -> Steps[Task]:
        return self._move(Task, f"/v1/tasks/{wire.segment(task_id)}/assign", {"agent": agent}, key=key)

    @operation
    def submit(
        self,
        task_id: str,
        *,
        deliverable: Mapping[str, Any],
        amount: Amount,
        number: str,
        memo: str | None = None,
        key: str | None = None,
    ) -> Steps[Task]:
        """Deliver, and invoice for it: a provider's verb."""
        invoice = {"amount": to_wire(amount), "number": number}
        body = {"deliverable": deliverable, "invoice": invoice if memo is None else {**invoice, "memo": memo}}
        return self._move(Task, f"/v1/tasks/{wire.segment(task_id)}/submit", body, key=key)

    @operation
    def accept(self, task_id: str, *, key: str | None = None) -> Steps[Task]:
        """Approve the invoice; the rest of the hold comes back."""
        return self._move(Task, f"/v1/tasks/{wire.segment(task_id)}/accept", key=key)

    @operation
    def reject(self, task_id: str, *, reason: str, key: str | None = None) -> Steps[Task]:
        return self._move(Task, f"/v1/tasks/{wire.segment(task_id)}/reject", {"reason": reason}, key=key)

    @operation
    def cancel(self, task_id: str, *, key: str | None = None) -> Steps[Task]:
        return self._move(Task, f"/v1/tasks/{wire.segment(task_id)}/cancel", key=key)

    @operation
    def wait(self, task_id: str, *, until: Collection[str] = ("submitted",), timeout: float = 120.0) -> Steps[Task]:
        """Wait for a status of `until`, or one the task cannot leave; raises Timeout after `timeout` seconds."""
        return wait_for(
            lambda: self._read(task_id),
            done=lambda task: task.status in until or task.status in SETTLED_TASK,
            what=f"task {task_id} to be {' or '.join(until)}",
            timeout=timeout,
        )

    def _read(self, task_id: str) -> Steps[Task]:
        return self._get(Task, f"/v1/tasks/{wire.segment(task_id)}")


class Invoices(Resource[S_co]):
    @operation
    def submit(
        self,
        *,
        session: str,
        agent: str,
        amount: Amount,
        number: str,
        memo: str | None = None,
        task: str | None = None,
        key: str | None = None,
    ) -> Steps[Invoice]:
        """Invoice a session: a provider's verb. The money is held from now on, if the session's policy allows it."""
        body = {
            "session_id": session,
            "agent": agent,
            "amount": to_wire(amount),
            "number": number,
            "memo": memo,
            "task_id": task,
        }
        return self._move(Invoice, "/v1/invoices", body, key=key)

    @operation
    def get(self, invoice_id: str) -> Steps[Invoice]:
        return self._get(Invoice, f"/v1/invoices/{wire.segment(invoice_id)}")

    @listing
    def list(
        self, *, session: str | None = None, status: str | None = None, limit: int | None = None
    ) -> Listing[Invoice]:
        return Listing(wire.get("/v1/invoices", session_id=session, status=status, limit=limit), Invoice)

    @operation
    def approve(self, invoice_id: str, *, key: str | None = None) -> Steps[Invoice]:
        return self._move(Invoice, f"/v1/invoices/{wire.segment(invoice_id)}/approve", key=key)

    @operation
    def reject(self, invoice_id: str, *, reason: str, key: str | None = None) -> Steps[Invoice]:
        return self._move(Invoice, f"/v1/invoices/{wire.segment(invoice_id)}/reject", {"reason": reason}, key=key)

    @operation
    def withdraw(self, invoice_id: str, *, key: str | None = None) -> Steps[Invoice]:
        """Give it up: a provider's verb. The money returns to the session."""
        return self._move(Invoice, f"/v1/invoices/{wire.segment(invoice_id)}/withdraw", key=key)


class Disputes(Resource[S_co]):
    @operation
    def open(
        self,
        *,
        reason: str,
        invoice: str | None = None,
        payment: str | None = None,
        amount: Amount | None = None,
        key: str | None = None,
    ) -> Steps[Dispute]:
        """Over an invoice, or over a payment (then `amount` may be a part of it)."""
        body = {
            "invoice_id": invoice,
            "payment_id": payment,
            "reason": reason,
            "amount": None if amount is None else to_wire(amount),
        }
        return self._move(Dispute, "/v1/disputes", body, key=key)

    @operation
    def get(self, dispute_id: str) -> Steps[Dispute]:
        return self._get(Dispute, f"/v1/disputes/{wire.segment(dispute_id)}")

    @listing
    def list(
        self, *, session: str | None = None, status: str | None = None, limit: int | None = None
    ) -> Listing[Dispute]:
        return Listing(wire.get("/v1/disputes", session_id=session, status=status, limit=limit), Dispute)

    @operation
    def answer(self, dispute_id: str, *, answer: str) -> Steps[Dispute]:
        """The provider's side of it."""
        return self._post(Dispute, f"/v1/disputes/{wire.segment(dispute_id)}/answer", {"answer": answer})
