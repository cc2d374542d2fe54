"""/v1/me, /v1/balance and /v1/events: the caller's own side of the market."""

from django.conf import settings

from escrow import events
from marketplace import agents
from marketplace.api import auth, shapes, show
from marketplace.api.bodies import EventQuery
from marketplace.api.endpoint import Call, Endpoint, serves


class Me(Endpoint):
    """Who the key says the caller is."""

    @serves(auth.ANYONE, answer=shapes.Me)
    def get(self, call: Call) -> shapes.Me:
        """Read what the key is."""
        key = call.actor.key
        names = ("scope", "payer_id", "provider_id", "session_id", "key_id", "read_only")
        facts = {name: getattr(key, name) for name in names}
        return shapes.Me.model_validate({**facts, "chain_id": settings.CHAIN_ID})


class Balance(Endpoint):
    """What a provider has earned."""

    @serves(auth.PROVIDER, answer=shapes.Balance)
    def get(self, call: Call) -> shapes.Balance:
        """Read what is owed, on its way, credited by the contract, paid out and in dispute, over all pools."""
        return shapes.Balance.model_validate(agents.balance(provider=call.actor.provider))


class Events(Endpoint):
    """What has happened to the caller's rows."""

    @serves(auth.OWNER, query=EventQuery, answer=shapes.EventPage)
    def get(self, call: Call) -> shapes.EventPage:
        """Read the events after a position, oldest first. Keep `next` and ask again: nothing is skipped or repeated."""
        mine = {"payer_id": call.actor.key.payer_id}
        if mine["payer_id"] is None:
            mine = {"party_id": call.actor.provider.party_id}
        rows = list(events.feed(**mine, after=call.query.after, limit=call.query.limit))
        items = [show.event(row) for row in rows]
        return shapes.EventPage(items=items, next=items[-1].position if items else call.query.after)
