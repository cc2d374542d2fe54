"""The webhooks' pages in the admin: looking at endpoints and deliveries, and setting an endpoint going again with a reason.

Read-only but for that. No secret is here to be shown: the database has none.
"""

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.forms import CharField
from django.http import HttpRequest
from django.utils import timezone

from marketplace import webhooks
from marketplace.models import Delivery, WebhookEndpoint

if TYPE_CHECKING:
    Desk = admin.ModelAdmin[Any]
else:
    Desk = admin.ModelAdmin


class ReasonForm(ActionForm):
    """Asks why, beside the choice of an action."""

    reason = CharField(required=False, max_length=200, label="Reason")


class LookedAt(Desk):
    """Nobody adds, changes or deletes one here."""

    show_full_result_count = False
    list_per_page = 50
    ordering = ("-created_at",)

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Owners make them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Owners delete them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nothing is changed but by the list's action, which asks for the permission itself."""
        return False


class EndpointDesk(LookedAt):
    """Where events are delivered."""

    list_display = ("id", "owner", "url", "status", "failing_since", "position", "created_at")
    list_filter = ("status", ("failing_since", admin.EmptyFieldListFilter))
    list_select_related = ("payer", "provider")
    search_fields = ("id", "url", "payer__name", "provider__name")
    fields = (
        *("owner", "url", "events", "description", "status", "reason", "failing_since", "position", "previous_until"),
        "created_at",
    )
    readonly_fields = fields
    action_form = ReasonForm
    actions = ("replay",)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Who may set one going again: staff with the permission to change webhooks."""
        return bool(request.user.has_perm("marketplace.change_webhookendpoint"))

    @admin.action(description="Turn on, and deliver what was not delivered", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: "QuerySet[WebhookEndpoint]") -> None:
        """Have what was not delivered tried again; a disabled endpoint is active again."""
        reason = request.POST.get("reason", "").strip()[:200]
        if not reason:
            messages.error(request, "Say why, in the field beside the action.")
            return
        now = timezone.now()
        for endpoint in queryset:
            webhooks.replay(endpoint=endpoint, now=now)
        LogEntry.objects.log_actions(cast("int", request.user.pk), queryset, CHANGE, f"Replayed: {reason}")
        messages.success(request, f"Set going again: {', '.join(str(endpoint.pk) for endpoint in queryset)}.")

    @admin.display(description="owner")
    def owner(self, obj: WebhookEndpoint) -> str:
        """Whose it is."""
        return str(obj.payer or obj.provider)


class DeliveryDesk(LookedAt):
    """What was delivered to whom, and what was not."""

    list_display = (
        "id",
        "endpoint",
        "type",
        "status",
        "attempts",
        "last_status",
        "last_error",
        "next_at",
        "created_at",
    )
    list_filter = ("status",)
    list_select_related = ("endpoint", "event")
    search_fields = ("id", "endpoint__id", "subject_id")
    fields = (
        *("endpoint", "type", "subject_id", "status", "attempts", "next_at", "last_status", "last_error"),
        *("created_at", "delivered_at"),
    )
    readonly_fields = fields

    @admin.display(description="type")
    def type(self, obj: Delivery) -> str:
        """What it tells of."""
        return obj.event.type if obj.event else webhooks.TEST
