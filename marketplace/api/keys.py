"""/v1/keys. Lives here: HTTP only; `marketplace.keys` decides."""

from uuid import UUID

from marketplace import keys
from marketplace.api import auth, scope, shapes, show
from marketplace.api.bodies import KeyIn, PageQuery
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.errors import Problem, invalid
from marketplace.api.pages import page
from marketplace.models import ApiKey, Scope


class Keys(Endpoint):
    """API keys of the caller."""

    @serves(auth.OWNER, body=KeyIn, answer=shapes.IssuedKey, status=201)
    def post(self, call: Call) -> shapes.IssuedKey:
        """Issue a key. Its clear text is shown in this answer only.

        A payer issues keys of its sessions, and read-only keys of its own; a provider issues its own, so that it can
        rotate them. A payer's full key comes from an admin: a stolen one must not be able to make another.
        """
        key, text = _issue(call)
        return shapes.IssuedKey.model_validate({**show.key_facts(key), "api_key": text})

    @serves(auth.OWNER, query=PageQuery, answer=shapes.KeyPage)
    def get(self, call: Call) -> shapes.KeyPage:
        """List keys, revoked ones too."""
        return shapes.KeyPage(
            **page(scope.keys(call.actor), call.query, lambda found: [show.key(row) for row in found])
        )


class OneKey(Endpoint):
    """One key."""

    @serves(auth.OWNER, answer=shapes.Key)
    def delete(self, call: Call, key_id: UUID) -> shapes.Key:
        """Revoke a key at once."""
        return show.key(keys.revoke(key=scope.one(scope.keys(call.actor), key_id), now=call.now))


def _issue(call: Call) -> tuple[ApiKey, str]:
    body, actor = call.body, call.actor
    wanted = Scope(body.scope or (Scope.SESSION if body.session_id else actor.scope))
    if body.session_id is not None and wanted != Scope.SESSION:
        raise invalid("session_id", "belongs to session keys only", "no session_id, or scope session")
    name, end = body.name or "", body.expires_at
    match actor.scope, wanted:
        case Scope.PROVIDER, Scope.PROVIDER:
            return keys.issue(
                scope=wanted, provider=actor.provider, read_only=body.read_only, name=name, expires_at=end, now=call.now
            )
        case Scope.PAYER, Scope.SESSION:
            session = scope.spending_session(actor, body.session_id)
            return keys.issue(
                scope=wanted, session=session, read_only=body.read_only, name=name, expires_at=end, now=call.now
            )
        case Scope.PAYER, Scope.PAYER if body.read_only:
            return keys.issue(
                scope=wanted, payer=actor.key.payer, read_only=True, name=name, expires_at=end, now=call.now
            )
    raise Problem(
        "forbidden", "A payer's key issues session keys and read-only keys; a provider's key issues provider keys."
    )
