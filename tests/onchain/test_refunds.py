"""Refunds on a chain: what is left of a payment lands, and a refund after that is netted out of the next batch."""

import pytest
from django.conf import settings

from agentmarket import Receipt
from escrow import ledger, receipts, refunds
from escrow.errors import NotRefundable
from escrow.models import Party, Payment
from marketplace.api import show_chain
from tests.onchain.conftest import Chain, books, party
from tests.onchain.towns import settle_and_land


def proven(chain: Chain, payment: Payment, to: Party) -> int:
    """Return what the chain itself says of a payment, by its receipt alone."""
    payment = Payment.objects.select_related("record", "party").get(pk=payment.pk)
    shown = show_chain.receipt(payment, receipts.prove(payment=payment, now=chain.now()))
    receipt = Receipt.read(shown.model_dump_json())
    return receipt.verify(rpc_url=settings.RPC_URL, contract=chain.contract.address, provider=to.address).amount_micros


def test_a_partly_refunded_payment_lands_for_the_rest_and_a_later_refund_is_netted(chain: Chain) -> None:
    lint = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,))
    session = chain.session(pool, 500_000)
    payment, beside = chain.pay(session, lint, 100_000), chain.pay(session, lint, 7_000)
    refunds.pay(payment=payment, amount_micros=30_000, reason="A third of it was empty.", now=chain.now())
    assert ledger.balance(session.account) == 423_000

    settle_and_land(chain)
    assert ledger.balance(ledger.credited(pool, lint)) == 77_000
    assert (proven(chain, payment, lint), proven(chain, beside, lint)) == (70_000, 7_000)
    assert chain.reconcile().exit_code == 0

    before = books()
    with pytest.raises(NotRefundable):
        refunds.pay(payment=payment, amount_micros=20_000, reason="The rest, too.", now=chain.now())
    assert books() == before

    next_one = chain.pay(session, lint, 50_000)
    asked = refunds.ask(payment=payment, amount_micros=20_000, reason="The rest, too.", now=chain.now())
    refunds.grant(refund=asked, now=chain.now())
    assert ledger.balance(session.account) == 393_000
    assert chain.reconcile().exit_code < 2

    settle_and_land(chain)
    assert ledger.balance(ledger.credited(pool, lint)) == 107_000  # 70,000 + 7,000 + what is left of 50,000
    assert (proven(chain, payment, lint), proven(chain, next_one, lint)) == (70_000, 30_000)
    payment.refresh_from_db()
    assert (payment.status, payment.refunded_micros, payment.due_micros) == ("settled", 50_000, 70_000)
    assert chain.reconcile().exit_code == 0

    assert chain.pay_out() == 1
    chain.quiet()
    assert chain.token.balance_of(lint.address) == 105_930  # less 1 %
    assert chain.reconcile().exit_code == 0
