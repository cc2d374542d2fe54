"""What an actor may see. Lives here: for each kind of row, the ones that are the actor's own. Everything else is not
found.

Every operation takes its rows from here, so there is one place that can be wrong about who sees what.
"""

from typing import Any, TypeVar
from uuid import UUID

from django.db.models import Model, Prefetch, Q, QuerySet

from escrow.errors import NotFound, StateConflict
from escrow.models import Approval, Batch, BatchRecord, Decision, Dispute, Hold, Invoice, Payment, Pool, Refund, Session
from marketplace.api.auth import Actor
from marketplace.api.errors import Problem, invalid
from marketplace.models import Agent, ApiKey, Provider, Scope, Task

Row = TypeVar("Row", bound=Model)


def one(rows: "QuerySet[Row]", id: UUID) -> Row:
    """Return the row of that id among the actor's own. Raises NotFound."""
    row = rows.filter(pk=id).first()
    if row is None:
        name = rows.model.__name__.lower()
        raise NotFound(f"There is no {name} {id} that this key may see.")
    return row


def pools(actor: Actor) -> "QuerySet[Pool]":
    """Return the pools of the payer."""
    return Pool.objects.filter(payer_id=actor.payer_id)


def owed(actor: Actor) -> dict[str, Any]:
    """Return whose debts a proof of reserves is about: the payer's, by its pools, or the provider's."""
    if actor.provider_id is not None:
        return {"party_id": Provider.objects.values_list("party_id", flat=True).get(pk=actor.provider_id)}
    return {"pool_ids": list(pools(actor).values_list("pk", flat=True))}


def sessions(actor: Actor) -> "QuerySet[Session]":
    """Return the sessions of the payer, or the one of the session key."""
    return _bought(Session.objects.select_related("pool", "account"), actor, payer="pool__payer_id", session="pk")


def family(actor: Actor) -> "QuerySet[Session]":
    """Return the sessions of the payer, or the one of the session key and those that it has opened inside it."""
    return sessions(actor) | governed(actor)


def governed(actor: Actor) -> "QuerySet[Session]":
    """Return the sessions whose budget the actor may change: the payer's, or those inside the session key's own."""
    rows = Session.objects.select_related("pool", "account")
    return _bought(rows, actor, payer="pool__payer_id", session="parent_id")


def governed_session(actor: Actor, session_id: UUID) -> Session:
    """Return a session whose budget the actor may change. Raises NotFound, or Problem for a session key's own."""
    if actor.key.session_id == session_id:
        raise Problem(
            "forbidden", "A session's own key spends it; its payer, or the session that it is in, governs it."
        )
    return one(governed(actor), session_id)


def keyed(rows: "QuerySet[Payment]", actor: Actor, key: str) -> "QuerySet[Payment]":
    """Return the payments of an idempotency key among the buyer's own; a provider knows no keys."""
    if not actor.is_buyer:
        raise invalid("idempotency_key", "is the buyer's to know", "the other parameters")
    mine = sessions(actor).values("pk")
    return rows.filter(session__in=mine, idempotency_key=key)


def approvals(actor: Actor) -> "QuerySet[Approval]":
    """Return what the buyer's sessions have asked a person for."""
    rows = Approval.objects.select_related("session__pool")
    return _bought(rows, actor, payer="payer_id", session="session_id")


def decisions(actor: Actor) -> "QuerySet[Decision]":
    """Return what was decided of the buyer's requests to spend."""
    # A payment without a version was no decision of its own: it came out of a hold or a ruling.
    rows = Decision.objects.filter(policy_version__isnull=False)
    return _bought(rows, actor, payer="payer_id", session="session_id")


def payments(actor: Actor) -> "QuerySet[Payment]":
    """Return the payments of the buyer, or those to the provider."""
    rows = Payment.objects.select_related("session__account", "session__pool", "pool", "party__provider", "record")
    return _either(rows, actor, payer="payer_id", session="session_id")


def batches(actor: Actor) -> "QuerySet[Batch]":
    """Return the batches of the payer's pools, or those with a record of the provider's, each with all its records."""
    records = Prefetch("records", BatchRecord.objects.select_related("party"))
    rows = Batch.objects.select_related("pool").prefetch_related(records)
    if actor.scope == Scope.PROVIDER:
        paying = BatchRecord.objects.filter(party__provider__pk=actor.provider_id)
        return rows.filter(pk__in=paying.values("batch"))
    if actor.scope == Scope.PAYER:
        return rows.filter(pool__payer_id=actor.payer_id)
    return rows.none()  # a batch is of no session


def invoices(actor: Actor) -> "QuerySet[Invoice]":
    """Return the invoices to the buyer, or those of the provider."""
    rows = Invoice.objects.select_related(
        "payment",
        "dispute",
        "task",
        "party__provider",
        "hold__account",
        "hold__party",
        "hold__session__pool",
        "hold__session__account",
    )
    return _either(rows, actor, payer="session__pool__payer_id", session="session_id")


def disputes(actor: Actor) -> "QuerySet[Dispute]":
    """Return the disputes of the buyer, or those with the provider."""
    rows = Dispute.objects.select_related("party__provider")
    return _either(rows, actor, payer="session__pool__payer_id", session="session_id")


def holds(actor: Actor) -> "QuerySet[Hold]":
    """Return the holds of the buyer, or those for the provider."""
    rows = Hold.objects.select_related("session__account", "session__pool", "party__provider", "account", "payment")
    return _either(rows, actor, payer="payer_id", session="session_id")


def refunds(actor: Actor) -> "QuerySet[Refund]":
    """Return the refunds of the buyer's payments, or of the payments to the provider."""
    related = ("payment__pool", "payment__party", "payment__session__account", "party__provider")
    return _either(Refund.objects.select_related(*related), actor, payer="payer_id", session="session_id")


def tasks(actor: Actor) -> "QuerySet[Task]":
    """Return the tasks of the buyer, or those assigned to the provider's agents."""
    rows = Task.objects.select_related(
        "session__pool",
        "agent",
        "invoice__payment",
        "invoice__dispute",
        "invoice__party__provider",
        "invoice__hold__account",
        "invoice__hold__party",
        "invoice__hold__session__pool",
        "invoice__hold__session__account",
    )
    if actor.is_buyer:
        return _bought(rows, actor, payer="payer_id", session="session_id")
    return rows.filter(agent__provider_id=actor.provider_id)


def open_tasks(actor: Actor) -> "QuerySet[Task]":
    """Return posted tasks of anybody, for capabilities that the provider's agents have."""
    mine = Agent.objects.filter(provider_id=actor.provider_id).values_list("capabilities", flat=True)
    capabilities = {capability for listed in mine for capability in listed}
    return Task.objects.select_related("agent", "invoice").filter(
        status=Task.Status.POSTED, capability__in=capabilities
    )


def keys(actor: Actor) -> "QuerySet[ApiKey]":
    """Return the payer's keys and those of its sessions, or the provider's."""
    if actor.scope == Scope.PROVIDER:
        return ApiKey.objects.filter(provider_id=actor.provider_id)
    return ApiKey.objects.filter(payer_id=actor.payer_id)


def agents(actor: Actor) -> "QuerySet[Agent]":
    """Return the provider's agents."""
    return Agent.objects.select_related("provider").filter(provider_id=actor.provider_id)


def spending_session(actor: Actor, session_id: UUID | None) -> Session:
    """Return the session that pays: a session key's own, or the payer's that it names, or else its oldest open one.

    The oldest, because that stays the same when others open: a request that is repeated meanwhile is one request.
    """
    wanted = session_id or actor.key.session_id
    if wanted is not None:
        return one(sessions(actor), wanted)
    mine = sessions(actor).filter(status=Session.Status.OPEN, parent=None, pool__status=Pool.Status.OPEN)
    oldest = mine.order_by("created_at", "pk").first()
    if oldest is None:
        raise StateConflict("session", "none", "You have no open session; open one with POST /v1/sessions.")
    return oldest


def spending_session_id(actor: Actor, session_id: UUID | None, key: str) -> UUID:
    """Return the id of the session that pays, or has paid under a key; a session key's own needs no query."""
    if actor.key.session_id is not None and session_id in (None, actor.key.session_id):
        return actor.key.session_id
    paid = None
    if session_id is None:
        paid = keyed(payments(actor), actor, key).order_by("pk").values_list("session_id", flat=True).first()
    return paid or spending_session(actor, session_id).pk


def named_session(actor: Actor, session_id: UUID | None) -> Session:
    """Return the session that the payer names."""
    return one(sessions(actor), _named(actor, session_id))


def asked_session(actor: Actor, session_id: UUID | None) -> Session:
    """Return the session that something is asked about: a session key's own or one inside it, or any that the payer names."""
    return one(family(actor), _named(actor, session_id))


def _named(actor: Actor, session_id: UUID | None) -> UUID:
    wanted = session_id or actor.key.session_id
    if wanted is None:
        raise invalid("session_id", "is required with a payer's key", "the id of one of your sessions")
    return wanted


def funding_pool(actor: Actor, pool_id: UUID | None) -> Pool:
    """Return the pool that the payer names, or its only open one."""
    if pool_id is not None:
        return one(pools(actor), pool_id)
    found = list(pools(actor).filter(status=Pool.Status.OPEN)[:2])
    if not found:
        raise StateConflict("pool", "none", "You have no open pool; open one with POST /v1/pools.")
    if len(found) > 1:
        raise invalid("pool_id", "is required: you have several open pools", "the id of one of them")
    return found[0]


def _either(rows: "QuerySet[Row]", actor: Actor, *, payer: str, session: str) -> "QuerySet[Row]":
    if actor.is_buyer:
        return _bought(rows, actor, payer=payer, session=session)
    return rows.filter(party__provider__pk=actor.provider_id)


def _bought(rows: "QuerySet[Row]", actor: Actor, *, payer: str, session: str) -> "QuerySet[Row]":
    if actor.scope == Scope.SESSION:
        return rows.filter(Q(**{session: actor.key.session_id}))
    if actor.scope == Scope.PAYER:
        return rows.filter(Q(**{payer: actor.payer_id}))
    return rows.none()
