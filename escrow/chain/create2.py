"""A contract's address before it is there: CREATE2 through the deployment proxy that most chains have.

Lives here: the address, the call that creates, and what code that call will leave. The address depends on the salt and
the creation code alone: not on who sends, nor on a nonce. So nobody can put another contract there, and doing it twice
is seen. Not here: what is deployed and whether it may be (rollout.py).
"""

from __future__ import annotations

from typing import Any, Final

from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from escrow.chain.client import ChainClient
from escrow.chain.errors import ChainUnavailable
from escrow.chain.words import bytes32_word

PROXY: Final = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
"""https://github.com/Arachnid/deterministic-deployment-proxy"""


def address_of(salt: bytes, creation_code: bytes) -> str:
    """Where `calldata` puts the contract (EIP-1014). `creation_code` includes the constructor's arguments."""
    word = keccak(b"\xff" + to_canonical_address(PROXY) + bytes32_word(salt) + keccak(creation_code))
    return str(to_checksum_address(word[12:]))


def calldata(salt: bytes, creation_code: bytes) -> bytes:
    """What to send to `PROXY`; it reverts where there is code already."""
    return bytes32_word(salt) + creation_code


def code_at(client: ChainClient, address: str) -> bytes:
    """The runtime code of an address, empty where there is none."""
    return _bytes("eth_getCode", client.request("eth_getCode", (address, "latest")))


def simulate(client: ChainClient, address: str, creation_code: bytes) -> bytes:
    """The runtime code that creation leaves at `address`, immutables filled; raises what the constructor raises.

    Creation code is run as if it were the code there, since an immutable may hold the contract's own address: a plain
    `eth_call` that creates would run it at another. Works the same before and after it is deployed.
    """
    call = {"from": PROXY, "to": address, "data": "0x"}
    there = {address: {"code": "0x" + creation_code.hex()}}
    return _bytes("eth_call", client.request("eth_call", (call, "latest", there)))


def is_instance(template: bytes, runtime: bytes) -> bool:
    """Whether `runtime` may be the artifact's code: of its length, and the same wherever `template` is not zero.

    Immutables are zeros in a template, and so is many another byte. This tells that creation code was run, and by no means
    that a contract is ours: for that its code is compared with all of what `simulate` returns.
    """
    return len(runtime) == len(template) and all(
        ours in {theirs, 0} for ours, theirs in zip(template, runtime, strict=True)
    )


def _bytes(method: str, answer: Any) -> bytes:
    try:
        return bytes.fromhex(answer.removeprefix("0x"))
    except (AttributeError, ValueError) as error:
        raise ChainUnavailable(f"{method}: malformed answer ({type(error).__name__})") from None
