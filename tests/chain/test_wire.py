"""Python's encoding against the contract's own, and against what cannot be encoded."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow.chain import contract, events, typed, wire
from escrow.chain.errors import ChainReverted

from .world import PROVIDERS, World

DOMAIN = wire.pool_domain(8453, "0x" + "ab" * 20)
POOL = b"\x42" * 32


def address_of(number: int) -> str:
    decoded = wire.decode_batch(bytes(4) + b"\x01" + number.to_bytes(20, "big") + b"\x00" + (1).to_bytes(5, "big"))
    return decoded.records[0].provider


ADDRESSES = st.integers(1, 2**160 - 1).map(address_of)
RECORDS = st.lists(
    st.builds(wire.Record, provider=ADDRESSES, amount=st.integers(1, wire.MAX_AMOUNT)), min_size=1, max_size=60
)


def test_a_batch_byte_for_byte() -> None:
    a, b, _ = PROVIDERS
    packed = wire.encode_batch(7, [wire.Record(a, 1), wire.Record(b, 2**40 - 1), wire.Record(a, 258)])
    assert packed.hex() == (
        "0000000702" + a[2:].lower() + b[2:].lower() + "000000000001_01ffffffffff_000000000102".replace("_", "")
    )


@given(first_seq=st.integers(0, 2**32 - 61), records=RECORDS)
@settings(max_examples=200, deadline=None)
def test_decoding_undoes_encoding(first_seq: int, records: list[wire.Record]) -> None:
    assert wire.decode_batch(wire.encode_batch(first_seq, records)) == wire.Batch(first_seq, tuple(records))


@given(packed=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_what_decodes_is_what_would_be_encoded_or_an_error(packed: bytes) -> None:
    try:
        batch = wire.decode_batch(packed)
    except wire.WireError:
        return
    assert wire.decode_batch(wire.encode_batch(batch.first_seq, batch.records)) == batch


@pytest.mark.parametrize(
    ("first_seq", "records"),
    [
        (0, []),
        (-1, [wire.Record(PROVIDERS[0], 1)]),
        (2**32, [wire.Record(PROVIDERS[0], 1)]),
        (2**32 - 1, [wire.Record(PROVIDERS[0], 1)] * 2),
        (0, [wire.Record(PROVIDERS[0], 0)]),
        (0, [wire.Record(PROVIDERS[0], -1)]),
        (0, [wire.Record(PROVIDERS[0], 2**40)]),
        (0, [wire.Record(f"0x{i:040x}", 1) for i in range(1, 257)]),
    ],
)
def test_refuses_what_the_contract_would(first_seq: int, records: list[wire.Record]) -> None:
    with pytest.raises(wire.WireError):
        wire.encode_batch(first_seq, records)


def test_255_providers_fit() -> None:
    records = [wire.Record(address_of(i), 1) for i in range(1, 256)]
    assert len(wire.decode_batch(wire.encode_batch(2**32 - 255, records)).records) == 255


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        bytes(5),
        bytes(4) + b"\x01",
        bytes(4) + b"\x01" + bytes(20),
        bytes(4) + b"\x01" + bytes(20) + b"\x01" + b"\x00" * 4 + b"\x01",
        bytes(4) + b"\x01" + bytes(20) + bytes(6),
        bytes(4) + b"\x01" + bytes(20) + b"\x00" * 5 + b"\x01\x00",
        bytes(4) + b"\x02" + bytes(19) + b"\x01" + bytes(20) + b"\x00" * 5 + b"\x01",
        b"\xff" * 4 + b"\x01" + bytes(20) + (b"\x00" * 5 + b"\x01") * 2,
    ],
)
def test_refuses_to_decode_what_the_contract_would_not_take(packed: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_batch(packed)


def test_an_address_with_a_wrong_checksum_is_refused() -> None:
    with pytest.raises(ValueError, match="not an address"):
        wire.encode_batch(0, [wire.Record("0xD8dA6BF26964aF9D7eEd9e03E53415D37aA96045", 1)])


def terms(**changes: Any) -> wire.Terms:
    one = wire.Terms(
        payer=PROVIDERS[0],
        authorizer=PROVIDERS[1],
        arbiter=PROVIDERS[2],
        expiry=2_000_000_000,
        close_delay=1,
        per_record_cap=2,
        window_cap=3,
        window_length=4,
        dispute_window=5,
        fee_bps=6,
        providers_hash=b"\x01" * 32,
        salt=b"\x02" * 32,
    )
    return dataclasses.replace(one, **changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payer", "0x12"),
        ("expiry", 2**64),
        ("close_delay", -1),
        ("per_record_cap", 2**40),
        ("window_cap", 2**56),
        ("window_length", 2**32),
        ("dispute_window", 2**32),
        ("fee_bps", 2**16),
        ("providers_hash", b"\x01" * 31),
        ("salt", b""),
    ],
)
def test_terms_outside_their_types_have_no_id(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"not an address|does not fit|where 32 belong"):
        wire.pool_id(DOMAIN, terms(**{field: value}))


def test_each_digest_is_the_one_a_typed_data_signer_makes() -> None:
    """Against eth_account's own EIP-712, which knows nothing of ours."""
    a = PROVIDERS[0]
    ref, deadline = b"\x09" * 32, 2_000_000_000
    cases: list[tuple[str, list[tuple[str, str]], dict[str, Any], typed.Message]] = [
        (
            "Batch",
            [("poolId", "bytes32"), ("packed", "bytes"), ("root", "bytes32"), ("deadline", "uint64")],
            {"poolId": POOL, "packed": b"\x01\x02\x03", "root": ref, "deadline": deadline},
            typed.Batch(DOMAIN, POOL, b"\x01\x02\x03", ref, deadline),
        ),
        (
            "TopUp",
            [("poolId", "bytes32"), ("nonceSalt", "bytes32")],
            {"poolId": POOL, "nonceSalt": ref},
            typed.TopUp(DOMAIN, POOL, ref),
        ),
        (
            "AllowProviders",
            [("poolId", "bytes32"), ("providers", "address[]"), ("nonce", "bytes32"), ("deadline", "uint64")],
            {"poolId": POOL, "providers": list(PROVIDERS), "nonce": ref, "deadline": deadline},
            typed.AllowProviders(DOMAIN, POOL, tuple(PROVIDERS), ref, deadline),
        ),
        (
            "Dispute",
            [
                ("poolId", "bytes32"),
                ("provider", "address"),
                ("amount", "uint64"),
                ("ref", "bytes32"),
                ("deadline", "uint64"),
            ],
            {"poolId": POOL, "provider": a, "amount": 5, "ref": ref, "deadline": deadline},
            typed.Dispute(DOMAIN, POOL, a, 5, ref, deadline),
        ),
        (
            "RequestClose",
            [("poolId", "bytes32"), ("deadline", "uint64")],
            {"poolId": POOL, "deadline": deadline},
            typed.RequestClose(DOMAIN, POOL, deadline),
        ),
        (
            "ReceiveWithAuthorization",
            [
                ("from", "address"),
                ("to", "address"),
                ("value", "uint256"),
                ("validAfter", "uint256"),
                ("validBefore", "uint256"),
                ("nonce", "bytes32"),
            ],
            {"from": a, "to": PROVIDERS[1], "value": 1, "validAfter": 2, "validBefore": 3, "nonce": ref},
            typed.ReceiveWithAuthorization(
                DOMAIN, from_=a, to=PROVIDERS[1], value=1, valid_after=2, valid_before=3, nonce=ref
            ),
        ),
    ]
    for name, fields, said, message in cases:
        signable = encode_typed_data(
            domain_data={
                "name": DOMAIN.name,
                "version": DOMAIN.version,
                "chainId": DOMAIN.chain_id,
                "verifyingContract": DOMAIN.verifying_contract,
            },
            message_types={name: [{"name": field, "type": kind} for field, kind in fields]},
            message_data=said,
        )
        assert _hash_eip191_message(signable) == message.digest, name
        assert _hash_eip191_message(encode_typed_data(full_message=message.document())) == message.digest, name
        assert typed.read(message.document()) == message


def test_pool_id_and_top_up_nonce_are_the_contracts(world: World) -> None:
    for one in (terms(), terms(salt=b"\xff" * 32, expiry=2**64 - 1, fee_bps=65_535)):
        assert wire.pool_id(world.domain, one) == world.contract.pool_id_of(one)
    assert typed.TopUp(world.domain, POOL, b"\x03" * 32).digest == world.contract.top_up_nonce(POOL, b"\x03" * 32)


@pytest.mark.parametrize("seed", range(15))
def test_the_contract_reads_what_we_encode(world: World, seed: int) -> None:
    """I12: credits on a real node equal the sums of the encoded records."""
    dice = random.Random(seed)
    records = [wire.Record(dice.choice(PROVIDERS), dice.randint(1, 40)) for _ in range(dice.randint(1, 40))]
    pool_id = world.open(world.terms(per_record_cap=40), 100_000)
    receipt = world.send(world.settlement(pool_id, records))
    sums: dict[str, int] = {}
    for record in records:
        sums[record.provider] = sums.get(record.provider, 0) + record.amount
    assert {e.provider: e.amount for e in receipt.events if isinstance(e, events.Credited)} == sums


@pytest.mark.parametrize("seed", range(10))
def test_the_contract_refuses_what_we_would_not_decode(world: World, seed: int) -> None:
    """I12: five hundred batches, each spoilt in up to three places, asked of the contract and of our decoder."""
    dice = random.Random(seed)
    verdicts = [same_verdict(world, spoilt(dice)) for _ in range(50)]
    assert 0 < sum(verdicts) < 50  # both kinds were met


def spoilt(dice: random.Random) -> bytes:
    packed = bytearray(wire.encode_batch(0, [wire.Record(PROVIDERS[i % 3], 1 + i) for i in range(dice.randint(1, 9))]))
    for _ in range(dice.randint(1, 3)):
        how = dice.choice(("flip", "cut", "add"))
        if how == "flip" and packed:
            packed[dice.randrange(len(packed))] = dice.randrange(256)
        elif how == "cut" and packed:
            del packed[dice.randrange(len(packed)) :]
        else:
            packed += dice.randbytes(dice.randint(1, 8))
    return bytes(packed)


def same_verdict(world: World, packed: bytes) -> bool:
    """Whether it decodes; the contract must say so too, as far as the pool's own limits let it."""
    try:
        wire.decode_batch(packed)
        decodes = True
    except wire.WireError:
        decodes = False
    pool_id = wire.pool_id(world.domain, world.standing_terms())
    signature = world.authorizer.sign_typed(typed.Batch(world.domain, pool_id, packed, bytes(32), 2**40))
    try:
        world.client.call(world.contract.address, contract.settle(pool_id, packed, bytes(32), 2**40, signature))
        refused = ""
    except ChainReverted as error:
        refused = error.name
    of_the_pool = {"RecordOverCap", "ProviderNotAllowed", "UnusedProvider"}
    if decodes:
        assert refused in {"", "WindowOverCap", "InsufficientFree"} | of_the_pool, packed.hex()
    else:
        assert refused in {"BadWire", "SequenceOverflow", "BadProviderIndex", "ZeroRecord"} | of_the_pool, packed.hex()
    return decodes


def test_signatures_are_the_signers(world: World) -> None:
    message = typed.RequestClose(world.domain, POOL, 1)
    signature = world.payer.sign_typed(message)
    assert len(signature) == 65
    assert signature[64] in (27, 28)
    assert Account._recover_hash(message.digest, signature=signature) == world.payer.address
