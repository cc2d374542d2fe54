"""/v1/me, /v1/balance and /v1/events: the caller's own side of the market."""

from django.conf import settings

from escrow import events, pools
from marketplace import agents
from marketplace.api import account_shapes, auth, decided_shapes, show
from marketplace.api.bodies import Reason
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.queries import EventQuery


class Me(Endpoint):
    """Who the key says the caller is."""

    @serves(auth.ANYONE, answer=account_shapes.Me)
    def get(self, call: Call) -> account_shapes.Me:
        """Read what the key is."""
        key = call.actor.key
        names = ("scope", "payer_id", "provider_id", "session_id", "key_id", "read_only")
        facts = {name: getattr(key, name) for name in names}
        return account_shapes.Me.model_validate({**facts, "chain_id": settings.CHAIN_ID})


class Balance(Endpoint):
    """What a provider has earned."""

    @serves(auth.PROVIDER, answer=account_shapes.Balance)
    def get(self, call: Call) -> account_shapes.Balance:
        """Read what is owed, on its way, credited by the contract, paid out and in dispute, over all pools."""
        return account_shapes.Balance.model_validate(agents.balance(provider=call.actor.provider))


class Events(Endpoint):
    """What has happened to the caller's rows."""

    @serves(auth.OWNER, query=EventQuery, answer=account_shapes.EventPage)
    def get(self, call: Call) -> account_shapes.EventPage:
        """Read the events after a position, oldest first. Keep `next` and ask again: nothing is skipped or repeated."""
        mine = {"payer_id": call.actor.key.payer_id}
        if mine["payer_id"] is None:
            mine = {"party_id": call.actor.provider.party_id}
        rows = list(events.feed(**mine, after=call.query.after, limit=call.query.limit))
        items = [show.event(row) for row in rows]
        return account_shapes.EventPage(items=items, next=items[-1].position if items else call.query.after)


class Freeze(Endpoint):
    """A halt of everything."""

    @serves(auth.PAYER, body=Reason, answer=decided_shapes.Frozen)
    def post(self, call: Call) -> decided_shapes.Frozen:
        """Freeze all spending of the account at once: no payment, hold, session or top-up passes from any of its pools.

        When this answers, nothing is under way any more. What is owed still settles.
        """
        frozen = pools.freeze(payer_id=call.actor.payer_id, reason=call.body.reason, now=call.now)
        return decided_shapes.Frozen(frozen=True, pools=[pool.pk for pool in frozen])


class Unfreeze(Endpoint):
    """The end of it."""

    @serves(auth.PAYER, answer=decided_shapes.Frozen)
    def post(self, call: Call) -> decided_shapes.Frozen:
        """Let the account spend again."""
        thawed = pools.unfreeze(payer_id=call.actor.payer_id)
        return decided_shapes.Frozen(frozen=False, pools=[pool.pk for pool in thawed])
