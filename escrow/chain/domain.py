"""EIP-712 domains and the digest of a struct in one. Pure. Not here: the structs (typed.py, terms.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from escrow.chain.words import address_word, uint_word


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


def typed_digest(domain: Domain, type_string: str, words: bytes) -> bytes:
    """The EIP-712 digest of a struct whose members are encoded in `words`."""
    return keccak(b"\x19\x01" + domain.separator + keccak(keccak(text=type_string) + words))
