"""/v1/batches. Lives here: HTTP only; `escrow.settlement` signs batches, and the chain decides what becomes of them."""

from uuid import UUID

from marketplace.api import auth, chain_shapes, scope, shapes, show_chain
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import BatchQuery


class Batches(Endpoint):
    """Batches: debts of a pool, netted and signed."""

    @serves(auth.OWNER, query=BatchQuery, answer=shapes.BatchPage)
    def get(self, call: Call) -> shapes.BatchPage:
        """List signed batches: those that pay a provider, or those of a payer's pools.

        This is how a provider gets its money without us: whoever holds a signed batch can land it until its deadline.
        The event `batch.signed` tells a provider of each; keep what this answers, `calldata` above all.
        """
        rows = matching(scope.batches(call.actor), call.query, "pool_id", "status")
        return shapes.BatchPage(**page(rows, call.query, show_chain.batches, by=("created_at", "id")))


class OneBatch(Endpoint):
    """One signed batch."""

    @serves(auth.OWNER, answer=chain_shapes.Batch)
    def get(self, call: Call, batch_id: UUID) -> chain_shapes.Batch:
        """Read a signed batch, with all that is needed to land it.

        Send `calldata` to `contract` from any wallet: the signature in it is the authorizer's, so the sender needs no role
        and pays only the gas. It is refused after `deadline`, once it has landed, and while a provider in it is not on the
        pool's allow-list. A batch that could land no more becomes `void`, and its debts go into another.
        """
        return show_chain.batch(scope.one(scope.batches(call.actor), batch_id))
