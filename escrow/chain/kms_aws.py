"""AWS KMS, for a key of spec ECC_SECG_P256K1. Needs the extra `aws`; imported only when a role names it (sources.py).

botocore alone: it has the credentials' chain, the region and the request signing. boto3 would add nothing that is used.
"""

from __future__ import annotations

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from escrow.chain.errors import SignerRefused, SignerUnavailable
from escrow.chain.kms import KmsSigner

# Told by the code, not by us: these pass, whatever else the answer says.
_PASSING = {"ThrottlingException", "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException"}


class AwsKey:
    """`key_id` is an id, an ARN or an `alias/...`; credentials, region and endpoint are the environment's, as AWS has them."""

    def __init__(self, key_id: str, timeout: float) -> None:
        self._key_id = key_id
        config = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 2})
        self._client = get_session().create_client("kms", config=config)

    def public_key(self) -> bytes:
        return self._ask("get_public_key", "PublicKey")

    def sign(self, digest: bytes) -> bytes:
        return self._ask("sign", "Signature", Message=digest, MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256")

    def _ask(self, operation: str, wanted: str, **parameters: object) -> bytes:
        try:
            answer = getattr(self._client, operation)(KeyId=self._key_id, **parameters)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            if code in _PASSING or status >= 500:
                raise SignerUnavailable(f"AWS KMS: {code}") from None
            raise SignerRefused("aws-kms", code) from None
        except BotoCoreError as error:
            raise SignerUnavailable(f"AWS KMS: {type(error).__name__}") from None
        return bytes(answer.get(wanted, b""))


def signer(key_id: str, timeout: float) -> KmsSigner:
    """The signer of a key; asks the cloud for its address."""
    return KmsSigner(AwsKey(key_id, timeout))
