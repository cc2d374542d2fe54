"""Signers whose key is elsewhere: they give what a local one gives, and what comes back wrong is never used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from eth_account import Account

from escrow.chain import kms, typed, wire
from escrow.chain.eip1559 import assemble, recovered, signing_hash
from escrow.chain.errors import SignerRefused, SignerUnavailable
from escrow.chain.keyring import Keyring
from escrow.chain.remote import RpcSigner
from escrow.chain.signer import CURVE_ORDER, KeyringError, LocalSigner, Role, Signer, TransactionFields
from escrow.chain.sources import Source, SourceError, open_signers, parse
from tests.chain.clouds import ADDRESS, KEY, SPKI, Answer, Cloud, der, running

FIELDS = TransactionFields(8453, 7, "0x0000000000000000000000000000000000001001", b"\1\2", 21_000, 100, 1)
MESSAGE = typed.RequestClose(wire.pool_domain(8453, ADDRESS), b"\7" * 32, 2_000_000_000)
RESOURCE = "projects/acme/locations/europe/keyRings/market/cryptoKeys/authorizer/cryptoKeyVersions/1"
Maker = Callable[[Cloud], Signer]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


@pytest.fixture
def make(request: pytest.FixtureRequest, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Maker:
    """A signer of each kind, as its configuration names it."""
    kind: str = request.param
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", cloud.url)
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS", cloud.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(_service_account(tmp_path, cloud)))
    source = {"rpc": f"rpc:{cloud.url}/#{ADDRESS}", "aws": "aws-kms:alias/authorizer", "gcp": f"gcp-kms:{RESOURCE}"}[
        kind
    ]
    Keyring.create(tmp_path / "keys")

    def made(_: Cloud) -> Signer:
        return open_signers(f"authorizer={source}", keys=tmp_path / "keys", relayers=1, timeout=5).signer("authorizer")

    return made


every_kind = pytest.mark.parametrize("make", ["rpc", "aws", "gcp"], indirect=True)


@every_kind
@pytest.mark.parametrize("high", [False, True])
def test_it_gives_what_the_key_itself_would(make: Maker, cloud: Cloud, high: bool) -> None:
    cloud.high = high
    signer = make(cloud)
    assert signer.address == ADDRESS
    signature = signer.sign_typed(MESSAGE)
    assert signature == LocalSigner(KEY).sign_typed(MESSAGE)
    assert int.from_bytes(signature[32:64], "big") <= CURVE_ORDER // 2
    signed = signer.sign_transaction(FIELDS)
    assert signed == LocalSigner(KEY).sign_transaction(FIELDS)
    creation = replace(FIELDS, to=None, data=b"\x60\x00" * 40, value=3)
    assert Account.recover_transaction(signer.sign_transaction(creation).raw) == ADDRESS
    assert KEY.hex() not in repr(signer)


@every_kind
def test_what_another_key_made_is_not_used(make: Maker, cloud: Cloud) -> None:
    signer = make(cloud)
    cloud.key = b"\1" * 32
    for ask in (lambda: signer.sign_typed(MESSAGE), lambda: signer.sign_transaction(FIELDS)):
        with pytest.raises(SignerUnavailable, match="than it was asked for"):
            ask()


@every_kind
@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: (200, {}),
        lambda answer: (500, {"message": "down"}),
        lambda answer: (503, answer[1]),
        lambda answer: (200, {**answer[1], "Signature": "AAAA", "signature": "AAAA", "result": "0x00"}),
    ],
)
def test_a_service_that_is_away_or_talks_nonsense_is_asked_again_later(
    make: Maker, cloud: Cloud, spoil: Callable[[Answer], Answer]
) -> None:
    signer = make(cloud)
    cloud.spoil = spoil
    with pytest.raises(SignerUnavailable):
        signer.sign_typed(MESSAGE)
    with pytest.raises(SignerUnavailable):
        signer.sign_transaction(FIELDS)


@every_kind
def test_a_refusal_is_told_by_its_code(make: Maker, cloud: Cloud) -> None:
    signer = make(cloud)
    cloud.spoil = lambda _: (
        400 if not isinstance(signer, RpcSigner) else 200,
        {"__type": "AccessDeniedException", "error": {"status": "PERMISSION_DENIED", "message": "PERMISSION_DENIED"}},
    )
    with pytest.raises(SignerRefused, match=r"AccessDeniedException|PERMISSION_DENIED"):
        signer.sign_typed(MESSAGE)


@pytest.mark.parametrize("make", ["aws"], indirect=True)
def test_aws_is_asked_with_a_signed_request(make: Maker, cloud: Cloud) -> None:
    make(cloud).sign_typed(MESSAGE)
    _, headers, body = cloud.asked[-1]
    assert "Credential=AKIDEXAMPLE/" in headers["Authorization"]
    assert "/eu-central-1/kms/aws4_request" in headers["Authorization"]
    assert body["KeyId"] == "alias/authorizer"
    cloud.spoil = lambda _: (400, {"__type": "ThrottlingException"})
    with pytest.raises(SignerUnavailable, match="ThrottlingException"):
        make(cloud)


@pytest.mark.parametrize("make", ["gcp"], indirect=True)
def test_google_is_asked_with_the_accounts_token(make: Maker, cloud: Cloud) -> None:
    make(cloud).sign_typed(MESSAGE)
    path, headers, _ = cloud.asked[-1]
    assert path == f"/v1/{RESOURCE}:asymmetricSign"
    assert headers["authorization"] == "Bearer a-token"


def test_der_and_public_keys_are_read_strictly() -> None:
    digest = hashlib.sha256(b"message").digest()
    r, s = kms.decode_der(der(digest))
    assert kms.decode_der(der(digest, high=True)) == (r, CURVE_ORDER - s)
    whole = der(digest)
    for spoilt in (b"", whole[:-1], whole + b"\0", b"\x31" + whole[1:], whole[:2] + b"\x03" + whole[3:], b"\x30\x00",
                   bytes.fromhex("3006020100020101"), bytes.fromhex("3006020101020100"), bytes.fromhex("30060201ff020101"),
                   b"\x30\x04\x02\x00\x02\x00"):  # fmt: skip
        with pytest.raises(SignerUnavailable):
            kms.decode_der(spoilt)
    assert kms.address_of(SPKI) == ADDRESS
    for key in (b"", SPKI[:-1], SPKI.replace(bytes.fromhex("2b8104000a"), bytes.fromhex("2b81040022"))):
        with pytest.raises(ValueError, match="secp256k1"):
            kms.address_of(key)


def test_bytes_to_send_are_the_local_signers() -> None:
    local = LocalSigner(KEY)
    for fields in (FIELDS, replace(FIELDS, to=None, nonce=0, data=b""), replace(FIELDS, value=10**20, gas=1 << 24)):
        signature = local.sign_digest(signing_hash(fields))
        assert assemble(fields, signature) == local.sign_transaction(fields)
        assert recovered(signing_hash(fields), signature) == ADDRESS
    digest = signing_hash(FIELDS)
    signature = local.sign_digest(digest)
    high = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    for spoilt in (b"", signature[:64], signature[:64] + b"\0", bytes(64) + b"\x1b",
                   signature[:32] + high.to_bytes(32, "big") + signature[64:]):  # fmt: skip
        assert recovered(digest, spoilt) is None


# ---------------------------------------------------------------------- which one


def test_a_configuration_names_a_source_for_each_role(tmp_path: Path) -> None:
    assert parse("") == {}
    assert parse("file") == {"*": Source("file")}
    assert parse("socket:/run/signer.sock") == {"*": Source("socket", "/run/signer.sock")}
    assert parse("relayer=file, relayer-1=rpc:https://acme.dev/?a=b#0x12,arbiter=aws-kms:arn:aws:kms:eu:1:key/2") == {
        "relayer": Source("file"),
        "relayer-1": Source("rpc", "https://acme.dev/?a=b#0x12"),
        "arbiter": Source("aws-kms", "arn:aws:kms:eu:1:key/2"),
    }
    for wrong in ("owner=file", "floppy", "relayer=floppy:a", "relayer=socket", "relayer=rpc:", "aws-kms:key",
                  "payer=aws-kms:key", "payer=rpc:http://acme.dev#0x1"):  # fmt: skip
        with pytest.raises(SourceError, match="SIGNERS"):
            parse(wrong)
    made = Keyring.create(tmp_path, relayers=2)
    ring = open_signers("file", keys=tmp_path, relayers=2, timeout=1)
    assert ring.relayer(1).address == made.relayer(1).address
    assert ring.signer(Role.RELAYER).address == ring.relayer(0).address
    assert ring.payer("acme").address == made.payer("acme").address
    with pytest.raises(KeyringError, match="payer"):
        ring.signer("payer")
    with pytest.raises(SourceError, match="must name relayer-1"):
        open_signers(f"relayer=rpc:http://127.0.0.1:1#{ADDRESS}", keys=tmp_path, relayers=2, timeout=1)


def test_a_missing_file_stops_the_start_and_a_signer_elsewhere_needs_none(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="cannot be read"):
        open_signers("file", keys=tmp_path, relayers=1, timeout=1)
    away = open_signers(f"socket:{tmp_path}/none.sock", keys=tmp_path, relayers=1, timeout=1)
    with pytest.raises(SignerUnavailable, match=r"none\.sock"):
        away.signer(Role.AUTHORIZER)


def test_a_cloud_whose_library_is_not_here_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Keyring.create(tmp_path)

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name, name="botocore")

    monkeypatch.setattr("escrow.chain.sources.importlib.import_module", absent)
    ring = open_signers("arbiter=aws-kms:key", keys=tmp_path, relayers=1, timeout=1)
    with pytest.raises(SourceError, match=r"botocore: pip install 'agent-market\[aws\]'"):
        ring.signer("arbiter")


def _service_account(folder: Path, cloud: Cloud) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    document = {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "market@acme.dev",
        "client_id": "1",
        "token_uri": f"{cloud.url}/token",
    }
    path = folder / "account.json"
    path.write_text(json.dumps(document))
    return path
