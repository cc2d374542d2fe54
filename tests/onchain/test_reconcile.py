"""The tester, tested: every seeded corruption is found with its cause, and clean histories raise no alarm."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection, transaction

from escrow import holds, ledger, pools, reconcile
from escrow.chain import contract, deploy
from escrow.chain.client import ChainClient
from escrow.findings import Cause, Report, Verdict
from escrow.ledger import Move
from escrow.models import Account, Batch, ChainLog, Hold, Party, Payment, Pool, Reason, Session
from tests.onchain import histories
from tests.onchain.conftest import Chain, books, party
from tests.onchain.histories import History
from tests.onchain.towns import mine, mine_what_is_sent

CLEAN = int(os.environ.get("HISTORIES", "1000" if os.environ.get("FULL") else "8"))
STEPS = 30
ENOUGH = 32
"""Histories in which each kind of step is done at least once; as many are played when fewer do not show it."""


@dataclass
class Town:
    """A pool with one of everything: settled and payable debts, a signed batch that waits, a hold, and a payout."""

    chain: Chain
    pool: Pool
    session: Session
    settled: Payment
    waiting: Payment
    payable: Payment
    hold: Hold
    lint: Party
    check: Party


@pytest.fixture
def town(chain: Chain) -> Town:
    history = History(chain, seed=1)
    lint, check = history.parties
    session = history.sessions[0]
    settled = chain.pay(session, lint, 300_000)
    chain.pay(session, check, 200_000)
    assert chain.settle() == 1
    mint = contract.mint_test_usdc(str(history.pool.payer_address), 500_000)
    deploy.send(chain.client, chain.somebody(), chain.token.address, mint)
    pools.top_up(pool=history.pool, amount_micros=500_000, now=chain.now())
    chain.quiet()
    history._hold()
    waiting = chain.pay(session, lint, 50_000)
    assert chain.settle() == 1
    payable = chain.pay(session, check, 40_000)
    hold = Hold.objects.get()
    found = [Payment.objects.get(pk=row.pk) for row in (settled, waiting, payable)]
    return Town(chain, history.pool, session, *found, hold, lint, check)


@contextmanager
def tampering() -> Iterator[Callable[..., None]]:
    """Write past every trigger and foreign key, as somebody with the database's password could."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield cursor.execute


@contextmanager
def kept(*tables: str) -> Iterator[None]:
    """Put tables back as they were."""
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")
    try:
        yield
    finally:
        with tampering() as execute:
            for table in tables:
                execute(f"DELETE FROM {table}")  # noqa: S608 - a name of ours
                execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")  # noqa: S608
                execute(f"DROP TABLE kept_{table}")


def flip_a_balance(town: Town) -> None:
    with tampering() as execute:
        execute("UPDATE escrow_account SET received_micros = received_micros + 1000 WHERE id = %s", [_payable(town).pk])


def drop_a_transfer(town: Town) -> None:
    with tampering() as execute:
        execute("DELETE FROM escrow_transfer WHERE ref = %s", [str(town.payable.pk)])


def delete_an_event(town: Town) -> None:
    with tampering() as execute:
        execute("DELETE FROM escrow_event WHERE subject_id = %s", [town.payable.pk])


def add_a_transfer(town: Town) -> None:
    ledger.post([Move(ledger.world(town.pool), ledger.free(town.pool), 1, Reason.DEPOSIT, "nowhere:0")])


def pay_another_party(town: Town) -> None:
    with tampering() as execute:
        record = town.settled.record_id
        execute("UPDATE escrow_batchrecord SET party_id = %s WHERE id = %s", [town.check.pk, record])


def read_a_log_twice(town: Town) -> None:
    log = ChainLog.objects.get(event="BatchSettled")
    log.pk, log.log_index = None, log.log_index + 70
    log.save(force_insert=True)


def keep_a_stale_block(town: Town) -> None:
    ChainLog.objects.filter(event="BatchSettled").update(block_hash="0x" + "ab" * 32)


def flip_a_status(town: Town) -> None:
    Payment.objects.filter(pk=town.settled.pk).update(status="settling")


def change_a_root(town: Town) -> None:
    Batch.objects.filter(status="settled").update(root="0x" + "cd" * 32)


def change_the_root_that_waits(town: Town) -> None:
    Batch.objects.filter(status="signed").update(root="0x" + "cd" * 32)


def change_a_debt(town: Town) -> None:
    Payment.objects.filter(pk=town.payable.pk).update(amount_micros=40_001)


def drop_a_hold(town: Town) -> None:
    with tampering() as execute:
        execute("DELETE FROM escrow_hold WHERE id = %s", [town.hold.pk])


def pass_over_a_log(town: Town) -> None:
    """As if the node had not told: neither the log nor what it did is in the books, which agree with each other."""
    with tampering() as execute:
        log = ChainLog.objects.get(event="PoolToppedUp")
        execute("DELETE FROM escrow_transfer WHERE ref = %s", [f"{log.tx_hash}:{log.log_index}"])
        execute("DELETE FROM escrow_chainlog WHERE id = %s", [log.pk])
        deposit = log.args["amount"]
        free, world = ledger.free(town.pool).pk, ledger.world(town.pool).pk
        execute("UPDATE escrow_account SET received_micros = received_micros - %s WHERE id = %s", [deposit, free])
        change = "UPDATE escrow_account SET sent_micros = sent_micros - %s, sent_count = sent_count - 1 WHERE id = %s"
        execute(change, [deposit, world])


def skip_a_nonce(town: Town) -> None:
    with tampering() as execute:
        execute("UPDATE escrow_signernonce SET next_nonce = next_nonce + 1")


def break_a_policy(town: Town) -> None:
    with tampering() as execute:
        policy = '{"max_per_tx": "0.10"}'
        execute("UPDATE escrow_sessionpolicy SET policy = %s WHERE session_id = %s", [policy, town.session.pk])


def settle_after_the_end(town: Town) -> None:
    Batch.objects.filter(status="settled").update(settled_at=town.pool.expires_at)


def forget_to_release(town: Town) -> None:
    Hold.objects.filter(pk=town.hold.pk).update(expires_at=town.pool.created_at.replace(year=2020))


SEEDED: list[tuple[Callable[[Town], None], str, str, Cause, tuple[str, ...]]] = [
    (flip_a_balance, "R2", "sums of payable:", Cause.BUG, ("account",)),
    (drop_a_transfer, "R3", "payment ", Cause.BUG, ("transfer",)),
    (delete_an_event, "R9", "payment.created of ", Cause.BUG, ("event",)),
    (add_a_transfer, "R4", "deposit nowhere:0", Cause.BUG, ("account", "transfer")),
    (pay_another_party, "R6", "batch ", Cause.BUG, ("batchrecord",)),
    (read_a_log_twice, "R4", "log BatchSettled", Cause.FOREIGN, ("chainlog",)),
    (keep_a_stale_block, "R4", "log BatchSettled", Cause.REORGED, ("chainlog",)),
    (flip_a_status, "R3", "payment ", Cause.BUG, ("payment",)),
    (change_a_root, "R6", "batch ", Cause.BUG, ("batch",)),
    (change_the_root_that_waits, "R6", "batch ", Cause.BUG, ("batch",)),
    (change_a_debt, "R3", "payment ", Cause.BUG, ("payment",)),
    (drop_a_hold, "R3", "hold:", Cause.BUG, ("hold", "invoice")),
    (pass_over_a_log, "R4", "free", Cause.MISSING_LOG, ("chainlog", "transfer", "account")),
    (skip_a_nonce, "R7", "nonces", Cause.BUG, ("signernonce",)),
    (break_a_policy, "R8", "session:", Cause.BUG, ("sessionpolicy",)),
    (settle_after_the_end, "R10", "batch ", Cause.BUG, ("batch",)),
    (forget_to_release, "R10", "hold ", Cause.BUG, ("hold",)),
]


def test_every_seeded_corruption_is_found_with_its_cause(town: Town) -> None:
    clean = town.chain.reconcile()
    assert (clean.unexplained, clean.exit_code) == ([], 1)  # a signed batch waits
    missed = []
    for corrupt, rule, what, cause, tables in SEEDED:
        with kept(*(f"escrow_{table}" for table in tables)):
            corrupt(town)
            report = town.chain.reconcile()
        found = [(one.rule, one.cause) for one in report.unexplained if one.what.startswith(what)]
        if report.exit_code != 2 or (rule, cause) not in found:
            missed.append((corrupt.__name__, [str(one) for one in report.differences]))
        assert town.chain.reconcile().unexplained == [], corrupt.__name__
    assert missed == []


def test_each_corruption_is_found_in_its_pool_alone(town: Town) -> None:
    other = History(town.chain, seed=2)
    with kept("escrow_payment"):
        change_a_debt(town)
        mine, others = (_one(town.chain, pool) for pool in (town.pool, other.pool))
    assert (mine.exit_code, others.unexplained) == (2, [])
    assert {one.pool for one in mine.unexplained} == {str(town.pool.pk)}


def test_a_nonce_that_is_none_of_ours_is_foreign(town: Town) -> None:
    town.chain.quiet()
    assert town.chain.reconcile().exit_code == 0
    relayer = town.chain.keyring.signer("relayer")
    mint = contract.mint_test_usdc(relayer.address, 1)
    deploy.send(town.chain.client, relayer, town.chain.token.address, mint)
    before = books()
    (found,) = town.chain.reconcile().unexplained
    assert (found.rule, found.cause, found.other_micros - found.ledger_micros) == ("R7", Cause.FOREIGN, 1)
    assert books() == before


def test_a_nonce_of_a_signed_action_that_another_took_is_foreign(town: Town) -> None:
    relayer = town.chain.keyring.signer("relayer")
    town.chain.relay(_Silent(town.chain.client))
    deploy.send(town.chain.client, relayer, town.chain.token.address, contract.mint_test_usdc(relayer.address, 1))
    found = [one for one in town.chain.reconcile().unexplained if one.rule == "R7"]
    assert [(one.cause, one.what.split()[0], one.other_micros) for one in found] == [(Cause.FOREIGN, "nonce", 1)]


class _Silent(ChainClient):
    """A node that takes nothing that is sent."""

    def __init__(self, other: ChainClient) -> None:
        self.__dict__ = dict(other.__dict__)

    def send_raw(self, raw: bytes) -> object:  # type: ignore[override]
        raise AssertionError("the test stops here") if not raw else OSError("no answer")


def test_what_somebody_donates_is_told_and_never_credited(town: Town) -> None:
    town.chain.quiet()
    before = books()
    mint = contract.mint_test_usdc(town.chain.contract.address, 7)
    deploy.send(town.chain.client, town.chain.somebody(), town.chain.token.address, mint)
    town.chain.index()
    report = town.chain.reconcile()
    (found,) = report.differences
    assert (found.cause, found.other_micros - found.ledger_micros) == (Cause.DONATED, 7)
    assert (report.verdict, report.exit_code, books()) == (Verdict.EXPLAINED, 1, before)


def test_what_is_mined_and_not_read_yet_is_in_flight(town: Town) -> None:
    town.chain.relay()
    town.chain.client.request("evm_mine", [])
    report = town.chain.reconcile()
    assert (report.unexplained, report.exit_code) == ([], 1)
    flying = {(one.what.split()[0], one.other_micros, one.cause) for one in report.differences}
    assert ("Credited", 50_000, Cause.IN_FLIGHT) in flying
    one = reconcile.reconcile(client=town.chain.client, now=town.chain.now(), pool_id=town.pool.pk, at="latest")
    assert (one.unexplained, one.exit_code) == ([], 1)
    town.chain.quiet()
    assert town.chain.reconcile().exit_code == 0


def test_a_deposit_that_is_taken_early_is_in_flight_and_one_that_left_the_chain_is_not_explained(
    town: Town, settings: Any
) -> None:
    town.chain.quiet()
    chain, pool = town.chain, town.pool
    settings.FINALITY = 24
    chain.client = ChainClient(settings.RPC_URL, finality=24)
    mine_what_is_sent(chain)
    mine(chain, 48)
    chain.index()
    mint = contract.mint_test_usdc(str(pool.payer_address), 70_000)
    deploy.send(chain.client, chain.somebody(), chain.token.address, mint)
    pools.top_up(pool=pool, amount_micros=70_000, now=chain.now())
    early = ChainLog.objects.filter(event="PoolToppedUp", applied_at__isnull=False).order_by("block_number")
    chain.until(lambda: early.count() == 2, "the deposit is taken early")
    at_final, at_latest = (_whole(chain, at) for at in ("final", "latest"))
    (flying,) = at_final.differences
    assert (flying.what.split()[0], flying.ledger_micros, flying.cause) == ("PoolToppedUp", 70_000, Cause.IN_FLIGHT)
    assert (at_final.exit_code, at_latest.differences, at_latest.exit_code) == (1, [], 1)  # the action is not final yet
    chain.client.request("anvil_reorg", [chain.client.tiers().latest.number - early.last().block_number + 1, []])
    chain.index()
    assert chain.fresh(pool).unbacked_at is not None
    report = _whole(chain, "latest")
    assert {one.cause for one in report.unexplained} == {Cause.UNBACKED}
    assert (report.exit_code, {one.ledger_micros - one.other_micros for one in report.unexplained}) == (2, {70_000})


@pytest.mark.timeout(7_200)
def test_clean_histories_raise_no_alarm(chain: Chain) -> None:
    parties = [party("lint"), party("check")]
    taken: Counter[str] = Counter()
    played, missing = 0, set(histories.STEPS)
    while played < CLEAN or (missing and played < ENOUGH):
        seed, played = played, played + 1
        history = History(chain, seed, parties)
        history.walk(STEPS)
        taken.update(history.taken)
        missing -= taken.keys()
        report = _one(chain, history.pool)
        assert report.unexplained == [], (seed, history.taken)
        assert report.exit_code in (0, 1), (seed, report.alarms)
        if seed % 50 == 0:
            holds.release_expired(now=chain.now(), limit=1_000)  # a long run outlives the holds of its first histories
            assert chain.reconcile().unexplained == [], (seed, history.taken)
    holds.release_expired(now=chain.now(), limit=10_000)
    chain.settle()
    chain.quiet()
    report = chain.reconcile()
    assert ([str(one) for one in report.differences], report.exit_code, report.pools) == ([], 0, played)
    assert not missing, (played, taken)  # a step that is always refused, or finds nothing to do, raises no alarm anyway


def _whole(chain: Chain, at: reconcile.At) -> Report:
    return reconcile.reconcile(client=chain.client, now=chain.now(), at=at)


def _one(chain: Chain, pool: Pool) -> Report:
    return reconcile.reconcile(client=chain.client, now=chain.now(), pool_id=pool.pk)


def _payable(town: Town) -> Account:
    return ledger.payable(town.pool, town.check)
