"""EIP-712: what each role signs, as the 32 bytes that are signed.

Lives here: domains, and one digest per signed call. Pure. Not here: the terms' own digest (wire.py), signing (signer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from escrow.chain.words import address_word, bytes32_word, uint_word


@dataclass(frozen=True)
class Domain:
    """An EIP-712 domain. The token's name and version are read from the token, never assumed."""

    name: str
    version: str
    chain_id: int
    verifying_contract: str

    @property
    def separator(self) -> bytes:
        type_hash = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        return keccak(
            type_hash
            + keccak(text=self.name)
            + keccak(text=self.version)
            + uint_word(self.chain_id)
            + address_word(self.verifying_contract)
        )


def pool_domain(chain_id: int, address: str) -> Domain:
    """The domain of the `BudgetPool` at `address`."""
    return Domain("BudgetPool", "1", chain_id, address)


def providers_hash(providers: Sequence[str]) -> bytes:
    """keccak256(abi.encodePacked(address[])): each address padded to 32 bytes, in this order, without a length."""
    return keccak(b"".join(address_word(provider) for provider in providers))


def batch_digest(domain: Domain, pool_id: bytes, packed: bytes, root: bytes, deadline: int) -> bytes:
    """What the authorizer signs for `settle`."""
    words = bytes32_word(pool_id) + keccak(packed) + bytes32_word(root) + uint_word(deadline, 64)
    return typed_digest(domain, "Batch(bytes32 poolId,bytes packed,bytes32 root,uint64 deadline)", words)


def top_up_nonce(domain: Domain, pool_id: bytes, nonce_salt: bytes) -> bytes:
    """The ERC-3009 nonce of a top-up, which binds the signature to the pool."""
    return typed_digest(
        domain, "TopUp(bytes32 poolId,bytes32 nonceSalt)", bytes32_word(pool_id) + bytes32_word(nonce_salt)
    )


def allow_providers_digest(
    domain: Domain, pool_id: bytes, providers: Sequence[str], nonce: bytes, deadline: int
) -> bytes:
    """What the payer signs for `allowProvidersWithSig`."""
    words = bytes32_word(pool_id) + providers_hash(providers) + bytes32_word(nonce) + uint_word(deadline, 64)
    return typed_digest(
        domain, "AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)", words
    )


def dispute_digest(domain: Domain, pool_id: bytes, provider: str, amount: int, ref: bytes, deadline: int) -> bytes:
    """What the payer signs for `disputeWithSig`."""
    words = b"".join(
        (
            bytes32_word(pool_id),
            address_word(provider),
            uint_word(amount, 64),
            bytes32_word(ref),
            uint_word(deadline, 64),
        )
    )
    return typed_digest(
        domain, "Dispute(bytes32 poolId,address provider,uint64 amount,bytes32 ref,uint64 deadline)", words
    )


def request_close_digest(domain: Domain, pool_id: bytes, deadline: int) -> bytes:
    """What the payer signs for `requestCloseWithSig`."""
    return typed_digest(
        domain, "RequestClose(bytes32 poolId,uint64 deadline)", bytes32_word(pool_id) + uint_word(deadline, 64)
    )


def set_authorizer_digest(domain: Domain, pool_id: bytes, successor: str, nonce: bytes, deadline: int) -> bytes:
    """What the payer signs for `setAuthorizerWithSig`."""
    words = bytes32_word(pool_id) + address_word(successor) + bytes32_word(nonce) + uint_word(deadline, 64)
    return typed_digest(domain, "SetAuthorizer(bytes32 poolId,address next,bytes32 nonce,uint64 deadline)", words)


def set_payout_digest(domain: Domain, pool_id: bytes, provider: str, payout: str, nonce: bytes, deadline: int) -> bytes:
    """What a provider signs for `setPayoutWithSig`."""
    words = b"".join(
        (
            bytes32_word(pool_id),
            address_word(provider),
            address_word(payout),
            bytes32_word(nonce),
            uint_word(deadline, 64),
        )
    )
    return typed_digest(
        domain, "SetPayout(bytes32 poolId,address provider,address payout,bytes32 nonce,uint64 deadline)", words
    )


def receive_authorization_digest(
    token: Domain, *, from_: str, to: str, value: int, valid_after: int, valid_before: int, nonce: bytes
) -> bytes:
    """What the payer signs so that `to`, and only `to`, may pull `value` (ERC-3009 receiveWithAuthorization)."""
    return _authorization(token, "Receive", from_, to, value, valid_after, valid_before, nonce)


def transfer_authorization_digest(
    token: Domain, *, from_: str, to: str, value: int, valid_after: int, valid_before: int, nonce: bytes
) -> bytes:
    """What a payer signs so that anybody may move `value` to `to` (ERC-3009 transferWithAuthorization)."""
    return _authorization(token, "Transfer", from_, to, value, valid_after, valid_before, nonce)


def _authorization(
    token: Domain, verb: str, from_: str, to: str, value: int, valid_after: int, valid_before: int, nonce: bytes
) -> bytes:
    words = b"".join(
        (
            address_word(from_),
            address_word(to),
            uint_word(value),
            uint_word(valid_after),
            uint_word(valid_before),
            bytes32_word(nonce),
        )
    )
    return typed_digest(
        token,
        f"{verb}WithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)",
        words,
    )


def typed_digest(domain: Domain, type_string: str, words: bytes) -> bytes:
    """The EIP-712 digest of a struct whose members are encoded in `words`."""
    return keccak(b"\x19\x01" + domain.separator + keccak(keccak(text=type_string) + words))
