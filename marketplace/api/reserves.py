"""/v1/reserves. Lives here: HTTP only; `escrow.reserves` compares the books with the chain and makes the proofs."""

from collections.abc import Sequence

from django.conf import settings

from escrow import reserves
from escrow.models import ReserveReport
from escrow.reserves import Inclusion
from marketplace.api import auth, reserve_shapes, scope
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import page


class Reserves(Endpoint):
    """What the contract holds against all that is owed."""

    @serves(auth.PUBLIC, answer=reserve_shapes.Reserves)
    def get(self, call: Call) -> reserve_shapes.Reserves:
        """Read the newest comparison of the contract's money with everything that is owed. No key is needed.

        Made every five minutes. `held` can be asked of any node: it is the balance that `token` has for `contract` at
        `block`. `root` commits to every single debt, and whoever is owed something can prove that it is in it with
        `GET /v1/reserves/proof`.
        """
        return _shown(reserves.require_newest())


class History(Endpoint):
    """Earlier comparisons."""

    @serves(auth.PUBLIC, query=reserve_shapes.ReservesQuery, answer=reserve_shapes.ReservesPage)
    def get(self, call: Call) -> reserve_shapes.ReservesPage:
        """List comparisons of the last thirty days, newest first. No key is needed."""
        return reserve_shapes.ReservesPage(
            **page(reserves.reports(), call.query, lambda rows: [_shown(row) for row in rows], by=("created_at", "id"))
        )


class Proof(Endpoint):
    """Proofs of one's own debts."""

    @serves(auth.OWNER, query=reserve_shapes.ProofQuery, answer=reserve_shapes.ReservesProof)
    def get(self, call: Call) -> reserve_shapes.ReservesProof:
        """Prove that what is owed to you is in the published sum: a payer's pools, or a provider's payables and credits.

        Check it yourself, with `agentmarket reserves` or by hand: each hash is sha256 of a line of text.
        """
        report = reserves.require_newest()
        found = reserves.inclusions(report=report, pool_id=call.query.pool_id, **scope.owed(call.actor))
        return reserve_shapes.ReservesProof.model_validate(
            {
                "report_id": report.pk,
                "at": report.created_at,
                "block": report.block_number,
                "root": report.root,
                "root_micros": str(report.owed_micros),
                "items": _proven(found),
            }
        )


def _shown(row: ReserveReport) -> reserve_shapes.Reserves:
    return reserve_shapes.Reserves.model_validate(
        {
            "id": row.pk,
            "at": row.created_at,
            "chain_id": row.chain_id,
            "contract": row.contract_address,
            "token": settings.USDC_ADDRESS or None,
            "block": row.block_number,
            "block_hash": row.block_hash,
            "held": row.held_micros,
            "liabilities": row.liabilities,
            "liabilities_total": row.owed_micros,
            "difference": row.held_micros - row.owed_micros,
            "in_flight": row.flying_micros,
            "others": row.others_micros,
            "surplus": row.surplus_micros,
            "verdict": row.verdict,
            "unexplained": row.unexplained,
            "root": row.root,
            "duration_ms": row.duration_ms,
        }
    )


def _proven(found: Sequence[Inclusion]) -> list[dict[str, object]]:
    return [
        {
            "owed_as": one.leaf.owed_as,
            "pool_id": one.leaf.pool,
            "party_id": one.leaf.party,
            "amount": one.leaf.micros,
            "micros": str(one.leaf.micros),
            "salt": one.leaf.salt,
            "proof": [{"side": s.side, "hash": s.hash, "micros": str(s.micros)} for s in one.proof],
        }
        for one in found
    ]
