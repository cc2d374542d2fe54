"""/v1/pools. Lives here: HTTP only; `escrow.pools` decides, and the chain after it."""

from datetime import timedelta
from uuid import UUID

from escrow import pools
from marketplace import agents
from marketplace.api import auth, scope, shapes, show
from marketplace.api.bodies import AmountBody, PoolIn
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import PoolQuery


class Pools(Endpoint):
    """Pools: a payer's deposit in the escrow contract."""

    @serves(auth.PAYER, body=PoolIn, answer=shapes.Pool, status=202, money=True)
    def post(self, call: Call) -> shapes.Pool:
        """Ask for a pool. It is `opening` until the chain has the deposit, then `open`."""
        body = call.body
        pool = pools.open(
            payer_id=call.actor.owner_id,
            deposit_micros=body.deposit,
            expires_in=timedelta(hours=body.expires_in_hours) if body.expires_in_hours else None,
            providers=agents.parties(uris=body.providers),
            dispute_window_seconds=body.dispute_window_seconds,
            now=call.now,
        )
        return show.pool(pool, call.actor)

    @serves(auth.PAYER, query=PoolQuery, answer=shapes.PoolPage)
    def get(self, call: Call) -> shapes.PoolPage:
        """List pools."""
        rows = matching(scope.pools(call.actor), call.query, "status")
        return shapes.PoolPage(**page(rows, call.query, lambda found: [show.pool(row, call.actor) for row in found]))


class OnePool(Endpoint):
    """One pool."""

    @serves(auth.PAYER, answer=shapes.Pool)
    def get(self, call: Call, pool_id: UUID) -> shapes.Pool:
        """Read a pool: where its money is, and what the chain has done for it."""
        return show.pool(scope.one(scope.pools(call.actor), pool_id), call.actor)


class TopUp(Endpoint):
    """A further deposit."""

    @serves(auth.PAYER, body=AmountBody, answer=shapes.Pool, status=202, money=True)
    def post(self, call: Call, pool_id: UUID) -> shapes.Pool:
        """Ask for a further deposit. The balance grows when the chain has it."""
        found = scope.one(scope.pools(call.actor), pool_id)
        pools.top_up(pool=found, amount_micros=call.body.amount, now=call.now)
        return show.pool(found, call.actor)


class Close(Endpoint):
    """The end of a pool."""

    @serves(auth.PAYER, answer=shapes.Pool, status=202, money=True)
    def post(self, call: Call, pool_id: UUID) -> shapes.Pool:
        """Close a pool: its sessions end, what is owed lands on chain, the rest goes back to the payer."""
        found = scope.one(scope.pools(call.actor), pool_id)
        pools.close(pool=found, now=call.now)
        found.refresh_from_db()
        return show.pool(found, call.actor)
