"""What a receipt says of itself, computed anew. Pure: nothing here asks a chain.

Whatever could be read two ways is refused, so that nobody takes for proven what the leaf does not say.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING
from uuid import UUID

from eth_abi.exceptions import EncodingError
from eth_utils.address import is_address, to_checksum_address

from agentmarket.chain import merkle
from agentmarket.chain.errors import Denied, ReceiptMismatch
from agentmarket.proofs import DEPLOYMENTS

if TYPE_CHECKING:
    from agentmarket.proofs import Expected, Receipt


@dataclass(frozen=True)
class Claim:
    """A receipt that does not contradict itself, or what its reader expects of it. `amount` is micro-USDC."""

    contract: str
    pool_id: bytes
    root: bytes
    seq: int
    provider: str
    amount: int


def believed(receipt: "Receipt", expected: "Expected") -> Claim:
    """The claim, once all that the receipt says of itself fits together. Raises ReceiptMismatch, or Denied."""
    contract = _trusted(receipt, expected)
    leaf = receipt.leaf
    _same("seq", "the leaf's sequence number", leaf.seq, receipt.seq)
    _same("pool", "the leaf's pool", leaf.pool_id.lower(), receipt.pool_key.lower())
    try:
        pool_id, payment_id, root = word(leaf.pool_id), word(leaf.payment_id), word(receipt.root)
        amount = micros(leaf.amount_micros)
        _same("payment", "the leaf's payment id", payment_id, merkle.payment_word(UUID(receipt.payment_id)))
        task = merkle.task_hash(receipt.metadata)
        _same("metadata", "the hash of the metadata", task, word(leaf.task_hash))
        hashed = merkle.leaf_hash(
            pool_id=pool_id,
            seq=leaf.seq,
            payment_id=payment_id,
            provider=leaf.provider,
            amount_micros=amount,
            task=task,
        )
        proof = [word(sibling) for sibling in receipt.proof]
        _same("root", "the root that the proof leads to", merkle.root_of(hashed, proof), root)
        _must_repeat_the_leaf(receipt, amount)
    except (ValueError, EncodingError, InvalidOperation) as error:
        raise ReceiptMismatch(f"The receipt cannot be read: {error}. Fetch it again.", step="form") from None
    claim = Claim(contract, pool_id, root, leaf.seq, to_checksum_address(leaf.provider), amount)
    if expected.pool is not None:
        _expected("pool", "pool", receipt.pool_key, expected.pool)
    if expected.provider is not None:
        _expected("provider", "provider", claim.provider, address(expected.provider))
    return claim


def must_be_payer(payer: str, expected: "Expected") -> None:
    """Raises ReceiptMismatch when the pool is another payer's than the caller's."""
    if expected.payer is not None:
        _expected("payer", "payer", payer, address(expected.payer))


def address(text: str) -> str:
    """An address that the caller named. Raises Denied for what is none."""
    if not is_address(text):
        raise Denied(f"{text!r} is not an address: 0x and 40 hex digits, in one case or with a right checksum.")
    return to_checksum_address(text)


def word(text: str) -> bytes:
    """32 bytes from `0x` and 64 hex digits."""
    if len(text) != 66 or not text.startswith("0x"):
        raise ValueError(f"{text!r} is not 0x and 64 hex digits")
    value = bytes.fromhex(text[2:])
    if len(value) != 32:
        raise ValueError(f"{text!r} is not 0x and 64 hex digits")
    return value


def micros(text: str) -> int:
    """Micro-USDC from decimal digits, and nothing but these."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"{text[:80]!r} is not an amount in micro-USDC")
    return int(text)


def _trusted(receipt: "Receipt", expected: "Expected") -> str:
    contract = expected.contract or DEPLOYMENTS.get(receipt.chain_id)
    if contract is None:
        raise ReceiptMismatch(
            f"No deployment on chain {receipt.chain_id} is known here: name the contract that you trust, contract=….",
            step="contract",
        )
    contract = address(contract)
    if receipt.contract.lower() != contract.lower():
        raise ReceiptMismatch(
            f"The receipt is of contract {receipt.contract}, and you trust {contract}: it proves nothing there.",
            step="contract",
        )
    return contract


def _must_repeat_the_leaf(receipt: "Receipt", amount: int) -> None:
    """The amounts beside the leaf are for people to read: they have to be the leaf's."""
    if (said := receipt.extra.get("amount_micros")) is not None:
        _same("amount", "the leaf's amount in micro-USDC", amount, micros(str(said)))
    if (shown := receipt.extra.get("amount")) is not None:
        _same("amount", "the leaf's amount in USDC", Decimal(amount).scaleb(-6), Decimal(str(shown)))


def _same(step: str, what: str, found: object, said: object) -> None:
    if found != said:
        raise ReceiptMismatch(
            f"{what[0].upper()}{what[1:]} is {_shown(found)}, the receipt says {_shown(said)}: it was changed.",
            step=step,
        )


def _expected(step: str, what: str, found: str, wanted: str) -> None:
    if found.lower() != wanted.lower():
        raise ReceiptMismatch(
            f"The receipt's {what} is {found}, and you expect {wanted}: it is of another payment.", step=step
        )


def _shown(value: object) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
