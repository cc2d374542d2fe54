"""`escrow.flights`: what is sent, what counts as mined, and what is final, by what nodes say. Real chains: `tests/onchain`."""

import logging
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.test.utils import CaptureQueriesContext
from eth_account import Account as Accounts
from eth_account.typed_transactions import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from escrow import crashpoints, flights, intents, ledger, trail
from escrow.chain import wire
from escrow.chain.client import Fees
from escrow.chain.errors import ChainUnavailable, ChainUnconfirmed, SignerRefused, SignerUnavailable
from escrow.chain.outcomes import SendOutcome
from escrow.chain.signer import LocalSigner
from escrow.flights import Flights
from escrow.models import Account, Attempt, Batch, ChainAction, Pool, SignerNonce
from tests.escrow import books
from tests.escrow.books import NOW, unmoved
from tests.escrow.nodes import GWEI, Node, block_hash

pytestmark = pytest.mark.django_db
Kind, Status = ChainAction.Kind, ChainAction.Status
OURS, THEIRS = LocalSigner(b"\7" * 32), LocalSigner(b"\6" * 32)
PRICE = Fees(base_fee=8 * GWEI, tip=2 * GWEI, max_fee=18 * GWEI)
SECOND = timedelta(seconds=1)
_numbers = count(1)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture(autouse=True)
def _rules(settings: Any) -> None:
    settings.RELAY_RETRY_SECONDS, settings.RELAY_REPLACE_SECONDS, settings.RELAY_MAX_ATTEMPTS = 5, 30, 20
    settings.USDC_ADDRESS = "0x" + "22" * 20


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where a crash could be had."""
    points: list[str] = []
    monkeypatch.setattr(crashpoints, "reach", points.append)
    return points


def of(node: Any, *, signer: LocalSigner = OURS, now: datetime = NOW) -> Flights:
    return Flights(node, signer, now)


def signed(
    node: Node, nonce: int = 7, *, status: str = "broadcast", sent: bool = True, kind: Kind = Kind.RECLAIM,
    signer: LocalSigner = OURS, **changes: Any,
) -> ChainAction:  # fmt: skip
    """An action with one signed attempt, as the relay leaves it."""
    made = intents.record(kind, dedupe_key=f"flight:{next(_numbers)}", pool=None)
    attempt = of(node, signer=signer).attempt(made, nonce=nonce, gas_limit=250_000, calldata=b"call", fees=PRICE)
    fields = {"status": status, "nonce": nonce, "signer_address": signer.address, "calldata": b"call"}
    fields |= {"gas_limit": 250_000, "gas_price_wei": 10 * GWEI, "tx_hash": attempt.tx_hash, "next_at": NOW}
    ChainAction.objects.filter(pk=made.pk).update(**(fields | changes))
    if sent:
        Attempt.objects.filter(pk=attempt.pk).update(outcome="ok", sent_at=NOW)
    return again(made)


def standing(
    node: Node, block: int, nonce: int = 7, *, status: str = "mined", ok: bool = True, **changes: Any
) -> ChainAction:
    """An action that is in a block, on a chain that has it there."""
    place = {"block_number": block, "block_hash": block_hash(block), "mined_at": NOW - SECOND, "gas_used": 1}
    action = signed(node, nonce, status=status, **(place | changes))
    node.mine(action.tx_hash, block, ok=ok)
    return action


def again(action: ChainAction) -> ChainAction:
    return ChainAction.objects.get(pk=action.pk)


def attempts(action: ChainAction) -> list[Attempt]:
    return list(action.signed_attempts.order_by("pk"))


def decoded(raw: bytes) -> dict[str, Any]:
    return dict(TypedTransaction.from_bytes(HexBytes(raw)).as_dict())


def loudest(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "escrow.flights"]


# --- signed bytes -------------------------------------------------------------------------------------------------


def test_an_attempt_is_signed_with_all_that_was_asked_for(node: Node, settings: Any) -> None:
    for kind, to in ((Kind.RECLAIM, settings.ESCROW_ADDRESS), (Kind.MINT, settings.USDC_ADDRESS)):
        made = intents.record(kind, dedupe_key=f"flight:{next(_numbers)}", pool=None)
        attempt = of(node).attempt(made, nonce=41, gas_limit=123_456, calldata=b"\1\2\3", fees=PRICE)
        row = Attempt.objects.get(pk=attempt.pk)
        raw = bytes(row.raw)
        fields = decoded(raw)
        assert Accounts.recover_transaction(HexBytes(raw)) == OURS.address
        assert (fields["chainId"], fields["nonce"], fields["gas"], fields["value"]) == (
            settings.CHAIN_ID,
            41,
            123_456,
            0,
        )
        assert (fields["maxFeePerGas"], fields["maxPriorityFeePerGas"]) == (18 * GWEI, 2 * GWEI)
        assert (HexBytes(fields["to"]), HexBytes(fields["data"])) == (HexBytes(to), HexBytes("0x010203"))
        assert (row.action, row.max_fee_wei, row.tip_wei, row.outcome) == (made, 18 * GWEI, 2 * GWEI, "")
        assert (row.cancels, row.sent_at) == (False, None)
        assert row.tx_hash == "0x" + keccak(raw).hex()


@pytest.mark.parametrize("outcome", [SendOutcome.OK, SendOutcome.ALREADY_KNOWN])
def test_what_a_node_has_taken_is_broadcast(node: Node, reached: list[str], outcome: SendOutcome) -> None:
    action = signed(node, status="signed", sent=False)
    (attempt,) = attempts(action)
    node.outcomes = [outcome]
    assert of(node).send(action, attempt) is True
    assert node.sent == [bytes(attempt.raw)]
    assert reached == ["relay.sent", "relay.broadcast"]
    assert (again(action).status, again(action).next_at, again(action).error) == ("broadcast", NOW + 5 * SECOND, "")
    attempt.refresh_from_db()
    assert (attempt.outcome, attempt.sent_at) == (outcome.value, NOW)


def test_what_is_sent_again_keeps_the_time_of_its_first_sending(node: Node) -> None:
    action, others = signed(node), signed(node, 8)
    (attempt,) = attempts(action)
    later = NOW + timedelta(minutes=1)
    node.outcomes = [SendOutcome.ALREADY_KNOWN]
    assert of(node, now=later).send(action, attempt) is False
    attempt.refresh_from_db()
    assert (attempt.outcome, attempt.sent_at) == ("already_known", NOW)
    assert (again(action).status, again(action).next_at) == ("broadcast", later + 5 * SECOND)
    assert (again(others).next_at, attempts(others)[0].outcome) == (NOW, "ok")


@pytest.mark.parametrize(
    "outcome", [SendOutcome.UNDERPRICED, SendOutcome.UNFUNDED, SendOutcome.UNKNOWN, SendOutcome.REFUSED]
)
def test_what_a_node_has_not_taken_waits_and_says_why(
    node: Node, caplog: pytest.LogCaptureFixture, outcome: SendOutcome
) -> None:
    action, others = signed(node, status="signed", sent=False, attempts=3), signed(node, 8)
    (attempt,) = attempts(action)
    node.outcomes = [outcome]
    with caplog.at_level(logging.WARNING):
        assert of(node).send(action, attempt) is False
    row = again(action)
    assert (row.status, row.next_at, row.error) == ("signed", NOW + 5 * SECOND, f"{outcome}: says {outcome}")
    assert row.attempts == (4 if outcome is SendOutcome.REFUSED else 3)
    assert attempts(action)[0].outcome == outcome.value
    assert (again(others).error, again(others).attempts) == ("", 0)
    told = f"Chain action {action.pk} (reclaim) was not taken: {outcome}: says {outcome}"
    assert loudest(caplog) == [("WARNING", told)]
    assert node.what("receipt") == []


def test_a_nonce_that_is_used_is_looked_for_among_our_own(node: Node) -> None:
    action = signed(node)
    (attempt,) = attempts(action)
    node.outcomes = [SendOutcome.NONCE_TOO_LOW] * 2
    assert of(node).send(action, attempt) is False  # not used, as far as two nodes know
    assert again(action).status == "broadcast"
    node.mine(attempt.tx_hash, 99)
    assert of(node).send(action, attempt) is True
    assert again(action).status == "mined"


# --- somebody else has our key ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("final", "latest", "depth"), [(80, 100, 80), (98, 100, 95), (95, 100, 95), (3, 4, 0), (0, 0, 0), (6, 6, 1)]
)
def test_a_nonce_counts_as_used_when_blocks_stand_on_it(node: Node, final: int, latest: int, depth: int) -> None:
    node.final, node.latest, node.outcomes = final, latest, [SendOutcome.NONCE_TOO_LOW]
    action = signed(node)
    of(node).send(action, attempts(action)[0])
    assert node.what("agreed_nonce") == [(OURS.address, depth)]


@pytest.mark.parametrize("used", [7, 8])
def test_a_nonce_that_somebody_else_has_used_stops_the_signer(
    node: Node, caplog: pytest.LogCaptureFixture, settings: Any, used: int
) -> None:
    for address, chain in ((OURS.address, settings.CHAIN_ID), (THEIRS.address, settings.CHAIN_ID), (OURS.address, 1)):
        SignerNonce.objects.create(address=address, chain_id=chain, next_nonce=8)
    action = signed(node)
    node.outcomes, node.used_nonces = [SendOutcome.NONCE_TOO_LOW], used
    with unmoved(), caplog.at_level(logging.ERROR):
        assert of(node).send(action, attempts(action)[0]) is (used == 8)
    if used == 7:  # the next to be used: ours is not used yet
        assert not SignerNonce.objects.exclude(stopped_reason="").exists()
        return
    reason = "Nonce 7 was used by a chain transaction that is none of ours."
    stopped = SignerNonce.objects.exclude(stopped_reason="").get()
    assert (stopped.address, stopped.chain_id, stopped.stopped_reason) == (OURS.address, settings.CHAIN_ID, reason)
    assert (again(action).status, again(action).error) == ("reverted", reason)
    assert loudest(caplog) == [
        ("CRITICAL", f"Signer {OURS.address} is stopped: {reason}"),
        ("ERROR", f"Chain action {action.pk} (reclaim) is reverted: {reason}"),
    ]


def test_a_receipt_that_one_node_hides_stops_no_signer(node: Node) -> None:
    action = signed(node)
    (attempt,) = attempts(action)
    node.outcomes, node.used_nonces = [SendOutcome.NONCE_TOO_LOW], 8
    node.agreed[attempt.tx_hash] = node.mine("0xother", 99)
    assert of(node).send(action, attempt) is False
    assert again(action).status == "broadcast"
    assert node.what("agreed_receipt") == [(attempt.tx_hash,)]


# --- signed, broadcast -> mined -----------------------------------------------------------------------------------


def test_what_is_in_no_block_is_one_signers_by_nonce(node: Node) -> None:
    third, first = signed(node, 9), signed(node, 7, status="signed")
    for status in set(Status) - {Status.SIGNED, Status.BROADCAST}:
        signed(node, 20 + list(Status).index(Status(status)), status=status)
    signed(node, 7, signer=THEIRS)
    with CaptureQueriesContext(connection) as queries:
        assert [action.pool for action in of(node).unmined()] == [None, None]
    assert list(of(node).unmined()) == [first, third]
    assert "escrow_pool" in queries[0]["sql"]


def test_what_a_block_holds_is_mined(node: Node, reached: list[str]) -> None:
    action = signed(node, error="unknown: says unknown", next_at=NOW + timedelta(hours=1))
    node.mine(action.tx_hash, 99)
    assert of(node).follow() == 1
    row = again(action)
    assert (row.status, row.tx_hash, row.gas_used, row.gas_price_wei) == ("mined", action.tx_hash, 60_000, 9 * GWEI)
    assert (row.block_number, row.block_hash, row.error) == (99, block_hash(99), "")
    assert (row.mined_at, row.next_at) == (NOW, NOW)
    assert reached == ["relay.mined"]
    assert node.sent == []


@pytest.mark.parametrize("branch", [1, None])
def test_a_receipt_of_a_block_that_the_chain_does_not_have_is_none(
    node: Node, caplog: pytest.LogCaptureFixture, branch: int | None
) -> None:
    action = signed(node, next_at=NOW + SECOND)
    node.mine(action.tx_hash, 99)
    node.branches[99] = branch
    with caplog.at_level(logging.WARNING):
        assert of(node).follow() == 0
    assert again(action).status == "broadcast"
    told = f"A node tells of {action.tx_hash} in a block that the chain does not have"
    assert loudest(caplog) == [("WARNING", told)]


def test_what_is_mined_in_a_final_block_is_final_at_once(node: Node, reached: list[str]) -> None:
    action = signed(node)
    node.mine(action.tx_hash, 80)
    assert of(node).follow() == 1
    assert again(action).status == "final"
    assert reached == ["relay.mined", "relay.final"]


def test_above_a_nonce_that_is_not_mined_nothing_is_looked_up(node: Node) -> None:
    first, second, third, fourth = (signed(node, nonce, next_at=NOW + SECOND) for nonce in (7, 8, 9, 10))
    for action in (first, third):
        node.mine(action.tx_hash, 99)
    assert of(node).follow() == 1
    assert node.what("receipt") == [(first.tx_hash,), (second.tx_hash,)]
    assert [again(action).status for action in (first, second, third, fourth)] == ["mined", *["broadcast"] * 3]


def test_no_more_is_looked_at_than_a_sweep_takes(node: Node, settings: Any) -> None:
    settings.SWEEP_LIMIT = 2
    made = [signed(node, nonce) for nonce in (9, 8, 7)]
    for action in made:
        node.mine(action.tx_hash, 99)
    assert of(node).follow() == 2
    assert [again(action).status for action in made] == ["broadcast", "mined", "mined"]


def test_any_attempt_that_is_mined_is_the_one(node: Node) -> None:
    action = signed(node)
    second = of(node).attempt(action, nonce=7, gas_limit=250_000, calldata=b"call", fees=Fees(9, 9, 99))
    ChainAction.objects.filter(pk=action.pk).update(tx_hash=second.tx_hash)
    first = attempts(action)[0]
    node.mine(first.tx_hash, 99)
    assert of(node).follow() == 1
    assert (again(action).status, again(action).tx_hash) == ("mined", first.tx_hash)
    assert node.what("receipt") == [(second.tx_hash,), (first.tx_hash,)]  # the newest is likely the one


# --- sending again ------------------------------------------------------------------------------------------------


def test_what_is_due_is_sent_again_as_the_same_bytes(node: Node) -> None:
    due, later = signed(node, 7), signed(node, 8, next_at=NOW + SECOND)
    assert of(node).follow() == 0
    assert node.sent == [bytes(attempts(due)[0].raw)]
    assert again(due).next_at == NOW + 5 * SECOND
    assert again(later).next_at == NOW + SECOND


def test_what_waits_for_long_is_replaced_at_its_nonce(node: Node, reached: list[str]) -> None:
    action = signed(node)
    for waited in (30, 31, 61, 62, 91):
        ChainAction.objects.update(next_at=NOW)
        of(node, now=NOW + waited * SECOND).follow()
    first, second, third, fourth = attempts(action)
    assert [decoded(raw)["nonce"] for raw in node.sent] == [7] * 5
    sent = [attempt.pk for raw in node.sent for attempt in attempts(action) if bytes(attempt.raw) == raw]
    assert sent == [first.pk, second.pk, third.pk, third.pk, fourth.pk]
    assert reached.count("relay.replacing") == 3
    fields = decoded(bytes(second.raw))
    assert (fields["gas"], HexBytes(fields["data"])) == (250_000, HexBytes(b"call"))
    assert (second.tip_wei, second.max_fee_wei) == (2_260_000_001, 20_340_000_001)
    assert (second.cancels, second.action) == (False, action)
    assert again(action).status == "broadcast"


def test_what_a_node_has_not_answered_is_not_replaced(node: Node) -> None:
    unknown, unsent = signed(node, 7), signed(node, 8, sent=False)
    Attempt.objects.filter(action=unknown).update(outcome="unknown")
    Attempt.objects.filter(action=unsent).update(outcome="ok")
    of(node, now=NOW + timedelta(hours=1)).follow()
    assert [len(attempts(action)) for action in (unknown, unsent)] == [1, 1]
    assert len(node.sent) == 2


def test_what_is_underpriced_is_replaced_at_once(node: Node) -> None:
    action = signed(node)
    Attempt.objects.update(outcome="underpriced")
    of(node).follow()
    assert len(attempts(action)) == 2
    assert node.sent == [bytes(attempts(action)[1].raw)]


def test_a_replacement_is_the_markets_price_when_that_is_higher(node: Node) -> None:
    action = signed(node)
    Attempt.objects.update(outcome="underpriced")
    node.market = Fees(base_fee=1, tip=50 * GWEI, max_fee=150 * GWEI)
    of(node).follow()
    assert (attempts(action)[1].tip_wei, attempts(action)[1].max_fee_wei) == (50 * GWEI, 150 * GWEI)


def test_a_replacement_goes_where_the_first_went(node: Node, settings: Any) -> None:
    granting, other = signed(node, 7, kind=Kind.MINT), signed(node, 8)
    Attempt.objects.update(outcome="underpriced")
    of(node).follow()
    for action, to in ((granting, settings.USDC_ADDRESS), (other, settings.ESCROW_ADDRESS)):
        assert [HexBytes(decoded(bytes(attempt.raw))["to"]) for attempt in attempts(action)] == [HexBytes(to)] * 2


def replaced(action: ChainAction, times: int) -> None:
    """Let an action have been replaced so often."""
    first = attempts(action)[0]
    for at in range(times):
        Attempt.objects.create(
            action=action, tx_hash=f"0x{action.pk}:{at}", raw=first.raw, max_fee_wei=first.max_fee_wei,
            tip_wei=first.tip_wei, outcome="underpriced",
        )  # fmt: skip


def test_there_are_so_many_replacements_and_no_more(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    last, past = signed(node, 7), signed(node, 8)
    replaced(last, 11)
    replaced(past, 12)
    with caplog.at_level(logging.ERROR):
        of(node).follow()
    assert [len(attempts(action)) for action in (last, past)] == [13, 13]
    error = "It is not mined at 18.000 gwei; to offer more is a person's decision."
    assert (again(last).error, again(past).error) == ("", error)
    assert loudest(caplog) == [("ERROR", f"Chain action {past.pk} (reclaim): {error}")]
    assert node.sent[1] == bytes(attempts(past)[-1].raw)  # it is sent again as it is


def test_no_replacement_passes_the_cap_unless_a_person_asks(node: Node, settings: Any) -> None:
    settings.GAS_PRICE_CAP_GWEI = 20
    action = signed(node)
    Attempt.objects.update(outcome="underpriced")
    of(node).follow()
    assert (len(attempts(action)), len(node.sent)) == (1, 1)
    assert again(action).error.startswith("It is not mined at 18.000 gwei;")
    ChainAction.objects.update(params={"bump": True, "kept": 1}, next_at=NOW + timedelta(hours=1))
    of(node).follow()
    assert (len(attempts(action)), len(node.sent)) == (2, 2)
    assert again(action).params == {"kept": 1}
    assert not attempts(action)[1].cancels
    of(node).follow()
    assert len(node.sent) == 2


def test_a_wish_is_fulfilled_for_the_one_that_it_is_about(node: Node) -> None:
    action, other = signed(node, params={"bump": True}), signed(node, signer=THEIRS, params={"bump": True})
    of(node).follow()
    assert (again(action).params, again(other).params) == ({}, {"bump": True})
    assert [len(attempts(one)) for one in (action, other)] == [2, 1]


def test_what_a_person_asks_for_meanwhile_is_kept(node: Node) -> None:
    action = signed(node, params={"bump": True})
    ChainAction.objects.update(params={"bump": True, "cancel": True})
    assert of(node)._push(action) is False  # as it was read before
    assert (len(attempts(action)), node.sent) == (1, [])
    assert again(action).params == {"bump": True, "cancel": True}
    of(node).follow()
    assert [attempt.cancels for attempt in attempts(action)] == [False, True]
    assert again(action).params == {"cancel": True}


def test_a_person_may_have_a_nonce_freed(node: Node, settings: Any) -> None:
    settings.GAS_PRICE_CAP_GWEI = 0
    action = signed(node, params={"cancel": True})
    of(node).follow()
    first, second = attempts(action)
    assert (first.cancels, second.cancels) == (False, True)
    fields = decoded(bytes(second.raw))
    assert (fields["nonce"], fields["gas"], HexBytes(fields["data"])) == (7, 21_000, HexBytes(b""))
    assert HexBytes(fields["to"]) == HexBytes(OURS.address)
    assert again(action).params == {"cancel": True}
    of(node, now=NOW + 5 * SECOND).follow()  # once is enough
    assert len(attempts(action)) == 2
    assert node.sent == [bytes(second.raw)] * 2
    ChainAction.objects.update(params={"cancel": True, "bump": True})
    of(node).follow()
    assert [attempt.cancels for attempt in attempts(action)] == [False, True, True]


def test_one_that_no_node_ever_takes_frees_its_nonce(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    fewer, most = signed(node, 7, attempts=19), signed(node, 8, attempts=20)
    with caplog.at_level(logging.ERROR):
        of(node).follow()
    assert [[attempt.cancels for attempt in attempts(action)] for action in (fewer, most)] == [[False], [False, True]]
    told = f"Chain action {most.pk} (reclaim) can never be mined as it is; its nonce is freed"
    assert loudest(caplog) == [("ERROR", told)]
    of(node, now=NOW + 5 * SECOND).follow()
    assert len(attempts(most)) == 2
    Attempt.objects.filter(cancels=True).update(outcome="underpriced")
    of(node, now=NOW + 10 * SECOND).follow()
    assert [attempt.cancels for attempt in attempts(most)] == [False, True, True]


@pytest.mark.parametrize("error", [SignerRefused("value", "too much"), SignerUnavailable("away")])
def test_a_signer_that_makes_no_replacement_keeps_nothing_from_being_sent_again(
    node: Node, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    class Minded(LocalSigner):
        def sign_transaction(self, fields: Any) -> Any:
            raise error

    action, other = signed(node), signed(node, 8, next_at=NOW + SECOND)
    Attempt.objects.filter(action=action).update(outcome="underpriced")
    with caplog.at_level(logging.WARNING):
        of(node, signer=Minded(b"\7" * 32)).follow()
    assert node.sent == [bytes(attempts(action)[0].raw)]
    assert len(attempts(action)) == 1
    assert (again(action).error, again(other).error) == (f"It has no replacement: {error}", "")
    assert again(action).next_at == NOW + 5 * SECOND
    assert loudest(caplog) == [("WARNING", f"Chain action {action.pk} (reclaim) has no replacement: {error}")]


@pytest.mark.parametrize("lost", ["nonce", "gas_limit", "calldata"])
def test_one_without_signed_bytes_is_not_guessed_at(node: Node, caplog: pytest.LogCaptureFixture, lost: str) -> None:
    action = signed(node)
    Attempt.objects.update(outcome="underpriced")
    ChainAction.objects.update(**{lost: None})
    with caplog.at_level(logging.ERROR):
        assert of(node).follow() == 0
    assert len(attempts(action)) == 1
    assert node.sent == []
    assert [record.exc_text and record.exc_text.splitlines()[-1] for record in caplog.records] == [
        f"ValueError: {action} is broadcast without signed bytes"
    ]


# --- mined -> safe -> final ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "status", "becomes"),
    [(91, "mined", "mined"), (90, "mined", "safe"), (90, "safe", "safe"), (81, "safe", "safe"), (80, "safe", "final"),
     (80, "mined", "final"), (81, "mined", "safe"), (79, "mined", "final")],
)  # fmt: skip
def test_what_stands_is_safe_and_then_final(
    node: Node, block: int, status: str, becomes: str, reached: list[str]
) -> None:
    action = standing(node, block, status=status)
    assert of(node).follow() == (status != becomes)
    assert again(action).status == becomes
    assert reached == (["relay.final"] if becomes == "final" else [])
    assert node.what("agreed_receipt") == ([(action.tx_hash,)] if becomes == "final" else [])


def test_what_two_nodes_do_not_agree_on_stays(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    waits, good = standing(node, 79, 7), standing(node, 78, 8)
    node.agreed[waits.tx_hash] = ChainUnconfirmed("one node is away")
    with caplog.at_level(logging.WARNING):
        assert of(node).follow() == 1
    assert (again(waits).status, again(good).status) == ("mined", "final")
    told = f"Chain action {waits.pk} (reclaim) stays mined: one node is away"
    assert loudest(caplog) == [("WARNING", told)]


@pytest.mark.parametrize("told", ["none", "elsewhere"])
def test_what_two_nodes_have_elsewhere_is_gone(node: Node, told: str, caplog: pytest.LogCaptureFixture) -> None:
    action = standing(node, 80, status="safe")
    node.agreed[action.tx_hash] = node.mine(action.tx_hash, 80, branch=1) if told == "elsewhere" else None
    with caplog.at_level(logging.WARNING):
        assert of(node)._watch_standing(node.tiers()) == 1
    check_gone(action)
    assert loudest(caplog)[0] == ("WARNING", f"Chain action {action.pk} (reclaim): block {block_hash(80)} is gone")


def check_gone(action: ChainAction) -> None:
    row = again(action)
    assert (row.status, row.block_hash, row.block_number) == ("broadcast", "", None)
    assert (row.mined_at, row.gas_used, row.next_at >= NOW) == (None, None, True)


@pytest.mark.parametrize("branch", [1, None])
def test_what_stood_in_a_block_that_is_gone_is_sent_again(node: Node, branch: int | None) -> None:
    below, gone = standing(node, 97, 7), standing(node, 98, 8)
    gone2, above = standing(node, 98, 9, next_at=NOW + timedelta(hours=1)), standing(node, 99, 10)
    node.branches = {98: branch, 99: branch}
    node.receipts = {below.tx_hash: node.receipts[below.tx_hash]}
    flying = of(node)
    assert flying._watch_standing(node.tiers()) == 3
    for action in (gone, gone2, above):
        check_gone(action)
        assert again(action).next_at == NOW
    assert again(below).status == "mined"
    flying.follow()
    assert node.sent == [bytes(attempts(action)[0].raw) for action in (gone, gone2, above)]


def test_blocks_below_one_that_is_there_are_not_asked_for(node: Node) -> None:
    for block, nonce in ((95, 7), (97, 8), (97, 9), (96, 10)):
        standing(node, block, nonce)
    of(node).follow()
    assert node.what("block") == [(97,)]
    assert set(ChainAction.objects.filter(kind="reclaim").values_list("status", flat=True)) == {"mined"}


def test_an_action_whose_hash_is_another_than_that_of_its_block_is_gone(node: Node) -> None:
    good, odd = standing(node, 97, 7), standing(node, 97, 8, block_hash=block_hash(97, 5))
    of(node)._watch_standing(node.tiers())
    assert (again(good).status, again(odd).status) == ("mined", "broadcast")


def test_only_so_much_of_what_stands_is_watched_the_newest_first(node: Node, settings: Any) -> None:
    settings.RELAY_WATCHED = 2
    made = [standing(node, block, nonce) for block, nonce in ((88, 7), (90, 8), (89, 9))]
    standing(node, 88, 8, signer=THEIRS)
    assert of(node).follow() == 2
    assert [again(action).status for action in made] == ["mined", "safe", "safe"]
    assert ChainAction.objects.get(signer_address=THEIRS.address).status == "mined"


def test_what_is_final_ends_the_oldest_first_however_much_stands_above_it(node: Node, settings: Any) -> None:
    settings.RELAY_WATCHED = 2
    made = [standing(node, block, nonce) for block, nonce in ((79, 7), (78, 8), (80, 9), (90, 10), (91, 11), (92, 12))]
    of(node).follow()
    assert [again(action).status for action in made] == ["final", "final", "mined", "mined", "mined", "mined"]
    of(node).follow()
    assert again(made[2]).status == "final"


def test_what_stands_is_watched_for_one_signer(node: Node) -> None:
    ours, theirs = standing(node, 90), standing(node, 90, 8, signer=THEIRS)
    assert of(node).follow() == 1
    assert (again(ours).status, again(theirs).status) == ("safe", "mined")


def test_what_stands_comes_with_its_pool(node: Node) -> None:
    standing(node, 97)
    with CaptureQueriesContext(connection) as queries:
        of(node)._watch_standing(node.tiers())
    assert 'LEFT OUTER JOIN "escrow_pool"' in queries[0]["sql"]


def test_a_revert_is_told_once_it_is_final(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    standing(node, 81, 8, ok=False)
    action = standing(node, 80, ok=False)
    with unmoved(), caplog.at_level(logging.ERROR):
        assert of(node).follow() == 2
    reason = f"Reverted on chain in {action.tx_hash}."
    assert (again(action).status, again(action).error) == ("reverted", reason)
    assert loudest(caplog) == [("ERROR", f"Chain action {action.pk} (reclaim) is reverted: {reason}")]
    assert ChainAction.objects.get(nonce=8).status == "safe"


def test_a_cancellation_is_told_once_it_is_final(node: Node) -> None:
    action = standing(node, 80)
    Attempt.objects.update(cancels=True)
    of(node).follow()
    assert (again(action).status, again(action).error) == ("reverted", f"Cancelled at its nonce in {action.tx_hash}.")


def test_whoever_waits_for_it_is_told_that_it_will_not_be(node: Node) -> None:
    pool = books.pool()
    ChainAction.objects.all().update(status="final")
    settles = standing(node, 80, ok=False, kind=Kind.SETTLE)
    batch = carried(settles, pool)
    of(node).follow()
    batch.refresh_from_db()
    reason = f"Reverted on chain in {settles.tx_hash}."
    assert (batch.action, batch.turns, batch.next_at, batch.reason) == (None, 1, NOW, reason)


def carried(by: ChainAction, pool: Pool) -> Batch:
    """A batch that an action carries."""
    return Batch.objects.create(
        pool=pool,
        account=ledger.open_account(Account.Kind.SETTLING, pool=pool, subject=f"{by.pk}"),
        first_seq=0,
        packed=wire.encode_batch(0, [wire.Record("0x" + "01" * 20, 1)]),
        root="0x" + "00" * 32,
        signature=b"",
        deadline=NOW + timedelta(hours=1),
        next_at=NOW,
        action=by,
    )


def test_a_batch_that_the_chain_left_out_leaves_its_action(node: Node) -> None:
    pool = books.pool()
    ChainAction.objects.all().update(status="final")
    settles = standing(node, 80, kind=Kind.SETTLE)
    batch = carried(settles, pool)
    of(node).follow()
    batch.refresh_from_db()
    assert again(settles).status == "final"
    assert (batch.action, batch.turns, batch.reason) == (None, 1, "The contract left it out.")
    assert batch.next_at == NOW


def test_all_other_attempts_at_a_nonce_that_is_final_are_replaced(node: Node) -> None:
    action, other = standing(node, 80), standing(node, 95, 8)
    of(node).attempt(action, nonce=7, gas_limit=1, calldata=b"", fees=Fees(1, 1, 1))
    of(node).follow()
    assert [attempt.outcome for attempt in attempts(action)] == ["ok", "replaced"]
    assert attempts(other)[0].outcome == "ok"
    assert again(action).status == "final"


# --- one apart from the others ------------------------------------------------------------------------------------


def test_a_step_that_fails_in_a_way_nobody_thought_of_keeps_nobody_waiting(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    action = signed(node)

    def fail() -> bool:
        raise KeyError("x")

    with caplog.at_level(logging.INFO):
        assert flights.apart(action, fail) is False
    assert loudest(caplog) == [("ERROR", f"Chain action {action.pk} (reclaim) is left for a later sweep")]
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("error", [ChainUnavailable("away"), SoftTimeLimitExceeded()])
def test_a_chain_that_is_away_and_the_end_of_a_tasks_time_stop_all(node: Node, error: Exception) -> None:
    def away() -> bool:
        raise error

    with pytest.raises(type(error)):
        flights.apart(signed(node), away)


@pytest.mark.parametrize("changed", [True, False])
def test_a_step_is_taken_on_behalf_of_the_request_that_asked_for_it(
    node: Node, caplog: pytest.LogCaptureFixture, changed: bool
) -> None:
    action = signed(node, request_id="req-1")
    seen: list[object] = []

    def step() -> bool:
        seen.extend([trail.request_id(), trail.action_id()])
        return changed

    with caplog.at_level(logging.INFO):
        assert flights.apart(action, step) is changed
    assert seen == ["req-1", action.pk]
    assert loudest(caplog) == ([("INFO", f"Chain action {action.pk} (reclaim) is broadcast")] if changed else [])
