"""/v1/keys. Lives here: HTTP only; `marketplace.keys` decides."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from marketplace import keys
from marketplace.api import account_shapes, auth, idempotency, scope, show
from marketplace.api.bodies import KeyIn, Rotation
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.errors import Problem, invalid
from marketplace.api.pages import page
from marketplace.api.queries import PageQuery
from marketplace.models import ApiKey, Scope


class Keys(Endpoint):
    """API keys of the caller."""

    @serves(auth.OWNER, body=KeyIn, answer=account_shapes.IssuedKey, status=201, reveals=True)
    def post(self, call: Call) -> account_shapes.Key:
        """Issue a key.

        A payer issues keys of its sessions, and read-only keys of its own; a provider issues its own. A payer's full key
        comes from an admin: a stolen one must not be able to make another. The clear text is shown in this answer and, when
        the request had an Idempotency-Key, in the answer to the same request again; nowhere else.

        A key with a `ceiling` spends a session of its own inside the session, which holds just that. Revoking the key, or its
        end, gives back what is left.
        """
        return show.key(_issue(call))

    @serves(auth.OWNER, query=PageQuery, answer=account_shapes.KeyPage)
    def get(self, call: Call) -> account_shapes.KeyPage:
        """List keys, revoked ones too."""
        return account_shapes.KeyPage(
            **page(scope.keys(call.actor), call.query, lambda found: [show.key(row) for row in found])
        )


class OneKey(Endpoint):
    """One key."""

    @serves(auth.OWNER, answer=account_shapes.Key)
    def get(self, call: Call, key_id: UUID) -> account_shapes.Key:
        """Read a key: never its secret, which nobody has."""
        return show.key(scope.one(scope.keys(call.actor), key_id))

    @serves(auth.OWNER, answer=account_shapes.Key)
    def delete(self, call: Call, key_id: UUID) -> account_shapes.Key:
        """Revoke a key at once."""
        return show.key(keys.revoke(key=scope.one(scope.keys(call.actor), key_id), now=call.now))


class Rotate(Endpoint):
    """A key in another's place."""

    @serves(auth.OWNER, body=Rotation, answer=account_shapes.IssuedKey, status=201, reveals=True)
    def post(self, call: Call, key_id: UUID) -> account_shapes.Key:
        """Make the key that takes another's place: the same scope, session, limits and end.

        The old key ends after `overlap_seconds`; a key that it had itself replaced ends at once, so that two are live at
        most. With an Idempotency-Key an answer that was lost can be asked for again. A payer's full key is rotated by an
        admin: a stolen one must not be able to outlive itself.
        """
        found = scope.one(scope.keys(call.actor), key_id)
        if found.scope == Scope.PAYER and not found.read_only:
            raise Problem("forbidden", "A payer's full key is rotated by an admin.")
        overlap = timedelta(seconds=call.body.overlap_seconds)
        return show.key(keys.rotate(key=found, overlap=overlap, now=call.now, seed=call.record_id)[0])


def _issue(call: Call) -> ApiKey:
    body, actor = call.body, call.actor
    wanted = Scope(body.scope or (Scope.SESSION if body.session_id else actor.scope))
    if body.session_id is not None and wanted != Scope.SESSION:
        raise invalid("session_id", "belongs to session keys only", "no session_id, or scope session")
    if body.ceiling is not None and (wanted != Scope.SESSION or body.read_only):
        raise invalid("ceiling", "belongs to session keys that spend", "no ceiling, or scope session and not read_only")
    common: dict[str, Any] = {
        "scope": wanted,
        "read_only": body.read_only,
        "name": body.name or "",
        "expires_at": body.expires_at,
        "now": call.now,
        "seed": call.record_id,
    }
    match actor.scope, wanted:
        case Scope.PROVIDER, Scope.PROVIDER:
            return keys.issue(**common, provider=actor.provider)[0]
        case Scope.PAYER, Scope.SESSION if body.ceiling is not None:
            return _issue_with_ceiling(call)
        case Scope.PAYER, Scope.SESSION:
            return keys.issue(**common, session=scope.named_session(actor, body.session_id))[0]
        case Scope.PAYER, Scope.PAYER if body.read_only:
            return keys.issue(**common, payer=actor.key.payer)[0]
    raise Problem(
        "forbidden", "A payer's key issues session keys and read-only keys; a provider's key issues provider keys."
    )


def _issue_with_ceiling(call: Call) -> ApiKey:
    call.about.moves_money = True
    idempotency.check_key(call.idempotency_key)
    session = scope.named_session(call.actor, call.body.session_id)
    call.about.session_id = str(session.pk)
    return keys.issue_with_ceiling(
        session=session,
        ceiling_micros=call.body.ceiling,
        name=call.body.name or "",
        expires_at=call.body.expires_at,
        now=call.now,
        seed=call.record_id,
    )[0]
