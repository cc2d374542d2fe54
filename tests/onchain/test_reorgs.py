"""Blocks that go away again: what was mined comes back and is paid once, and nobody spends what the chain does not have."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from escrow import ledger, pools
from escrow.chain import contract, deploy
from escrow.chain.abi import codec
from escrow.chain.client import Block, ChainClient, Tiers
from escrow.chain.events import PoolEvent, PoolOpened
from escrow.chain.nodes import Node
from escrow.errors import EscrowError
from escrow.models import Attempt, Batch, ChainAction, ChainCursor, ChainLog, Event, Party, Pool, Transfer
from tests.onchain.conftest import Chain, books
from tests.onchain.towns import DEPTH, finish, mine, mine_what_is_sent, sweep

DEPTHS = (1, 2, 5, 20)
PASSES = 2
"""Of the sweeps, until everything is as it was."""


@pytest.fixture
def deep(chain: Chain, settings: Any) -> Chain:
    """A chain that makes a block only when something is sent, and whose blocks are final when others stand on them."""
    settings.FINALITY = DEPTH
    chain.client = ChainClient(settings.RPC_URL, finality=DEPTH)
    mine_what_is_sent(chain)
    mine(chain, 2 * DEPTH)
    chain.index()
    return chain


def reorg(chain: Chain, depth: int) -> None:
    """Put as many empty blocks in the place of the newest ones. What was in them is in no node's pool either."""
    chain.client.request("anvil_reorg", [depth, []])


def standing(chain: Chain, event: str) -> bool:
    """Whether an event is known to be in a block that the chain has now."""
    rows = ChainLog.objects.filter(event=event, orphaned_at=None)
    return any((block := chain.client.block(row.block_number)) and block.hash == row.block_hash for row in rows)


def told(pool: Pool) -> list[str]:
    return list(Event.objects.filter(subject_id=pool.pk).order_by("id").values_list("type", flat=True))


class Story:
    """A pool, from its opening to its end. Each step is mined; before it, all that came before is final."""

    STEPS: ClassVar = {
        "PoolOpened": "open",
        "PoolToppedUp": "top_up",
        "BatchSettled": "settle",
        "Withdrawn": "pay_out",
        "Reclaimed": "close",
    }

    def __init__(self, chain: Chain, seller: Party) -> None:
        self.chain, self.seller = chain, seller

    def up_to(self, step: str) -> None:
        """Take all steps up to one, which is mined when this returns and not final."""
        for name in self._from(next(iter(self.STEPS))):
            if name != "PoolOpened":
                finish(self.chain)
            self._take(name)
            if name == step:
                return

    def rest(self, step: str) -> None:
        """Take all steps after one."""
        for name in self._from(step)[1:]:
            self._take(name)
            finish(self.chain)

    def _from(self, step: str) -> list[str]:
        names = list(self.STEPS)
        return names[names.index(step) :]

    def _take(self, name: str) -> None:
        getattr(self, self.STEPS[name])()
        self.chain.until(lambda: standing(self.chain, name), name)

    def open(self) -> None:
        self.pool = self.chain.open_pool(1_000_000, providers=(self.seller,))

    def top_up(self) -> None:
        mint = contract.mint_test_usdc(str(self.pool.payer_address), 500_000)
        deploy.send(self.chain.client, self.chain.somebody(), self.chain.token.address, mint)
        pools.top_up(pool=self.pool, amount_micros=500_000, now=self.chain.now())

    def settle(self) -> None:
        self.chain.pay(self.chain.session(self.chain.fresh(self.pool), 700_000), self.seller, 300_000)
        assert self.chain.settle() == 1

    def pay_out(self) -> None:
        assert self.chain.pay_out() == 1

    def close(self) -> None:
        pools.close(pool=self.pool, now=self.chain.now())
        self.chain.step_out()
        self.chain.until(lambda: standing(self.chain, "CloseRequested"), "the close was asked for")
        finish(self.chain)
        self.chain.step_out()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("step", Story.STEPS)
def test_whatever_is_mined_comes_back_within_two_passes_and_is_paid_once(
    deep: Chain, lint: Party, step: str, depth: int
) -> None:
    story = Story(deep, lint)
    story.up_to(step)
    mine(deep, depth - 1)
    deep.index()
    reorg(deep, depth)
    assert not standing(deep, step)
    for _ in range(PASSES):
        sweep(deep)
    assert standing(deep, step)
    assert not Pool.objects.exclude(unbacked_at=None).exists()
    finish(deep)
    story.rest(step)
    assert deep.token.balance_of(lint.address) == 297_000  # 300,000 less 1 %
    assert deep.token.balance_of(str(story.pool.payer_address)) == 1_200_000
    after = pools.balances(deep.fresh(story.pool))
    assert (after.deposited, after.withdrawn, after.fees, after.reclaimed) == (1_500_000, 297_000, 3_000, 1_200_000)
    assert deep.fresh(story.pool).status == Pool.Status.CLOSED
    assert {batch.status for batch in Batch.objects.all()} == {"settled"}
    assert ChainCursor.objects.get().stopped_reason == ""
    assert deep.reconcile().exit_code == 0


def test_a_deposit_whose_block_is_gone_halts_its_pool_until_it_is_mined_again(deep: Chain, lint: Party) -> None:
    pool = deep.open_pool(1_000_000, providers=(lint,))
    row = ChainLog.objects.get(event="PoolOpened")
    assert (row.tier, row.deposit_micros, row.applied_at is not None) == ("mined", 1_000_000, True)
    session = deep.session(pool, 500_000)
    deep.pay(session, lint, 1_000)
    reorg(deep, 1)
    deep.index()
    pool.refresh_from_db()
    assert pool.unbacked_at is not None
    before = books()
    for refused in (
        lambda: deep.pay(session, lint, 1_000),
        lambda: deep.session(pool, 1_000),
        lambda: pools.top_up(pool=pool, amount_micros=1_000, now=deep.now()),
    ):
        with pytest.raises(EscrowError) as caught:
            refused()
        assert caught.value.facts == {"subject": "pool", "state": "frozen"}
    assert books() == before
    sweep(deep)
    pool.refresh_from_db()
    assert (pool.unbacked_at, pool.frozen_at) == (None, None)
    deep.pay(session, lint, 1_000)
    finish(deep)
    again = ChainLog.objects.get(event="PoolOpened")
    assert (again.tier, again.tx_hash, again.ref) == ("final", row.tx_hash, row.ref)
    assert again.block_hash != row.block_hash
    assert told(pool) == ["pool.requested", "pool.opened", "pool.unbacked", "pool.backed"]
    assert pools.balances(pool).deposited == 1_000_000
    assert deep.reconcile().exit_code < 2


def test_a_log_that_comes_back_in_an_earlier_block_is_the_same_log(deep: Chain, lint: Party) -> None:
    """Its row stands further up than anything that is read next."""
    story = Story(deep, lint)
    story.up_to("PoolOpened")
    finish(deep)
    mint = contract.mint_test_usdc(str(story.pool.payer_address), 500_000)
    deploy.send(deep.client, deep.somebody(), deep.token.address, mint)
    mine(deep, 2)
    pools.top_up(pool=story.pool, amount_micros=500_000, now=deep.now())
    deep.until(lambda: standing(deep, "PoolToppedUp"), "the top-up is mined")
    deep.index()
    row, raw = ChainLog.objects.get(event="PoolToppedUp"), bytes(Attempt.objects.latest("pk").raw)
    assert (row.applied_at is not None, row.block_number) == (True, deep.client.tiers().latest.number)
    deep.client.request("anvil_reorg", [2, [["0x" + raw.hex(), 0]]])
    mine(deep, DEPTH - 2)
    assert deep.client.tiers().final.number < row.block_number
    deep.index()
    again = ChainLog.objects.get(event="PoolToppedUp")
    assert (again.pk, again.ref, again.block_number) == (row.pk, row.ref, row.block_number - 1)
    assert standing(deep, "PoolToppedUp")
    assert "pool.unbacked" not in told(story.pool)
    finish(deep)
    again.refresh_from_db()
    assert (again.tier, again.block_number) == ("final", row.block_number - 1)
    assert pools.balances(deep.fresh(story.pool)).deposited == 1_500_000
    assert deep.reconcile().exit_code < 2


def test_a_deposit_that_comes_back_in_another_chain_transaction_is_the_same_deposit(deep: Chain, lint: Party) -> None:
    pool = deep.open_pool(1_000_000, providers=(lint,))
    first = ChainLog.objects.get(event="PoolOpened")
    reorg(deep, 1)
    deep.index()
    action = ChainAction.objects.get(kind="open_pool")
    landed = deploy.send(deep.client, deep.somebody(), deep.contract.address, bytes(action.calldata or b""))
    deep.index()
    row = ChainLog.objects.get(event="PoolOpened")
    assert (row.pk, row.tx_hash, row.ref) == (first.pk, landed.transaction_hash, first.ref)
    pool.refresh_from_db()
    assert (pool.unbacked_at, pool.frozen_at) == (None, None)
    finish(deep)  # our own comes too late, and reverts
    assert deep.fresh(pool).status == Pool.Status.OPEN
    assert pools.balances(pool).deposited == 1_000_000
    assert Transfer.objects.filter(reason="deposit").count() == 1
    assert deep.reconcile().exit_code < 2


def test_a_deposit_that_never_comes_back_keeps_its_pool_halted_whatever_its_payer_says(
    deep: Chain, lint: Party
) -> None:
    pool = deep.open_pool(1_000_000, providers=(lint,))
    session = deep.session(pool, 500_000)
    reorg(deep, 1)
    for _ in range(3):
        mine(deep, DEPTH)
        deep.index()  # and no relay
    before = books()
    pools.freeze(payer_id=pool.payer_id, reason="a key has leaked", now=deep.now())
    pools.unfreeze(payer_id=pool.payer_id)
    with pytest.raises(EscrowError) as caught:
        deep.pay(session, lint, 1_000)
    assert caught.value.facts == {"subject": "pool", "state": "frozen"}
    assert books() == before
    row = ChainLog.objects.get(event="PoolOpened")
    assert (row.tier, row.orphaned_at is not None) == ("mined", True)
    assert told(pool) == ["pool.requested", "pool.opened", "pool.unbacked", "pool.frozen", "pool.unfrozen"]
    assert ChainCursor.objects.get().stopped_reason == ""


def test_a_pool_that_its_payer_has_frozen_stays_so_when_its_deposit_is_back(deep: Chain, lint: Party) -> None:
    pool = deep.open_pool(1_000_000, providers=(lint,))
    pools.freeze(payer_id=pool.payer_id, reason="a key has leaked", now=deep.now())
    reorg(deep, 1)
    deep.index()
    assert deep.fresh(pool).unbacked_at is not None
    sweep(deep)
    pool.refresh_from_db()
    assert (pool.unbacked_at, pool.frozen_by_payer) == (None, True)
    pools.unfreeze(payer_id=pool.payer_id)
    assert deep.fresh(pool).frozen_at is None


def test_no_more_is_taken_before_it_is_final_than_the_bound_over_all_pools(
    deep: Chain, lint: Party, settings: Any
) -> None:
    settings.UNSAFE_DEPOSITS_MICROS = 1_500_000
    first = deep.open_pool(1_000_000, providers=(lint,))
    before = books()
    with pytest.raises(AssertionError, match="still not so"), impatient():
        deep.open_pool(600_000)
    large = Pool.objects.exclude(pk=first.pk).get()
    assert (large.status, books()) == (Pool.Status.OPENING, before)
    assert told(large) == ["pool.requested", "pool.deposit_waiting"]  # once, however often it was looked at
    (why,) = Event.objects.filter(type="pool.deposit_waiting").values_list("payload", flat=True)
    assert (why["amount"], why["tx"]) == ("0.60", ChainLog.objects.get(pool=large).tx_hash)
    assert "final" in why["reason"]
    small = deep.open_pool(500_000)  # the bound to the unit, and a large one keeps no small one waiting
    assert small.status == Pool.Status.OPEN
    finish(deep)
    assert deep.fresh(large).status == Pool.Status.OPEN
    assert pools.balances(large).deposited == 600_000
    assert deep.reconcile().exit_code == 0


@contextmanager
def impatient() -> Iterator[None]:
    """Give up waiting soon: what is waited for does not come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.onchain.conftest.PATIENCE_SECONDS", 1.0)
        yield


def test_a_chain_that_finalises_nothing_lets_payments_go_on_and_deposits_up_to_the_bound(
    deep: Chain, lint: Party, settings: Any
) -> None:
    settings.UNSAFE_DEPOSITS_MICROS = 1_000_000
    pool = deep.open_pool(1_000_000, providers=(lint,))
    session = deep.session(pool, 1_000_000)
    deep.client = ChainClient(settings.RPC_URL, finality=10_000)  # nothing new is final, block after block
    for _ in range(20):
        mine(deep, 5)
        sweep(deep)
        deep.pay(session, lint, 1_000)
    with pytest.raises(AssertionError, match="still not so"), impatient():
        deep.open_pool(1)
    assert ChainCursor.objects.get().stopped_reason == ""
    deep.client = ChainClient(settings.RPC_URL, finality=DEPTH)
    finish(deep)
    assert {pool.status for pool in Pool.objects.all()} == {"open"}
    assert ledger.balance(ledger.payable(pool, lint)) == 20_000
    assert deep.reconcile().exit_code == 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_node_that_loses_its_newest_blocks_is_a_reorganisation(deep: Chain, lint: Party, depth: int) -> None:
    pool = deep.open_pool(1_000_000, providers=(lint,))
    mine(deep, depth - 1)
    deep.index()
    deep.client.request("anvil_rollback", [depth])
    deep.index()
    sweep(deep)
    sweep(deep)
    finish(deep)
    assert deep.fresh(pool).frozen_at is None
    assert pools.balances(pool).deposited == 1_000_000
    assert ChainLog.objects.filter(event="PoolOpened").count() == 1
    assert deep.reconcile().exit_code == 0


def test_a_final_block_that_is_gone_stops_the_indexer(deep: Chain, lint: Party) -> None:
    deep.open_pool(1_000_000, providers=(lint,))
    finish(deep)
    before = books()
    reorg(deep, DEPTH + 2)
    deep.index()
    assert "reorganised" in ChainCursor.objects.get().stopped_reason
    mine(deep, DEPTH)
    assert deep.index() == 0
    assert books() == before
    assert deep.reconcile().exit_code == 2


class Finalized(ChainClient):
    """A node whose final block never goes back with the newest one, as behind the tag "finalized"."""

    deepest: Block | None = None

    def _tiers(self, node: Node) -> Tiers:
        seen = super()._tiers(node)
        if self.deepest is None or seen.final.number > self.deepest.number:
            self.deepest = seen.final
        return Tiers(latest=seen.latest, safe=self.deepest, final=self.deepest)


def test_a_pool_goes_on_when_two_of_its_deposits_come_back_after_a_shorter_chain_was_seen(
    deep: Chain, lint: Party, settings: Any
) -> None:
    """The newest deposit still stood, above the shorter chain, when the oldest was found gone."""
    deep.client = Finalized(settings.RPC_URL, finality=DEPTH)
    pool = deep.open_pool(1_000_000, providers=(lint,))
    finish(deep)
    rich = deep.somebody()
    for _ in range(2):
        deploy.send(deep.client, rich, deep.token.address, contract.mint_test_usdc(str(pool.payer_address), 500_000))
    mine(deep, 2)
    for amount in (300_000, 200_000):
        pools.top_up(pool=pool, amount_micros=amount, now=deep.now())
        taken = ChainLog.objects.filter(deposit_micros=amount, applied_at__isnull=False)
        deep.until(taken.exists, "it is taken")
    deep.client.request("anvil_rollback", [2])
    mine(deep, 1)  # one block shorter than before, as a sequencer that builds anew
    deep.index()
    assert told(pool).count("pool.unbacked") == 1
    deep.relay()
    deep.relay()
    deep.index()
    assert not ChainLog.objects.exclude(orphaned_at=None).exists()
    finish(deep)
    assert pools.balances(deep.fresh(pool)).deposited == 1_500_000
    assert deep.reconcile().exit_code < 2
    fresh = deep.fresh(pool)
    assert (fresh.unbacked_at, fresh.frozen_at) == (None, None)


def test_an_equal_deposit_of_somebody_else_meanwhile_stops_nobody(deep: Chain, lint: Party) -> None:
    """It takes the row of the one that is away, and the reference of that one's transfers with it."""
    pool = deep.open_pool(1_000_000, providers=(lint,))
    finish(deep)
    rich = deep.somebody()
    for address in (str(pool.payer_address), rich.address):
        deploy.send(deep.client, rich, deep.token.address, contract.mint_test_usdc(address, 300_000))
    approve = codec("TestUSDC").call("approve", deep.contract.address, 300_000)
    deploy.send(deep.client, rich, deep.token.address, approve)
    mine(deep, 2)
    pools.top_up(pool=pool, amount_micros=300_000, now=deep.now())
    deep.until(lambda: ChainLog.objects.filter(event="PoolToppedUp", applied_at__isnull=False).exists(), "taken")
    reorg(deep, 1)
    deep.index()
    assert deep.fresh(pool).unbacked_at is not None
    deploy.send(deep.client, rich, deep.contract.address, codec("BudgetPool").call("topUpDirect", pool.key, 300_000))
    deep.index()
    assert deep.fresh(pool).unbacked_at is None
    deep.relay()  # the payer's own is mined again, and stands where it stood in its block
    for _ in range(4):
        mine(deep, DEPTH)
        sweep(deep)
    assert ChainCursor.objects.get().stopped_reason == ""
    assert pools.balances(deep.fresh(pool)).deposited == 1_600_000


class Skewed(ChainClient):
    """A node that says of a log that it is at another place of its block than it is, once."""

    has_lied = False

    def logs(self, address: str, first: int, last: int) -> list[PoolEvent]:
        found = super().logs(address, first, last)
        if not found or self.has_lied:
            return found
        self.has_lied = True
        return [replace(one, place=replace(one.place, log_index=one.place.log_index + 5)) for one in found]

    def agreed_logs(self, address: str, first: int, last: int) -> list[PoolEvent]:
        return ChainClient.logs(self, address, first, last)


def test_a_log_that_a_node_has_once_told_of_at_another_place_holds_nobody_up(deep: Chain, settings: Any) -> None:
    payer = uuid4()
    mint = contract.mint_test_usdc(deep.payer_address(payer), 1_000_000)
    deploy.send(deep.client, deep.somebody(), deep.token.address, mint)
    finish(deep)
    settings.UNSAFE_DEPOSITS_MICROS = 0
    deep.client = node = Skewed(settings.RPC_URL, finality=DEPTH)
    pool = pools.open(payer_id=payer, deposit_micros=1_000_000, now=deep.now())
    deep.until(lambda: node.has_lied, "it has told a lie")
    finish(deep)
    finish(deep)
    assert deep.fresh(pool).status == "open"
    assert [row.log_index for row in ChainLog.objects.filter(event="PoolOpened", pool=pool)] == [
        event.place.log_index
        for event in ChainClient.logs(node, deep.contract.address, 0, deep.cursor())
        if isinstance(event, PoolOpened) and event.pool_id == deep.fresh(pool).key
    ]
    assert deep.reconcile().exit_code < 2


class Forgetful(ChainClient):
    """A node that has lost its index of logs: it finds none, and has every block."""

    has_lost = True

    def agreed_logs(self, address: str, first: int, last: int) -> list[PoolEvent]:
        return [] if self.has_lost else super().agreed_logs(address, first, last)


def test_a_log_that_was_read_when_it_was_mined_is_not_forgotten_while_its_block_is_there(
    deep: Chain, lint: Party, settings: Any
) -> None:
    pool = deep.open_pool(1_000_000, providers=(lint,))
    finish(deep)
    deep.pay(deep.session(deep.fresh(pool), 700_000), lint, 300_000)
    assert deep.settle() == 1
    deep.until(lambda: ChainLog.objects.filter(event="BatchSettled").exists(), "it is mined, and we have read so")
    row = ChainLog.objects.get(event="BatchSettled")
    deep.client = node = Forgetful(settings.RPC_URL, finality=DEPTH)
    mine(deep, DEPTH)
    deep.index()
    assert ChainLog.objects.get(event="BatchSettled").block_hash == row.block_hash
    node.has_lost = False
    for _ in range(3):
        mine(deep, DEPTH)
        deep.relay()
        deep.index()
    assert Batch.objects.get().status == "settled"
