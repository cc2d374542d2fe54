"""The admin's pages of decisions: refusals, approvals, versions of policies. Looked at, never changed.

A person answers an approval as its payer, over the API or on its page, not here.
"""

from django.contrib import admin

from escrow.models import Approval, Denial, SessionPolicy
from escrow.readonly import Money


@admin.register(Denial)
class DenialAdmin(Money):
    """Requests to spend that were refused."""

    list_display = ("id", "created_at", "rule", "kind", "usdc", "to", "policy_version", "session")
    list_filter = ("rule", "kind")
    list_select_related = ("session",)
    search_fields = ("id", "to", "session__id", "rule")


@admin.register(Approval)
class ApprovalAdmin(Money):
    """What agents have asked a person for."""

    list_display = ("id", "created_at", "status", "kind", "usdc", "to", "session", "decided_by", "expires_at")
    list_filter = ("status", "kind")
    list_select_related = ("session",)
    search_fields = ("id", "to", "session__id")
    exclude = ("fingerprint",)


@admin.register(SessionPolicy)
class SessionPolicyAdmin(Money):
    """Which limits were in force from when on."""

    list_display = ("session", "version", "created_at", "policy")
    list_select_related = ("session",)
    search_fields = ("session__id",)
