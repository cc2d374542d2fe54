"""Row 35: the token refuses. One provider's address is blacklisted, or the token is paused: nobody else's money waits."""

from typing import Any

from escrow import intents, ledger, pools
from escrow.models import ChainAction, Party, Pool
from tests.faults.conftest import check_books, check_paid_once, owner_says
from tests.onchain.conftest import Chain, party

DEPOSIT, PRICE, NET = 1_000_000, 100_000, 99_000


def landed(chain: Chain) -> tuple[Pool, Party, Party]:
    """Two providers that are owed the same, credited on chain."""
    one, other = party("lint"), party("check")
    pool = chain.open_pool(DEPOSIT, providers=(one, other))
    session = chain.session(pool, DEPOSIT // 2)
    for seller in (one, other):
        chain.pay(session, seller, PRICE)
    assert chain.settle() == 1
    chain.quiet()
    return pool, one, other


def held(chain: Chain, *parties: Party) -> list[int]:
    return [chain.token.balance_of(each.address) for each in parties]


def withdrawal(of: Party) -> ChainAction:
    return ChainAction.objects.get(kind="withdraw", subject_id=of.pk)


def test_a_blacklisted_provider_keeps_nobody_waiting_and_is_paid_when_it_is_none_any_more(chain: Chain) -> None:
    pool, one, other = landed(chain)
    owner_says(chain, "blacklist(address)", one.address)
    assert chain.pay_out() == 2
    chain.until(lambda: held(chain, other) == [NET], "the other one is paid")
    chain.until(lambda: withdrawal(one).attempts > 0, "the contract has refused the first one")
    assert "blacklisted" in withdrawal(one).error
    assert (withdrawal(one).nonce, held(chain, one)) == (None, [0])
    assert ledger.balance(ledger.credited(pool, one)) == PRICE  # its credit stands, in the books and in the contract
    check_books(chain, exit_code=1)

    chain.pay(chain.session(chain.fresh(pool), PRICE), other, PRICE // 2)  # and business goes on beside it
    assert chain.settle() == 1
    owner_says(chain, "unBlacklist(address)", one.address)
    chain.quiet()
    assert held(chain, one, other) == [NET, NET]
    check_paid_once(chain, {one: PRICE, other: PRICE + PRICE // 2})
    check_books(chain)


def test_a_withdrawal_that_was_parked_for_a_blacklist_is_paid_when_it_is_planned_again(
    chain: Chain, settings: Any
) -> None:
    settings.RELAY_MAX_ATTEMPTS = 1
    _, one, other = landed(chain)
    owner_says(chain, "blacklist(address)", one.address)
    chain.pay_out()
    chain.quiet()
    assert withdrawal(one).status == ChainAction.Status.PARKED
    assert (held(chain, one, other), chain.pay_out()) == ([0, NET], 0)
    check_books(chain)

    owner_says(chain, "unBlacklist(address)", one.address)
    intents.retry(action=withdrawal(one), now=chain.now())
    chain.quiet()
    assert held(chain, one, other) == [NET, NET]
    check_paid_once(chain, {one: PRICE, other: PRICE})
    check_books(chain)


def test_a_paused_token_stops_payouts_and_no_settlement_and_all_is_paid_afterwards(chain: Chain) -> None:
    pool, one, other = landed(chain)
    owner_says(chain, "pause()")
    chain.pay_out()
    chain.pay(chain.session(pool, PRICE), one, PRICE)  # a credit moves no token, so debts land all the same
    assert chain.settle() == 1
    chain.until(lambda: ledger.balance(ledger.credited(pool, one)) == 2 * PRICE, "the batch has landed")
    chain.until(lambda: withdrawal(other).attempts > 0, "the token has refused")
    assert "paused" in withdrawal(other).error
    assert held(chain, one, other) == [0, 0]
    check_books(chain, exit_code=1)

    owner_says(chain, "unpause()")
    chain.quiet()
    chain.pay_out()
    chain.quiet()
    assert sum(held(chain, one, other)) == 3 * NET
    check_paid_once(chain, {one: 2 * PRICE, other: PRICE})
    check_books(chain)


def test_a_blacklisted_payer_s_way_out_stays_open_until_it_is_none_any_more(chain: Chain) -> None:
    pool, one, other = landed(chain)
    payer = str(pool.payer_address)
    owner_says(chain, "blacklist(address)", payer)
    pools.close(pool=pool, now=chain.now())
    chain.pay_out()
    chain.step_out()
    chain.until(lambda: held(chain, one, other) == [NET, NET], "the providers are paid")
    chain.until(lambda: chain.fresh(pool).reclaimable_at is not None, "the close is asked for")
    chain.step_out()
    chain.until(lambda: ChainAction.objects.get(kind="reclaim").attempts > 0, "the reclaim was refused")
    assert ledger.balance(ledger.free(pool)) == DEPOSIT - 2 * PRICE
    check_books(chain, exit_code=1)

    owner_says(chain, "unBlacklist(address)", payer)
    chain.until(lambda: chain.fresh(pool).status == Pool.Status.CLOSED, "the pool is closed")
    chain.quiet()
    assert chain.token.balance_of(payer) == DEPOSIT - 2 * PRICE
    check_books(chain)
