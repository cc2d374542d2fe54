"""Keys: derived right, kept in files only their owner reads, and never shown."""

from __future__ import annotations

import copy
import hashlib
import hmac
import logging
import pickle
import traceback
from pathlib import Path

import pytest
from eth_account import Account

from escrow.chain.keyring import Keyring, derive_key
from escrow.chain.signer import CURVE_ORDER, KeyringError, LocalSigner, Role, TransactionFields

KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe512961708279f5a0b1c2d3e4f5a6b7")
FIELDS = TransactionFields(
    chain_id=8453,
    nonce=7,
    to="0x0000000000000000000000000000000000001001",
    data=b"\x01\x02",
    gas=21_000,
    max_fee_per_gas=100,
    max_priority_fee_per_gas=1,
)


def test_a_signature_recovers_to_the_address() -> None:
    signer = LocalSigner(KEY)
    digest = hashlib.sha256(b"message").digest()
    signature = signer.sign_digest(digest)
    assert Account._recover_hash(digest, signature=signature) == signer.address
    assert int.from_bytes(signature[32:64], "big") <= CURVE_ORDER // 2
    assert signer.sign_digest(digest) == signature
    with pytest.raises(ValueError, match="32 bytes"):
        signer.sign_digest(b"short")


def test_a_chain_transaction_is_the_signers_and_the_same_each_time() -> None:
    signer = LocalSigner(KEY)
    signed = signer.sign_transaction(FIELDS)
    assert Account.recover_transaction(signed.raw) == signer.address
    assert signer.sign_transaction(FIELDS) == signed
    assert signed.raw[0] == 2
    assert len(signed.hash) == 66


@pytest.mark.parametrize("key", [b"", KEY[:31], bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_what_is_no_key_is_refused_without_being_shown(key: bytes) -> None:
    with pytest.raises(KeyringError) as caught:
        LocalSigner(key)
    assert key.hex() == "" or key.hex() not in str(caught.value)


def test_create_makes_four_keys_only_the_owner_reads_and_never_overwrites(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = Keyring.create(folder)
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(files) == {"authorizer.key", "relayer.key", "arbiter.key", "payer.key"}
    assert len(set(files.values())) == 4
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(KeyringError, match="never overwritten"):
        Keyring.create(folder)
    (folder / "relayer.key").unlink()
    with pytest.raises(KeyringError, match="never overwritten"):
        Keyring.create(folder)
    assert not (folder / "relayer.key").exists()
    assert {name: (folder / name).read_text() for name in files if name != "relayer.key"} == {
        name: text for name, text in files.items() if name != "relayer.key"
    }
    assert made.signer("authorizer").address == LocalSigner(bytes.fromhex(files["authorizer.key"].strip())).address


def test_load_refuses_a_file_open_to_others_a_missing_one_and_nonsense(tmp_path: Path) -> None:
    Keyring.create(tmp_path / "keys")
    path = tmp_path / "keys" / "relayer.key"
    path.chmod(0o640)
    with pytest.raises(KeyringError, match=r"relayer\.key is open to others \(mode 0640\)"):
        Keyring.load(tmp_path / "keys")
    path.chmod(0o600)
    for content in ("zz" * 32, "ab" * 31, "00" * 32, "", "é" * 64):
        path.write_text(content)
        with pytest.raises(KeyringError, match="does not hold") as caught:
            Keyring.load(tmp_path / "keys")
        assert content == "" or content not in "".join(traceback.format_exception(caught.value))
    path.write_text("0x" + KEY.hex() + "\n")
    assert Keyring.load(tmp_path / "keys").signer(Role.RELAYER).address == LocalSigner(KEY).address
    path.unlink()
    with pytest.raises(KeyringError, match=r"relayer\.key cannot be read: No such file"):
        Keyring.load(tmp_path / "keys")


def test_only_the_files_that_are_asked_for_are_read(tmp_path: Path) -> None:
    address = Keyring.create(tmp_path).signer(Role.RELAYER).address
    for role in set(Role) - {Role.RELAYER}:
        (tmp_path / f"{role}.key").unlink()
    ring = Keyring.load(tmp_path, [Role.RELAYER])
    assert ring.signer(Role.RELAYER).address == address
    for other in (lambda: ring.signer(Role.ARBITER), lambda: ring.payer("acme")):
        with pytest.raises(KeyringError, match="was not asked for"):
            other()


def test_each_shard_has_a_relayer_of_its_own(tmp_path: Path) -> None:
    made = Keyring.create(tmp_path, relayers=3)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [
        "arbiter", "authorizer", "payer", "relayer", "relayer-1", "relayer-2",
    ]  # fmt: skip
    assert made.relayer(0).address == made.signer(Role.RELAYER).address
    assert len({made.relayer(shard).address for shard in range(3)}) == 3
    assert Keyring.load(tmp_path, relayers=3).relayer(2).address == made.relayer(2).address
    with pytest.raises(KeyringError, match=r"relayer-1\.key was not asked for"):
        Keyring.load(tmp_path).relayer(1)
    with pytest.raises(ValueError, match="no relayer -1"):
        made.relayer(-1)
    with pytest.raises(KeyringError, match=r"relayer-3\.key cannot be read"):
        Keyring.load(tmp_path, relayers=4)


def test_each_payer_has_one_key_for_ever(tmp_path: Path) -> None:
    ring = Keyring.create(tmp_path)
    assert ring.payer("acme").address == Keyring.load(tmp_path).payer("acme").address
    assert ring.payer("acme").address != ring.payer("acme2").address
    assert ring.payer("acme").address not in {
        ring.signer(role).address for role in ("authorizer", "relayer", "arbiter")
    }
    with pytest.raises(KeyringError, match="master secret"):
        ring.signer("payer")
    with pytest.raises(ValueError, match="payer id"):
        ring.payer("")


def test_derivation_is_hmac_and_skips_what_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    message = b"agent-market/payer/" + bytes(4) + b"acme"
    assert derive_key(KEY, "acme") == hmac.digest(KEY, message, hashlib.sha256)
    answers = iter([bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\x01" * 32])
    asked: list[bytes] = []

    def digest(_key: bytes, message: bytes, _hash: object) -> bytes:
        asked.append(message)
        return next(answers)

    monkeypatch.setattr("escrow.chain.keyring.hmac.digest", digest)
    assert derive_key(KEY, "acme") == b"\x01" * 32
    assert [message[19:23] for message in asked] == [i.to_bytes(4, "big") for i in range(4)]


def test_a_key_is_in_no_repr_log_error_or_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = Keyring.create(tmp_path)
    keys = [path.read_text().strip() for path in tmp_path.iterdir()]
    signer = ring.signer("relayer")
    shown = [repr(ring), str(ring), f"{ring}", repr(signer), str(signer), f"{signer!r} {signer}"]
    shown += [repr(ring.payer("acme")), repr([signer]), repr({"signer": signer})]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger(__name__).error("%s %r", signer, ring)
        signer.sign_transaction(FIELDS)
    shown.append(caplog.text)
    for kept in (signer, ring):
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError) as caught:
                way(kept)
            shown.append(str(caught.value))
        assert not hasattr(kept, "__dict__")
    broken = TransactionFields(1, -1, "0x12", b"", 1, 1, 1)
    with pytest.raises(Exception) as refused:  # noqa: PT011  (whatever eth_account raises, it shows no key)
        signer.sign_transaction(broken)
    shown.append("".join(traceback.format_exception(refused.value)))
    everything = "\n".join(shown).lower()
    for key in keys:
        assert key not in everything
        assert str(int(key, 16)) not in everything
