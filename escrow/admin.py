"""The money's pages in the admin. Lives here: looking at everything. The desk where a person rules is `escrow.desk`.

Every money model is read-only: what happens to money happens through a verb. A dispute is ruled at the desk; a parked chain
action is planned again through `escrow.intents.retry`.
"""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from escrow import decided_admin, intents, money
from escrow.desk import DisputeDesk
from escrow.errors import EscrowError
from escrow.models import (
    Account,
    Attempt,
    Batch,
    BatchRecord,
    ChainAction,
    ChainCursor,
    ChainLog,
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
    SignerNonce,
    Transfer,
)
from escrow.readonly import Money, ReadOnly

__all__ = ["decided_admin"]  # it registers its pages by being imported

if TYPE_CHECKING:
    Inline = admin.TabularInline[Any, Any]
else:
    Inline = admin.TabularInline


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
    list_filter = ("status",)
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


class BatchRecordInline(ReadOnly, Inline):
    """A batch's records."""

    model = BatchRecord
    extra = 0


@admin.register(Batch)
class BatchAdmin(Money):
    """Signed batches."""

    list_display = ("id", "created_at", "status", "first_seq", "pool", "deadline", "settled_at")
    list_filter = ("status",)
    list_select_related = ("pool",)
    search_fields = ("id", "root", "pool__id")
    exclude = ("packed", "signature")
    inlines = (BatchRecordInline,)


class AttemptInline(ReadOnly, Inline):
    """Each signed chain transaction of an action."""

    model = Attempt
    exclude = ("raw",)
    extra = 0


@admin.register(ChainAction)
class ChainActionAdmin(Money):
    """What must happen on chain. A parked one can be tried again."""

    list_display = ("id", "kind", "status", "tx_hash", "gas_used", "attempts", "next_at", "error")
    list_filter = ("status", "kind")
    search_fields = ("tx_hash", "dedupe_key", "pool__id")
    exclude = ("calldata",)
    inlines = (AttemptInline,)
    actions = ("plan_again",)

    @admin.action(description="Plan again (parked ones)", permissions=["retry"])
    def plan_again(self, request: HttpRequest, queryset: "QuerySet[ChainAction]") -> None:
        """Let the relay try parked actions again."""
        for action in queryset:
            try:
                intents.retry(action=action, now=timezone.now())
            except EscrowError as error:
                self.message_user(request, f"{action}: {error.detail}", messages.ERROR)
            else:
                self.message_user(request, f"{action} is planned again.", messages.SUCCESS)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Who may plan again: staff with the permission to change chain actions."""
        return bool(request.user.has_perm("escrow.change_chainaction"))


@admin.register(ChainLog)
class ChainLogAdmin(Money):
    """What the contract has told."""

    list_display = ("block_number", "event", "pool", "tx_hash", "log_index")
    list_filter = ("event",)
    list_select_related = ("pool",)
    search_fields = ("tx_hash", "pool__id")


@admin.register(Event)
class EventAdmin(Money):
    """What was told to payers and providers."""

    list_display = ("id", "created_at", "type", "payer_id", "party_id", "subject_id")
    list_filter = ("type",)
    search_fields = ("payer_id", "party_id", "subject_id")


@admin.register(Party, SignerNonce, ChainCursor)
class PlainAdmin(Money):
    """Rows that speak for themselves."""


@admin.register(Dispute)
class DisputeAdmin(DisputeDesk, Money):
    """Money that two parties disagree on; one is opened at the desk."""

    list_display = ("id", "created_at", "status", "usdc", "party", "on_chain", "answer_by", "rule_by")
    list_filter = ("status", "on_chain")
    list_select_related = ("party",)
    search_fields = ("id", "reason", "answer", "session__id")
