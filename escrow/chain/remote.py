"""A signer behind JSON-RPC: `eth_signTransaction` and `eth_signTypedData_v4`, as Clef and most signing services have them.

Lives here: asking it, and checking what comes back against what was asked. Not here: which role uses it (sources.py).
"""

from __future__ import annotations

import itertools
from typing import Any

import requests
from eth_utils.address import to_checksum_address

from escrow.chain.eip1559 import checked, recovered
from escrow.chain.errors import SignerRefused, SignerUnavailable
from escrow.chain.signer import SignedTransaction, TransactionFields
from escrow.chain.typed import Message


class RpcSigner:
    """The account `address` of the signer at `url`. `timeout` is seconds, for connecting and again for the answer."""

    __slots__ = ("_ids", "_session", "_timeout", "_url", "address")

    def __init__(self, url: str, address: str, timeout: float = 10.0) -> None:
        self._url = url
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._session = requests.Session()
        self._session.trust_env = False
        self.address = str(to_checksum_address(address))

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction:
        asked: dict[str, Any] = {
            "from": self.address,
            "chainId": hex(fields.chain_id),
            "nonce": hex(fields.nonce),
            "gas": hex(fields.gas),
            "maxFeePerGas": hex(fields.max_fee_per_gas),
            "maxPriorityFeePerGas": hex(fields.max_priority_fee_per_gas),
            "value": hex(fields.value),
            "input": "0x" + fields.data.hex(),
        }
        if fields.to is not None:
            asked["to"] = fields.to
        answer = self._ask("eth_signTransaction", [asked])
        # Geth and Clef answer {raw, tx}, most services the bytes alone.
        return checked(_bytes(answer.get("raw") if isinstance(answer, dict) else answer), fields, self.address)

    def sign_typed(self, message: Message) -> bytes:
        signature = _bytes(self._ask("eth_signTypedData_v4", [self.address, message.document()]))
        if len(signature) == 65 and signature[64] < 27:
            signature = signature[:64] + bytes([signature[64] + 27])
        if recovered(message.digest, signature) != self.address:
            raise SignerUnavailable("the signer signed something else than it was asked for, or with another key")
        return signature

    def _ask(self, method: str, params: list[Any]) -> Any:
        body: Any = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            reply = self._session.post(self._url, json=body, timeout=self._timeout, allow_redirects=False)
            answer = reply.json()
        except (requests.RequestException, ValueError) as error:
            # The text of such an error may hold the URL, and the URL a secret: only its kind is told.
            raise SignerUnavailable(f"{method}: {type(error).__name__}") from None
        if not isinstance(answer, dict) or reply.status_code >= 500:
            raise SignerUnavailable(f"{method}: {reply.status_code}, no answer of JSON-RPC")
        said = answer.get("error")
        if said is not None:
            raise SignerRefused("remote", str(said.get("message", said) if isinstance(said, dict) else said)[:200])
        return answer.get("result")

    def __repr__(self) -> str:
        return f"RpcSigner({self.address})"


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(value.removeprefix("0x"))
    except (AttributeError, ValueError):
        raise SignerUnavailable("the signer answered with no bytes") from None
