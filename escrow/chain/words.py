"""The 32-byte words that EIP-712 and ABI encoding of static values are made of. Pure; dynamic values are abi.py's."""

from __future__ import annotations

from functools import lru_cache

from eth_utils.address import (
    is_checksum_address,
    is_checksum_formatted_address,
    is_hex_address,
    to_canonical_address,
)

ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"


def uint_word(value: int, bits: int = 256) -> bytes:
    """`value` as a big-endian word; raises ValueError outside `bits` bits."""
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{value} does not fit in uint{bits}")
    return value.to_bytes(32, "big")


@lru_cache(maxsize=4_096)  # a checksum costs a hash, and each leaf of a batch names one of a few addresses
def address_bytes(address: str) -> bytes:
    """The 20 bytes of an address; raises ValueError for anything else, a wrong checksum included."""
    if not is_hex_address(address) or (is_checksum_formatted_address(address) and not is_checksum_address(address)):
        raise ValueError(f"{address!r} is not an address")
    return bytes(to_canonical_address(address))


def address_word(address: str) -> bytes:
    return address_bytes(address).rjust(32, b"\0")


def bytes32_word(value: bytes) -> bytes:
    if len(value) != 32:
        raise ValueError(f"{len(value)} bytes where 32 belong")
    return value
