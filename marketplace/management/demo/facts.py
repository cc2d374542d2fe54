"""What came of a demo, as one JSON document: read from the market's rows and from the chain, and held against each other."""

from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone

from escrow import intents, money, pools, reconcile
from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool, Token
from escrow.models import DUE, ChainAction, Dispute, Invoice, Payment, Pool, Refund
from escrow.workers import chain_client
from marketplace.management.demo.gas import Prices, transfer_gas
from marketplace.management.demo.play import Played
from marketplace.models import Agent, Provider

Kind, Status = Payment.Kind, Payment.Status
_GOOD: Final = (ChainAction.Status.FINAL, ChainAction.Status.DROPPED)


def collect(played: Played, prices: Prices, brief: Path) -> dict[str, Any]:
    """Return the report. Its `problems` are empty exactly when the money is where it should be."""
    client, pool = chain_client(), Pool.objects.get(pk=played.buyer.pool.pk)
    review, payments = played.review, Payment.objects.filter(pool=pool)
    books = reconcile.reconcile(client=client, now=timezone.now())
    actions = [_action(action) for action in intents.of_pool(pool)]
    providers = [_provider(client, name, provider, pool) for name, provider in played.sellers.items()]
    document: dict[str, Any] = {
        "chain_id": client.chain_id(),
        "contract": settings.ESCROW_ADDRESS,
        "token": settings.USDC_ADDRESS,
        "code": {"path": review.path, "files": len(review.files), "findings": len(review.findings)},
        "brief": str(brief),
        "payments": {
            "count": len(review.payments),
            "refunded": len(review.refunds),
            "amount": review.micropayments,
            "p50_ms": round(review.percentile_ms(50), 2),
            "p95_ms": round(review.percentile_ms(95), 2),
            "unexplained": _unexplained(payments, played),
        },
        "three_payments_ms": round(review.three_payments_ms, 2),
        "three_calls_ms": round(review.three_calls_ms, 2),
        "invoices": [_invoice(invoice) for invoice in Invoice.objects.filter(session__pool=pool).order_by("pk")],
        "refunds": [_refund(refund) for refund in _given_back(pool)],
        "disputes": [_dispute(dispute) for dispute in Dispute.objects.filter(session__pool=pool).order_by("pk")],
        "providers": providers,
        "pool": _pool(client, pool, providers),
        "settlements": [action for action in actions if action["kind"] == ChainAction.Kind.SETTLE],
        "chain_actions": actions,
        "reconciled": books.equal and not books.alarms and not books.in_flight,
        "books": books.document(),
        "worker_kills": played.worker_kills,
        "seconds": played.seconds,
    }
    document |= _gas(document, payments.exclude(status=Status.REFUNDED).count(), transfer_gas(client), prices)
    return document | {"problems": problems_of(document)}


def _unexplained(payments: "QuerySet[Payment]", played: Played) -> list[str]:
    """Return the payments that the buyer does not know of or that did not end as it believes, and those that are missing."""
    review = played.review
    expected = {paid.payment_id: (Kind.CALL, Status.SETTLED, money.parse(paid.amount)) for paid in review.payments}
    expected |= {back.payment_id: (Kind.CALL, Status.REFUNDED, money.parse(back.amount)) for back in review.refunds}
    for invoice in Invoice.objects.filter(pk=review.brief_invoice_id):
        expected[str(invoice.payment_id)] = (Kind.INVOICE, Status.SETTLED, invoice.amount_micros)
    for dispute in Dispute.objects.filter(pk=review.dispute_id):
        expected[str(dispute.ruled_payment_id)] = (Kind.RULING, Status.SETTLED, dispute.to_provider_micros or 0)
    found = {str(payment.pk): (payment.kind, payment.status, payment.amount_micros) for payment in payments}
    return sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))


def _provider(client: ChainClient, name: str, provider: Provider, pool: Pool) -> dict[str, Any]:
    owed = Payment.objects.filter(pool=pool, party=provider.party, status=Status.SETTLED)
    sums = owed.aggregate(
        calls=Count("pk", filter=Q(kind=Kind.CALL)),
        invoices=Count("pk", filter=Q(kind=Kind.INVOICE)),
        rulings=Count("pk", filter=Q(kind=Kind.RULING)),
        gross=Sum(DUE, default=0),
    )
    gross, net = int(sums["gross"]), Token(client, settings.USDC_ADDRESS).balance_of(provider.party.address)
    return {
        "name": name,
        "agent": Agent.objects.get(provider=provider).uri,
        "address": provider.party.address,
        "calls": sums["calls"],
        "invoices": sums["invoices"],
        "rulings": sums["rulings"],
        "gross": money.render(gross),
        "fee": money.render(money.share(gross, pool.fee_bps)),
        "balance": money.render(net),
    }


def _pool(client: ChainClient, pool: Pool, providers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the pool's sums: the deposit and what came back as the chain has them, what was spent as the ledger has it."""
    books = pools.balances(pool)
    on_chain = BudgetPool(client, settings.ESCROW_ADDRESS)
    returned = Token(client, settings.USDC_ADDRESS).balance_of(str(pool.payer_address))
    paid = sum(money.parse(one["balance"], minimum=0) for one in providers)
    fees = on_chain.fees()
    return {
        "id": str(pool.pk),
        "pool_key": pool.pool_key,
        "status": pool.status,
        "payer": pool.payer_address,
        "deposited": money.render(books.deposited),
        "spent": money.render(books.withdrawn + books.fees),
        "refunded": money.render(returned),
        "fees": money.render(fees),
        "paid_out": money.render(paid),
        "adds_up": returned + paid + fees == books.deposited == books.withdrawn + books.fees + books.reclaimed,
    }


def _action(action: ChainAction) -> dict[str, Any]:
    document: dict[str, Any] = {
        "kind": str(action.kind),
        "status": str(action.status),
        "tx_hash": action.tx_hash,
        "gas_used": action.gas_used,
        "block": action.block_number,
    }
    if action.kind == ChainAction.Kind.SETTLE:
        settled = Payment.objects.filter(record__batch__action=action)
        sums = settled.aggregate(
            payments=Count("pk"), records=Count("record", distinct=True), amount=Sum(DUE, default=0)
        )
        document |= {**sums, "amount": money.render(sums["amount"])}
    return document


def _invoice(invoice: Invoice) -> dict[str, Any]:
    return {
        "id": str(invoice.pk),
        "number": invoice.number,
        "from": invoice.to,
        "amount": money.render(invoice.amount_micros),
        "status": str(invoice.status),
    }


def _given_back(pool: Pool) -> "QuerySet[Refund]":
    paid = Refund.objects.filter(payment__pool=pool, status=Refund.Status.PAID)
    return paid.select_related("payment").order_by("pk")


def _refund(refund: Refund) -> dict[str, Any]:
    payment, amount = refund.payment, money.render(refund.amount_micros)
    return {"payment_id": str(payment.pk), "from": payment.to, "amount": amount, "reason": refund.reason}


def _dispute(dispute: Dispute) -> dict[str, Any]:
    to_provider = dispute.to_provider_micros or 0
    return {
        "id": str(dispute.pk),
        "status": str(dispute.status),
        "amount": money.render(dispute.amount_micros),
        "to_provider": money.render(to_provider),
        "to_payer": money.render(dispute.amount_micros - to_provider),
        "reason": dispute.reason,
        "answer": dispute.answer,
        "ruling": dispute.ruling_reason,
        "ruled_by": dispute.ruled_by,
    }


def _gas(document: dict[str, Any], settled: int, single: int, prices: Prices) -> dict[str, Any]:
    """Return what a settled debt costs: its share of `settle`, and its share of all that the pool ever did on chain."""
    by_what: dict[str, int] = defaultdict(int)
    for action in document["chain_actions"]:
        by_what["all"] += action["gas_used"] or 0
        if action["kind"] == ChainAction.Kind.SETTLE:
            by_what["settle"] += action["gas_used"] or 0

    def cost(gas: Decimal) -> dict[str, Any]:
        return {"gas": round(float(gas), 1), "dollars": f"{prices.dollars(gas):.9f}"}

    per_payment = {what: Decimal(by_what[what]) / max(1, settled) for what in ("settle", "all")}
    return {
        "gas_per_payment": round(float(per_payment["settle"]), 1),
        "cost_per_payment": {
            "payments_settled": settled,
            "settlement_only": cost(per_payment["settle"]),
            "everything_on_chain": cost(per_payment["all"]),
            "one_transfer_each": cost(Decimal(single)),
            "assumed": {"eth_dollars": str(prices.eth_dollars), "gas_gwei": str(prices.gas_gwei)},
        },
    }


def problems_of(document: dict[str, Any]) -> list[str]:
    """Return, in words, whatever is not as it should be with the money."""
    problems = [f"the books differ: {one}" for one in document["books"]["differences"] + document["books"]["alarms"]]
    problems += [f"still on its way: {one}" for one in document["books"]["in_flight"]]
    problems += [f"payment {one} is unexplained" for one in document["payments"]["unexplained"]]
    problems += [
        f"{action['kind']} is {action['status']} {action['tx_hash']}"
        for action in document["chain_actions"]
        if action["status"] not in _GOOD
    ]
    if not document["pool"]["adds_up"]:
        problems.append("what came back, what was paid out and the fees are not what was deposited")
    for one in document["providers"]:
        gross, fee, balance = (money.parse(one[name], minimum=0) for name in ("gross", "fee", "balance"))
        if balance != gross - fee:
            problems.append(f"{one['agent']} has {one['balance']} USDC, not {one['gross']} less {one['fee']}")
    return problems
