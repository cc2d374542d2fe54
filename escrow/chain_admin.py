"""The admin's pages of the chain: what must happen there, what came from it, who signs, and what is stuck.

Looked at, never changed; what a person may do about a row is on its page (`escrow.remedy_desk`).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import Case, IntegerField, Q, QuerySet, Value, When
from django.http import HttpRequest
from django.utils import timezone

from escrow import gauges, vitals
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
    fields = ("tx_hash", "outcome", "cancels", "max_fee_wei", "tip_wei", "created_at", "sent_at")
    readonly_fields = fields
    ordering = ("-pk",)
    extra = 0


class Show(SimpleListFilter):
    """What needs somebody, unless something else is asked for."""

    title = "what to show"
    parameter_name = "show"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The choices."""
        return [
            ("unknown", "unknown"),
            ("stuck", "stuck"),
            ("flying", "in flight"),
            ("all", "all, ended ones too"),
        ]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Leave out what has ended, unless it is asked or searched for."""
        chosen = self.value()
        if chosen == "unknown":
            return queryset.filter(status__in=ChainAction.WAITING, last_outcome=gauges.UNKNOWN)
        if chosen == "stuck":
            since = timezone.now() - timedelta(seconds=settings.ACTION_STALE_SECONDS)
            return queryset.filter(status__in=ChainAction.WAITING, created_at__lt=since)
        if chosen == "flying":
            return queryset.filter(status__in=ChainAction.IN_FLIGHT)
        if chosen == "all" or request.GET.get("q") or request.GET.get("status__exact"):
            return queryset
        lately = Q(status=Status.REVERTED, mined_at__gte=timezone.now() - timedelta(days=1))
        return queryset.filter(Q(status__in=[*ChainAction.LIVE, Status.PARKED]) | lately)

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Call the choice of nothing what it is."""
        found = list(super().choices(changelist))
        found[0]["display"] = "not ended"
        yield from found


class Age(SimpleListFilter):
    """For how long it has been asked for."""

    title = "age"
    parameter_name = "older_than"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The choices, in seconds."""
        return [
            ("300", "over 5 minutes"),
            ("900", "over 15 minutes"),
            ("3600", "over an hour"),
            ("86400", "over a day"),
        ]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[ChainAction]") -> "QuerySet[ChainAction]":
        """Keep the older ones."""
        chosen = self.value() or ""
        if chosen not in dict(self.lookup_choices):
            return queryset
        return queryset.filter(created_at__lt=timezone.now() - timedelta(seconds=int(chosen)))


@admin.register(ChainAction)
class ChainActionAdmin(RemedyDesk, Money):
    """What must happen on chain: unknown first, then parked, then reverted, then what has waited longest."""

    list_display = ("id", "kind", "status", "last_outcome", "created_at", "nonce", "tx_hash", "attempts", "error")
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
        return str(getattr(obj, "last_outcome", None) or "")


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


class TurnedDown(SimpleListFilter):
    """Whether the contract has refused it."""

    title = "turned down"
    parameter_name = "turned_down"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """One choice."""
        return [("yes", "yes")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Batch]") -> "QuerySet[Batch]":
        """Keep those that were refused at least once."""
        return queryset.filter(turns__gt=0) if self.value() == "yes" else queryset


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
