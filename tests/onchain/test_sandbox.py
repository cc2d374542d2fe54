"""The sandbox on a real chain: a newcomer's first session, by the SDK, with no word about pools."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer

from agentmarket import SyncClient
from escrow import grants
from escrow.models import ChainAction, Grant, Pool
from marketplace import agents, keys
from marketplace.models import Scope
from tests.marketplace.conftest import seller

from .conftest import Chain


@pytest.mark.promise("S31")
def test_a_newcomers_first_session_opens_by_itself_and_the_books_equal_the_chain(
    chain: Chain, live_server: LiveServer
) -> None:
    payer = agents.register_payer(name="newcomer")
    text = keys.issue(scope=Scope.PAYER, payer=payer, now=timezone.now())[1]
    seller("lint", "acme.dev")

    def first_steps() -> tuple[str, str]:
        try:
            with SyncClient(text, base_url=live_server.url) as client:
                session = client.payment.create_session(budget="2.00", policy={"max_per_tx": "0.50"})
                payment = session.client().payment.send(to="agent://lint.acme.dev", amount="0.012")
                return payment.status, payment.remaining
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as agent:
        paid = agent.submit(first_steps)
        chain.until(paid.done, "the newcomer has paid")
        assert paid.result() == ("payable", "1.988")
    kinds = list(ChainAction.objects.order_by("pk").values_list("kind", "status", "attempts"))
    assert kinds[:2] == [("mint", "final", 0), ("open_pool", "final", 0)]
    pool = Grant.objects.get(payer_id=payer.pk).pool
    assert pool is not None
    assert (pool.status, pool.payer_id) == ("open", payer.pk)
    assert chain.token.balance_of(chain.payer_address(payer.pk)) == 0
    chain.settle()
    chain.quiet()
    assert not chain.reconcile().differences
    assert Pool.objects.count() == 1


def test_a_token_that_refuses_to_be_minted_fails_the_opening_and_says_so(chain: Chain, settings) -> None:
    payer = agents.register_payer(name="newcomer")
    settings.USDC_ADDRESS = chain.contract.address  # which has no `mint`, as Circle's has none for us
    settings.RELAY_MAX_ATTEMPTS = 1
    grants.give(payer_id=payer.pk, now=timezone.now())
    chain.until(lambda: Pool.objects.get().status == "failed", "the opening has failed")
    assert ChainAction.objects.get(kind="mint").status == "dropped"
    settings.USDC_ADDRESS = chain.token.address
    settings.RELAY_MAX_ATTEMPTS = 20
    grants.give(payer_id=payer.pk, now=timezone.now())
    chain.until(lambda: Pool.objects.filter(status="open").exists(), "the second try has opened it")
    chain.quiet()
    assert not chain.reconcile().differences
