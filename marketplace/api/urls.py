"""The addresses of the API."""

from typing import Final

from django.urls import URLPattern, path, re_path, register_converter

from marketplace.api import (
    accounts,
    agents,
    approvals,
    batches,
    decisions,
    disputes,
    health,
    holds,
    invoices,
    keys,
    payments,
    policies,
    pools,
    refunds,
    reserves,
    sessions,
    tasks,
    webhooks,
)
from marketplace.api.docs import document, error_index, error_page, unmatched


class HostConverter:
    """An agent's name in a path: lower-case ASCII, so that one agent has one address."""

    regex = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"

    def to_python(self, value: str) -> str:
        """Return the name as it is."""
        return value

    def to_url(self, value: str) -> str:
        """Return the name as it is."""
        return value


register_converter(HostConverter, "host")

endpoints: Final[list[URLPattern]] = [
    path("v1/payments", payments.Payments.as_view()),
    path("v1/payments/<uuid:payment_id>", payments.OnePayment.as_view()),
    path("v1/payments/<uuid:payment_id>/receipt", payments.Receipt.as_view()),
    path("v1/payments/<uuid:payment_id>/redeem", payments.Redeem.as_view()),
    path("v1/payments/<uuid:payment_id>/refund", payments.Refund.as_view()),
    path("v1/sessions", sessions.Sessions.as_view()),
    path("v1/sessions/<uuid:session_id>", sessions.OneSession.as_view()),
    path("v1/sessions/<uuid:session_id>/children", sessions.Children.as_view()),
    path("v1/sessions/<uuid:session_id>/pause", sessions.Pause.as_view()),
    path("v1/sessions/<uuid:session_id>/resume", sessions.Resume.as_view()),
    path("v1/sessions/<uuid:session_id>/policy", sessions.ChangePolicy.as_view()),
    path("v1/sessions/<uuid:session_id>/policies", sessions.Policies.as_view()),
    path("v1/sessions/<uuid:session_id>/close", sessions.Close.as_view()),
    path("v1/sessions/<uuid:session_id>/top-up", sessions.TopUp.as_view()),
    path("v1/sessions/<uuid:session_id>/ledger", sessions.Ledger.as_view()),
    path("v1/pools", pools.Pools.as_view()),
    path("v1/pools/<uuid:pool_id>", pools.OnePool.as_view()),
    path("v1/pools/<uuid:pool_id>/close", pools.Close.as_view()),
    path("v1/pools/<uuid:pool_id>/top-up", pools.TopUp.as_view()),
    path("v1/approvals", approvals.Approvals.as_view()),
    path("v1/approvals/<uuid:approval_id>", approvals.OneApproval.as_view()),
    path("v1/approvals/<uuid:approval_id>/approve", approvals.Approve.as_view()),
    path("v1/approvals/<uuid:approval_id>/refuse", approvals.Refuse.as_view()),
    path("v1/decisions", decisions.Decisions.as_view()),
    path("v1/policy/check", policies.Check.as_view()),
    path("v1/policy/backtest", policies.Backtest.as_view()),
    path("v1/freeze", accounts.Freeze.as_view()),
    path("v1/unfreeze", accounts.Unfreeze.as_view()),
    path("v1/batches", batches.Batches.as_view()),
    path("v1/batches/<uuid:batch_id>", batches.OneBatch.as_view()),
    path("v1/tasks", tasks.Tasks.as_view()),
    path("v1/tasks/<uuid:task_id>", tasks.OneTask.as_view()),
    path("v1/tasks/<uuid:task_id>/assign", tasks.Assign.as_view()),
    path("v1/tasks/<uuid:task_id>/submit", tasks.Submit.as_view()),
    path("v1/tasks/<uuid:task_id>/accept", tasks.Accept.as_view()),
    path("v1/tasks/<uuid:task_id>/reject", tasks.Reject.as_view()),
    path("v1/tasks/<uuid:task_id>/cancel", tasks.Cancel.as_view()),
    path("v1/invoices", invoices.Invoices.as_view()),
    path("v1/invoices/<uuid:invoice_id>", invoices.OneInvoice.as_view()),
    path("v1/invoices/<uuid:invoice_id>/approve", invoices.Approve.as_view()),
    path("v1/invoices/<uuid:invoice_id>/reject", invoices.Reject.as_view()),
    path("v1/invoices/<uuid:invoice_id>/withdraw", invoices.Withdraw.as_view()),
    path("v1/disputes", disputes.Disputes.as_view()),
    path("v1/disputes/<uuid:dispute_id>", disputes.OneDispute.as_view()),
    path("v1/disputes/<uuid:dispute_id>/answer", disputes.Reply.as_view()),
    path("v1/holds", holds.Holds.as_view()),
    path("v1/holds/<uuid:hold_id>", holds.OneHold.as_view()),
    path("v1/holds/<uuid:hold_id>/capture", holds.Captures.as_view()),
    path("v1/holds/<uuid:hold_id>/release", holds.Release.as_view()),
    path("v1/refunds", refunds.Refunds.as_view()),
    path("v1/refunds/<uuid:refund_id>", refunds.OneRefund.as_view()),
    path("v1/refunds/<uuid:refund_id>/grant", refunds.Grant.as_view()),
    path("v1/refunds/<uuid:refund_id>/decline", refunds.Decline.as_view()),
    path("v1/reserves", reserves.Reserves.as_view()),
    path("v1/reserves/history", reserves.History.as_view()),
    path("v1/reserves/proof", reserves.Proof.as_view()),
    path("v1/agents", agents.Agents.as_view()),
    path("v1/agents/<host:name>", agents.OneAgent.as_view()),
    path("v1/agents/<host:name>/offerings", agents.Offerings.as_view()),
    path("v1/keys", keys.Keys.as_view()),
    path("v1/keys/<uuid:key_id>", keys.OneKey.as_view()),
    path("v1/keys/<uuid:key_id>/rotate", keys.Rotate.as_view()),
    path("v1/webhooks", webhooks.Webhooks.as_view()),
    path("v1/webhooks/<uuid:webhook_id>", webhooks.OneWebhook.as_view()),
    path("v1/webhooks/<uuid:webhook_id>/rotate-secret", webhooks.RotateSecret.as_view()),
    path("v1/webhooks/<uuid:webhook_id>/test", webhooks.Test.as_view()),
    path("v1/webhooks/<uuid:webhook_id>/deliveries", webhooks.Deliveries.as_view()),
    path("v1/webhooks/<uuid:webhook_id>/replay", webhooks.Replay.as_view()),
    path("v1/me", accounts.Me.as_view()),
    path("v1/balance", accounts.Balance.as_view()),
    path("v1/events", accounts.Events.as_view()),
    path("livez", health.Health.as_view()),
    path("healthz", health.Health.as_view()),  # the same, under the name that many monitors ask for by themselves
    path("readyz", health.Ready.as_view()),
]
"""Every operation of the API; the OpenAPI document and the tests are made from this list."""

urlpatterns: Final[list[URLPattern]] = [
    *endpoints,
    path("v1/openapi.json", document, name="openapi"),
    path("docs/errors", error_index, name="error-index"),
    path("docs/errors/<slug:code>", error_page, name="error-page"),
    re_path(r"^v1(?:/[\s\S]*)?\Z", unmatched),
]
