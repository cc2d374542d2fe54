"""Key services on this machine: a JSON-RPC signer, AWS KMS and Google Cloud KMS, as far as our signers speak to them.

Real HTTP servers over a real key; what they are asked is kept, and each can be told to answer badly.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from coincurve import PrivateKey
from eth_account import Account
from eth_account.messages import encode_typed_data

from escrow.chain.signer import CURVE_ORDER

KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe512961708279f5a0b1c2d3e4f5a6b7")
ADDRESS = Account.from_key(KEY).address
SPKI = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200") + PrivateKey(KEY).public_key.format(
    compressed=False
)
Answer = tuple[int, dict[str, Any]]


def der(digest: bytes, *, high: bool = False, key: bytes = KEY) -> bytes:
    """A signature as the clouds give it; their s is high every other time."""
    low = PrivateKey(key).sign(digest, hasher=None)
    if not high:
        return low
    r_end = 4 + low[3]
    r, s = low[2:r_end], int.from_bytes(low[r_end + 2 :], "big")
    turned = (CURVE_ORDER - s).to_bytes(33, "big").lstrip(b"\0")
    turned = (b"\0" if turned[0] & 0x80 else b"") + turned
    body = r + bytes([2, len(turned)]) + turned
    return bytes([0x30, len(body)]) + body


class Cloud:
    """What was asked, how to answer, and whether the clouds' signatures have a high s."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.high = False
        self.key = KEY
        self.spoil: Callable[[Answer], Answer] = lambda answer: answer

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Answer:
        self.asked.append((path, headers, body))
        if "X-Amz-Target" in headers:
            return self.spoil(self._aws(headers["X-Amz-Target"], body))
        if "jsonrpc" in body:
            return self.spoil((200, {"jsonrpc": "2.0", "id": body["id"], "result": self._rpc(body)}))
        return self.spoil(self._google(path, body))

    def _aws(self, target: str, body: dict[str, Any]) -> Answer:
        if target == "TrentService.GetPublicKey":
            return 200, {"KeyId": body["KeyId"], "PublicKey": base64.b64encode(SPKI).decode()}
        assert target == "TrentService.Sign"
        assert (body["MessageType"], body["SigningAlgorithm"]) == ("DIGEST", "ECDSA_SHA_256")
        made = der(base64.b64decode(body["Message"]), high=self.high, key=self.key)
        return 200, {"KeyId": body["KeyId"], "Signature": base64.b64encode(made).decode()}

    def _google(self, path: str, body: dict[str, Any]) -> Answer:
        if path == "/token":
            return 200, {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
        if path.endswith("/publicKey"):
            text = base64.encodebytes(SPKI).decode()
            return 200, {"pem": f"-----BEGIN PUBLIC KEY-----\n{text}-----END PUBLIC KEY-----\n"}
        assert path.endswith(":asymmetricSign")
        made = der(base64.b64decode(body["digest"]["sha256"]), high=self.high, key=self.key)
        return 200, {"signature": base64.b64encode(made).decode()}

    def _rpc(self, body: dict[str, Any]) -> Any:
        account = Account.from_key(self.key)
        if body["method"] == "eth_signTypedData_v4":
            address, document = body["params"]
            assert address == ADDRESS
            return "0x" + bytes(account.sign_message(encode_typed_data(full_message=document)).signature).hex()
        (fields,) = body["params"]
        assert fields.pop("from") == ADDRESS
        numbers = {name: int(fields[name], 16) for name in fields if name not in {"to", "input"}}
        named = {"type": 2, "data": fields["input"], **numbers, **({"to": fields["to"]} if "to" in fields else {})}
        return {"raw": "0x" + bytes(account.sign_transaction(named).raw_transaction).hex(), "tx": {}}


@contextmanager
def running() -> Iterator[Cloud]:
    """A cloud at a free port."""
    cloud = Cloud()

    class Desk(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = json.loads(body) if body[:1] == b"{" else {}
            status, answer = cloud.answer(self.path, dict(self.headers), asked)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Desk) as server:
        cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield cloud
        server.shutdown()
