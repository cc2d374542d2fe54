"""The page on which a person does something about what is stuck. Lives here: the form, and one call of `escrow.remedies`.

A row's page says what its state means and which remedies are open to it. Each has a page of its own, which says what to know
first (`briefing`), asks for the reason, and knows what was done about the row before it was opened: if anybody has been there
since, it says so instead of doing it again. A remedy that is not open to the row as it is has a page without a form.
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
from django.utils.safestring import SafeString, mark_safe

from escrow import briefing, clock, outlook, remedies
from escrow.errors import EscrowError
from escrow.models import Batch, Remedy, Setback
from escrow.readonly import Page
from escrow.remedies import Order

Kind = Remedy.Kind


MAX_REASON: Final = 1_000
SPOILT: Final = (
    "seen, which the page sends by itself, must be the number of the newest remedy that you know of, or 0 for none; it came "
    "spoilt, and is mended now: look at what was done last, and send it again."
)


class RemedyForm(forms.Form):
    """Why, and what was known when the page was opened."""

    reason = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 3, "cols": 80}),
        max_length=MAX_REASON,
        help_text="It stays on record with your name: what was wrong, and how you know that this mends it.",
        error_messages={
            "required": f"reason must say something: 1 to {MAX_REASON:,} characters that are not all blank.",
            "max_length": "reason may have at most %(limit_value)d characters, and this has %(show_value)d: "
            "say it in fewer.",
        },
    )
    seen = forms.IntegerField(
        widget=forms.HiddenInput,
        min_value=0,
        error_messages=dict.fromkeys(("required", "invalid", "min_value"), SPOILT),
    )


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

    @admin.display(description="What next")
    def what_may_be_done(self, obj: Any) -> SafeString:
        """What a row's state means, where to read on, and links to what is open to it and to what took its place."""
        told = outlook.of(obj, clock.now())
        links = format_html_join(" · ", '<a href="{}">{}</a>', [*self._open(obj), *successor(told)])
        lines = ((line,) for line in (told.says, links, read_on(told)) if line)
        return format_html_join(mark_safe("<br>"), "{}", lines)

    def _open(self, obj: Any) -> list[tuple[str, str]]:
        return [(self._url("remedy", obj, kind), kind.label) for kind in remedies.open_to(obj)]

    def may_mend(self, request: HttpRequest) -> bool:
        """Who may: staff with the permission to change such rows, which nobody does by hand."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}"))

    def remedy(self, request: HttpRequest, object_id: str, kind: str) -> HttpResponse:
        """Ask why, and do it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if kind not in remedies.OF[self.model]:
            raise Http404
        obj = self.get_object(request, object_id)
        if obj is None:
            return self._missing(request, object_id)
        last = remedies.newest(obj)
        seen = {"seen": last.pk if last else 0}
        form = (SignerForm if kind == Kind.CLEAR_SIGNER else RemedyForm)(request.POST or None, initial=seen)
        if request.method == "POST":
            if not self.may_mend(request):
                raise PermissionDenied
            if form.is_valid() and self._done(request, obj, kind, form):
                return HttpResponseRedirect(self._url("change", obj))
            if "seen" in form.errors:
                form.data = {**request.POST.dict(), "seen": str(seen["seen"])}
            obj = self.get_object(request, object_id)  # as it is now: somebody else may have been faster
            if obj is None:
                return self._missing(request, object_id)
        return TemplateResponse(request, "admin/escrow/remedy/form.html", self._context(request, obj, Kind(kind), form))

    def _missing(self, request: HttpRequest, object_id: str) -> HttpResponse:
        said = f"There is no {self.opts.verbose_name} {object_id[:40]}."
        if self.model is Setback:
            said += " A setback goes when a step with its row succeeds, so it may be over; Remedies says what was done."
        messages.error(request, said)
        return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))

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

    def _context(self, request: HttpRequest, obj: Any, kind: Kind, form: RemedyForm) -> dict[str, object]:
        what, now = kind.label, clock.now()
        told = outlook.of(obj, now)
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{what}: {obj}",
            "subject": obj,
            "what": what,
            "does": outlook.does(obj, kind),
            "told": told,
            "open": self._open(obj),
            "successor": successor(told),
            "read_on": read_on(told),
            "facts": briefing.facts(obj, kind, now=now),
            "last": remedies.newest(obj),
            "form": form,
            "is_open": kind in remedies.open_to(obj),
            "may": self.may_mend(request),
            "back_url": self._url("change", obj),
            "list_url": reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"),
        }

    def _url(self, page: str, obj: Any, *more: str) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}", args=[obj.pk, *more])


def successor(told: outlook.Outlook) -> list[tuple[str, str]]:
    """Return the address and the name of what took a row's place, where something did."""
    if told.after is None:
        return []
    page = "admin:escrow_batch_change" if isinstance(told.after, Batch) else "admin:escrow_chainaction_change"
    return [(reverse(page, args=[told.after.pk]), str(told.after))]


def read_on(told: outlook.Outlook) -> str:
    """Return where the runbook says what to look at and whom to call."""
    return f"More in {outlook.RUNBOOK}, section {told.section}." if told.section else ""


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
