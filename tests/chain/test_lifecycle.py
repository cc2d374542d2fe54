"""A pool's whole life on a real node, through `escrow.chain` alone; conservation after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import pytest

from escrow.chain import contract, events, typed, wire
from escrow.chain.client import Receipt
from escrow.chain.errors import ChainReverted

from .world import DAY, PROVIDERS, World

E = TypeVar("E", bound=events.PoolEvent)
HOUR = 3600
DEPOSIT = 10_000_000
REF = b"\x77" * 32


def check_conservation(world: World, pool_id: bytes, deposited: int) -> None:
    """I1 over the contract as a whole, I2 for this pool from its events alone."""
    assert world.contract.solvent()
    assert world.usdc.balance_of(world.contract.address) == world.contract.total_held()
    book = Book.of(world, pool_id)
    pool = world.contract.pool(pool_id)
    lines = [world.contract.line_of(pool_id, provider) for provider in PROVIDERS]
    assert book.free == pool.free
    assert book.disputed == pool.disputed
    assert [book.lines.get(provider, 0) for provider in PROVIDERS] == [line.matured + line.pending for line in lines]
    assert deposited == pool.free + pool.disputed + sum(book.lines.values()) + book.withdrawn + book.reclaimed


@dataclass
class Book:
    """A pool's balances rebuilt from events, as `IBudgetPool` says."""

    free: int
    disputed: int
    withdrawn: int
    reclaimed: int
    lines: dict[str, int]

    @classmethod
    def of(cls, world: World, pool_id: bytes) -> Book:
        book = cls(0, 0, 0, 0, {})
        for event in world.client.logs(world.contract.address, 0, "latest"):
            if getattr(event, "pool_id", None) == pool_id:
                book.apply(event)
        return book

    def apply(self, event: events.PoolEvent) -> None:
        match event:
            case events.PoolOpened(deposit=amount) | events.PoolToppedUp(amount=amount):
                self.free += amount
            case events.Credited(provider=provider, amount=amount):
                self.free -= amount
                self.lines[provider] = self.lines.get(provider, 0) + amount
            case events.Withdrawn(provider=provider, net=net, fee=fee):
                self.lines[provider] -= net + fee
                self.withdrawn += net + fee
            case events.Disputed(provider=provider, amount=amount):
                self.lines[provider] -= amount
                self.disputed += amount
            case events.DisputeResolved(provider=provider, to_provider=to_provider, to_payer=to_payer):
                self.disputed -= to_provider + to_payer
                self.lines[provider] += to_provider
                self.free += to_payer
            case events.Reclaimed(amount=amount):
                self.free -= amount
                self.reclaimed += amount
            case events.ProvidersAllowed() | events.BatchSettled() | events.CloseRequested():
                pass
            case _:
                raise AssertionError(f"an event this book does not know: {event}")


def only(receipt: Receipt, kind: type[E]) -> E:
    (found,) = [event for event in receipt.events if isinstance(event, kind)]
    return found


def test_open_settle_dispute_resolve_withdraw_close_reclaim(world: World) -> None:
    start = (world.now() // HOUR + 2) * HOUR
    world.at(start)
    terms = world.terms(dispute_window=HOUR)
    fees_before = world.contract.fees()
    pool_id = world.open(terms, DEPOSIT)
    check_conservation(world, pool_id, DEPOSIT)

    a, b, c = PROVIDERS
    settled = world.send(
        world.settlement(pool_id, [wire.Record(a, 3_000_000), wire.Record(b, 1_000), wire.Record(a, 500)])
    )
    batch = only(settled, events.BatchSettled)
    assert (batch.first_seq, batch.count, batch.total, batch.root) == (0, 3, 3_001_500, b"\x11" * 32)
    assert [(e.provider, e.amount) for e in settled.events if isinstance(e, events.Credited)] == [
        (a, 3_000_500),
        (b, 1_000),
    ]
    assert [world.contract.is_settled(pool_id, seq) for seq in range(4)] == [True, True, True, False]
    line = world.contract.line_of(pool_id, a)
    assert (line.matured, line.pending, line.next_at) == (0, 3_000_500, start + 2 * HOUR)
    check_conservation(world, pool_id, DEPOSIT)

    world.send(contract.dispute(pool_id, a, 2_000_000, REF), world.payer)
    assert world.contract.line_of(pool_id, a).pending == 1_000_500
    check_conservation(world, pool_id, DEPOSIT)

    ruling = only(
        world.send(contract.resolve(world.terms_of[pool_id], a, REF, 400_000), world.arbiter), events.DisputeResolved
    )
    assert (ruling.to_provider, ruling.to_payer, ruling.by_timeout) == (400_000, 1_600_000, False)
    assert world.contract.line_of(pool_id, a).matured == 400_000
    check_conservation(world, pool_id, DEPOSIT)

    world.at(start + 2 * HOUR)
    paid = only(world.send(contract.withdraw(pool_id, a)), events.Withdrawn)
    assert (paid.net, paid.fee) == (1_400_500 - 35_012, 35_012)
    assert world.usdc.balance_of(a) == paid.net
    assert world.contract.fees() - fees_before == 35_012
    check_conservation(world, pool_id, DEPOSIT)

    closing = only(world.send(contract.request_close(pool_id), world.payer), events.CloseRequested)
    world.send(world.settlement(pool_id, [wire.Record(c, 7)]))
    check_conservation(world, pool_id, DEPOSIT)

    world.at(closing.reclaimable_at)
    late = world.settlement(pool_id, [wire.Record(c, 7)])
    refused(world, pool_id, late, "PoolEnded")
    back = only(world.send(contract.reclaim(pool_id)), events.Reclaimed)
    assert (back.payer, back.amount) == (world.payer.address, DEPOSIT - 3_001_500 + 1_600_000 - 7)
    check_conservation(world, pool_id, DEPOSIT)

    for provider, net in ((b, 1_000 - 25), (c, 7)):
        assert only(world.send(contract.withdraw(pool_id, provider)), events.Withdrawn).net == net
    check_conservation(world, pool_id, DEPOSIT)
    assert world.contract.pool(pool_id).free == 0


def refused(world: World, pool_id: bytes, data: bytes, error: str, sender: str | None = None) -> ChainReverted:
    """The call reverts with this error, and no balance moved."""
    before = world.balances(pool_id)
    with pytest.raises(ChainReverted) as caught:
        world.client.estimate_gas(sender or world.relayer.address, world.contract.address, data)
    assert caught.value.name == error
    assert world.balances(pool_id) == before
    return caught.value


def test_the_payers_signatures_work_from_anyones_hand(world: World) -> None:
    newcomer = "0x0000000000000000000000000000000000002001"
    pool_id = world.open(world.terms(dispute_window=HOUR), DEPOSIT)
    deadline = world.now() + HOUR

    nonce = b"\x01" * 32
    signature = world.payer.sign_typed(typed.AllowProviders(world.domain, pool_id, (newcomer,), nonce, deadline))
    allow = contract.allow_providers_with_sig(pool_id, [newcomer], nonce, deadline, signature)
    world.send(allow)
    assert world.contract.line_of(pool_id, newcomer).allowed
    refused(world, pool_id, allow, "NonceUsed")

    world.send(world.settlement(pool_id, [wire.Record(newcomer, 9_000)]))
    signature = world.payer.sign_typed(typed.Dispute(world.domain, pool_id, newcomer, 4_000, REF, deadline))
    dispute = contract.dispute_with_sig(pool_id, newcomer, 4_000, REF, deadline, signature)
    world.send(dispute)
    assert world.contract.line_of(pool_id, newcomer).pending == 5_000
    refused(world, pool_id, dispute, "RefUsed")

    signature = world.payer.sign_typed(typed.RequestClose(world.domain, pool_id, deadline))
    close = contract.request_close_with_sig(pool_id, deadline, signature)
    world.send(close)
    assert world.contract.pool(pool_id).closing
    refused(world, pool_id, close, "PoolClosing")


def test_top_up_by_anyone_who_signs(world: World) -> None:
    pool_id = world.open(world.terms(), DEPOSIT)
    salt = b"\x05" * 32
    nonce = typed.TopUp(world.domain, pool_id, salt).digest
    assert nonce == world.contract.top_up_nonce(pool_id, salt)
    friend = world.arbiter
    world.send_token(contract.mint_test_usdc(friend.address, 2_000_000))
    data = contract.top_up(
        pool_id, 2_000_000, friend.address, 0, 2**40, salt, world.authorization(2_000_000, nonce, friend)
    )
    event = only(world.send(data), events.PoolToppedUp)
    assert (event.from_, event.amount) == (friend.address, 2_000_000)
    check_conservation(world, pool_id, DEPOSIT + 2_000_000)
    replayed = refused(world, pool_id, data, "Error")
    assert replayed.facts == {"message": "FiatTokenV2: authorization is used or canceled"}


def test_a_dispute_times_out_to_the_provider(world: World) -> None:
    pool_id = world.open(world.terms(dispute_window=HOUR), DEPOSIT)
    a = PROVIDERS[0]
    world.send(world.settlement(pool_id, [wire.Record(a, 9_000)]))
    world.send(contract.dispute(pool_id, a, 9_000, REF), world.payer)
    opened = world.contract.dispute_of(pool_id, a, REF)
    assert (opened.status, opened.amount) == (contract.DisputeStatus.OPEN, 9_000)
    assert opened.timeout_at == opened.opened_at + 14 * DAY

    refused(world, pool_id, contract.resolve_by_timeout(pool_id, a, REF), "TimeoutTooEarly")
    world.at(opened.timeout_at)
    refused(
        world, pool_id, contract.resolve(world.terms_of[pool_id], a, REF, 0), "RulingTooLate", world.arbiter.address
    )
    event = only(world.send(contract.resolve_by_timeout(pool_id, a, REF)), events.DisputeResolved)
    assert (event.to_provider, event.to_payer, event.by_timeout) == (9_000, 0, True)
    assert world.contract.line_of(pool_id, a).matured == 9_000
    check_conservation(world, pool_id, DEPOSIT)


def test_each_refusal_of_a_batch_names_what_was_compared(world: World) -> None:
    pool_id = world.open(world.terms(per_record_cap=1_000, window_cap=2_500), 3_000)
    a, b, _ = PROVIDERS
    stranger = "0x0000000000000000000000000000000000009999"

    def facts(data: bytes, error: str) -> dict[str, object]:
        return refused(world, pool_id, data, error).facts

    world.send(world.settlement(pool_id, [wire.Record(a, 1_000)], first_seq=0))
    assert facts(world.settlement(pool_id, [wire.Record(a, 1)], first_seq=0), "AlreadySettled")["seq"] == 0
    over = facts(world.settlement(pool_id, [wire.Record(a, 1), wire.Record(b, 1_001)], first_seq=1), "RecordOverCap")
    assert over == {"seq": 2, "amount": 1_001, "cap": 1_000}
    over = facts(world.settlement(pool_id, [wire.Record(a, 1_000), wire.Record(b, 501)], first_seq=1), "WindowOverCap")
    assert over == {"spent": 2_501, "cap": 2_500}
    unlisted = facts(world.settlement(pool_id, [wire.Record(stranger, 1)], first_seq=1), "ProviderNotAllowed")
    assert unlisted == {"poolId": pool_id, "provider": stranger}
    three = [wire.Record(a, 1_000), wire.Record(b, 1_000), wire.Record(b, 1_000)]
    assert facts(world.settlement(pool_id, three, first_seq=1), "InsufficientFree") == {"wanted": 3_000, "free": 2_000}

    packed = wire.encode_batch(1, [wire.Record(a, 1)])
    root, past = bytes(32), world.now() - 1
    message = typed.Batch(world.domain, pool_id, packed, root, past)
    expired = contract.settle(pool_id, packed, root, past, world.authorizer.sign_typed(message))
    assert facts(expired, "DeadlinePassed")["deadline"] == past
    deadline = world.now() + HOUR
    forged = world.payer.sign_typed(typed.Batch(world.domain, pool_id, packed, root, deadline))
    assert facts(contract.settle(pool_id, packed, root, deadline, forged), "BadSignature") == {
        "expectedSigner": world.authorizer.address
    }
