"""What is measured, each on real transactions: settling, many pools at once, whole lives, and the peers.

Every receiver holds test USDC already, and so do the payer and the contract: an account's first token costs 17,100 gas more
whichever way it comes, and would make every comparison one of who is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eth_utils.crypto import keccak

from benchmarks.gas.yard import DAY, FOREVER, Yard, providers
from escrow.chain import contract, typed, wire
from escrow.chain.abi import codec
from escrow.chain.client import Receipt
from escrow.chain.events import BatchSettled, Reclaimed, Withdrawn
from escrow.chain.signer import LocalSigner

PAYMENT: Final = 12_000
"""A micropayment: 1.2 cents."""
SETTLES: Final = ((1, 1), (10, 3), (50, 3), (200, 3), (200, 20), (1_000, 20))
LIVES: Final = ((200, 3), (200, 20), (10_000, 3))
BATCH: Final = 200
"""Micropayments that one batch nets."""
POOLS: Final = 40
RECORDS: Final = 25
REST: Final = 1_000_000
"""What a payer gets back at the end."""
_PEERS: Final = 5


@dataclass(frozen=True)
class Life:
    """The gas of a pool's steps, all its transactions together."""

    open: int
    settle: int
    end: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.open + self.settle + self.end


def records(count: int, among: Sequence[str]) -> list[wire.Record]:
    """Return so many records, dealt out in turn."""
    return [wire.Record(among[at % len(among)], 1_000 + at) for at in range(count)]


def at_work(yard: Yard, among: Sequence[str]) -> bytes:
    """Open a pool whose lines were credited before, and whose first bitmap word is begun."""
    pool_id, _ = yard.open(yard.terms(among, FOREVER), among, 40_000_000)
    yard.settle(pool_id, records(len(among), among))
    return pool_id


def settle(yard: Yard, count: int, among: int) -> float:
    """Return the gas of a record in a batch of `count`."""
    yard.next_day()
    pool_id = at_work(yard, providers(among))
    return yard.settle(pool_id, records(count, providers(among))).gas_used / count


def settle_many(yard: Yard, among: int, *, poisoned: int = 0) -> float:
    """Return the gas of a record when many pools settle in one transaction, of which some are refused."""
    yard.next_day()
    pools = [at_work(yard, providers(among)) for _ in range(POOLS)]
    batches = [yard.batch(pool_id, records(RECORDS, providers(among))) for pool_id in pools]
    for at in range(poisoned):
        batches[at] = (*batches[at][:4], batches[-1][4])  # another pool's signature
    receipt = yard.send(contract.settle_many(batches))
    landed = sum(isinstance(event, BatchSettled) for event in receipt.events)
    rejected = yard.count_logs(receipt, "ItemRejected(bytes32,bytes)")
    assert (landed, rejected) == (POOLS - poisoned, poisoned)
    return receipt.gas_used / (landed * RECORDS)


def instant_life(yard: Yard, payments: int, among: int) -> Life:
    """The life of a pool without a dispute window, whose payer allows each provider when it is first owed.

    The last batch, the payer's closing, every withdrawal and the payer's rest are one transaction.
    """
    yard.next_day()
    who, nobody = providers(among), ()
    terms = yard.terms(nobody, FOREVER, dispute_window=0, close_delay=0)
    pool_id, opening = yard.open(terms, nobody, payments * PAYMENT + REST)
    work: list[list[bytes]] = []
    for first in range(0, payments, BATCH):
        allow = [] if work else [yard.allow(pool_id, who)]
        work.append([*allow, contract.settle(*yard.batch(pool_id, _netted(range(first, first + BATCH), who)))])
    settling = sum(yard.send(contract.multicall(calls)).gas_used for calls in work[:-1])
    ending = yard.send(contract.multicall([*work[-1], yard.closing(pool_id), *_everybody_out(pool_id, who)]))
    _check(ending, payments)
    return Life(opening.gas_used, settling, ending.gas_used)


def held_life(yard: Yard, payments: int, among: int) -> Life:
    """The life of a pool with a list from the start and a day to dispute in, whose money waits until it has matured."""
    day, who = yard.next_day(), providers(among)
    expiry = day + 7 * DAY
    pool_id, opening = yard.open(yard.terms(who, expiry), who, payments * PAYMENT + REST)
    settling = 0
    for first in range(0, payments, BATCH):
        settling += yard.settle(pool_id, _netted(range(first, first + BATCH), who)).gas_used
    yard.at(expiry)
    ending = yard.send(ending_of(pool_id, who))
    _check(ending, payments)
    return Life(opening.gas_used, settling, ending.gas_used)


def _check(ending: Receipt, payments: int) -> None:
    """Hold the end of a life to what must come out, to the unit."""
    withdrawn = [event for event in ending.events if isinstance(event, Withdrawn)]
    assert sum(event.net + event.fee for event in withdrawn) == payments * PAYMENT
    assert sum(event.amount for event in ending.events if isinstance(event, Reclaimed)) == REST


def ending_of(pool_id: bytes, who: Sequence[str]) -> bytes:
    """Calldata that pays everybody what is theirs, once the pool has ended and all has matured."""
    return contract.multicall(_everybody_out(pool_id, who))


def _everybody_out(pool_id: bytes, who: Sequence[str]) -> list[bytes]:
    return [contract.withdraw_many([(pool_id, provider) for provider in who]), contract.reclaim(pool_id)]


def erc3009(yard: Yard) -> float:
    """Return the gas of paying on chain with a signed authorization, relayed, one transaction for each payment."""
    payer, gas = LocalSigner(keccak(text="pays each by itself")), []
    yard.send(contract.mint_test_usdc(payer.address, 100 * PAYMENT), to=yard.token.address)
    for at, provider in enumerate(providers(_PEERS)):
        nonce = keccak(text=f"payment {at}")
        message = typed.TransferWithAuthorization(
            yard.token_domain,
            from_=payer.address,
            to=provider,
            value=PAYMENT,
            valid_after=0,
            valid_before=FOREVER,
            nonce=nonce,
        )
        call = contract.transfer_with_authorization(
            payer.address, provider, PAYMENT, 0, FOREVER, nonce, payer.sign_typed(message)
        )
        gas.append(yard.send(call, to=yard.token.address).gas_used)
    return sum(gas) / len(gas)


def push(yard: Yard) -> float:
    """Return the gas of a payout: a funded account transfers, one transaction for each payment."""
    yard.send(contract.mint_test_usdc(yard.relayer.address, 100 * PAYMENT), to=yard.token.address)
    gas = [
        yard.send(codec("TestUSDC").call("transfer", provider, PAYMENT), to=yard.token.address).gas_used
        for provider in providers(_PEERS)
    ]
    return sum(gas) / len(gas)


def profiled(yard: Yard) -> list[tuple[str, str]]:
    """Return the transactions that a profile explains, by name."""
    day, who = yard.next_day(), providers(3)
    expiry = day + 7 * DAY
    pool_id, opening = yard.open(yard.terms(who, expiry), who, 10_000_000)
    first = yard.settle(pool_id, _netted(range(BATCH), who))
    second = yard.settle(pool_id, _netted(range(BATCH), who))
    yard.at(expiry)
    ending = yard.send(ending_of(pool_id, who))
    return [
        ("openPool, 3 providers", opening.transaction_hash),
        ("settle, 3 records, the pool's first", first.transaction_hash),
        ("settle, 3 records, at work", second.transaction_hash),
        ("multicall: withdrawMany of 3, reclaim", ending.transaction_hash),
    ]


def _netted(payments: Sequence[int], who: Sequence[str]) -> list[wire.Record]:
    """Return one record for each provider: the sum of its micropayments."""
    return [
        wire.Record(provider, PAYMENT * sum(payment % len(who) == at for payment in payments))
        for at, provider in enumerate(who)
    ]
