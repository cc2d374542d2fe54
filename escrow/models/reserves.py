"""What came of reconciling, and what was owed then. Fields only.

`escrow.attesting` writes and prunes them; `escrow.reserves` reads and proves them.
"""

from django.db import models
from django.db.models.functions import Now

from escrow.findings import EXPLAINED
from escrow.models.types import UuidV7


class ReserveReport(models.Model):
    """One comparison of the books with the contract: what it holds, what is owed by class, and the root over all debts."""

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    chain_id = models.BigIntegerField()
    contract_address = models.CharField(max_length=42)
    tier = models.CharField(max_length=6)
    block_number = models.BigIntegerField()
    block_hash = models.CharField(max_length=66)
    verdict = models.CharField(max_length=11)
    """``equal``, ``explained`` or ``unexplained``."""
    held_micros = models.BigIntegerField()
    """The contract's balance of USDC at the block."""
    owed_micros = models.BigIntegerField()
    """The sum of the tree: all liabilities."""
    flying_micros = models.BigIntegerField()
    others_micros = models.BigIntegerField()
    surplus_micros = models.BigIntegerField()
    liabilities = models.JSONField(default=dict)
    """Micro-USDC by class."""
    differences = models.JSONField(default=list)
    alarms = models.JSONField(default=list)
    root = models.CharField(max_length=64)
    secret = models.BinaryField()
    """The salts of the leaves are derived from it; each is shown only to whose leaf it is."""
    duration_ms = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.verdict} at block {self.block_number}"

    @property
    def unexplained(self) -> int:
        """How many comparisons did not hold and have no explanation, alarms included."""
        return len(self.alarms) + sum(one["cause"] not in EXPLAINED for one in self.differences)


class ReserveLeaf(models.Model):
    """One debt in a report's tree."""

    report = models.ForeignKey(ReserveReport, on_delete=models.CASCADE, related_name="leaves", db_index=False)
    owed_as = models.CharField(max_length=11)
    pool_id = models.UUIDField(null=True)
    party_id = models.UUIDField(null=True)
    """Empty for what is the pool's payer's."""
    micros = models.BigIntegerField()

    class Meta:
        indexes = (
            models.Index(fields=["report", "pool_id"], name="reserve_leaf_pool"),
            models.Index(fields=["report", "party_id"], name="reserve_leaf_party"),
        )
        constraints = (models.CheckConstraint(name="reserve_leaf_positive", condition=models.Q(micros__gt=0)),)

    def __str__(self) -> str:
        return f"{self.owed_as} {self.pool_id} {self.party_id}"
