"""Nothing stays where it is for ever: a refusal of one thing keeps nothing else waiting, and a person can always go on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from escrow import ledger, payouts, pools, remedies, settlement
from escrow.chain import contract, deploy
from escrow.chain.client import ChainClient, Fees
from escrow.chain.errors import ChainRefused, SignerRefused, SignerUnavailable
from escrow.chain.keyring import Keyring
from escrow.chain.signer import LocalSigner, SignedTransaction, TransactionFields
from escrow.chain.typed import Message
from escrow.ledger import Move
from escrow.models import Attempt, Batch, ChainAction, Event, Party, Pool, Reason, Session, Setback
from escrow.relay import Relay
from escrow.remedies import Order
from tests.onchain.conftest import Chain, books, party
from tests.onchain.towns import credited, mine, open_pools, owe, settlements, settling, standing_still

Status = ChainAction.Status


@pytest.fixture
def owing(chain: Chain, lint: Party) -> Session:
    """A session that owes a provider 0.30, in a batch whose chain action is planned."""
    (session,) = open_pools(chain, 1, [lint])
    owe(chain, [session], lint)
    return session


@dataclass
class Strict:
    """A signer with a rule of its own: what it refuses, by the first bytes of the call, or everything."""

    signer: LocalSigner
    rule: str = ""
    only: set[bytes] = field(default_factory=set)

    @property
    def address(self) -> str:
        return self.signer.address

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction:
        if self.rule and (not self.only or fields.data[:4] in self.only):
            raise SignerRefused(self.rule, "it would be too much")
        return self.signer.sign_transaction(fields)

    def sign_typed(self, message: Message) -> bytes:
        if self.rule:
            raise SignerRefused(self.rule, "it would be too much")
        return self.signer.sign_typed(message)


@dataclass
class Keys:
    """A keyring whose first relayer is strict."""

    keyring: Keyring
    strict: Strict

    def __getattr__(self, name: str) -> Any:
        return getattr(self.keyring, name)

    def relayer(self, shard: int) -> Any:
        return self.strict if shard == 0 else self.keyring.relayer(shard)


@pytest.fixture
def strict(chain: Chain) -> Iterator[Strict]:
    made = Strict(chain.keyring.relayer(0))
    chain.keyring = Keys(chain.keyring, made)  # type: ignore[assignment]
    return made


def poison(session: Session, many: int) -> None:
    """Chain actions that nothing can be made of: what they name is not there."""
    for number in range(many):
        ChainAction.objects.create(kind="withdraw", pool=session.pool, dedupe_key=f"poison:{number}")


def test_actions_that_cannot_be_made_keep_no_other_waiting_and_are_parked(
    chain: Chain, lint: Party, owing: Session, settings: Any
) -> None:
    settings.RELAY_BATCH, settings.RELAY_MAX_ATTEMPTS = 2, 3
    poison(owing, 2)
    chain.settle()
    chain.until(lambda: Status.FINAL in settlements(), "the settlement behind them has landed")
    chain.until(
        lambda: ChainAction.objects.filter(kind="withdraw", status=Status.PARKED).count() == 2, "they are parked"
    )
    assert "names no subject" in ChainAction.objects.filter(kind="withdraw").latest("pk").error
    assert credited([owing], lint) == [300_000]


def test_a_top_up_that_the_chain_does_not_take_is_told_to_the_payer_and_moves_nothing(
    chain: Chain, owing: Session, settings: Any
) -> None:
    settings.RELAY_MAX_ATTEMPTS = 1
    before = books()
    asked = pools.top_up(pool=owing.pool, amount_micros=7_000_000, now=chain.now())  # the payer has no more USDC
    chain.until(lambda: ChainAction.objects.get(pk=asked.pk).status == Status.DROPPED, "it is given up")
    told = Event.objects.get(type="pool.top_up_failed")
    assert (told.subject_id, told.payer_id, told.payload["amount"]) == (owing.pool_id, owing.pool.payer_id, "7.00")
    assert "transfer amount exceeds balance" in told.payload["reason"]
    assert books() == before
    assert chain.reconcile().exit_code == 0


def test_what_the_signer_will_not_send_is_told_and_keeps_no_other_waiting(
    chain: Chain, lint: Party, owing: Session, strict: Strict, settings: Any
) -> None:
    settings.RELAY_BATCH, settings.RELAY_MAX_ATTEMPTS = 1, 3
    chain.settle()
    strict.rule = "selector"
    held = ChainAction.objects.get(kind="settle")
    chain.relay()
    held.refresh_from_db()
    assert (held.status, held.attempts) == (Status.PLANNED, 1)
    assert "the signer refuses (selector)" in held.error
    strict.rule = "hourly gas"
    ChainAction.objects.update(next_at=chain.now())
    chain.relay()
    held.refresh_from_db()
    assert (held.status, held.attempts) == (Status.PLANNED, 1)  # that passes by itself: it does not count
    assert "hourly gas" in held.error
    strict.rule = ""
    ChainAction.objects.update(next_at=chain.now())
    chain.quiet()
    assert credited([owing], lint) == [300_000]


class Moody(ChainClient):
    """A node that answers some questions with an error of its own."""

    refuses: ClassVar[set[str]] = set()

    def call(self, to: str, data: bytes, block: int | str = "latest", from_: str | None = None) -> bytes:
        if "call" in self.refuses and from_:
            raise ChainRefused("eth_call", -32603, "out of sorts")
        return super().call(to, data, block, from_)

    def fees(self) -> Fees:
        if "fees" in self.refuses:
            raise ChainRefused("eth_maxPriorityFeePerGas", -32601, "no such method")
        return super().fees()


def test_a_nodes_own_trouble_turns_no_batch_down(
    chain: Chain, lint: Party, owing: Session, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.settle()
    moody = Moody(settings.RPC_URL)
    for what, told in (("call", "out of sorts"), ("fees", "")):
        monkeypatch.setattr(Moody, "refuses", {what})
        for _ in range(7):
            assert chain.relay(moody) == 0
        action, batch = ChainAction.objects.get(kind="settle"), Batch.objects.get()
        assert (action.status, action.attempts, batch.turns, batch.action) == (Status.PLANNED, 0, 0, action)
        assert told in action.error
    monkeypatch.setattr(Moody, "refuses", set())
    chain.quiet()
    assert credited([owing], lint) == [300_000]


def test_bytes_are_sent_again_while_the_signer_refuses_a_replacement(
    chain: Chain, lint: Party, owing: Session, strict: Strict, settings: Any
) -> None:
    settings.RELAY_REPLACE_SECONDS = 0
    chain.settle()
    with standing_still(chain):
        chain.relay()
        (first,) = Attempt.objects.filter(action__kind="settle")
        chain.client.request("anvil_dropTransaction", [first.tx_hash])
        strict.rule = "hourly gas"
        chain.relay()
        assert chain.client.transaction(first.tx_hash) is not None
        assert "hourly gas" in ChainAction.objects.get(kind="settle").error
    chain.quiet()
    assert credited([owing], lint) == [300_000]


def test_fewer_relayers_than_before_leave_nothing_behind(
    chain: Chain, lint: Party, settings: Any, tmp_path: Path
) -> None:
    second = tmp_path / "keys" / "relayer-1.key"
    second.write_text("5e" * 32)
    second.chmod(0o600)
    one, two = chain.keyring, Keyring.load(tmp_path / "keys", relayers=2)
    settings.RELAYERS, settings.SETTLE_MAX_GROUP = 2, 1
    chain.keyring = two
    chain.client.request("anvil_setBalance", [two.relayer(1).address, hex(10**20)])
    sessions = open_pools(chain, 8, [lint])
    flying, planned = [s for s in sessions if s.pool_id.int % 2][:1], [s for s in sessions if s.pool_id.int % 2][1:2]
    assert (len(flying), len(planned)) == (1, 1)
    owe(chain, flying, lint)
    chain.settle()
    with standing_still(chain):
        chain.relay()  # in flight, of the relayer that goes
        owe(chain, planned, lint)
        chain.settle()
        settings.RELAYERS = 1
        chain.keyring = one
    chain.quiet()
    assert settlements() == ["final", "final"]
    assert credited([*flying, *planned], lint) == [300_000] * 2
    assert chain.reconcile().exit_code == 0


def test_more_relayers_than_before_leave_nothing_behind(
    chain: Chain, lint: Party, settings: Any, tmp_path: Path
) -> None:
    second = tmp_path / "keys" / "relayer-1.key"
    second.write_text("5e" * 32)
    second.chmod(0o600)
    settings.SETTLE_MAX_GROUP = 1
    sessions = open_pools(chain, 6, [lint])
    owe(chain, sessions[:3], lint)
    chain.settle()
    with standing_still(chain):
        chain.relay()
        owe(chain, sessions[3:], lint)
        chain.settle()
        settings.RELAYERS = 2
        chain.keyring = Keyring.load(tmp_path / "keys", relayers=2)
        chain.client.request("anvil_setBalance", [chain.keyring.relayer(1).address, hex(10**20)])
    owe(chain, sessions, lint)
    chain.settle()
    chain.quiet()
    chain.settle()
    chain.quiet()
    assert credited(sessions, lint) == [600_000] * 6
    assert chain.reconcile().exit_code == 0


def test_a_limit_of_the_hour_sets_no_pool_aside(chain: Chain, lint: Party, owing: Session, settings: Any) -> None:
    strict = Strict(chain.keyring.signer("authorizer"), rule="hourly value")  # type: ignore[arg-type]
    before = books()
    for _ in range(settings.SWEEP_MAX_FAILURES + 1):
        assert settlement.settle_due(authorizer=strict, now=chain.now()) == 0
        Setback.objects.update(next_at=chain.now() - timedelta(seconds=1))
    told = Setback.objects.get()
    assert (told.parked_at, "hourly value" in told.error) == (None, True)
    assert (told.next_at - told.last_at).total_seconds() <= 300
    assert books() == before
    strict.rule = ""
    assert settlement.settle_due(authorizer=strict, now=chain.now()) == 1
    assert not Setback.objects.exists()
    chain.settle()
    chain.quiet()
    assert credited([owing], lint) == [300_000]


def test_a_payout_that_was_cancelled_as_often_as_it_may_is_planned_again_by_a_person(
    chain: Chain, lint: Party, owing: Session, settings: Any
) -> None:
    chain.settle()
    chain.quiet()
    for _ in range(3):
        chain.pay_out()
        ChainAction.objects.filter(kind="withdraw", status=Status.PLANNED).update(status=Status.REVERTED)
    assert ChainAction.objects.filter(kind="withdraw").count() == 3
    chain.pay_out()
    last = ChainAction.objects.filter(kind="withdraw").latest("pk")
    assert (ChainAction.objects.filter(kind="withdraw").count(), last.status) == (3, Status.REVERTED)
    assert remedies.open_to(last) == ["retry"]
    order = Order(by="ana", reason="the provider is off the blacklist", seen=0, now=chain.now())
    remedies.retry(action=last, order=order)
    chain.pay_out()
    chain.quiet()
    assert ChainAction.objects.filter(kind="withdraw").count() == 4
    assert chain.token.balance_of(lint.address) == 297_000
    assert chain.reconcile().exit_code == 0


def test_what_a_dispute_gives_back_after_the_end_goes_home_beside_a_batch_that_never_landed(
    chain: Chain, lint: Party
) -> None:
    pool = chain.open_pool(1_000_000, providers=(lint,), window=7_200, expires_in=timedelta(hours=2))
    session = chain.session(pool, 1_000_000)
    chain.pay(session, lint, 300_000)
    chain.settle()
    chain.quiet()
    chain.pay(session, lint, 100_000)
    chain.settle()  # signed, and never sent
    ChainAction.objects.filter(kind="settle", status=Status.PLANNED).update(next_at=chain.now() + timedelta(days=9))
    chain.client.request("evm_increaseTime", [7_300])
    chain.client.request("evm_mine", [])
    key = pool.key
    deploy.send(chain.client, chain.somebody(), chain.contract.address, contract.reclaim(key))
    chain.until(lambda: chain.fresh(pool).status == "closed", "the reclaim was seen")
    # Later something comes back into what the contract has free, as half of a ruling does.
    ledger.post([Move(ledger.credited(pool, lint), ledger.free(pool), 50_000, Reason.RULING, "later:0")])
    pools.close_due(now=chain.now() + timedelta(hours=3), limit=10)
    assert ChainAction.objects.filter(kind="reclaim").count() == 1


def test_what_a_pool_owes_near_its_end_lands_at_any_price_behind_withdrawals_that_wait(
    chain: Chain, settings: Any
) -> None:
    settings.RELAY_BATCH, settings.RELAY_RETRY_SECONDS = 2, 5  # as 220 that wait, and 20 that a sweep looks at
    many = tuple(party(f"seller {number}") for number in range(22))
    pool = chain.open_pool(providers=many)
    session = chain.session(pool, 10_000_000)
    for seller in many:
        chain.pay(session, seller, 100_000)
    assert chain.settle() == 1
    chain.quiet()
    ending = chain.open_pool(providers=many[:1])
    settings.GAS_PRICE_CEILING_GWEI = 0
    assert chain.pay_out() == 22
    Pool.objects.filter(pk=ending.pk).update(expires_at=chain.now() + timedelta(hours=20))
    chain.pay(chain.session(chain.fresh(ending), 1_000_000), many[0], 300_000)
    assert chain.settle() == 1
    begun = chain.now()
    for beat in range(20):  # every half second
        Relay(chain.client, chain.keyring, begun + timedelta(seconds=beat / 2)).run()
    assert settling().status != Status.PLANNED
    tried = ChainAction.objects.filter(kind="withdraw").exclude(error="")
    assert tried.count() == 22  # each of those that wait had its turn


def test_a_withdrawal_that_matures_while_the_chain_stands_still_is_paid_when_it_goes_on(
    chain: Chain, lint: Party
) -> None:
    pool = chain.open_pool(providers=(lint,), window=600)
    chain.pay(chain.session(pool, 1_000_000), lint, 300_000)
    assert chain.settle() == 1
    chain.quiet()
    # The chain's clock stands while ours goes on: 33 minutes, as Base on 2025-08-05.
    halted = chain.now() + timedelta(minutes=21)
    assert payouts.pay_due(now=halted, limit=100) == 1
    for seconds in range(0, 20 * 60, 30):
        Relay(chain.client, chain.keyring, halted + timedelta(seconds=seconds)).run()
    waiting = ChainAction.objects.get(kind="withdraw")
    assert (waiting.status, waiting.attempts) == (Status.PLANNED, 0)
    assert "a chain that stands still" in waiting.error
    chain.client.request("evm_increaseTime", [33 * 60])
    mine(chain, 1)
    Relay(chain.client, chain.keyring, halted + timedelta(minutes=21)).run()
    assert chain.token.balance_of(lint.address) == 297_000


class Mute:
    """A signer that has no answer about one pool, as the signing process when it cannot look something up."""

    def __init__(self, of: Any, pool: Pool) -> None:
        self.of, self.pool = of, pool

    def sign_typed(self, message: Any) -> bytes:
        if message.pool_id == self.pool.key:
            raise SignerUnavailable("the signing process: it cannot look: ChainRefused")
        return self.of.sign_typed(message)


def test_a_pool_whose_batch_the_signer_cannot_look_into_keeps_no_other_waiting(chain: Chain, lint: Party) -> None:
    first, second = open_pools(chain, 2, [lint])
    owe(chain, [first], lint)
    owe(chain, [second], lint)
    mute = Mute(chain.keyring.signer("authorizer"), first.pool)
    for _ in range(30):
        settlement.settle_due(authorizer=mute, now=chain.now())
    assert list(Batch.objects.values_list("pool", flat=True)) == [second.pool_id]
