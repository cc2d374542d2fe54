"""`escrow.ledger` and what the database refuses by itself."""

import random
import threading
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from escrow import holds, ledger, payments, refunds, sessions
from escrow.errors import InsufficientFunds
from escrow.ledger import Move
from escrow.models import Account, Payment, Pool, Reason, Session, Transfer
from tests.escrow import books
from tests.escrow.books import LINT, NOW, USDC, balance, unmoved

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


def test_accounts_are_locked_with_the_weakest_lock_that_keeps_others_from_writing() -> None:
    of = books.pool()
    with CaptureQueriesContext(connection) as queries:
        locked = ledger.lock([ledger.free(of), ledger.world(of)])
    assert {pk: account.code for pk, account in locked.items()} == {
        ledger.world(of).pk: f"world:{of.pk}",
        ledger.free(of).pk: f"pool:{of.pk}",
    }
    # A weaker one would let others write; a stronger one would make rows that only point here wait.
    sql = queries[-1]["sql"]
    assert sql.endswith('ORDER BY "escrow_account"."id" ASC FOR NO KEY UPDATE OF "escrow_account"')


def test_an_account_is_opened_once_with_what_it_belongs_to() -> None:
    of, to = books.pool(), books.party()
    both = f"{of.pk}:{to.pk}"
    opened = [
        (ledger.world(of), (f"world:{of.pk}", "world", of.pk, None)),
        (ledger.free(of), (f"pool:{of.pk}", "pool", of.pk, None)),
        (ledger.payable(of, to), (f"payable:{both}", "payable", of.pk, to.pk)),
        (ledger.credited(of, to), (f"credited:{both}", "credited", of.pk, to.pk)),
        (ledger.fees(), ("fees:market", "fees", None, None)),
    ]
    for account, expected in opened:
        row = Account.objects.get(pk=account.pk)
        assert (row.code, row.kind, row.pool_id, row.party_id) == expected
    again = [ledger.world(of), ledger.free(of), ledger.payable(of, to), ledger.credited(of, to), ledger.fees()]
    assert [account.pk for account in again] == [account.pk for account, _ in opened]


def test_what_an_account_lacks_is_said_with_what_it_has() -> None:
    spending = books.session(micros=5)
    account = Account.objects.get(pk=spending.account_id)
    ledger.require(account, 5, "The session")
    with unmoved(), pytest.raises(InsufficientFunds) as caught:
        ledger.require(account, 6, "The session")
    assert caught.value.facts == {"remaining": "0.000005", "required": "0.000006", "would_allow": "0.000005"}
    assert caught.value.detail == "The session has 0.000005 USDC left; this needs 0.000006."


def test_a_budget_is_what_was_given_and_not_what_came_back() -> None:
    of, to = books.pool(), books.party()
    spending, empty = books.session(of, 10 * USDC), books.session(of, 1)
    assert ledger.budget_of(spending.account) == 10 * USDC
    sessions.top_up(session=spending, amount_micros=2 * USDC, now=NOW)
    refunds.pay(payment=books.pay(spending, to, USDC), reason="x", now=NOW)
    assert ledger.budget_of(spending.account) == 12 * USDC
    assert ledger.budget_of(empty.account) == 1
    assert ledger.budget_of(ledger.fees()) == 0


def test_transfers_are_listed_by_account_and_payments_by_who_sends_them() -> None:
    of, to = books.pool(), books.party()
    spending = books.session(of, 10 * USDC)
    books.session(of, USDC)
    refunds.pay(payment=books.pay(spending, to, USDC), reason="x", now=NOW)
    books.pay(spending, to, 2 * USDC)
    payable = ledger.payable(of, to)

    def amounts(rows: QuerySet[Transfer]) -> list[tuple[str, int]]:
        return sorted((row.reason, row.amount_micros) for row in rows)

    assert amounts(ledger.sent_by(spending.account)) == [("payment", USDC), ("payment", 2 * USDC)]
    assert amounts(ledger.received_by(spending.account)) == [("refund", USDC), ("session_open", 10 * USDC)]
    assert amounts(ledger.sent_by(payable)) == [("refund", USDC)]
    assert amounts(ledger.received_by(payable)) == []


def test_transfers_come_with_both_their_accounts() -> None:
    spending = books.session()
    for rows in (ledger.received_by(spending.account), ledger.sent_by(ledger.free(spending.pool))):
        with CaptureQueriesContext(connection) as queries:
            assert [(row.sender.code, row.receiver.code) for row in rows] == [
                (f"pool:{spending.pool_id}", f"session:{spending.pk}")
            ]
        assert len(queries) == 1


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
    assert wrong_running_sums() == []


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


# --- running sums -------------------------------------------------------------------------------------------------

INSERT = """
INSERT INTO escrow_transfer (sender_id, receiver_id, amount_micros, reason, ref, sender_sent_micros, sender_nth, created_at)
SELECT *, clock_timestamp() FROM unnest(
    %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[]
)
"""


def insert(sender: int, receiver: int, *rows: tuple[int, int, int]) -> None:
    """Write transfers past `escrow_post`; a row is amount, what its sender has sent in all, and its number."""
    amounts, totals, numbers = zip(*rows, strict=True)
    many = len(rows)
    refs = [uuid4().hex for _ in rows]
    columns = [[sender] * many, [receiver] * many, list(amounts), ["refund"] * many, refs, list(totals), list(numbers)]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(INSERT, columns)


def wrong_running_sums() -> list[int]:
    """Return the transfers whose running sums are not those of their sender's transfers in order."""
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT id FROM (
                SELECT
                    id, sender_sent_micros, sender_nth,
                    sum(amount_micros) OVER earlier AS total, count(*) OVER earlier AS nth
                FROM escrow_transfer
                WINDOW earlier AS (PARTITION BY sender_id ORDER BY created_at, id ROWS UNBOUNDED PRECEDING)
            ) AS transfer
            WHERE (sender_sent_micros, sender_nth) IS DISTINCT FROM (total, nth)
        """)
        return [row[0] for row in cursor.fetchall()]


def test_every_transfer_has_the_running_sums_of_its_sender() -> None:
    of, to = books.pool(), books.party()
    one, other = (books.session(of, 10 * USDC) for _ in range(2))

    def pay(by: Session, micros: int) -> Payment:
        return payments.send(
            session_id=by.pk,
            party_id=to.pk,
            to=LINT,
            amount_micros=micros,
            metadata={},
            idempotency_key=uuid4().hex,
            request_hash=b"\1" * 32,
        ).payment

    for micros in (3, 1, 4, 1, 5):
        pay(one, micros)
        refunds.pay(payment=pay(other, micros), reason="x", now=NOW)
        holds.give_back(hold=books.hold(one, to, micros), now=NOW)
    sessions.close(session=other, now=NOW)
    ledger.post([Move(one.account, ledger.free(of), amount, Reason.REFUND, uuid4().hex) for amount in (7, 0, 9)])
    assert wrong_running_sums() == []
    sent = Transfer.objects.filter(sender=one.account).order_by("created_at", "id")
    last = sent.last()
    assert last is not None
    assert (last.sender_sent_micros, last.sender_nth) == (2 * 14 + 16, 12)
    account = Account.objects.get(pk=one.account_id)
    assert (account.sent_micros, account.sent_count) == (44, 12)


@pytest.mark.parametrize(("total", "nth"), [(8, 2), (10, 2), (9, 1), (9, 3), (2, 2), (0, 0), (-9, 2)])
def test_a_transfer_with_another_running_sum_is_refused(total: int, nth: int) -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 7)
    back = ledger.free(spending.pool).pk
    with unmoved(), pytest.raises(IntegrityError, match="with another running sum than its sender has"):
        insert(spending.account_id, back, (2, total, nth))
    insert(spending.account_id, back, (2, 9, 2))
    assert wrong_running_sums() == []


@pytest.mark.parametrize("rows", [[(2, 8, 2), (3, 12, 3)], [(2, 9, 1), (3, 12, 3)], [(2, 12, 3), (3, 12, 3)]])
def test_each_of_several_transfers_has_its_own_running_sum(rows: list[tuple[int, int, int]]) -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 7)
    with unmoved(), pytest.raises(IntegrityError, match="with another running sum than its sender has"):
        insert(spending.account_id, ledger.free(spending.pool).pk, *rows)


def test_a_transfer_of_no_account_is_refused() -> None:
    spending = books.session()
    back, nobody = ledger.free(spending.pool).pk, 2**40
    for sender, receiver, total in ((nobody, back, 2), (spending.account_id, nobody, 2), (nobody, nobody + 1, 2)):
        with unmoved(), pytest.raises(IntegrityError, match="a transfer of no account"):
            insert(sender, receiver, (2, total, 1))
    with unmoved(), pytest.raises(IntegrityError, match="a transfer of no account"), transaction.atomic():
        ledger.post([Move(spending.account, Account(pk=nobody), 1, Reason.REFUND, "x")])
