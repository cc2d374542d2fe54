"""The page on which a person does something about what is stuck. Lives here: the form, and one call of `escrow.remedies`.

A page shows which remedies are open to its row. Each has a page of its own, which asks for the reason and knows what was done
about the row before it was opened: if anybody has been there since, it says so instead of doing it again.
"""

from collections.abc import Callable
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from escrow import clock, remedies
from escrow.errors import EscrowError
from escrow.models import Remedy
from escrow.readonly import Page
from escrow.remedies import Order

Kind = Remedy.Kind
DOES: Final = {
    Kind.RETRY: "Plans it again, with a fresh count of tries. Do this when the cause of the refusal is mended.",
    Kind.REBROADCAST: "Sends the bytes that are signed once more, now. It can do no harm.",
    Kind.BUMP: "Signs one replacement with higher fees at the same nonce, past the cap on replacements if need be.",
    Kind.RELEASE: "Uses its nonce up with an empty chain transaction, so that later nonces go on. It then counts as "
    "reverted, unless one of its own chain transactions is mined first.",
    Kind.PARK: "Sets it aside before anything is signed, and tells whoever waits for it.",
    Kind.CLEAR_SIGNER: "Lets the signer sign again. Only when it is known whose chain transaction used the nonce.",
    Kind.CLEAR_CURSOR: "Lets the indexer read on. It stops again if what stopped it is still so.",
    Kind.TRY_AGAIN: "Has the next sweep try this row again, with a fresh count of failures.",
}


class RemedyForm(forms.Form):
    """Why, and what was known when the page was opened."""

    reason = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 3, "cols": 80}),
        max_length=1_000,
        help_text="It stays on record with your name: what was wrong, and how you know that this mends it.",
    )
    seen = forms.IntegerField(widget=forms.HiddenInput, min_value=0)


class SignerForm(RemedyForm):
    """For a signer also: from which nonce on."""

    adopt_nonce = forms.BooleanField(
        required=False,
        label="Take the chain's nonce",
        help_text="Only when nothing of this signer is in flight: after a restored backup, or with a key that others used.",
    )


class RemedyDesk(Page):
    """Pages of rows that a person may do something about."""

    def get_urls(self) -> list[URLPattern]:
        """Add the pages of the remedies."""
        page = self.admin_site.admin_view(self.remedy)
        name = f"{self.opts.app_label}_{self.opts.model_name}_remedy"
        return [path("<path:object_id>/remedy/<slug:kind>/", page, name=name), *super().get_urls()]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show what may be done first of all."""
        return ["what_may_be_done", *super().get_readonly_fields(request, obj)]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show what may be done first of all."""
        shown = [name for name in super().get_fields(request, obj) if name != "what_may_be_done"]
        return ["what_may_be_done", *shown]

    @admin.display(description="What may be done")
    def what_may_be_done(self, obj: Any) -> SafeString | str:
        """Links to the remedies that are open to a row."""
        links = [(self._url("remedy", obj, kind), Kind(kind).label) for kind in remedies.open_to(obj)]
        return format_html_join(" · ", '<a href="{}">{}</a>', links) or "nothing"

    def may_mend(self, request: HttpRequest) -> bool:
        """Who may: staff with the permission to change such rows, which nobody does by hand."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}"))

    def remedy(self, request: HttpRequest, object_id: str, kind: str) -> HttpResponse:
        """Ask why, and do it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        obj = self.get_object(request, object_id)
        if kind not in _VERBS:
            raise Http404
        if obj is None:
            messages.error(request, "That is not stuck any more.")
            return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))
        last = remedies.newest(obj)
        before = {"seen": last.pk if last else 0}
        form = (SignerForm if kind == Kind.CLEAR_SIGNER else RemedyForm)(request.POST or None, initial=before)
        if request.method == "POST":
            if not self.may_mend(request):
                raise PermissionDenied
            if form.is_valid() and self._done(request, obj, kind, form):
                return HttpResponseRedirect(self._url("change", obj))
        return TemplateResponse(request, "admin/escrow/remedy/form.html", self._context(request, obj, kind, form))

    def _done(self, request: HttpRequest, obj: Any, kind: str, form: RemedyForm) -> bool:
        given = form.cleaned_data
        order = Order(by=request.user.get_username(), reason=given["reason"], seen=given["seen"], now=clock.now())
        try:
            done = _VERBS[kind](obj, order, given)
        except EscrowError as error:
            form.add_error(None, error.detail)
            return False
        messages.success(request, done.outcome)
        return True

    def _context(self, request: HttpRequest, obj: Any, kind: str, form: RemedyForm) -> dict[str, object]:
        what = Kind(kind).label
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{what}: {obj}",
            "subject": obj,
            "what": what,
            "does": DOES[Kind(kind)],
            "last": remedies.newest(obj),
            "form": form,
            "may": self.may_mend(request),
            "back_url": self._url("change", obj),
            "list_url": reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"),
        }

    def _url(self, page: str, obj: Any, *more: str) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}", args=[obj.pk, *more])


Verb = Callable[[Any, Order, dict[str, Any]], Remedy]
_VERBS: Final[dict[str, Verb]] = {
    Kind.RETRY: lambda of, order, _: remedies.retry(action=of, order=order),
    Kind.REBROADCAST: lambda of, order, _: remedies.rebroadcast(action=of, order=order),
    Kind.BUMP: lambda of, order, _: remedies.bump(action=of, order=order),
    Kind.RELEASE: lambda of, order, _: remedies.release(action=of, order=order),
    Kind.PARK: lambda of, order, _: remedies.park(action=of, order=order),
    Kind.CLEAR_SIGNER: lambda of, order, given: remedies.clear_signer(
        signer=of, order=order, adopt_nonce=given["adopt_nonce"]
    ),
    Kind.CLEAR_CURSOR: lambda of, order, _: remedies.clear_cursor(cursor=of, order=order),
    Kind.TRY_AGAIN: lambda of, order, _: remedies.try_again(setback=of, order=order),
}
