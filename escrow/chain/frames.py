"""One JSON object on a stream socket: four bytes of length, then that many bytes of it. Both ends of the signer's socket.

Lives here: writing and reading one, with a bound. Not here: what is asked (sockets.py) and what is answered (the notary).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
MAX_ASKED: Final = 4 * 1024 * 1024
"""A batch of 10,000 payments, the most that one nets, is asked for in 0.7 MB."""
MAX_ANSWERED: Final = 1024 * 1024
"""A signed chain transaction: calldata is bounded by a block's gas, far below this."""


class BadFrame(ValueError):
    """Too long, cut off, or no JSON object."""


def send(to: socket.socket, document: Mapping[str, Any]) -> None:
    """Write one object; raises OSError."""
    body = json.dumps(document, separators=(",", ":")).encode()
    to.sendall(_LENGTH.pack(len(body)) + body)


def receive(source: socket.socket, limit: int) -> dict[str, Any]:
    """Read one object; raises BadFrame, or OSError when the other end is gone or too slow."""
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    if length > limit:
        raise BadFrame(f"{length} bytes are more than {limit}")
    try:
        document = json.loads(_exactly(source, length))
    except (ValueError, RecursionError):
        raise BadFrame("no JSON") from None
    if not isinstance(document, dict):
        raise BadFrame("no JSON object")
    return document


def _exactly(source: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = source.recv(min(count - len(parts), 1 << 16))
        if not part:
            raise BadFrame("cut off")
        parts += part
    return bytes(parts)
