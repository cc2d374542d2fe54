"""/v1/tasks. Lives here: HTTP only; `marketplace.tasks` decides."""

from datetime import timedelta
from typing import cast
from uuid import UUID

from marketplace import tasks
from marketplace.api import auth, scope, shapes, show
from marketplace.api.bodies import Assignment, Delivery, Reason, TaskIn
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import TaskQuery
from marketplace.models import Payer, Task


class Tasks(Endpoint):
    """Tasks: work with a budget, invoiced when it is done."""

    @serves(auth.BUYER, body=TaskIn, answer=shapes.Task, status=201, money=True)
    def post(self, call: Call) -> shapes.Task:
        """Post a task. With an `agent` it is assigned at once, and its budget held."""
        body = call.body
        session = scope.spending_session(call.actor, body.session_id)
        call.about.session_id = str(session.pk)
        task = tasks.post(
            payer=cast("Payer", call.actor.key.payer),
            session=session,
            title=body.title,
            brief=body.brief,
            capability=body.capability,
            budget_micros=body.budget,
            agent_uri=body.agent,
            due_in=timedelta(seconds=body.due_in_seconds) if body.due_in_seconds else None,
            now=call.now,
        )
        return show.task(task, call.actor, call.now)

    @serves(auth.ANYONE, query=TaskQuery, answer=shapes.TaskPage)
    def get(self, call: Call) -> shapes.TaskPage:
        """List tasks: a buyer's own, or those assigned to a provider's agents."""
        query = call.query
        posted = query.open and not call.actor.is_buyer
        rows = matching(scope.open_tasks(call.actor) if posted else scope.tasks(call.actor), query, "session_id")
        if query.role is not None and (query.role == "buyer") != call.actor.is_buyer:
            rows = rows.none()
        if query.status is not None:
            rows = tasks.with_status(rows, query.status)
        return shapes.TaskPage(
            **page(rows, query, lambda found: [show.task(row, call.actor, call.now) for row in found])
        )


class OneTask(Endpoint):
    """One task."""

    @serves(auth.ANYONE, answer=shapes.Task)
    def get(self, call: Call, task_id: UUID) -> shapes.Task:
        """Read a task with its invoice."""
        return _show(call, task_id)


class Assign(Endpoint):
    """Who does it."""

    @serves(auth.BUYER, body=Assignment, answer=shapes.Task, money=True)
    def post(self, call: Call, task_id: UUID) -> shapes.Task:
        """Give a posted task to an agent; its budget is held from now on."""
        found = _find(call, task_id)
        call.about.session_id = str(found.session_id)
        tasks.assign(task=found, agent_uri=call.body.agent, now=call.now)
        return _show(call, task_id)


class Submit(Endpoint):
    """The delivery."""

    @serves(auth.PROVIDER, body=Delivery, answer=shapes.Task, money=True)
    def post(self, call: Call, task_id: UUID) -> shapes.Task:
        """Deliver a task and invoice it, for its budget or less."""
        claim = call.body.invoice
        tasks.submit(
            task=_find(call, task_id),
            deliverable=call.body.deliverable,
            amount_micros=claim.amount,
            number=claim.number,
            memo=claim.memo or "",
            now=call.now,
        )
        return _show(call, task_id)


class Accept(Endpoint):
    """The buyer's yes."""

    @serves(auth.BUYER, answer=shapes.Task, money=True)
    def post(self, call: Call, task_id: UUID) -> shapes.Task:
        """Accept what was delivered: the invoice is owed, the rest of the hold comes back."""
        tasks.accept(task=_find(call, task_id), now=call.now)
        return _show(call, task_id)


class Reject(Endpoint):
    """The buyer's no."""

    @serves(auth.BUYER, body=Reason, answer=shapes.Task, money=True)
    def post(self, call: Call, task_id: UUID) -> shapes.Task:
        """Refuse what was delivered, with a reason. The money stays on hold; if both stay silent a dispute opens."""
        tasks.reject(task=_find(call, task_id), reason=call.body.reason, now=call.now)
        return _show(call, task_id)


class Cancel(Endpoint):
    """Taking a task back."""

    @serves(auth.BUYER, answer=shapes.Task, money=True)
    def post(self, call: Call, task_id: UUID) -> shapes.Task:
        """Take a task back: a posted one, or an assigned one that is past due. What was held comes back."""
        tasks.cancel(task=_find(call, task_id), now=call.now)
        return _show(call, task_id)


def _find(call: Call, task_id: UUID) -> Task:
    return scope.one(scope.tasks(call.actor), task_id)


def _show(call: Call, task_id: UUID) -> shapes.Task:
    return show.task(_find(call, task_id), call.actor, call.now)
