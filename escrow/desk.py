"""The desk where a person rules. Lives here: its form and its page, with both sides, the work and the ledger.

A ruling goes through `escrow.disputes.rule`, with a reason, under the name of whoever is signed in.
"""

import json
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from escrow import clock, disputes, money
from escrow.errors import EscrowError
from escrow.models import Dispute, Reason, Transfer
from escrow.readonly import Page


class RulingForm(forms.Form):
    """What a person decides: a share for the provider, and why."""

    to_provider_percent = forms.DecimalField(
        min_value=0,
        max_value=100,
        max_digits=5,
        decimal_places=2,
        label="Percent to the provider",
        help_text="The rest goes back to the buyer. 70 gives the provider 70 %.",
    )
    reason = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 4, "cols": 80}),
        help_text="Both sides read it, so say what decided the matter.",
    )

    def basis_points(self) -> int:
        """The share in ten-thousandths."""
        return int(self.cleaned_data["to_provider_percent"] * 100)


class DisputeDesk(Page):
    """The desk in the place of a dispute's change page."""

    OPEN: ClassVar = (Dispute.Status.OPEN, Dispute.Status.ANSWERED)

    def get_urls(self) -> list[URLPattern]:
        """Put the desk in the place of the change page."""
        desk = path("<uuid:dispute_id>/change/", self.admin_site.admin_view(self.desk), name="escrow_dispute_change")
        return [desk, *super().get_urls()]

    def desk(self, request: HttpRequest, dispute_id: Any) -> HttpResponse:
        """Show one dispute; take a ruling."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        related = Dispute.objects.select_related(
            "party", "session__pool", "account", "invoice", "payment", "ruled_payment"
        )
        dispute = related.filter(pk=dispute_id).first()
        if dispute is None:
            messages.error(request, "There is no such dispute.")
            return HttpResponseRedirect(reverse("admin:escrow_dispute_changelist"))
        form = RulingForm(request.POST or None)
        if request.method == "POST":
            if not self.may_rule(request):
                raise PermissionDenied
            if form.is_valid() and self._rule(request, dispute, form):
                return HttpResponseRedirect(request.path)
        return TemplateResponse(request, "admin/escrow/dispute/desk.html", self._context(request, dispute, form))

    def may_rule(self, request: HttpRequest) -> bool:
        """Who may rule: staff with the permission to change disputes."""
        return bool(request.user.has_perm("escrow.change_dispute"))

    def _rule(self, request: HttpRequest, dispute: Dispute, form: RulingForm) -> bool:
        try:
            ruled = disputes.rule(
                dispute=dispute,
                to_provider_bps=form.basis_points(),
                reason=form.cleaned_data["reason"],
                ruled_by=request.user.get_username(),
                now=clock.now(),
            )
        except EscrowError as error:
            form.add_error(None, error.detail)
            return False
        share = money.render(ruled.to_provider_micros or 0)
        messages.success(request, f"Ruled: {share} USDC to {ruled.party}, the rest to the buyer.")
        return True

    def _context(self, request: HttpRequest, dispute: Dispute, form: RulingForm) -> dict[str, object]:
        claim = dispute.invoice
        to_provider = dispute.to_provider_micros
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Dispute of {money.render(dispute.amount_micros)} USDC",
            "dispute": dispute,
            "amount": money.render(dispute.amount_micros),
            "to_provider": None if to_provider is None else money.render(to_provider),
            "to_payer": None if to_provider is None else money.render(dispute.amount_micros - to_provider),
            "claim": claim,
            "task": getattr(claim, "task", None) if claim else None,
            "deliverable": _pretty(claim.deliverable) if claim else None,
            "work": _pretty(dispute.payment.metadata) if dispute.payment else None,
            "lines": [_line(transfer) for transfer in _lines(dispute)],
            "form": form,
            "can_rule": dispute.status in self.OPEN and self.may_rule(request),
        }


def _lines(dispute: Dispute) -> "QuerySet[Transfer]":
    """Return the transfers that a dispute is about, oldest first."""
    accounts = [dispute.account_id]
    if dispute.invoice is not None:
        accounts.append(dispute.invoice.hold.account_id)
    # No payment comes to such an account; said for the index that leaves payments out.
    about = Q(sender__in=accounts) | Q(receiver__in=accounts) & ~Q(reason=Reason.PAYMENT)
    if dispute.payment is not None:
        about |= Q(ref=str(dispute.payment.pk))
        about |= Q(ref__in=[str(refund.pk) for refund in dispute.payment.refunds.all()])
    return Transfer.objects.filter(about).select_related("sender", "receiver").order_by("pk")


def _line(transfer: Transfer) -> dict[str, object]:
    return {
        "at": transfer.created_at,
        "reason": transfer.reason,
        "usdc": money.render(transfer.amount_micros),
        "sender": transfer.sender.code,
        "receiver": transfer.receiver.code,
    }


def _pretty(document: object) -> str:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return text if document else format_html("<em>{}</em>", "empty")
