"""/v1/sessions. Lives here: HTTP only; `escrow.sessions` and `marketplace.keys` decide."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from rest_framework.renderers import JSONRenderer

from escrow import grants, ledger, sessions
from escrow.models import Session
from escrow.policy import Policy
from marketplace import keys
from marketplace.api import auth, decided_shapes, scope, shapes, show, show_decided
from marketplace.api.bodies import AmountBody, ChildIn, PauseIn, PolicyBody, SessionIn
from marketplace.api.downloads import CSV, PAGE, CsvRenderer, Download
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.errors import invalid
from marketplace.api.pages import matching, page
from marketplace.api.queries import PageQuery, SessionQuery


class Sessions(Endpoint):
    """Sessions: a budget out of a pool, under a policy, with a key of its own."""

    @serves(auth.PAYER, body=SessionIn, answer=shapes.OpenedSession, status=201, money=True, reveals=True)
    def post(self, call: Call) -> shapes.Session:
        """Open a session and get the key that spends from it.

        In the sandbox, an account without a pool is answered pool_opening: one is opened with a grant of test money.
        The key is shown in this answer, and in the answer to the same request with the same Idempotency-Key; nowhere
        else.
        """
        body = call.body
        if body.pool_id is None:
            grants.require_pool(payer_id=call.actor.payer_id, now=call.now)
        session, _ = keys.open_session(
            pool=scope.funding_pool(call.actor, body.pool_id),
            budget_micros=body.budget,
            policy=body.policy or Policy(),
            name=body.name or "",
            expires_at=body.expires_at,
            now=call.now,
            seed=call.record_id,
        )
        return show.session(session, call.actor)

    @serves(auth.BUYER, query=SessionQuery, answer=shapes.SessionPage)
    def get(self, call: Call) -> shapes.SessionPage:
        """List sessions."""
        rows = matching(scope.family(call.actor), call.query, "parent_id", "status", "pool_id")
        members = page(
            rows, call.query, lambda found: [show.session(row, call.actor) for row in found], by=("created_at", "id")
        )
        return shapes.SessionPage(**members)


class OneSession(Endpoint):
    """One session."""

    @serves(auth.BUYER, answer=shapes.Session)
    def get(self, call: Call, session_id: UUID) -> shapes.Session:
        """Read a session: what it was given, has spent, has on hold and has left."""
        return show.session(scope.one(scope.family(call.actor), session_id), call.actor)


class Children(Endpoint):
    """Sessions inside a session."""

    @serves(auth.BUYER, body=ChildIn, answer=shapes.OpenedSession, status=201, money=True, reveals=True)
    def post(self, call: Call, session_id: UUID) -> shapes.Session:
        """Give a part of a session's budget to another agent, under at most the same policy; get the key that spends it.

        What the policy leaves out is as in the parent's; of its limits over time the child has a share, which is the
        parent's again once the child has been closed for that time.
        """
        body = call.body
        call.about.session_id = str(session_id)
        session, _ = keys.open_session(
            parent=scope.one(scope.family(call.actor), session_id),
            opened_by=call.actor.key if call.actor.key.session_id else None,
            budget_micros=body.budget,
            policy=body.policy or Policy(),
            name=body.name or "",
            expires_at=body.expires_at,
            now=call.now,
            seed=call.record_id,
        )
        return show.session(session, call.actor)


class Pause(Endpoint):
    """A halt."""

    @serves(auth.BUYER, body=PauseIn, answer=shapes.Session)
    def post(self, call: Call, session_id: UUID) -> shapes.Session:
        """Let a session, and those inside it, spend nothing until it is resumed. What it has on hold stays so."""
        found = scope.governed_session(call.actor, session_id)
        return show.session(sessions.pause(session=found, reason=call.body.reason or "", now=call.now), call.actor)


class Resume(Endpoint):
    """The end of a halt."""

    @serves(auth.BUYER, answer=shapes.Session)
    def post(self, call: Call, session_id: UUID) -> shapes.Session:
        """Let a paused session, and those inside it, spend again."""
        found = scope.governed_session(call.actor, session_id)
        return show.session(sessions.resume(session=found, now=call.now), call.actor)


class ChangePolicy(Endpoint):
    """A new version of a policy."""

    @serves(auth.PAYER, body=PolicyBody, answer=shapes.Session)
    def post(self, call: Call, session_id: UUID) -> shapes.Session:
        """Put another policy into force, for this session and, as far as it is narrower, for those inside it.

        The versions before it are kept: each decision names the one that it was made under.
        """
        found = scope.one(scope.sessions(call.actor), session_id)
        changed = sessions.change_policy(session=found, policy=call.body.policy, now=call.now)
        return show.session(changed, call.actor)


class Policies(Endpoint):
    """The versions of a policy."""

    @serves(auth.BUYER, query=PageQuery, answer=decided_shapes.PolicyPage)
    def get(self, call: Call, session_id: UUID) -> decided_shapes.PolicyPage:
        """List the versions of a session's policy."""
        found = scope.one(scope.family(call.actor), session_id)
        versions = found.policies.all()
        return decided_shapes.PolicyPage(
            **page(
                versions, call.query, lambda rows: [show_decided.policy_version(row) for row in rows], by=("version",)
            )
        )


class Close(Endpoint):
    """The end of a session."""

    @serves(auth.BUYER, answer=shapes.Session, money=True)
    def post(self, call: Call, session_id: UUID) -> shapes.Session:
        """Close a session, and those inside it; what it has left goes back to its pool, or to the session it is in."""
        call.about.session_id = str(session_id)
        found = scope.governed_session(call.actor, session_id)
        return show.session(sessions.close(session=found, now=call.now), call.actor)


class TopUp(Endpoint):
    """More budget."""

    @serves(auth.BUYER, body=AmountBody, answer=shapes.Session, money=True)
    def post(self, call: Call, session_id: UUID) -> shapes.Session:
        """Move more money into a session: the pool's, or that of the session it is in."""
        found = scope.governed_session(call.actor, session_id)
        return show.session(sessions.top_up(session=found, amount_micros=call.body.amount, now=call.now), call.actor)


class Ledger(Endpoint):
    """The transfers of a session."""

    renderer_classes = (JSONRenderer, CsvRenderer)

    @serves(auth.BUYER, query=PageQuery, answer=shapes.LedgerPage, csv=True)
    def get(self, call: Call, session_id: UUID) -> shapes.LedgerPage | Download:
        """List every transfer from and to a session.

        With `Accept: text/csv` all of them come in one document, without `limit` and `cursor`. A text that a spreadsheet would
        take for a formula has a `'` before it; amounts keep their sign.
        """
        found = scope.one(scope.family(call.actor), session_id)
        if call.media_type != CSV:
            return shapes.LedgerPage(**_transfers(found, call.query))
        for name in call.query.model_fields_set:
            raise invalid(name, "does not go with text/csv, which has every line", "no parameters")
        return Download(f"session-{session_id}", tuple(shapes.LedgerLine.model_fields), _all_lines(found))


def _transfers(session: Session, query: PageQuery) -> dict[str, Any]:
    return page(
        ledger.sent_by(session.account),
        query,
        lambda lines: show.ledger_lines(lines, session),
        by=("created_at", "id"),
        beside=ledger.received_by(session.account),
    )


def _all_lines(session: Session) -> Iterator[Iterator[list[str]]]:
    cursor = None
    while True:
        found = _transfers(session, PageQuery.model_construct(limit=PAGE, cursor=cursor))
        yield (show.ledger_cells(line) for line in found["items"])
        cursor = found["next"]
        if cursor is None:
            return
