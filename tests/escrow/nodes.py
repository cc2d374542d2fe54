"""A node that answers by a script, for what a real one says only at a moment that no test can hit (those: `tests/onchain`).

It stands for `ChainClient`, keeps what it was asked, and knows nothing by itself: a test says which blocks there are, what
is in them, and what becomes of what is sent.
"""

from collections.abc import Sequence
from typing import Any

from escrow.chain.client import Block, Fees, Receipt, Tiers
from escrow.chain.errors import ChainError
from escrow.chain.events import PoolEvent
from escrow.chain.outcomes import SendOutcome, SendResult
from escrow.chain.signer import LocalSigner

GWEI = 10**9


def block_hash(number: int, branch: int = 0) -> str:
    return f"0x{branch:032x}{number:032x}"


class Node:
    """What a node says, and what it was asked."""

    def __init__(self) -> None:
        self.latest, self.safe, self.final = 100, 90, 80
        self.branches: dict[int, int | None] = {}  # blocks of another branch; None: there is none
        self.receipts: dict[str, Receipt] = {}
        self.agreed: dict[str, Receipt | ChainError | None] = {}  # where two nodes say something else
        self.outcomes: list[SendOutcome] = []  # of the next sends; then all are taken
        self.market = Fees(base_fee=8 * GWEI, tip=2 * GWEI, max_fee=18 * GWEI)
        self.wei = 10**20
        self.first_nonce = 7
        self.used_nonces = 0
        self.gas: int | ChainError = 200_000
        self.away: ChainError | None = None
        self.newest: Block | None = None
        self.sent: list[bytes] = []
        self.asked: list[tuple[Any, ...]] = []

    # --- answers -------------------------------------------------------------------------------------------------
    def tiers(self) -> Tiers:
        if self.away:
            raise self.away
        return Tiers(*(self._block(number) for number in (self.latest, self.safe, self.final)))

    def block(self, which: int | str) -> Block | None:
        self.asked.append(("block", which))
        if not isinstance(which, int):
            return self.newest
        return None if self.branches.get(which, 0) is None else self._block(which)

    def _block(self, number: int) -> Block:
        return Block(number, block_hash(number, self.branches.get(number) or 0), "0x", 0, 0)

    def receipt(self, tx_hash: str) -> Receipt | None:
        self.asked.append(("receipt", tx_hash))
        return self.receipts.get(tx_hash)

    def agreed_receipt(self, tx_hash: str, *, seen: Receipt | None = None) -> Receipt | None:
        self.asked.append(("agreed_receipt", tx_hash))
        told = self.agreed.get(tx_hash, self.receipts.get(tx_hash))
        if isinstance(told, ChainError):
            raise told
        return told

    def send_raw(self, raw: bytes) -> SendResult:
        self.sent.append(raw)
        outcome = self.outcomes.pop(0) if self.outcomes else SendOutcome.OK
        return SendResult(outcome, "0x", f"says {outcome}")

    def fees(self) -> Fees:
        return self.market

    def balance(self, address: str) -> int:
        self.asked.append(("balance", address))
        return self.wei

    def nonce(self, address: str, block: str) -> int:
        self.asked.append(("nonce", address, block))
        return self.first_nonce

    def agreed_nonce(self, address: str, block: int) -> int:
        self.asked.append(("agreed_nonce", address, block))
        return self.used_nonces

    def estimate_gas(self, sender: str, to: str, calldata: bytes) -> int:
        self.asked.append(("estimate_gas", sender, to, calldata))
        if isinstance(self.gas, ChainError):
            raise self.gas
        return self.gas

    def call(self, to: str, calldata: bytes, **others: Any) -> bytes:
        self.asked.append(("call", to, calldata, others))
        return b""

    # --- the script ----------------------------------------------------------------------------------------------
    def mine(
        self, tx_hash: str, block: int, *, ok: bool = True, branch: int = 0, events: Sequence[PoolEvent] = ()
    ) -> Receipt:
        """Let a chain transaction be in a block."""
        told = Receipt(tx_hash, ok, block, block_hash(block, branch), 60_000, 9 * GWEI, None, tuple(events))
        self.receipts[tx_hash] = told
        return told

    def what(self, question: str) -> list[tuple[Any, ...]]:
        """Return with what it was asked one question."""
        return [one[1:] for one in self.asked if one[0] == question]


class Keys:
    """A key for each role, and for each relayer."""

    def signer(self, role: str) -> LocalSigner:
        return LocalSigner(str(role).encode().rjust(32, b"\1"))

    def relayer(self, shard: int) -> LocalSigner:
        return LocalSigner(bytes([shard + 1]) * 32)

    def payer(self, payer_id: str) -> LocalSigner:
        return LocalSigner(str(payer_id).encode()[:32].rjust(32, b"\1"))
