"""EIP-1559 chain transactions byte for byte: what is hashed to be signed, what is sent, and reading it back.

Lives here: the encoding for signers whose key is elsewhere, and the check of what such a signer gave back. Pure.
Not here: the local signer's (eth_account's own), nonces and fees (the relay's).
"""

from __future__ import annotations

from typing import Any, Final

import rlp
from eth_keys.exceptions import BadSignature
from eth_keys.main import KeyAPI
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from escrow.chain.errors import SignerUnavailable
from escrow.chain.signer import CURVE_ORDER, SignedTransaction, TransactionFields
from escrow.chain.words import address_bytes

TYPE: Final = b"\x02"
_FIELDS: Final = 9
_keys: Final = KeyAPI()


def signing_hash(fields: TransactionFields) -> bytes:
    """The 32 bytes that the sender signs."""
    return keccak(TYPE + rlp.encode(_listed(fields)))


def assemble(fields: TransactionFields, signature: bytes) -> SignedTransaction:
    """The bytes to send, of r || s || v."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    raw = TYPE + rlp.encode([*_listed(fields), signature[64] - 27, r, s])
    return SignedTransaction(raw=raw, hash="0x" + keccak(raw).hex())


def checked(raw: bytes, fields: TransactionFields, address: str) -> SignedTransaction:
    """The bytes of a signer elsewhere, once it is sure that they are what was asked for and by `address`.

    Raises SignerUnavailable when they are not: whatever it signed is never sent by us.
    """
    try:
        decoded: list[Any] = rlp.decode(raw.removeprefix(TYPE), strict=True)
        v, r, s = (int.from_bytes(part, "big") for part in decoded[_FIELDS:])
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([27 + v])
    except (ValueError, TypeError, OverflowError, rlp.exceptions.RLPException) as error:
        raise SignerUnavailable(f"the signer gave back no chain transaction: {type(error).__name__}") from None
    signed = assemble(fields, signature)
    if signed.raw != raw or recovered(signing_hash(fields), signature) != address:
        raise SignerUnavailable("the signer gave back another chain transaction than it was asked for")
    return signed


def recovered(digest: bytes, signature: bytes) -> str | None:
    """The address that made r || s || v, v 27 or 28; None when it is no signature that the contract would take."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if len(signature) != 65 or signature[64] not in (27, 28) or s > CURVE_ORDER // 2:
        return None
    try:
        made = _keys.Signature(vrs=(signature[64] - 27, r, s))
        return str(to_checksum_address(made.recover_public_key_from_msg_hash(digest).to_canonical_address()))
    except (BadSignature, ValidationError):
        return None


def _listed(fields: TransactionFields) -> list[Any]:
    return [
        fields.chain_id,
        fields.nonce,
        fields.max_priority_fee_per_gas,
        fields.max_fee_per_gas,
        fields.gas,
        b"" if fields.to is None else address_bytes(fields.to),
        fields.value,
        fields.data,
        [],
    ]
