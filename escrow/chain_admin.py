"""The admin's pages of the chain: what must happen there, what came from it, who signs, and what is stuck.

Looked at, never changed; what a person may do about a row is on its page (`escrow.remedy_desk`).
"""

from typing import Any, Final

from django.contrib import admin
from django.db.models import Case, IntegerField, Q, QuerySet, Value, When
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from escrow import briefing, gauges, outlook, vitals
from escrow.chain_filters import Age, Show, TurnedDown
from escrow.models import (
    Attempt,
    Batch,
    BatchRecord,
    ChainAction,
    ChainCursor,
    ChainLog,
    Pulse,
    Remedy,
    Setback,
    SignerNonce,
)
from escrow.readonly import Inline, Money, ReadOnly
from escrow.remedy_desk import RemedyDesk

Status = ChainAction.Status
SHOWN: Final = 160
"""Characters of an error in a list: three lines of its column."""


class RemedyInline(ReadOnly, Inline):
    """What was done about a row, and by whom."""

    model = Remedy
    fields = ("at", "kind", "by", "reason", "outcome")
    readonly_fields = fields
    ordering = ("-pk",)
    extra = 0


class AttemptInline(ReadOnly, Inline):
    """Each signed chain transaction of an action, and what the node said to it."""

    model = Attempt
    fields = ("hash", "said", "cancels", "most", "tip", "created_at", "sent_at")
    readonly_fields = fields
    ordering = ("-pk",)
    extra = 0

    @admin.display(description="tx hash")
    def hash(self, obj: Attempt) -> SafeString:
        """Its hash, in as many lines as it needs."""
        return format_html('<span style="overflow-wrap: anywhere">{}</span>', obj.tx_hash)

    @admin.display(description="outcome")
    def said(self, obj: Attempt) -> str:
        """What the node said."""
        return outlook.OUTCOMES.get(obj.outcome, obj.outcome)

    @admin.display(description="pays at most")
    def most(self, obj: Attempt) -> str:
        """The most for a unit of gas."""
        return briefing.gwei(obj.max_fee_wei)

    @admin.display(description="of it as tip")
    def tip(self, obj: Attempt) -> str:
        """What of it goes to whoever makes the block."""
        return briefing.gwei(obj.tip_wei)


@admin.register(ChainAction)
class ChainActionAdmin(RemedyDesk, Money):
    """What must happen on chain: unknown first, then parked, then reverted, then what has waited longest."""

    list_display = ("id", "kind", "status", "last_outcome", "why", "age", "attempts", "nonce", "hash", "created_at")
    list_filter = (Show, Age, "status", "kind", "shard")
    search_fields = ("tx_hash", "dedupe_key", "request_id", "pool__id", "signed_attempts__tx_hash")
    exclude = ("calldata",)
    inlines = (AttemptInline, RemedyInline)

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """By trouble, and what has waited longest first."""
        return ("trouble", "created_at")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        """Rank rows by how much they need a person."""
        unknown = Q(status__in=ChainAction.WAITING, last_outcome=gauges.UNKNOWN)
        trouble = Case(
            When(unknown, then=Value(0)),
            When(status=Status.PARKED, then=Value(1)),
            When(status=Status.REVERTED, then=Value(2)),
            When(status__in=ChainAction.LIVE, then=Value(3)),
            default=Value(4),
            output_field=IntegerField(),
        )
        # Not `super`: it orders before `trouble` is there.
        known = gauges.with_last_outcome(ChainAction.objects.all())
        ranked: QuerySet[Any] = known.annotate(trouble=trouble).order_by(*self.get_ordering(request))
        return ranked

    @admin.display(description="last outcome")
    def last_outcome(self, obj: ChainAction) -> str:
        """What the node said to the newest attempt."""
        outcome = getattr(obj, "last_outcome", None)
        return "" if outcome is None else outlook.OUTCOMES.get(outcome, outcome)

    @admin.display(description="error", ordering="error")
    def why(self, obj: ChainAction) -> SafeString | str:
        """The error, as much of it as a line of the list can show; the whole one where a pointer rests on it."""
        return _short(obj.error, SHOWN)

    @admin.display(description="age", ordering="created_at")
    def age(self, obj: ChainAction) -> str:
        """For how long it has been asked for."""
        return outlook.age(obj.created_at, timezone.now())

    @admin.display(description="tx hash", ordering="tx_hash")
    def hash(self, obj: ChainAction) -> SafeString | str:
        """The first digits of its hash; the whole one where a pointer rests on it, and on the row's page."""
        return _short(obj.tx_hash, 10)


def _short(text: str, most: int) -> SafeString | str:
    """Return the beginning of a text, with all of it in a title, where it is too long for a list."""
    return text if len(text) <= most else format_html('<span title="{}">{}…</span>', text, text[:most])


@admin.register(SignerNonce)
class SignerNonceAdmin(RemedyDesk, Money):
    """Who signs: the next nonce as we count, as the chain counts, and what there is for gas."""

    list_display = ("address", "chain_id", "stopped_reason", "next_nonce", "chain_nonce", "balance", "in_flight")
    inlines = (RemedyInline,)

    @admin.display(description="nonce on chain")
    def chain_nonce(self, obj: SignerNonce) -> str:
        """The next nonce as the chain had it when a worker last looked."""
        return str(_seen(obj).get("nonce", "not known"))

    @admin.display(description="ETH")
    def balance(self, obj: SignerNonce) -> str:
        """What it had for gas when a worker last looked."""
        wei = _seen(obj).get("balance_wei")
        return "not known" if wei is None else f"{int(wei) // 10**9 / 10**9:.9f}"

    @admin.display(description="in flight")
    def in_flight(self, obj: SignerNonce) -> int:
        """How much of it is signed and not final."""
        return ChainAction.objects.filter(signer_address=obj.address, status__in=ChainAction.IN_FLIGHT).count()


def _seen(signer: SignerNonce) -> dict[str, Any]:
    pulse = vitals.newest_pulse()
    return (pulse.signers.get(signer.address) if pulse else None) or {}


@admin.register(ChainCursor)
class ChainCursorAdmin(RemedyDesk, Money):
    """How far the chain has been read, and why not further."""

    list_display = ("contract_address", "chain_id", "block_number", "read_at", "stopped_reason")
    inlines = (RemedyInline,)


@admin.register(Setback)
class SetbackAdmin(RemedyDesk, Money):
    """Rows that a sweep could not take a step with, set aside or put off."""

    list_display = ("sweep", "subject", "failures", "error", "first_at", "next_at", "parked_at")
    list_filter = ("sweep", ("parked_at", admin.EmptyFieldListFilter))
    search_fields = ("subject", "error")


@admin.register(Remedy)
class RemedyAdmin(Money):
    """What people did about what was stuck."""

    list_display = ("id", "at", "kind", "by", "action", "signer", "cursor", "setback", "reason", "outcome")
    list_filter = ("kind",)
    list_select_related = ("action", "signer", "cursor")
    search_fields = ("by", "reason", "setback")


@admin.register(Pulse)
class PulseAdmin(Money):
    """What workers saw when they last looked at the chain."""

    list_display = ("worker", "at", "chain_id", "code_present", "head_block", "head_at", "error")
    ordering = ("-at",)


class BatchRecordInline(ReadOnly, Inline):
    """A batch's records."""

    model = BatchRecord
    extra = 0


@admin.register(Batch)
class BatchAdmin(Money):
    """Signed batches, and why the contract has turned one down."""

    list_display = (
        "id",
        "created_at",
        "status",
        "first_seq",
        "pool",
        "action",
        "deadline",
        "settled_at",
        "turns",
        "reason",
    )
    list_filter = ("status", TurnedDown)
    list_select_related = ("pool", "action")
    search_fields = ("id", "root", "pool__id")
    exclude = ("packed", "signature")
    inlines = (BatchRecordInline,)


@admin.register(ChainLog)
class ChainLogAdmin(Money):
    """What the contract has told."""

    list_display = ("block_number", "tier", "event", "pool", "tx_hash", "log_index", "applied_at", "orphaned_at")
    list_filter = ("tier", "event", ("orphaned_at", admin.EmptyFieldListFilter))
    list_select_related = ("pool",)
    search_fields = ("tx_hash", "pool__id")
