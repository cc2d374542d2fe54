"""What the market holds against what it owes: read by anybody, and proven to each whom it owes something."""

from agentmarket import wire
from agentmarket.answers import Reserves, ReservesProof
from agentmarket.errors import InvalidReply
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.steps import Steps


class Reserve(Resource[S_co]):
    @operation
    def get(self) -> Steps[Reserves]:
        """The newest comparison of the contract's money with everything that is owed."""
        return self._get(Reserves, "/v1/reserves")

    @listing
    def history(self, *, limit: int | None = None) -> Listing[Reserves]:
        """The comparisons of the last thirty days, newest first."""
        return Listing(wire.get("/v1/reserves/history", limit=limit), Reserves)

    @operation
    def proof(self, *, pool: str | None = None) -> Steps[ReservesProof]:
        """What is owed to this key's owner, with proofs. Nothing is checked yet: see `verify`."""
        return self._proof(pool)

    @operation
    def verify(self, *, pool: str | None = None) -> Steps[ReservesProof]:
        """Read the published root and the proof of what is owed to you, and check the one against the other, here.

        `.micros` of the answer is what is proven. Compare `.root` with what others are shown, and the contract's balance
        with a node. Raises InvalidReply when something does not fit.
        """
        for _ in range(2):  # a new report may come between the two answers, once
            proof = yield from self._proof(pool)
            published = yield from self._get(Reserves, "/v1/reserves")
            if published.id == proof.report_id:
                break
        else:
            raise InvalidReply("The published reserves and the proof are of different reports; ask again.")
        proof.verify(root=published.root)
        return proof

    def _proof(self, pool: str | None) -> Steps[ReservesProof]:
        return self._get(ReservesProof, "/v1/reserves/proof", pool_id=pool)
