"""The terms of a pool, and the id that is their digest. Pure: what they mean is on `IBudgetPool.Terms`."""

from __future__ import annotations

from dataclasses import dataclass

from escrow.chain.domain import Domain, typed_digest
from escrow.chain.words import address_word, bytes32_word, uint_word


@dataclass(frozen=True)
class Terms:
    """What a payer accepts for good; field by field `IBudgetPool.Terms`, where each is explained."""

    payer: str
    authorizer: str
    arbiter: str
    expiry: int
    close_delay: int
    per_record_cap: int
    window_cap: int
    window_length: int
    dispute_window: int
    fee_bps: int
    providers_hash: bytes
    salt: bytes

    def words(self) -> bytes:
        """The ABI encoding; raises ValueError for a field outside its type."""
        return b"".join(
            (
                address_word(self.payer),
                address_word(self.authorizer),
                address_word(self.arbiter),
                uint_word(self.expiry, 64),
                uint_word(self.close_delay, 32),
                uint_word(self.per_record_cap, 40),
                uint_word(self.window_cap, 56),
                uint_word(self.window_length, 32),
                uint_word(self.dispute_window, 32),
                uint_word(self.fee_bps, 16),
                bytes32_word(self.providers_hash),
                bytes32_word(self.salt),
            )
        )

    def as_tuple(self) -> tuple[object, ...]:
        """The fields in order, as the ABI codec takes them."""
        return (
            self.payer,
            self.authorizer,
            self.arbiter,
            self.expiry,
            self.close_delay,
            self.per_record_cap,
            self.window_cap,
            self.window_length,
            self.dispute_window,
            self.fee_bps,
            self.providers_hash,
            self.salt,
        )


def pool_id(domain: Domain, terms: Terms) -> bytes:
    """The digest of the terms: the pool's id, and the nonce of the payer's ERC-3009 authorization."""
    return typed_digest(
        domain,
        "Terms(address payer,address authorizer,address arbiter,uint64 expiry,uint32 closeDelay,uint40 perRecordCap,"
        "uint56 windowCap,uint32 windowLength,uint32 disputeWindow,uint16 feeBps,bytes32 providersHash,bytes32 salt)",
        terms.words(),
    )
