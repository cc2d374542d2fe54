"""What signed bytes say. Lives here: reading them, sender included. Not here: signing (signer.py), sending (client.py)."""

from __future__ import annotations

from dataclasses import dataclass

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes


@dataclass(frozen=True)
class Said:
    """Who signed, which nonce, and wei per gas."""

    hash: str
    from_: str
    nonce: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int


def read(raw: bytes) -> Said:
    """An EIP-1559 chain transaction; raises ValueError for anything else."""
    if raw[:1] != b"\x02":
        raise ValueError("not an EIP-1559 chain transaction")
    try:
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        sender = Account.recover_transaction(raw)
    except Exception as error:  # noqa: BLE001 - rlp, eth_keys and eth_account have a tree of errors each
        raise ValueError(f"not an EIP-1559 chain transaction: {type(error).__name__}") from None
    return Said(
        hash="0x" + keccak(raw).hex(),
        from_=str(sender),
        nonce=int(fields["nonce"]),
        max_fee_per_gas=int(fields["maxFeePerGas"]),
        max_priority_fee_per_gas=int(fields["maxPriorityFeePerGas"]),
    )
