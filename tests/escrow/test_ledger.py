"""`escrow.ledger` and what the database refuses by itself."""

import random
import threading
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from escrow import ledger
from escrow.ledger import Move
from escrow.models import Account, Pool, Reason, Transfer
from tests.escrow import books
from tests.escrow.books import USDC, balance, unmoved

pytestmark = pytest.mark.django_db


def execute(statement: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # TRUNCATE wants no deferred foreign keys before it
        cursor.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE escrow_transfer SET amount_micros = amount_micros + 1",
        "UPDATE escrow_transfer SET ref = 'x' WHERE false",
        "DELETE FROM escrow_transfer",
        "DELETE FROM escrow_transfer WHERE false",
        "TRUNCATE escrow_transfer",
        "TRUNCATE escrow_transfer CASCADE",
    ],
)
def test_transfers_only_grow(statement: str) -> None:
    books.session()
    with unmoved(), pytest.raises(IntegrityError, match="a correction is another transfer"):
        execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE escrow_account SET sent_micros = sent_micros + 1",
        "UPDATE escrow_account SET received_micros = received_micros + 1",
        "UPDATE escrow_account SET kind = 'world'",
        "UPDATE escrow_account SET code = code",
    ],
)
def test_an_account_follows_its_transfers(statement: str) -> None:
    books.session()
    with unmoved(), pytest.raises(IntegrityError, match="an account follows its transfers"):
        execute(statement)


def test_an_account_is_never_deleted() -> None:
    books.session()
    for statement in ("DELETE FROM escrow_account", "TRUNCATE escrow_account CASCADE"):
        with unmoved(), pytest.raises(IntegrityError, match="is refused"):
            execute(statement)


@pytest.mark.parametrize("sums", [{"sent_micros": 1}, {"received_micros": 1}, {"received_micros": -1}])
def test_an_account_starts_empty(sums: dict[str, int]) -> None:
    with unmoved(), pytest.raises(IntegrityError, match="an account starts empty"), transaction.atomic():
        Account.objects.create(code="session:x", kind=Account.Kind.SESSION, **sums)


def test_an_overdraft_is_refused_by_the_database() -> None:
    spending = books.session(micros=5)
    with unmoved(), pytest.raises(IntegrityError, match="account_never_overdrawn"), transaction.atomic():
        ledger.post([Move(spending.account, ledger.free(spending.pool), 6, Reason.SESSION_CLOSE, "x")])
    ledger.post([Move(spending.account, ledger.free(spending.pool), 5, Reason.SESSION_CLOSE, "x")])
    assert balance(spending.account) == 0


def test_an_overdraft_of_two_transfers_together_is_refused() -> None:
    spending, to = books.session(micros=5), books.party()
    moves = [
        Move(spending.account, ledger.free(spending.pool), 3, Reason.SESSION_CLOSE, "x"),
        Move(spending.account, ledger.payable(spending.pool, to), 3, Reason.PAYMENT, "x"),
    ]
    with unmoved(), pytest.raises(IntegrityError, match="account_never_overdrawn"), transaction.atomic():
        ledger.post(moves)


def test_the_same_transfer_twice_is_refused() -> None:
    spending = books.session()
    move = Move(spending.account, ledger.free(spending.pool), 1, Reason.REFUND, "x")
    ledger.post([move])
    with unmoved(), pytest.raises(IntegrityError, match="transfer_once"), transaction.atomic():
        ledger.post([move])
    with unmoved(), pytest.raises(IntegrityError, match="transfer_once"), transaction.atomic():
        ledger.post([Move(move.sender, move.receiver, 2, move.reason, move.ref)])


def test_a_transfer_of_less_than_nothing_or_to_itself_is_refused() -> None:
    spending = books.session()
    free = ledger.free(spending.pool)
    with unmoved(), pytest.raises(IntegrityError, match="transfer_positive"), transaction.atomic():
        ledger.post([Move(spending.account, free, -1, Reason.REFUND, "x")])
    with unmoved(), pytest.raises(IntegrityError, match="transfer_moves"), transaction.atomic():
        ledger.post([Move(free, free, 1, Reason.REFUND, "x")])


def test_a_move_of_nothing_leaves_no_transfer() -> None:
    spending = books.session()
    with unmoved():
        ledger.post([Move(spending.account, ledger.free(spending.pool), 0, Reason.REFUND, "x")])
        ledger.post([])


def test_both_sums_of_both_accounts_follow_exactly() -> None:
    of = books.pool(10 * USDC)
    spending = books.session(of, 4 * USDC)
    free = Account.objects.get(pk=ledger.free(of).pk)
    account = Account.objects.get(pk=spending.account_id)
    world = Account.objects.get(pk=ledger.world(of).pk)
    assert (world.sent_micros, world.received_micros) == (10 * USDC, 0)
    assert (free.sent_micros, free.received_micros) == (4 * USDC, 10 * USDC)
    assert (account.sent_micros, account.received_micros) == (0, 4 * USDC)
    assert ledger.balances_by_kind(of) == {"world": -10 * USDC, "pool": 6 * USDC, "session": 4 * USDC}


def test_accounts_are_locked_in_the_order_of_their_keys() -> None:
    of = books.pool()
    accounts = [books.session(of, 1).account for _ in range(5)]
    random.Random(1).shuffle(accounts)
    assert list(ledger.lock([*accounts, accounts[0]])) == sorted(account.pk for account in accounts)


@pytest.mark.django_db(transaction=True)
def test_opposite_transfers_in_any_order_never_wait_for_each_other() -> None:
    of = books.pool()
    accounts = [books.session(of, 10 * USDC).account for _ in range(6)]
    before = Transfer.objects.count()
    faults: list[BaseException] = []
    threads = [threading.Thread(target=_shove, args=(seed, accounts, faults)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert Transfer.objects.count() == before + 16 * 15 * 4
    assert sum(map(balance, accounts)) == 60 * USDC
    assert Pool.objects.count() == 1


def _shove(seed: int, accounts: list[Account], faults: list[BaseException]) -> None:
    dice = random.Random(seed)
    try:
        for _ in range(15):
            pairs = [dice.sample(accounts, 2) for _ in range(4)]
            with transaction.atomic():
                if dice.random() < 0.5:
                    ledger.lock(account for pair in pairs for account in pair)
                ledger.post([Move(one, other, 1, Reason.PAYMENT, uuid4().hex) for one, other in pairs])
    except Exception as fault:  # noqa: BLE001 - a thread has nobody else to tell
        faults.append(fault)
    finally:
        connection.close()
