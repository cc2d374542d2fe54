"""What pages of the admin have in common. Lives here: rows that are looked at and never changed, and what pages are made of."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from escrow import money

if TYPE_CHECKING:
    Page = admin.ModelAdmin[Any]
    Inline = admin.TabularInline[Any, Any]
else:  # they take no types when they run
    Page, Inline = admin.ModelAdmin, admin.TabularInline


class ReadOnly:
    """Looked at, never changed: nobody adds, changes or deletes one here."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody adds one here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody changes one here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody deletes one here."""
        return False


class Money(ReadOnly, Page):
    """A list of money rows, newest first, with amounts in USDC."""

    list_per_page = 50
    show_full_result_count = False  # counting ten million rows for a headline helps nobody
    ordering = ("-pk",)

    @admin.display(description="USDC")
    def usdc(self, obj: Any) -> str:
        """The row's amount."""
        return money.render(obj.amount_micros)
