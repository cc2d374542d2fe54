"""Signers whose keys are in the signing process, asked over its unix socket: one connection, one question, one answer.

Lives here: what is asked, and the check of what comes back. Not here: the other end (escrow.notary), which says no.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping
from typing import Any

from escrow.chain import frames
from escrow.chain.eip1559 import checked, recovered
from escrow.chain.errors import SignerRefused, SignerUnavailable
from escrow.chain.signer import SignedTransaction, TransactionFields
from escrow.chain.typed import Batch, Message, ReceiveWithAuthorization


class SocketSigner:
    """The key called `key` of the signing process at `path`: `relayer`, `relayer-1`, `arbiter`, `authorizer`, `payer:<id>`.

    `timeout` is seconds, for connecting and again for the answer. Its address is asked for at once.
    """

    __slots__ = ("_key", "_path", "_timeout", "address")

    def __init__(self, path: str, key: str, timeout: float = 10.0) -> None:
        self._path = path
        self._key = key
        self._timeout = timeout
        self.address = str(self._ask({"ask": "address"}, "address"))

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction:
        asked = dataclasses.asdict(fields) | {"data": fields.data.hex()}
        raw = self._ask({"ask": "transaction", "fields": asked}, "signed")
        return checked(_bytes(raw), fields, self.address)

    def sign_typed(self, message: Message) -> bytes:
        asked = {"ask": "typed", "document": message.document(), **_attached(message)}
        signature = _bytes(self._ask(asked, "signed"))
        if recovered(message.digest, signature) != self.address:
            raise SignerUnavailable("the signing process signed something else than it was asked for")
        return signature

    def _ask(self, question: Mapping[str, Any], wanted: str) -> Any:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(self._path)
                frames.send(connection, {"key": self._key, **question})
                answer = frames.receive(connection, frames.MAX_ANSWERED)
        except (OSError, frames.BadFrame) as error:
            raise SignerUnavailable(f"the signing process at {self._path}: {error}") from None
        if "refused" in answer:
            raise SignerRefused(str(answer["refused"]), str(answer.get("detail", "")))
        if wanted not in answer:
            raise SignerUnavailable(f"the signing process: {answer.get('unavailable', 'an answer without meaning')}")
        return answer[wanted]

    def __repr__(self) -> str:
        return f"SocketSigner({self.address})"


def _attached(message: Message) -> dict[str, Any]:
    """What is not signed, and lets the other end look: what a batch pays, and what a deposit's nonce was made of."""
    if isinstance(message, Batch):
        return {"leaves": [[leaf.seq, leaf.payment_id[:16].hex(), leaf.amount] for leaf in message.leaves]}
    if isinstance(message, ReceiveWithAuthorization) and message.deposit is not None:
        terms = {name: _plain(value) for name, value in vars(message.deposit.terms).items()}
        return {"terms": terms, "salt": _plain(message.deposit.salt)}
    return {}


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise SignerUnavailable("the signing process answered with no bytes") from None
