"""The page where a person allows or refuses what an agent may not spend alone. Lives here: HTTP and a form; `escrow.approvals`
decides.
"""

from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from escrow import approvals, budgets, clock, money
from escrow.errors import EscrowError
from escrow.models import Approval
from marketplace import consent

BY = "the payer, on the page"


class AnswerForm(forms.Form):
    """A person's answer; a no has a reason."""

    answer = forms.ChoiceField(choices=[("approve", "Approve"), ("refuse", "Refuse")])
    reason = forms.CharField(required=False, max_length=4000, widget=forms.Textarea(attrs={"rows": 3}))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def answer(request: HttpRequest, approval_id: UUID, token: str) -> HttpResponse:
    """Show one approval to whoever was told of it; take the answer."""
    approval = Approval.objects.select_related("session__pool", "session__account").filter(pk=approval_id).first()
    if approval is None or not consent.is_told(approval, token):
        raise Http404
    form = AnswerForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _answered(approval, form):
        return HttpResponseRedirect(request.path)
    status = 400 if request.method == "POST" else 200
    response = render(request, "market/approval.html", _context(approval, form), status=status)
    response["Referrer-Policy"] = "no-referrer"  # the address is what lets a person answer
    return response


def _answered(approval: Approval, form: AnswerForm) -> bool:
    now = clock.now()
    try:
        if form.cleaned_data["answer"] == "approve":
            approvals.approve(approval=approval, by=BY, now=now)
        else:
            approvals.refuse(approval=approval, reason=form.cleaned_data["reason"], by=BY, now=now)
    except EscrowError as error:
        form.add_error(None, error.detail)
        return False
    return True


def _context(approval: Approval, form: AnswerForm) -> dict[str, object]:
    left = budgets.of(approval.session)
    is_over = approval.status == Approval.Status.WAITING and clock.now() >= approval.expires_at
    return {
        "approval": approval,
        "status": "expired" if is_over else approval.status,
        "form": form,
        "amount": money.render(approval.amount_micros),
        "remaining": money.render(left.remaining),
        "budget": money.render(left.budget),
        "after": money.render(left.remaining - approval.amount_micros),
    }
