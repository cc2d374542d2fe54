"""One run of an agent with a session's key: many small payments, each decided by itself, under one number for its person."""

from decimal import Decimal

import pytest

import agentmarket
from agentmarket import SyncClient
from escrow import ledger
from escrow.models import Decision, Payment, Session
from tests.escrow import books
from tests.marketplace.conftest import World, money

LINT = "agent://lint.acme.dev"
PRICES = ("0.001", "0.008", "0.012", "0.025", "0.05")


@pytest.mark.promise("S3", "S33")
@pytest.mark.parametrize("amount", PRICES)
def test_a_micropayment_is_owed_to_the_micro(market: World, amount: str) -> None:
    micros = int(Decimal(amount) * 1_000_000)
    with SyncClient(market.a.by_session.key) as agent:
        sent = agent.payment.send(to=LINT, amount=amount)
    assert (sent.amount, sent.status) == (amount, "payable")
    assert Payment.objects.get().amount_micros == micros
    assert books.balance(market.a.session.account) == 25_000_000 - micros
    assert books.balance(ledger.payable(market.a.pool, market.one.provider.party)) == micros


@pytest.mark.promise("S3", "S4", "S11")
def test_two_hundred_payments_of_one_key_are_decided_one_by_one(market: World) -> None:
    with SyncClient(market.a.by_payer.key) as payer:
        session = payer.payment.create_session(budget="5.00", policy={"max_per_tx": "0.05"})
        with session.client() as agent:
            sent = [
                agent.payment.send(to=LINT, amount=PRICES[number % 5], metadata={"number": number})
                for number in range(200)
            ]
            left = "1.16"  # 40 of each price are 3.84
            assert (sent[-1].remaining, session.balance().remaining) == (left, left)
            session.change_policy({"max_per_tx": "0.02"})
            before = money()
            with pytest.raises(agentmarket.PolicyDenied) as caught:
                agent.payment.send(to=LINT, amount="0.025", metadata={"number": 200})
            assert (caught.value.outcome, money()) == ("not_charged", before)
    kept = Decision.objects.filter(session_id=session.id)
    allowed = kept.filter(is_allowed=True)
    assert {decision.id for decision in allowed} == {payment.pk for payment in Payment.objects.all()}
    assert (allowed.count(), {decision.policy_version for decision in allowed}) == (200, {1})
    (denied,) = kept.filter(is_allowed=False)
    assert (denied.rule, denied.policy_version, denied.amount_micros) == ("max_per_tx", 2, 25_000)


@pytest.mark.promise("S5", "S7")
def test_the_ceiling_of_a_query_comes_from_its_task(market: World) -> None:
    with SyncClient(market.a.by_payer.key) as payer:
        run = payer.payment.create_session(budget="2.00", policy={"max_per_tx": "0.05"})
        dear = run.child(budget="0.50", policy={"max_per_tx": "0.025"}, name="task: patents")
        cheap = run.child(budget="0.50", policy={"max_per_tx": "0.008"}, name="task: citations")
        with dear.client() as agent:
            assert agent.payment.send(to=LINT, amount="0.025").remaining == "0.475"
        with cheap.client() as agent:
            assert agent.payment.send(to=LINT, amount="0.008").remaining == "0.492"
            before = money()
            with pytest.raises(agentmarket.PolicyDenied) as caught:
                agent.payment.send(to=LINT, amount="0.008001")
            error = caught.value
            assert (error.rule, error.limit, error.would_allow) == ("max_per_tx", "0.008", "0.008")
            assert (error.outcome, money()) == ("not_charged", before)


@pytest.mark.promise("S11", "S14", "S18")
def test_a_run_is_one_number_for_its_person(market: World) -> None:
    with SyncClient(market.a.by_payer.key) as payer, SyncClient(market.one.by_provider.key) as provider:
        run = payer.payment.create_session(budget="10.00", policy={"allowed_recipients": [LINT]})
        with run.client() as agent:
            agent.payment.send(to=LINT, amount="0.012")
            hold = agent.holds.place(to=LINT, amount="0.50")
            agent.holds.capture(hold.id, amount="0.20")
            back = agent.payment.send(to=LINT, amount="0.04")
            provider.payment.refund(back.id, reason="The page was empty.")
            invoice = provider.invoices.submit(session=run.id, agent=LINT, amount="2.40", number="INV-1")
            agent.invoices.approve(invoice.id)
        now = run.balance()
        assert (now.budget, now.spent, now.held, now.remaining) == ("10.00", "2.612", "0.00", "7.388")
        assert run.close().remaining == "0.00"
    spent_from = Session.objects.get(pk=run.id)
    assert books.balance(spent_from.account) == 0
    assert books.balance(ledger.payable(market.a.pool, market.one.provider.party)) == 2_612_000
    assert books.balance(ledger.free(market.a.pool)) == 75_000_000 - 2_612_000


@pytest.mark.promise("S17", "S18")
@pytest.mark.parametrize("buying", ["a", "b"])
@pytest.mark.parametrize("selling", ["one", "two"])
def test_any_agent_invoices_any_other(market: World, buying: str, selling: str) -> None:
    buyer, seller = getattr(market, buying), getattr(market, selling)
    uri = seller.agent.uri
    with SyncClient(buyer.by_payer.key) as payer, SyncClient(seller.by_provider.key) as provider:
        session = payer.payment.create_session(budget="3.00", policy={"allowed_recipients": [uri]})
        invoice = provider.invoices.submit(session=session.id, agent=uri, amount="2.40", number="INV-1")
        with session.client() as agent:
            assert agent.invoices.approve(invoice.id).approved_amount == "2.40"
            assert session.balance().remaining == "0.60"
    assert books.balance(ledger.payable(buyer.pool, seller.provider.party)) == 2_400_000
