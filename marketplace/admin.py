"""The market's pages in the admin: registering people and agents, issuing and revoking keys, looking at tasks.

Money is in `escrow.admin`. What changes anything goes through the same domain calls as the API.
"""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from escrow import money
from escrow.errors import EscrowError
from marketplace import agents, keys, tasks
from marketplace.models import (
    Agent,
    ApiKey,
    Delivery,
    Offering,
    Payer,
    Provider,
    Scope,
    Task,
    WebhookEndpoint,
)  # fmt: skip
from marketplace.webhook_desk import DeliveryDesk, EndpointDesk

if TYPE_CHECKING:
    Desk = admin.ModelAdmin[Any]
    Inline = admin.TabularInline[Any, Any]
    Form = forms.ModelForm[Any]
else:
    Desk, Inline, Form = admin.ModelAdmin, admin.TabularInline, forms.ModelForm


class ReadOnly:
    """Looked at, not changed: what happens to these rows happens through the market."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nobody adds one here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nobody changes one here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nobody deletes one here."""
        return False


class Kept:
    """Rows that others point to: never deleted."""

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nobody deletes one here."""
        return False


@admin.register(Payer)
class PayerAdmin(Kept, Desk):
    """Who buys."""

    list_display = ("name", "email", "id", "created_at")
    search_fields = ("name", "email", "id")
    ordering = ("-created_at",)


class ProviderForm(Form):
    """Asks for the payout address, from which the provider's party is made."""

    payout_address = forms.CharField(
        max_length=42, help_text="0x and 40 hexadecimal digits; paid out to, fixed from then on."
    )

    class Meta:
        model = Provider
        fields = ("name",)

    def clean_payout_address(self) -> str:
        """Return the address with its checksum."""
        try:
            address = agents.checksummed(self.cleaned_data["payout_address"])
            agents.check_free(address)
        except EscrowError as error:
            raise forms.ValidationError(error.detail) from None
        return address


@admin.register(Provider)
class ProviderAdmin(Kept, Desk):
    """Who sells."""

    list_display = ("name", "payout_address", "id", "created_at")
    list_select_related = ("party",)
    search_fields = ("name", "party__address", "id")
    ordering = ("-created_at",)

    def get_form(self, request: HttpRequest, obj: Provider | None = None, change: bool = False, **kwargs: Any) -> Any:
        """Ask for the address when one is added; show it afterwards."""
        return super().get_form(request, obj, change, **kwargs) if obj else ProviderForm

    def get_fields(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        """Name and address."""
        return ("name", "payout_address")

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        """The address is fixed: the contract knows the provider by it."""
        return ("payout_address",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        """Register a new provider by the domain call."""
        if change:
            obj.save(update_fields=["name"])
            return
        made = agents.register_provider(name=obj.name, payout_address=form.cleaned_data["payout_address"])
        obj.__dict__.update(made.__dict__)

    @admin.display(ordering="party__address", description="payout address")
    def payout_address(self, obj: Provider) -> str:
        """The party's address."""
        return obj.party.address


class OfferingInline(ReadOnly, Inline):
    """Every version of what an agent sells."""

    model = Offering
    extra = 0
    fields = ("capability", "version", "pricing", "price", "unit", "created_at")
    readonly_fields = fields
    ordering = ("capability", "-version")

    @admin.display(description="price, USDC")
    def price(self, obj: Offering) -> str:
        """The price as people write it."""
        return money.render(obj.price_micros)


@admin.register(Agent)
class AgentAdmin(Kept, Desk):
    """What is for hire. Offerings are published by the provider."""

    list_display = ("uri", "name", "provider", "capabilities", "created_at")
    list_select_related = ("provider",)
    list_filter = ("provider",)
    search_fields = ("uri", "name", "description", "provider__name")
    autocomplete_fields = ("provider",)
    inlines = (OfferingInline,)
    ordering = ("uri",)

    def get_readonly_fields(self, request: HttpRequest, obj: Agent | None = None) -> Any:
        """Money was paid to this name: neither it nor its owner changes."""
        return ("uri", "provider") if obj else ()


class KeyForm(Form):
    """Asks for what `keys.issue` needs; of the owners only the one that the scope wants."""

    class Meta:
        model = ApiKey
        fields = ("scope", "payer", "provider", "session", "read_only", "name", "expires_at")

    def clean(self) -> dict[str, Any]:
        """Refuse an owner that does not fit the scope."""
        given = dict(super().clean() or {})
        scope = given.get("scope")
        for owner in ("payer", "provider", "session"):
            if owner == scope and not given.get(owner):
                self.add_error(owner, f"A {scope} key needs a {owner}.")
            if owner != scope and given.get(owner):
                self.add_error(owner, f"Leave it empty: a {scope} key has no {owner} of its own.")
        if given.get("expires_at") and given["expires_at"] <= timezone.now():
            self.add_error("expires_at", "This is in the past.")
        if scope == Scope.SESSION and given.get("session"):
            given["payer"] = Payer.objects.filter(pk=given["session"].pool.payer_id).first()
            if given["payer"] is None:
                self.add_error("session", "The owner of its pool is not a payer of this market.")
        return given


@admin.register(ApiKey)
class ApiKeyAdmin(Kept, Desk):
    """Keys: issued here, shown once, rotated and revoked here. Neither the secret nor its hash is ever shown."""

    form = KeyForm
    list_display = ("key_id", "scope", "owner", "name", "read_only", "state", "last_used_at", "created_at")
    list_filter = ("scope", "read_only", ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("payer", "provider", "session")
    search_fields = ("key_id", "name", "payer__name", "provider__name")
    autocomplete_fields = ("payer", "provider")
    raw_id_fields = ("session",)
    ordering = ("-created_at",)
    actions = ("rotate_keys", "revoke_keys")

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """A key is never changed; the list's actions rotate and revoke."""
        return obj is None and super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Issue the key by the domain call and show its clear text this once."""
        given = form.cleaned_data
        made, text = keys.issue(
            scope=given["scope"],
            payer=given["payer"],
            provider=given["provider"],
            session=given["session"],
            read_only=given["read_only"],
            name=given["name"],
            expires_at=given["expires_at"],
            now=timezone.now(),
        )
        obj.__dict__.update(made.__dict__)
        messages.warning(request, format_html("Copy this key now, it is not shown again: <code>{}</code>", text))

    @admin.action(description="Rotate the selected keys: the old ones end in an hour", permissions=["change"])
    def rotate_keys(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> None:
        """Put a new key in each one's place, and show its clear text this once. Payers' full keys are rotated here only."""
        now = timezone.now()
        for key in queryset:
            try:
                made, text = keys.rotate(key=key, now=now)
            except EscrowError as refusal:
                messages.error(request, f"{key.key_id}: {refusal.detail}")
                continue
            shown = "Copy this key now, it is not shown again: <code>{}</code> ({} in the place of {})"
            messages.warning(request, format_html(shown, text, made.key_id, key.key_id))

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke_keys(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> None:
        """Revoke keys at once."""
        now = timezone.now()
        for key in queryset:
            keys.revoke(key=key, now=now)
        messages.success(request, f"Revoked: {', '.join(key.key_id for key in queryset)}.")

    @admin.display(description="owner")
    def owner(self, obj: ApiKey) -> str:
        """Whose key it is."""
        return str(obj.session or obj.payer or obj.provider)

    @admin.display(description="state")
    def state(self, obj: ApiKey) -> str:
        """Live, revoked or expired."""
        if obj.revoked_at is not None:
            return "revoked"
        return "expired" if obj.expires_at is not None and obj.expires_at <= timezone.now() else "live"


@admin.register(Task)
class TaskAdmin(ReadOnly, Desk):
    """Tasks, with what has become of them."""

    list_display = ("title", "shown_status", "budget", "capability", "agent", "payer", "due_at", "created_at")
    list_filter = ("status", "invoice__status", "capability")
    list_select_related = ("agent", "payer", "invoice")
    search_fields = ("title", "id", "agent__uri", "payer__name", "session__id")
    ordering = ("-created_at",)
    fields = (
        *("title", "shown_status", "payer", "session", "capability", "budget", "agent"),
        *("brief", "hold", "invoice", "due_at"),
    )
    readonly_fields = fields

    @admin.display(description="status", ordering="status")
    def shown_status(self, obj: Task) -> str:
        """The status as the API says it."""
        return tasks.status_of(obj)

    @admin.display(description="budget, USDC", ordering="budget_micros")
    def budget(self, obj: Task) -> str:
        """The budget as people write it."""
        return money.render(obj.budget_micros)


admin.site.register(WebhookEndpoint, EndpointDesk)
admin.site.register(Delivery, DeliveryDesk)
