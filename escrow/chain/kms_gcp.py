"""Google Cloud KMS, for a key version of algorithm EC_SIGN_SECP256K1_SHA256. Needs the extra `gcp`; imported only when a role
names it (sources.py).

Two REST calls over google-auth: the full client would bring gRPC and protobuf, 15 MB of native code, for them.
"""

from __future__ import annotations

import base64
import os
from typing import Any, Final

import google.auth
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from requests import RequestException

from escrow.chain.errors import SignerRefused, SignerUnavailable
from escrow.chain.kms import KmsSigner

ENDPOINT: Final = "https://cloudkms.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"


class GcpKey:
    """`resource` is `projects/../cryptoKeyVersions/1`. Credentials are the environment's, as Google has them."""

    def __init__(self, resource: str, timeout: float) -> None:
        endpoint = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS", ENDPOINT).rstrip("/")
        self._url = f"{endpoint}/v1/{resource}"
        self._timeout = timeout
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        self._session: Any = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]

    def public_key(self) -> bytes:
        pem = str(self._ask("GET", "/publicKey", None).get("pem", ""))
        return base64.b64decode("".join(line for line in pem.split("\n") if line and not line.startswith("-----")))

    def sign(self, digest: bytes) -> bytes:
        # The algorithm's name says SHA-256, the call takes any 32 bytes for it.
        body = {"digest": {"sha256": base64.b64encode(digest).decode()}}
        return base64.b64decode(self._ask("POST", ":asymmetricSign", body).get("signature", ""))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            answer = self._session.request(
                method, self._url + path, json=body, timeout=self._timeout, max_allowed_time=self._timeout
            )
            told = answer.json()
        except (GoogleAuthError, RequestException, ValueError) as error:
            raise SignerUnavailable(f"Google Cloud KMS: {type(error).__name__}") from None
        if answer.status_code == 429 or answer.status_code >= 500 or not isinstance(told, dict):
            raise SignerUnavailable(f"Google Cloud KMS: {answer.status_code}")
        if answer.status_code >= 400:
            raise SignerRefused("gcp-kms", str(told.get("error", {}).get("status", answer.status_code)))
        return told


def signer(resource: str, timeout: float) -> KmsSigner:
    """The signer of a key version; asks the cloud for its address."""
    return KmsSigner(GcpKey(resource, timeout))
