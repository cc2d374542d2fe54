"""What the contract holds as of one block: the only way in which reconciling reads the chain.

Lives here: one block, pinned by its hash; the contract's balances at it, many in one call; logs, hashes and nonces.
Not here: what our books say (books.py), and comparing (reconcile.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from escrow.chain.client import Block, ChainClient
from escrow.chain.contract import BudgetPool, Token
from escrow.chain.errors import ChainReverted, ChainUnavailable
from escrow.chain.events import PoolEvent

VIEWS_A_CALL = 100
"""Each reads a few slots; a hundred stay far below what nodes let one call use."""


@dataclass(frozen=True)
class Whole:
    """All that the contract keeps, and the USDC that the token says it has."""

    total_held: int
    fees: int
    solvent: bool
    usdc: int


@dataclass(frozen=True)
class Kept:
    """What the contract keeps for one pool. `lines` has the providers that were asked about, by address."""

    free: int
    disputed: int
    lines: Mapping[str, int]


class Custody:
    """The contract and its token, read at blocks by number."""

    def __init__(self, client: ChainClient, contract: str) -> None:
        self._client = client
        self._contract = BudgetPool(client, contract)
        self._token = Token(client, self._contract.token())

    def tier(self, at: str, read: int) -> Block:
        """The newest, safe or final block. Raises ChainUnavailable when the node is not yet where others have read."""
        tiers = self._client.tiers() if at == "latest" else self._client.agreed_tiers()
        if tiers.latest.number < read:
            raise ChainUnavailable(f"the node is at block {tiers.latest.number}, and block {read} has been read before")
        return {"latest": tiers.latest, "safe": tiers.safe, "final": tiers.final}[at]

    def latest(self) -> int:
        """The number of the newest block."""
        return self._client.tiers().latest.number

    def is_still(self, block: Block) -> bool:
        """Whether a block is the chain's own under its number, and not one that a reorganisation took away."""
        found = self._client.block(block.number)
        return found is not None and found.hash == block.hash

    def hash_of(self, number: int) -> str:
        """The hash of the chain's block of a number; empty when it has none."""
        block = self._client.block(number)
        return "" if block is None else block.hash

    def whole(self, block: int) -> Whole:
        return Whole(
            total_held=self._contract.total_held(block),
            fees=self._contract.fees(block),
            solvent=self._contract.solvent(block),
            usdc=self._token.balance_of(self._contract.address, block),
        )

    def kept(self, pools: Mapping[bytes, Sequence[str]], block: int) -> dict[bytes, Kept]:
        """What is kept for each pool and each of the providers named with it; nothing for a pool that it does not know."""
        known: dict[bytes, tuple[int, int]] = {}
        rest = iter(pools)
        while some := list(islice(rest, VIEWS_A_CALL)):
            known |= self._known(some, block)
        asked = [(key, provider) for key in known for provider in pools[key]]
        lines = self._many([("lineOf", (key, provider)) for key, provider in asked], block)
        by_pool: dict[bytes, dict[str, int]] = {key: {} for key in pools}
        for (key, provider), (_, matured, pending, *_rest) in zip(asked, lines, strict=True):
            by_pool[key][provider] = matured + pending
        return {
            key: Kept(free=known[key][0], disputed=known[key][1], lines=by_pool[key])
            if key in known
            else Kept(0, 0, {})
            for key in pools
        }

    def _known(self, keys: Sequence[bytes], block: int) -> dict[bytes, tuple[int, int]]:
        """Free and disputed money of the pools that the contract knows: of many at once, or one by one when one is unknown."""
        states: list[tuple[int, ...] | None] = []
        try:
            states += self._many([("pool", (key,)) for key in keys], block)
        except ChainReverted:
            states = [self._one(key, block) for key in keys]
        # `PoolState`: free and disputed are its eleventh and twelfth members.
        return {key: (state[10], state[11]) for key, state in zip(keys, states, strict=True) if state is not None}

    def _one(self, key: bytes, block: int) -> tuple[int, ...] | None:
        try:
            return self._many([("pool", (key,))], block)[0]
        except ChainReverted as error:
            if error.name not in ("NoSuchPool", ""):
                raise
            return None

    def _many(self, views: Iterable[tuple[str, tuple[object, ...]]], block: int) -> list[tuple[int, ...]]:
        answers: list[tuple[int, ...]] = []
        rest = iter(views)
        while some := list(islice(rest, VIEWS_A_CALL)):
            answers += self._contract.read_many(some, block)
        return answers

    # ------------------------------------------------------------------ logs and signers

    def logs(self, first: int, last: int) -> list[PoolEvent]:
        """The contract's events of a closed range of blocks, in chain order."""
        return self._client.agreed_logs(self._contract.address, first, last) if first <= last else []

    def nonce(self, address: str, block: int) -> int:
        """How many chain transactions of a signer the chain has up to a block."""
        return self._client.nonce(address, block)

    def has_mined(self, transaction_hash: str) -> bool:
        return self._client.receipt(transaction_hash) is not None
