"""While an account is locked by somebody else, only the orders that need it wait."""

import pytest

from escrow import ledger
from tests.lane.doors import PATIENCE, Asked, Lane, locked
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_payment_is_judged_only_when_its_accounts_are_free(market: World, lane: Lane) -> None:
    payable = ledger.payable(market.a.pool, market.one.provider.party)
    with locked(market.a.session.account, payable):
        waiting = lane.begin(Asked(market.a.by_session.key))
        assert lane.pay(market.b.by_session.key).status == 201
        assert not waiting.done()
    assert waiting.result(PATIENCE).status == 201
