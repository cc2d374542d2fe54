"""`escrow.relay`: what is signed, with which nonce and how much gas, and what waits, by what a node says (nodes.py)."""

import logging
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.test.utils import CaptureQueriesContext
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from escrow import crashpoints, gas, gauges, intents, ledger, receipts
from escrow.chain import contract, typed, wire
from escrow.chain.client import Block, Fees
from escrow.chain.errors import ChainRefused, ChainReverted, ChainUnavailable, SignerRefused, SignerUnavailable
from escrow.chain.outcomes import SendOutcome
from escrow.chain.signer import LocalSigner
from escrow.models import Account, Attempt, Batch, ChainAction, Pool, SignerNonce
from escrow.relay import Former, Relay
from tests.escrow import books
from tests.escrow.books import NOW, unmoved
from tests.escrow.nodes import GWEI, Keys, Node
from tests.escrow.test_flights import decoded

pytestmark = pytest.mark.django_db
Kind, Status = ChainAction.Kind, ChainAction.Status
SECOND = timedelta(seconds=1)
KEYS = Keys()
_numbers = count(1)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture(autouse=True)
def _rules(settings: Any) -> None:
    settings.RELAYERS, settings.RELAY_RETRY_SECONDS, settings.RELAY_MAX_ATTEMPTS = 1, 5, 20
    settings.RELAY_BATCH, settings.RELAY_MAX_IN_FLIGHT, settings.RELAY_RUN_SECONDS = 20, 64, 10
    settings.USDC_ADDRESS = "0x" + "22" * 20
    settings.GAS_PRICE_CEILING_GWEI, settings.GAS_BUDGET_USD_PER_HOUR = 20, 0


def opened() -> Pool:
    """A pool for which nothing is under way on chain."""
    of = books.pool()
    ChainAction.objects.filter(pool=of).update(status="final")
    return of


def planned(kind: Kind = Kind.WITHDRAW_FEES, pool: Pool | None = None, **changes: Any) -> ChainAction:
    made = intents.record(kind, dedupe_key=f"relay:{next(_numbers)}", pool=pool)
    ChainAction.objects.filter(pk=made.pk).update(**({"next_at": NOW} | changes))
    return again(made)


def again(action: ChainAction) -> ChainAction:
    return ChainAction.objects.get(pk=action.pk)


def statuses(*actions: ChainAction) -> list[str]:
    return [again(action).status for action in actions]


def run(node: Any, now: datetime = NOW) -> int:
    return Relay(node, KEYS, now).run()


def settles(*pools: Pool) -> ChainAction:
    """An action that carries a batch of each pool."""
    action = planned(Kind.SETTLE)
    for of in pools:
        name = uuid4()
        Batch.objects.create(
            id=name, pool=of, account=ledger.open_account(Account.Kind.SETTLING, pool=of, subject=name), first_seq=0,
            packed=wire.encode_batch(0, [wire.Record("0x" + "01" * 20, 1)]), root="0x" + "00" * 32,
            signature=b"\1" * 65, deadline=NOW + timedelta(hours=1), next_at=NOW, action=action,
        )  # fmt: skip
    return action


def loudest(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "escrow.relay"]


RELAYER, ARBITER = KEYS.relayer(0), KEYS.signer("arbiter")


# --- whose it is --------------------------------------------------------------------------------------------------


def test_rulings_are_the_arbiters_and_all_else_its_relayers(node: Node, settings: Any) -> None:
    settings.RELAYERS = 3
    made = {shard: planned(shard=shard) for shard in range(4)}
    ruling = planned(Kind.RESOLVE, shard=1, attempts=19)
    run(node)
    signers = [again(made[shard]).signer_address for shard in range(3)]
    assert signers == [KEYS.relayer(shard).address for shard in range(3)]
    assert again(made[3]).signer_address == KEYS.relayer(0).address  # there is no relayer of its own any more
    assert (again(ruling).status, again(ruling).signer_address) == ("parked", "")  # its dispute is missing
    assert set(SignerNonce.objects.values_list("address", flat=True)) == {ARBITER.address, *signers}


def test_a_run_tells_how_many_steps_it_took_for_all_signers(node: Node, settings: Any) -> None:
    settings.RELAYERS = 2
    assert run(node) == 0
    first, second = planned(shard=0), planned(shard=1)
    assert run(node) == 2
    for action in (first, second):
        node.mine(again(action).tx_hash, 99)
    third = planned()
    assert run(node) == 3
    assert statuses(first, second, third) == ["mined", "mined", "broadcast"]
    node.latest, node.safe = 110, 99
    assert run(node) == 2


def test_what_somebody_has_in_flight_who_signs_no_more_is_followed(
    node: Node, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RELAYERS, settings.RELAY_REPLACE_SECONDS = 3, 30
    mined, waits, third = planned(shard=1), planned(shard=1), planned(shard=2)
    assert run(node) == 3
    bytes_of_it = node.sent[1]
    node.mine(again(mined).tx_hash, 99)
    node.mine(again(third).tx_hash, 99)
    settings.RELAYERS = 1
    node.sent.clear()
    assert run(node, NOW + 31 * SECOND) == 2
    assert statuses(mined, waits, third) == ["mined", "broadcast", "mined"]
    assert node.sent == [bytes_of_it]  # nobody can sign it anew: it is sent again as it is
    former = KEYS.relayer(1).address
    told = f"the signer refuses (key): {former} is no signer here any more; nonce 8 needs its key"
    assert again(waits).error == f"It has no replacement: {told}"
    node.mine(again(waits).tx_hash, 80)
    assert run(node) == 1
    assert again(waits).status == "final"


def test_who_signs_no_more_is_only_known_when_all_signers_are(node: Any, settings: Any) -> None:
    class Remote(Keys):
        away = True

        def relayer(self, shard: int) -> LocalSigner:
            if shard == 1 and self.away:
                raise ChainUnavailable("the signer is away")
            return super().relayer(shard)

    settings.RELAYERS, keys = 2, Remote()
    keys.away = False
    action = planned(shard=1)
    Relay(node, keys, NOW).run()
    keys.away = True
    node.mine(again(action).tx_hash, 99)
    assert Relay(node, keys, NOW).run() == 0  # it is not followed as if it were nobody's
    assert again(action).status == "broadcast"


def test_a_chain_that_is_away_is_told_for_who_signs_no_more_too(
    node: Node, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RELAYERS = 2
    action = planned(shard=1)
    run(node)
    settings.RELAYERS = 1
    tiers, asked = node.tiers, count(1)

    def away_for_the_third() -> Any:
        if next(asked) == 3:
            raise ChainUnavailable("no route")
        return tiers()

    node.tiers = away_for_the_third  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        assert run(node) == 0
    assert loudest(caplog) == [("WARNING", "The chain cannot be reached; the relay tries again: no route")]
    assert again(action).status == "broadcast"


def test_who_signs_no_more_signs_no_message_either() -> None:
    domain = wire.pool_domain(1, "0x" + "11" * 20)
    with pytest.raises(
        SignerRefused, match=r"the signer refuses \(key\): 0xabc is no signer here any more: it signs no RequestClose"
    ):
        Former("0xabc").sign_typed(typed.RequestClose(domain, b"\1" * 32, 1))


def test_what_is_mined_while_the_relay_works_counts_as_a_step_more(node: Node) -> None:
    take = node.send_raw

    def mines_at_once(raw: bytes) -> Any:
        node.mine("0x" + keccak(raw).hex(), 99)
        return take(raw)

    node.send_raw = mines_at_once  # type: ignore[method-assign]
    action = planned()
    assert run(node) == 2
    assert again(action).status == "mined"


def test_one_relay_works_for_a_signer_at_a_time(node: Node, settings: Any) -> None:
    action = planned()
    place = connection.get_connection_params()
    with psycopg.connect(**{key: place[key] for key in ("dbname", "user", "host", "port") if place.get(key)}) as other:
        name = f"escrow.relay:{settings.CHAIN_ID}:{RELAYER.address}"
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [name])
        assert run(node) == 0
        assert again(action).status == "planned"
        other.execute("SELECT pg_advisory_unlock_all()")
    assert run(node) == 1


# --- how much at once ---------------------------------------------------------------------------------------------


def test_what_is_due_is_signed_in_the_order_in_which_it_was_planned(node: Node) -> None:
    made = [planned(next_at=NOW - n * SECOND) for n in range(3)]
    later = planned(next_at=NOW + SECOND)
    for status in set(Status) - {Status.PLANNED, Status.SIGNED, Status.BROADCAST, Status.MINED, Status.SAFE}:
        planned(status=status)
    assert run(node) == 3
    assert [again(action).nonce for action in made] == [7, 8, 9]
    assert again(later).status == "planned"
    assert [decoded(raw)["nonce"] for raw in node.sent] == [7, 8, 9]


def test_between_two_looks_at_what_is_mined_only_so_much_is_signed(node: Node, settings: Any) -> None:
    settings.RELAY_BATCH = 2
    made = [planned() for _ in range(5)]
    looks: list[int] = []
    tiers = node.tiers

    def watched() -> Any:
        looks.append(len(node.sent))
        return tiers()

    node.tiers = watched  # type: ignore[method-assign]
    assert run(node) == 5
    assert set(statuses(*made)) == {"broadcast"}
    assert looks == [0, 0, 2, 4, 5]  # the arbiter's, and then before and after each two


def test_a_run_ends_after_a_while(node: Node, settings: Any) -> None:
    settings.RELAY_BATCH, settings.RELAY_RUN_SECONDS = 1, -1
    made = [planned() for _ in range(3)]
    assert run(node) == 1
    assert statuses(*made) == ["broadcast", "planned", "planned"]


def test_only_so_much_is_in_flight(node: Node, settings: Any) -> None:
    settings.RELAY_MAX_IN_FLIGHT = 2
    made = [planned() for _ in range(4)]
    assert run(node) == 2
    assert statuses(*made) == ["broadcast", "broadcast", "planned", "planned"]
    assert run(node) == 0
    settings.RELAY_MAX_IN_FLIGHT = 1
    assert run(node) == 0
    node.mine(again(made[0]).tx_hash, 99)
    settings.RELAY_MAX_IN_FLIGHT = 2
    assert run(node) == 2
    assert statuses(*made) == ["mined", "broadcast", "broadcast", "planned"]


def test_a_chain_that_cannot_be_reached_ends_the_run_with_what_was_done(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    action = planned()
    node.away = ChainUnavailable("no route")
    with caplog.at_level(logging.WARNING):
        assert run(node) == 0
    assert again(action).status == "planned"
    told = "The chain or a signer cannot be reached; the relay tries again: no route"
    assert loudest(caplog) == [("WARNING", told)] * 2


def test_a_signer_that_cannot_be_reached_keeps_no_other_waiting(node: Any, settings: Any) -> None:
    class Remote(Keys):
        def relayer(self, shard: int) -> LocalSigner:
            if shard == 0:
                raise ChainUnavailable("the signer is away")
            return super().relayer(shard)

    settings.RELAYERS = 2
    waits, good = planned(shard=0), planned(shard=1)
    assert Relay(node, Remote(), NOW).run() == 1
    assert statuses(waits, good) == ["planned", "broadcast"]


def test_what_fails_unexpectedly_is_counted_and_keeps_nobody_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    odd, good = planned(Kind.RECLAIM, attempts=2), planned()
    monkeypatch.setattr("escrow.signing.moot", lambda action: action.pk == odd.pk and 1 / 0)
    with caplog.at_level(logging.ERROR):
        assert run(node) == 1
    assert statuses(odd, good) == ["planned", "broadcast"]
    row = again(odd)
    assert (row.attempts, row.error) == (3, "ZeroDivisionError: division by zero")
    assert row.next_at == NOW + 2 * SECOND
    assert loudest(caplog) == [("ERROR", f"Chain action {odd.pk} (reclaim) cannot be signed")]
    assert caplog.records[0].exc_info is not None
    ChainAction.objects.filter(pk=odd.pk).update(attempts=19)
    assert run(node, NOW + 2 * SECOND) == 1
    assert again(odd).status == "parked"


@pytest.mark.parametrize("error", [ChainUnavailable("away"), SoftTimeLimitExceeded()])
def test_what_is_nobodys_failure_is_not_counted(node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def raises(*_: object) -> bool:
        raise error

    action = planned()
    monkeypatch.setattr("escrow.signing.moot", raises)
    if isinstance(error, SoftTimeLimitExceeded):
        with pytest.raises(SoftTimeLimitExceeded):
            run(node)
    else:
        assert run(node) == 0
    assert (again(action).status, again(action).attempts, again(action).error) == ("planned", 0, "")


def test_what_fails_once_it_is_signed_is_not_planned_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(_: bytes) -> Any:
        raise KeyError("x")

    action = planned()
    node.send_raw = raises  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        assert run(node) == 0
    assert (again(action).status, again(action).attempts, again(action).error) == ("signed", 0, "")
    assert loudest(caplog) == []


def test_due_actions_come_with_their_pools(node: Node) -> None:
    planned()
    with CaptureQueriesContext(connection) as queries:
        run(node)
    due = [query["sql"] for query in queries if "'planned'" in query["sql"] and "ORDER BY" in query["sql"]]
    assert due
    assert all('LEFT OUTER JOIN "escrow_pool"' in sql for sql in due)


# --- what is signed -----------------------------------------------------------------------------------------------


def test_bytes_nonce_and_hash_are_noted_before_anything_is_sent(
    node: Node, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(point: str) -> None:
        row = ChainAction.objects.get(kind="withdraw_fees")
        seen.append((point, row.status, row.nonce, Attempt.objects.count(), len(node.sent)))

    monkeypatch.setattr(crashpoints, "reach", look)
    action = planned(attempts=4, error="was refused")
    other = planned(Kind.RECLAIM, next_at=NOW + SECOND)
    assert run(node) == 1
    assert seen == [
        ("relay.signing", "signed", 7, 1, 0),
        ("relay.signed", "signed", 7, 1, 0),
        ("relay.sent", "signed", 7, 1, 1),
        ("relay.broadcast", "broadcast", 7, 1, 1),
    ]
    row, attempt = again(action), Attempt.objects.get()
    assert (row.signer_address, bytes(row.calldata or b"")) == (RELAYER.address, contract.withdraw_fees())
    assert (row.gas_limit, row.gas_price_wei, row.tx_hash) == (250_000, 10 * GWEI, attempt.tx_hash)
    assert (row.attempts, row.error) == (0, "")
    assert (attempt.max_fee_wei, attempt.tip_wei, bytes(attempt.raw)) == (18 * GWEI, 2 * GWEI, node.sent[0])
    fields = decoded(node.sent[0])
    assert (fields["nonce"], fields["gas"], HexBytes(fields["to"])) == (7, 250_000, HexBytes(settings.ESCROW_ADDRESS))
    assert HexBytes(fields["data"]) == HexBytes(contract.withdraw_fees())
    assert node.what("estimate_gas") == [(RELAYER.address, settings.ESCROW_ADDRESS, contract.withdraw_fees())]
    assert again(other).nonce is None


def test_an_action_is_signed_for_its_payer_and_for_an_hour(node: Any, settings: Any) -> None:
    pool = opened()
    closes = planned(Kind.REQUEST_CLOSE, pool)
    grants = planned(Kind.MINT, subject_id=uuid4(), params={"amount_micros": "5"})
    run(node)
    key, until = pool.key, int((NOW + timedelta(hours=1)).timestamp())
    message = typed.RequestClose(wire.pool_domain(settings.CHAIN_ID, settings.ESCROW_ADDRESS), key, until)
    signature = KEYS.payer(str(pool.payer_id)).sign_typed(message)
    assert bytes(again(closes).calldata or b"") == contract.request_close_with_sig(key, until, signature)
    payer = KEYS.payer(str(grants.subject_id)).address
    assert bytes(again(grants).calldata or b"") == contract.mint_test_usdc(payer, 5)
    asked = [(to, calldata) for _, to, calldata in node.what("estimate_gas")]
    assert asked[0] == (settings.ESCROW_ADDRESS, bytes(again(closes).calldata or b""))
    assert asked[1] == (settings.USDC_ADDRESS, bytes(again(grants).calldata or b""))


def test_a_nonce_is_ours_to_count(node: Node, settings: Any) -> None:
    SignerNonce.objects.create(address=RELAYER.address, chain_id=1, next_nonce=50)
    first = planned()
    run(node)
    assert node.what("nonce") == [(RELAYER.address, "latest")]
    node.first_nonce = 99
    SignerNonce.objects.create(address=ARBITER.address, chain_id=settings.CHAIN_ID, next_nonce=60)
    second = planned()
    run(node)
    assert (again(first).nonce, again(second).nonce) == (7, 8)
    assert len(node.what("nonce")) == 1
    counted = dict(SignerNonce.objects.filter(chain_id=settings.CHAIN_ID).values_list("address", "next_nonce"))
    assert counted == {RELAYER.address: 9, ARBITER.address: 60}
    assert SignerNonce.objects.get(chain_id=1).next_nonce == 50


def test_a_nonce_is_taken_under_a_lock(node: Node) -> None:
    planned()
    with CaptureQueriesContext(connection) as queries:
        run(node)
    locking = [query["sql"] for query in queries if "FOR NO KEY UPDATE" in query["sql"]]
    assert len(locking) == 1
    assert 'FROM "escrow_signernonce"' in locking[0]


def test_a_signer_that_is_stopped_signs_nothing(node: Node, settings: Any) -> None:
    SignerNonce.objects.create(
        address=RELAYER.address, chain_id=settings.CHAIN_ID, next_nonce=7, stopped_reason="none of ours"
    )
    action = planned()
    with unmoved():
        assert run(node) == 0
    assert (again(action).status, again(action).next_at, node.sent) == ("planned", NOW, [])
    assert node.what("estimate_gas") == []


def test_what_was_done_meanwhile_is_dropped(node: Node) -> None:
    nothing = settles()
    assert run(node) == 1
    assert (again(nothing).status, again(nothing).error) == ("dropped", "Nothing was left to do.")
    assert node.sent == []


def test_the_contract_is_asked_about_each_batch_before_it_is_signed(node: Node, settings: Any) -> None:
    action = settles(opened(), opened())
    batches = list(Batch.objects.select_related("pool"))
    bad, good = batches
    calls = node.call

    def call(to: str, calldata: bytes, **others: Any) -> bytes:
        calls(to, calldata, **others)
        if calldata == receipts.calldata(bad):
            raise ChainReverted("AlreadySettled", {"seq": 3})
        return b""

    node.call = call  # type: ignore[method-assign]
    assert run(node) == 1
    asked = {(to, calldata, others["from_"]) for to, calldata, others in node.what("call")}
    assert asked == {(settings.ESCROW_ADDRESS, receipts.calldata(one), RELAYER.address) for one in batches}
    bad.refresh_from_db()
    assert (bad.action, bad.turns, bad.next_at, bad.reason) == (None, 1, NOW, "AlreadySettled(seq=3)")
    assert bytes(again(action).calldata or b"") == receipts.calldata(good)
    node.asked.clear()
    planned()
    run(node)
    assert node.what("call") == []


# --- gas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "limit"),
    [(21_000, 61_000), (160_000, 200_000), (160_004, 200_005), (200_001, 250_001), (13_421_772, 16_777_215)],
)
def test_gas_has_a_margin(node: Node, estimate: int, limit: int) -> None:
    action = planned()
    node.gas = estimate
    run(node)
    assert again(action).gas_limit == limit


def test_no_chain_transaction_asks_for_more_gas_than_it_may(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gas, "TRANSACTION_GAS_CAP", 100_000)
    fits, over = planned(), planned(Kind.RECLAIM, opened())
    node.gas = 60_000
    estimates = {fits.pk: 60_000, over.pk: 60_001}
    order = iter(estimates.values())
    monkeypatch.setattr(node, "estimate_gas", lambda *_: next(order))
    run(node)
    assert (again(fits).status, again(fits).gas_limit) == ("broadcast", 100_000)
    assert again(over).error == "It needs 60001 gas, and a chain transaction may ask for 100000."
    assert (again(over).status, again(over).attempts) == ("planned", 1)


def check_waits(action: ChainAction, error: str) -> None:
    row = again(action)
    assert (row.status, row.error, row.next_at, row.attempts) == ("planned", error, NOW + 5 * SECOND, 0)
    assert row.nonce is None


def test_what_is_too_dear_waits(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.market = Fees(base_fee=20 * GWEI, tip=1, max_fee=50 * GWEI)
    waits, urgent = planned(), planned(Kind.RECLAIM, opened())
    with caplog.at_level(logging.WARNING):
        assert run(node) == 1
    reason = "Gas costs 20.000 gwei; it waits until that is at most 20."
    check_waits(waits, reason)
    assert again(urgent).status == "broadcast"
    assert loudest(caplog) == [("WARNING", f"Chain action {waits.pk} (withdraw_fees) waits: {reason}")]


def test_what_does_not_fit_into_the_hours_budget_waits(node: Node, settings: Any) -> None:
    settings.GAS_BUDGET_USD_PER_HOUR, settings.ETH_USD = 1, 400  # 0.0025 ETH: 250,000 gas at 10 gwei
    first, second = planned(), planned(Kind.RECLAIM, opened())
    assert run(node) == 1
    assert again(first).status == "broadcast"
    told = "The gas of the last hour cost 0.002500 ETH, and this would cost 0.002500: more than 1 dollars in all."
    check_waits(second, told)


@pytest.mark.parametrize("short", [0, 1])
def test_a_signer_without_funds_waits(node: Node, caplog: pytest.LogCaptureFixture, short: int) -> None:
    action = planned()
    node.wei = 250_000 * 18 * GWEI - short
    with caplog.at_level(logging.ERROR):
        assert run(node) == 1 - short
    assert node.what("balance") == [(RELAYER.address,)]
    if short:
        reason = f"Signer {RELAYER.address} has 0.004500 ETH, too little for gas; send it some."
        check_waits(action, reason)
        assert loudest(caplog) == [("ERROR", f"Chain action {action.pk} (withdraw_fees) waits: {reason}")]
    else:
        assert again(action).status == "broadcast"


@pytest.mark.parametrize(
    ("short", "becomes"), [(0, ["broadcast"] * 2 + ["planned"]), (1, ["broadcast", "planned", "planned"])]
)
def test_what_is_signed_together_shares_what_the_signer_has(node: Node, short: int, becomes: list[str]) -> None:
    made = [planned() for _ in range(3)]
    node.wei = 2 * 250_000 * 18 * GWEI - short
    run(node)
    assert statuses(*made) == becomes
    assert node.what("balance") == [(RELAYER.address,)]  # asked once for all that is signed together


# --- the signer's own mind ----------------------------------------------------------------------------------------


class Minded(Keys):
    """Keys of which the relayer's refuses to sign."""

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def relayer(self, shard: int) -> LocalSigner:
        rule = self.rule

        class Refusing(LocalSigner):
            def sign_transaction(self, fields: Any) -> Any:
                raise SignerRefused(rule, "too much")

        return Refusing(bytes([shard + 1]) * 32)


def test_what_the_signer_refuses_is_counted_and_uses_no_nonce_up(node: Any) -> None:
    action = planned()
    assert Relay(node, Minded("value"), NOW).run() == 0
    row = again(action)
    assert (row.status, row.attempts, row.error) == ("planned", 1, "the signer refuses (value): too much")
    assert SignerNonce.objects.get(address=RELAYER.address).next_nonce == 7
    assert (Attempt.objects.count(), node.sent) == (0, [])


def test_what_passes_a_limit_of_the_signers_hour_waits(node: Any) -> None:
    action = planned()
    assert Relay(node, Minded("hourly value"), NOW).run() == 0
    check_waits(action, "the signer refuses (hourly value): too much")


def test_a_signer_that_was_stopped_a_moment_ago_signs_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    action = planned()
    estimate = node.estimate_gas

    def stop(*asked: Any) -> int:
        SignerNonce.objects.update(stopped_reason="none of ours")
        return estimate(*asked)

    node.estimate_gas = stop  # type: ignore[method-assign]
    assert run(node) == 0
    check_waits(action, "none of ours")
    assert (Attempt.objects.count(), node.sent) == (0, [])


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_node_that_refuses_to_estimate_says_nothing_about_the_call(node: Node) -> None:
    action = planned(attempts=0)
    node.gas = ChainRefused("eth_estimateGas", -32000, "busy")
    assert run(node) == 0
    check_waits(action, "The node refused to estimate it: eth_estimateGas: busy (-32000)")


def test_a_node_that_refuses_to_call_says_nothing_about_a_batch(node: Node) -> None:
    action = settles(opened())

    def refuses(*_: object, **__: object) -> bytes:
        raise ChainRefused("eth_call", -32000, "busy")

    node.call = refuses  # type: ignore[method-assign]
    assert run(node) == 0
    check_waits(action, "eth_call: busy (-32000)")
    batch = Batch.objects.get()
    assert (batch.action, batch.turns) == (action, 0)


def test_a_node_that_cannot_tell_what_gas_costs_ends_the_pass_of_one_signer(node: Node, settings: Any) -> None:
    settings.RELAYERS = 2
    waits, good = planned(shard=0), planned(shard=1)
    fees, asked = node.fees, count(1)

    def not_at_first() -> Fees:
        if next(asked) == 1:
            raise ChainRefused("eth_feeHistory", -32000, "busy")
        return fees()

    node.fees = not_at_first  # type: ignore[method-assign]
    assert run(node) == 1
    assert statuses(waits, good) == ["planned", "broadcast"]
    assert again(waits).next_at == NOW


@pytest.mark.parametrize(("attempts", "wait"), [(0, 0.5), (1, 1), (2, 2), (3, 4), (7, 60), (6, 32), (18, 60)])
def test_what_the_contract_refuses_is_tried_later_and_later(node: Node, attempts: int, wait: float) -> None:
    action, other = planned(attempts=attempts), planned(Kind.RECLAIM, next_at=NOW + SECOND)
    node.gas = ChainReverted("NoFees", {})
    with unmoved():
        assert run(node) == 0
    row = again(action)
    assert (row.status, row.attempts, row.error) == ("planned", attempts + 1, "NoFees()")
    assert row.next_at == NOW + timedelta(seconds=wait)
    assert (again(other).attempts, again(other).error) == (0, "")


def test_an_opening_that_the_contract_refuses_again_and_again_is_told_as_failed_and_ends(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    pool = books.pool()
    opening = ChainAction.objects.get(kind="open_pool", pool=pool)
    ChainAction.objects.update(status="final")
    Pool.objects.filter(pk=pool.pk).update(status="opening")
    ChainAction.objects.filter(pk=opening.pk).update(status="planned", next_at=NOW, attempts=19, shard=0)
    node.gas = ChainReverted("PoolExists", {})
    with unmoved(), caplog.at_level(logging.ERROR):
        ran = Relay(node, KEYS, NOW)._refused(again(opening), "PoolExists()")  # type: ignore[arg-type]
    assert ran is True
    row = again(opening)
    assert (row.status, row.attempts, row.error, row.nonce) == ("dropped", 20, "PoolExists()", None)
    assert Pool.objects.get(pk=pool.pk).status == "failed"  # whoever waits for it is told
    assert loudest(caplog) == [("ERROR", f"Chain action {opening.pk} (open_pool) is dropped: PoolExists()")]
    assert list(ChainAction.objects.filter(intents.refused())) == [opening]
    assert not [gauge.values for gauge in gauges.read(NOW) if gauge.name == "market_chain_actions" and gauge.values]


def test_a_group_that_is_refused_as_a_whole_goes_on_in_halves(node: Node) -> None:
    group, alone = settles(opened(), opened()), settles(opened())
    node.gas = ChainReverted("", {}, "out of gas")
    assert run(node) == 1
    assert (again(group).status, again(group).attempts, again(group).error) == ("dropped", 1, "out of gas")
    assert (again(alone).status, again(alone).attempts) == ("planned", 1)
    released = Batch.objects.filter(action=None)
    assert list(released.values_list("turns", "next_at", "reason")) == [(1, NOW, "out of gas")] * 2
    assert alone.batches.count() == 1


@pytest.mark.parametrize(
    ("name", "head", "counts"),
    [
        ("NothingToWithdraw", 61, False),
        ("NotEnded", 61, False),
        ("TimeoutTooEarly", 61, False),
        ("NotEnded", None, False),
        ("NotEnded", 60, True),
        ("PoolExists", 61, True),
    ],
)
def test_what_is_too_early_by_the_clock_of_a_chain_that_stands_still_is_no_refusal(
    node: Node, name: str, head: int | None, counts: bool
) -> None:
    """`head`: how many seconds ago the newest block was made; none: the node has no such block."""
    action = planned()
    node.gas = ChainReverted(name, {})
    node.newest = None if head is None else Block(100, "0x", "0x", int(NOW.timestamp()) - head, 0)
    with unmoved():
        assert run(node) == 0
    row = again(action)
    assert (row.status, row.attempts) == ("planned", int(counts))
    said = "" if counts else "It is too early by the clock of a chain that stands still: "
    assert row.error == f"{said}{name}()"
    assert node.what("block") == ([("latest",)] if name != "PoolExists" else [])
    if not counts:
        assert row.next_at == NOW + 5 * SECOND


def test_who_was_put_off_comes_after_who_was_not_and_the_longest_wait_first(node: Node) -> None:
    late = planned(error="dear gas", next_at=NOW - SECOND)
    early = planned(error="dear gas", next_at=NOW - 2 * SECOND)
    same = planned(error="dear gas", next_at=NOW - SECOND)
    fresh, newer = planned(next_at=NOW), planned(next_at=NOW - 3 * SECOND)
    assert run(node) == 5
    in_order = ChainAction.objects.filter(status="broadcast").order_by("nonce")
    assert [action.pk for action in in_order] == [one.pk for one in (fresh, newer, early, late, same)]


def test_one_about_which_the_signer_is_silent_keeps_no_other_waiting(node: Node) -> None:
    mute, other = planned(), planned()

    class Silent(Keys):
        def relayer(self, shard: int = 0) -> Any:
            key = super().relayer(shard)
            found = self

            class Key:
                address = key.address

                def sign_transaction(self, fields: Any) -> Any:
                    if found.silent:
                        found.silent -= 1
                        raise SignerUnavailable("it cannot look")
                    return key.sign_transaction(fields)

            return Key()

        silent = 1

    keys = Silent()
    with unmoved():
        assert Relay(node, keys, NOW).run() == 0  # type: ignore[arg-type]
    row = again(mute)
    assert (row.status, row.attempts, row.error, row.next_at) == ("planned", 0, "it cannot look", NOW + 5 * SECOND)
    assert Relay(node, keys, NOW).run() == 1  # type: ignore[arg-type]
    assert statuses(mute, other) == ["planned", "broadcast"]
    assert run(node, NOW + 5 * SECOND) == 1
    assert again(mute).status == "broadcast"


def test_an_action_that_left_its_plan_meanwhile_is_not_put_off(node: Node) -> None:
    action = planned(status="parked", error="a person parked it")
    Relay(node, KEYS, NOW)._put_off(action, "too late", SECOND)  # type: ignore[arg-type]
    assert (again(action).error, again(action).next_at) == ("a person parked it", NOW)


def test_what_a_node_does_not_take_is_signed_all_the_same(node: Node) -> None:
    action = planned()
    node.outcomes = [SendOutcome.UNKNOWN]
    assert run(node) == 1
    assert again(action).status == "signed"
