"""`escrow.relay` and `escrow.flights` on a chain: what gas may cost, whose nonce it is, and how one is given up."""

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from escrow import ledger, surrender
from escrow.chain.keyring import Keyring
from escrow.models import Attempt, Batch, ChainAction, Party, Session, SignerNonce
from escrow.relay import Relay
from tests.onchain.conftest import Chain, books
from tests.onchain.towns import credited, open_pools, owe, settlements, settling, standing_still

Status = ChainAction.Status


@pytest.fixture
def owing(chain: Chain, lint: Party) -> Session:
    """A session that owes a provider 0.30, in a batch whose chain action is planned."""
    (session,) = open_pools(chain, 1, [lint])
    owe(chain, [session], lint)
    assert chain.settle() == 1
    return session


def next_nonce(chain: Chain) -> int:
    return SignerNonce.objects.get(address=chain.keyring.relayer(0).address).next_nonce


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"GAS_PRICE_CEILING_GWEI": 0}, "it waits until that is at most 0"),
        ({"GAS_BUDGET_USD_PER_HOUR": 1, "ETH_USD": 10**9}, "more than 1 dollars in all"),
    ],
)
def test_gas_that_costs_too_much_is_waited_out(
    chain: Chain, lint: Party, owing: Session, settings: Any, limit: dict[str, int], told: str
) -> None:
    free = {name: getattr(settings, name) for name in limit}
    before, nonce = books(), next_nonce(chain)
    for name, value in limit.items():
        setattr(settings, name, value)
    chain.relay()
    assert (settling().status, next_nonce(chain)) == (Status.PLANNED, nonce)
    assert told in settling().error
    assert books() == before
    for name, value in free.items():
        setattr(settings, name, value)
    chain.quiet()
    assert credited([owing], lint) == [300_000]


def test_what_a_pool_owes_near_its_end_lands_at_any_price(
    chain: Chain, lint: Party, owing: Session, settings: Any
) -> None:
    settings.GAS_PRICE_CEILING_GWEI = 0
    type(owing.pool).objects.update(expires_at=chain.now() + (owing.pool.expires_at - owing.pool.created_at) / 100)
    chain.quiet()
    assert settlements() == ["final"]


def test_no_more_than_a_node_keeps_of_one_sender_is_in_flight(chain: Chain, lint: Party, settings: Any) -> None:
    settings.SETTLE_MAX_GROUP, settings.RELAY_MAX_IN_FLIGHT = 1, 2
    sessions = open_pools(chain, 5, [lint])
    owe(chain, sessions, lint)
    chain.settle()
    with standing_still(chain):
        for _ in range(3):
            chain.relay()
        assert sorted(settlements()) == ["broadcast"] * 2 + ["planned"] * 3
    chain.quiet()
    assert credited(sessions, lint) == [300_000] * 5


def test_one_that_is_given_up_frees_its_nonce_and_what_it_carried_goes_with_another(
    chain: Chain, lint: Party, owing: Session
) -> None:
    with standing_still(chain):
        chain.relay()
        first = settling()
        ChainAction.objects.filter(pk=first.pk).update(params={"cancel": True})
        chain.relay()
        call, empty = Attempt.objects.filter(action=first).order_by("pk")
        assert (call.cancels, empty.cancels) == (False, True)
        assert empty.max_fee_wei * 8 >= call.max_fee_wei * 9
    chain.until(lambda: settlements()[0] == Status.REVERTED, "the empty one is final")
    assert "Cancelled at its nonce" in settlements_error(first)
    assert Attempt.objects.get(pk=call.pk).outcome == "replaced"
    assert ledger.balance(Batch.objects.get().account) == 300_000  # its debts are where they were
    chain.settle()
    chain.quiet()
    assert settlements() == [Status.REVERTED, Status.FINAL]
    assert credited([owing], lint) == [300_000]
    assert settling().nonce == (first.nonce or 0) + 1
    assert chain.reconcile().exit_code == 0


def test_one_that_no_node_takes_frees_its_nonce_by_itself(
    chain: Chain, lint: Party, owing: Session, settings: Any
) -> None:
    with standing_still(chain):
        chain.relay()
        ChainAction.objects.filter(kind="settle").update(attempts=settings.RELAY_MAX_ATTEMPTS)
        chain.relay()
        assert [attempt.cancels for attempt in Attempt.objects.filter(action=settling()).order_by("pk")] == [
            False,
            True,
        ]
    chain.quiet()
    chain.settle()
    chain.quiet()
    assert credited([owing], lint) == [300_000]


def test_the_fee_of_replacements_has_a_cap_that_a_person_may_pass(
    chain: Chain, lint: Party, owing: Session, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RELAY_REPLACE_SECONDS, settings.GAS_PRICE_CAP_GWEI = 0, 0
    with standing_still(chain):
        for _ in range(3):
            chain.relay()
        assert Attempt.objects.filter(action=settling()).count() == 1
        assert "a person's decision" in settling().error
        assert any(record.levelname == "ERROR" for record in caplog.records)
        ChainAction.objects.filter(pk=settling().pk).update(params={"bump": True})
        chain.relay()
        chain.relay()
        assert Attempt.objects.filter(action=settling()).count() == 2
        assert settling().params == {}
    chain.quiet()
    assert credited([owing], lint) == [300_000]


def test_what_waits_for_long_is_replaced_however_often_it_was_sent_again_meanwhile(
    chain: Chain, lint: Party, owing: Session, settings: Any
) -> None:
    settings.RELAY_REPLACE_SECONDS = 30
    with standing_still(chain):
        begun = chain.now()
        for seconds in (0, 10, 20, 29):
            Relay(chain.client, chain.keyring, begun + timedelta(seconds=seconds)).run()
            assert Attempt.objects.filter(action=settling()).count() == 1
        for seconds, attempts in ((31, 2), (59, 2), (61, 3)):
            Relay(chain.client, chain.keyring, begun + timedelta(seconds=seconds)).run()
            assert Attempt.objects.filter(action=settling()).count() == attempts
    chain.quiet()
    assert credited([owing], lint) == [300_000]


def test_any_attempt_that_is_mined_settles_the_action(chain: Chain, lint: Party, owing: Session, settings: Any) -> None:
    settings.RELAY_REPLACE_SECONDS = 0
    with standing_still(chain):
        chain.relay()
        chain.relay()
        first, second = Attempt.objects.filter(action=settling()).order_by("pk")
        chain.client.request("anvil_dropTransaction", [second.tx_hash])
        chain.client.send_raw(bytes(first.raw))
    chain.quiet()
    assert (settling().status, settling().tx_hash) == (Status.FINAL, first.tx_hash)
    assert Attempt.objects.get(pk=second.pk).outcome == "replaced"
    assert credited([owing], lint) == [300_000]


def test_a_pool_is_always_served_by_its_own_relayer(chain: Chain, lint: Party, settings: Any, tmp_path: Path) -> None:
    second = tmp_path / "keys" / "relayer-1.key"
    second.write_text("5e" * 32)
    second.chmod(0o600)
    settings.RELAYERS, settings.SETTLE_MAX_GROUP = 2, 1
    chain.keyring = Keyring.load(tmp_path / "keys", relayers=2)
    chain.client.request("anvil_setBalance", [chain.keyring.relayer(1).address, hex(10**20)])
    sessions = open_pools(chain, 8, [lint])
    owe(chain, sessions, lint)
    chain.settle()
    chain.quiet()
    assert credited(sessions, lint) == [300_000] * 8
    ours = [chain.keyring.relayer(shard).address for shard in range(2)]
    for session in sessions:
        senders = set(ChainAction.objects.filter(pool=session.pool).values_list("signer_address", flat=True))
        assert senders == {ours[session.pool_id.int % 2]}
    for address in ours:
        nonces = list(
            ChainAction.objects.filter(signer_address=address).order_by("nonce").values_list("nonce", flat=True)
        )
        assert all(later == earlier + 1 for earlier, later in itertools.pairwise(nonces))
    assert chain.reconcile().exit_code == 0


def test_a_settlement_that_is_parked_gives_its_batches_to_another(chain: Chain, owing: Session) -> None:
    action = settling()
    surrender.give_up(action, "a person parked it", now=chain.now())
    batch = Batch.objects.get()
    assert (batch.action, batch.turns, batch.reason) == (None, 1, "a person parked it")


def settlements_error(action: ChainAction) -> str:
    action.refresh_from_db()
    return action.error
