"""Keys in a cloud's key management: they sign 32 bytes, and what comes back is made into Ethereum's form here.

Lives here: what the clouds have in common. A public key gives the address; a signature is DER, its s may be high, and it
does not say which of two keys made it. Not here: the clouds' own calls (kms_aws.py, kms_gcp.py), which are optional.
"""

from __future__ import annotations

from typing import Final, Protocol

from eth_keys.main import KeyAPI

from escrow.chain.eip1559 import assemble, recovered, signing_hash
from escrow.chain.errors import SignerUnavailable
from escrow.chain.signer import CURVE_ORDER, SignedTransaction, TransactionFields
from escrow.chain.typed import Message

# SubjectPublicKeyInfo of an uncompressed secp256k1 key (RFC 5480, SEC 2): everything before the two coordinates.
_PUBLIC_KEY_HEAD: Final = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a03420004")


class KmsKey(Protocol):
    """One key of a cloud. Both raise SignerUnavailable when the cloud does not answer, SignerRefused when it says no."""

    def public_key(self) -> bytes:
        """DER, SubjectPublicKeyInfo."""
        ...

    def sign(self, digest: bytes) -> bytes:
        """DER, SEQUENCE of r and s, over these 32 bytes as they are."""
        ...


class KmsSigner:
    """A signer whose key never leaves the cloud."""

    __slots__ = ("_key", "address")

    def __init__(self, key: KmsKey) -> None:
        self._key = key
        self.address = address_of(key.public_key())

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction:
        return assemble(fields, self._sign(signing_hash(fields)))

    def sign_typed(self, message: Message) -> bytes:
        return self._sign(message.digest)

    def _sign(self, digest: bytes) -> bytes:
        r, s = decode_der(self._key.sign(digest))
        body = r.to_bytes(32, "big") + min(s, CURVE_ORDER - s).to_bytes(32, "big")
        for v in (27, 28):
            signature = body + bytes([v])
            if recovered(digest, signature) == self.address:
                return signature
        raise SignerUnavailable("the cloud signed something else than it was asked for, or with another key")

    def __repr__(self) -> str:
        return f"KmsSigner({self.address})"


def address_of(public_key: bytes) -> str:
    """The address of a DER public key; raises ValueError for a key of another curve or form."""
    if len(public_key) != len(_PUBLIC_KEY_HEAD) + 64 or not public_key.startswith(_PUBLIC_KEY_HEAD):
        raise ValueError("the key is not on secp256k1: no chain of Ethereum's kind takes its signatures")
    return str(KeyAPI.PublicKey(public_key[len(_PUBLIC_KEY_HEAD) :]).to_checksum_address())


def decode_der(signature: bytes) -> tuple[int, int]:
    """r and s of SEQUENCE { INTEGER r, INTEGER s }; raises SignerUnavailable for anything else."""
    try:
        r, rest = _integer(signature[2:])
        s, rest = _integer(rest)
        whole = signature[0] == 0x30 and signature[1] == len(signature) - 2 and not rest
    except (IndexError, ValueError):
        raise SignerUnavailable("the cloud gave back no signature") from None
    if not whole or not (0 < r < CURVE_ORDER and 0 < s < CURVE_ORDER):
        raise SignerUnavailable("the cloud gave back no signature")
    return r, s


def _integer(encoded: bytes) -> tuple[int, bytes]:
    length = encoded[1]
    if encoded[0] != 0x02 or not 0 < length <= 33 or len(encoded) < 2 + length:
        raise ValueError("no integer")
    return int.from_bytes(encoded[2 : 2 + length], "big", signed=True), encoded[2 + length :]
