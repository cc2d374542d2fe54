"""The money's pages in the admin. Lives here: looking at everything. The desk where a person rules is `escrow.desk`.

Every money model is read-only: what happens to money happens through a verb. A dispute is ruled at the desk; the pages of the
chain, and what a person may do about what is stuck there, are in `escrow.chain_admin`.
"""

from django.contrib import admin

from escrow import chain_admin, decided_admin, money
from escrow.desk import DisputeDesk
from escrow.models import (
    Account,
    ChainAction,
    Deduction,
    Dispute,
    Event,
    Hold,
    Invoice,
    Party,
    Payment,
    Pool,
    PoolProvider,
    Refund,
    Session,
    Transfer,
)
from escrow.readonly import Inline, Money, ReadOnly

__all__ = ["chain_admin", "decided_admin"]  # they register their pages by being imported


@admin.register(Account)
class AccountAdmin(Money):
    """Where money is."""

    list_display = ("code", "kind", "held", "pool", "party")
    list_filter = ("kind",)
    list_select_related = ("pool", "party")
    search_fields = ("code",)

    @admin.display(description="USDC held")
    def held(self, obj: Account) -> str:
        """What it holds now."""
        return money.render(obj.balance_micros)


@admin.register(Transfer)
class TransferAdmin(Money):
    """Every step of money."""

    list_display = ("id", "created_at", "reason", "usdc", "sender", "receiver", "ref")
    list_filter = ("reason",)
    list_select_related = ("sender", "receiver")
    search_fields = ("ref", "sender__code", "receiver__code")


class PoolProviderInline(ReadOnly, Inline):
    """A pool's allow-list."""

    model = PoolProvider
    extra = 0


class ChainActionInline(ReadOnly, Inline):
    """What happened on chain for a pool."""

    model = ChainAction
    fields = ("kind", "status", "tx_hash", "gas_used", "block_number", "error")
    readonly_fields = fields
    extra = 0


@admin.register(Pool)
class PoolAdmin(Money):
    """Budgets that the contract holds."""

    list_display = ("id", "status", "payer_id", "requested", "expires_at", "created_at")
    list_filter = ("status", ("unbacked_at", admin.EmptyFieldListFilter))
    search_fields = ("id", "payer_id", "pool_key", "payer_address")
    inlines = (PoolProviderInline, ChainActionInline)

    @admin.display(description="USDC asked for")
    def requested(self, obj: Pool) -> str:
        """The deposit asked for at opening."""
        return money.render(obj.requested_micros)


@admin.register(Session)
class SessionAdmin(Money):
    """Spending accounts."""

    list_display = ("id", "name", "status", "left", "pool", "created_at")
    list_filter = ("status",)
    list_select_related = ("account", "pool")
    search_fields = ("id", "name", "pool__id")

    @admin.display(description="USDC left")
    def left(self, obj: Session) -> str:
        """What its account holds now."""
        return money.render(obj.account.balance_micros)


@admin.register(Payment)
class PaymentAdmin(Money):
    """Debts to parties."""

    list_display = ("id", "created_at", "status", "kind", "usdc", "refunded", "due", "to", "party")
    list_filter = ("status", "kind")
    list_select_related = ("party",)
    search_fields = ("id", "to", "session__id", "idempotency_key")

    @admin.display(description="USDC given back")
    def refunded(self, obj: Payment) -> str:
        """What of it has gone back."""
        return money.render(obj.refunded_micros)

    @admin.display(description="USDC due")
    def due(self, obj: Payment) -> str:
        """What of it is to land, or has landed."""
        return money.render(obj.due_micros)


class DeductionInline(ReadOnly, Inline):
    """The debts that paid for a refund."""

    model = Deduction
    fields = ("payment", "amount_micros")
    readonly_fields = fields
    raw_id_fields = ("payment",)
    extra = 0


@admin.register(Refund)
class RefundAdmin(Money):
    """Payments, or parts of them, that went back or are asked for."""

    list_display = ("id", "created_at", "status", "usdc", "payment", "party", "answer_by", "answered_at")
    list_filter = ("status",)
    list_select_related = ("payment", "party")
    search_fields = ("id", "payment__id", "session__id", "reason")
    inlines = (DeductionInline,)


@admin.register(Hold)
class HoldAdmin(Money):
    """Money set aside."""

    list_display = ("id", "created_at", "status", "usdc", "to", "expires_at", "payment", "session")
    list_filter = ("status",)
    list_select_related = ("account", "payment", "session")
    search_fields = ("id", "to", "session__id")


@admin.register(Invoice)
class InvoiceAdmin(Money):
    """Claims for finished work."""

    list_display = ("number", "created_at", "status", "usdc", "to", "party", "review_by")
    list_filter = ("status",)
    list_select_related = ("party",)
    search_fields = ("id", "number", "to", "task_ref", "session__id")


@admin.register(Event)
class EventAdmin(Money):
    """What was told to payers and providers."""

    list_display = ("id", "created_at", "type", "payer_id", "party_id", "subject_id")
    list_filter = ("type",)
    search_fields = ("payer_id", "party_id", "subject_id")


@admin.register(Party)
class PlainAdmin(Money):
    """Rows that speak for themselves."""


@admin.register(Dispute)
class DisputeAdmin(DisputeDesk, Money):
    """Money that two parties disagree on; one is opened at the desk."""

    list_display = ("id", "created_at", "status", "usdc", "party", "on_chain", "answer_by", "rule_by")
    list_filter = ("status", "on_chain")
    list_select_related = ("party",)
    search_fields = ("id", "reason", "answer", "session__id")
