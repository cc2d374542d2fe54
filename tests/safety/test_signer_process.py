"""The signing process, asked over its socket as a thief of the worker would ask: it signs what is owed, and nothing else."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from eth_account import Account as Ethereum
from web3 import Web3

from escrow import ledger, sessions, settlement
from escrow.chain import contract, frames, typed, wire
from escrow.chain.errors import ChainReverted, SignerRefused, SignerUnavailable
from escrow.chain.merkle import Leaf, merkle_root
from escrow.chain.signer import LocalSigner, Role, SignedTransaction, Signer, TransactionFields
from escrow.models import Batch, ChainAction, Party, Payment, Pool, Session, Setback
from escrow.notary import server
from escrow.policy import Policy
from marketplace.management.faults.rpc_proxy import RpcProxy
from tests.onchain.conftest import Chain, books, chain, party
from tests.safety.notary import AS_ROOT, OTHER_USER, Notary, environment

__all__ = ["chain"]
THIEF = Web3.to_checksum_address("0x" + "bad1".rjust(40, "0"))
HOUR = 3_600


class _Interrupted(Exception):
    """The worker is gone after the signature and before its commit."""


class Watched:
    """A signer that notes what it was asked, and then may fail its asker."""

    def __init__(self, of: Signer | None, *, fail: bool = False) -> None:
        self.of, self.fail = of, fail
        self.asked: list[typed.Batch] = []
        self.signatures: list[bytes] = []

    @property
    def address(self) -> str:
        raise NotImplementedError

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction:
        raise NotImplementedError

    def sign_typed(self, message: typed.Message) -> bytes:
        assert isinstance(message, typed.Batch)
        self.asked.append(message)
        signature = b"" if self.of is None else self.of.sign_typed(message)
        self.signatures.append(signature)
        if self.fail:
            raise _Interrupted
        return signature


@pytest.fixture
def notary(chain: Chain, tmp_path: Path) -> Iterator[Notary]:
    """The process holds the keys; the chain's sweeps have only its socket."""
    made = Notary(tmp_path / "keys", environment())
    try:
        made.start()
        chain.keyring = made.signers()  # type: ignore[assignment]
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def refused(rule: str) -> Iterator[None]:
    """What is inside is refused by this rule, and the books stay as they are."""
    before = books()
    with pytest.raises(SignerRefused) as caught:
        yield
    assert caught.value.rule == rule, caught.value
    assert books() == before


def owing(chain: Chain, *amounts: int, policy: Policy | None = None) -> tuple[Pool, Session, Party]:
    """A pool on chain that owes one party these payments."""
    seller = party("lint")
    pool = chain.open_pool(providers=(seller,))
    session = sessions.open(pool=pool, budget_micros=10_000_000, policy=policy or Policy(), now=chain.now())
    for amount in amounts:
        chain.pay(session, seller, amount)
    return pool, session, seller


def wanted(chain: Chain, pool: Pool) -> typed.Batch:
    """The batch that settlement would have signed now, of which nothing is kept."""
    watched = Watched(None, fail=True)
    with pytest.raises(_Interrupted):
        settlement.settle(pool=chain.fresh(pool), authorizer=watched, now=chain.now())
    return watched.asked[0]


def made_of(message: typed.Batch, leaves: list[Leaf], *, first_seq: int | None = None, **changes: Any) -> typed.Batch:
    """A batch of these leaves that is right in itself: sums, root and all."""
    old = wire.decode_batch(message.packed)
    start = old.first_seq if first_seq is None else first_seq
    moved = [replace(leaf, seq=leaf.seq - old.first_seq + start) for leaf in leaves]
    records = [
        wire.Record(
            next(leaf.provider for leaf in moved if leaf.seq == seq), sum(o.amount for o in moved if o.seq == seq)
        )
        for seq in sorted({leaf.seq for leaf in moved})
    ]
    packed = wire.encode_batch(start, records)
    return replace(message, packed=packed, root=merkle_root(moved), leaves=tuple(moved), **changes)


# ---------------------------------------------------------------------- what it is for


def test_money_goes_its_whole_way_with_the_keys_in_another_process(chain: Chain, notary: Notary) -> None:
    _, _, seller = owing(chain, 400_000, 100_000)
    assert chain.settle() == 1
    chain.until(lambda: Batch.objects.get().status == Batch.Status.SETTLED, "the batch has landed")
    chain.pay_out()
    chain.quiet()
    assert chain.token.balance_of(seller.address) == 495_000  # the fee is one per cent
    assert chain.reconcile().differences == []
    assert notary.process is not None
    if AS_ROOT:
        status = Path(f"/proc/{notary.process.pid}/status").read_text()
        uid = pwd.getpwnam(OTHER_USER).pw_uid
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
        assert (notary.journal.stat().st_uid, notary.journal.stat().st_mode & 0o777) == (uid, 0o700)
    assert notary.path.stat().st_mode & 0o777 == 0o660
    assert notary.end() == 0
    assert AS_ROOT or not notary.path.exists()
    told = "".join(notary.said).lower()
    for key in notary.keys.iterdir():
        assert key.read_text().strip() not in told
    with pytest.raises(SignerUnavailable):
        notary.signer("relayer")


def test_a_dead_signer_holds_everything_up_and_loses_nothing(chain: Chain, notary: Notary) -> None:
    pool, session, seller = owing(chain, 400_000)
    before = books()
    notary.kill()
    assert chain.settle() == 0
    assert books() == before
    assert Batch.objects.count() == 0
    assert Setback.objects.get().failures == 0  # it waits for its turn, and nothing counts against it
    Setback.objects.update(next_at=chain.now())
    notary.start()
    chain.pay(session, seller, 50_000)
    interrupted = Watched(chain.keyring.signer(Role.AUTHORIZER), fail=True)
    with pytest.raises(_Interrupted):  # signed, and the worker dies before it commits
        settlement.settle(pool=chain.fresh(pool), authorizer=interrupted, now=chain.now())
    notary.kill()
    notary.start()
    chain.pay(session, seller, 7_000)
    assert chain.settle() == 1  # its sequence number is the lost one's: at most one of the two can land
    notary.kill()
    chain.relay()
    assert ChainAction.objects.get(kind="settle").status == "planned"
    notary.start()
    chain.until(lambda: Batch.objects.get().status == Batch.Status.SETTLED, "the batch has landed")
    chain.pay_out()
    chain.quiet()
    assert chain.token.balance_of(seller.address) == 457_000 - 4_570
    # The lost signature comes to light: the contract has that sequence number already.
    lost, signature = interrupted.asked[0], interrupted.signatures[0]
    late = contract.settle(lost.pool_id, lost.packed, lost.root, lost.deadline, signature)
    with pytest.raises(ChainReverted, match="AlreadySettled"):
        chain.client.call(settings.ESCROW_ADDRESS, late)
    assert chain.reconcile().differences == []


# ---------------------------------------------------------------------- chain transactions


def test_it_signs_no_chain_transaction_but_ours(chain: Chain, notary: Notary) -> None:
    relayer, arbiter, authorizer = (notary.signer(name) for name in ("relayer", "arbiter", "authorizer"))
    good = TransactionFields(
        chain_id=settings.CHAIN_ID,
        nonce=10_000,
        to=settings.ESCROW_ADDRESS,
        data=contract.withdraw_fees(),
        gas=100_000,
        max_fee_per_gas=10**9,
        max_priority_fee_per_gas=1,
    )
    raw = relayer.sign_transaction(good).raw
    assert Ethereum.recover_transaction(raw) == relayer.address
    mint = replace(good, to=settings.USDC_ADDRESS, data=contract.mint_test_usdc(THIEF, 1))
    relayer.sign_transaction(mint)
    nothing = replace(good, to=relayer.address, data=b"", gas=21_000)
    relayer.sign_transaction(nothing)
    ruling = replace(good, data=contract.resolve(_terms(), THIEF, bytes(32), 1))
    arbiter.sign_transaction(ruling)
    transfer = Web3.keccak(text="transfer(address,uint256)")[:4] + bytes(64)
    cases: list[tuple[str, Signer, TransactionFields]] = [
        ("chain", relayer, replace(good, chain_id=1)),
        ("to", relayer, replace(good, to=THIEF)),
        ("to", relayer, replace(good, to=THIEF, data=b"")),
        ("to", arbiter, replace(ruling, to=settings.USDC_ADDRESS)),
        ("to", arbiter, mint),
        ("selector", relayer, replace(mint, data=transfer)),
        ("selector", relayer, replace(good, data=b"")),
        ("selector", relayer, replace(good, data=contract.multicall([contract.withdraw_fees()]))),
        ("selector", relayer, replace(good, data=contract.request_close(bytes(32)))),
        ("selector", relayer, replace(good, data=contract.withdraw_many([]))),
        ("selector", relayer, ruling),
        ("selector", arbiter, good),
        ("value", relayer, replace(good, value=1)),
        ("value", relayer, replace(nothing, value=1)),
        ("data", relayer, replace(nothing, data=b"\1")),
        ("data", relayer, replace(nothing, gas=21_001)),
        ("gas", relayer, replace(good, gas=settings.SIGNER_MAX_GAS + 1)),
        ("fee", relayer, replace(good, max_fee_per_gas=settings.SIGNER_MAX_FEE_WEI + 1)),
        ("fee", relayer, replace(good, max_priority_fee_per_gas=10**9 + 1)),
        ("role", authorizer, good),
        ("role", notary.signer(f"payer:{uuid4()}"), good),
        ("question", relayer, replace(good, to=None)),
        ("question", relayer, replace(good, to="0x12")),
    ]
    for rule, signer, fields in cases:
        with refused(rule):
            signer.sign_transaction(fields)
    for name in ("owner", "relayer-9", "relayer-x", "payer", "payer:", ""):
        with refused("question"):
            notary.signer(name)


def test_a_test_token_is_minted_in_the_sandbox_only(chain: Chain, notary: Notary) -> None:
    notary.end()
    notary.start(SANDBOX="0")
    mint = contract.mint_test_usdc(THIEF, 1)
    with refused("to"):
        notary.signer("relayer").sign_transaction(TransactionFields(31337, 0, settings.USDC_ADDRESS, mint, 1, 1, 1))


def test_gas_is_spent_up_to_a_limit_in_an_hour(chain: Chain, notary: Notary) -> None:
    notary.end()
    notary.start(SIGNER_MAX_HOURLY_GAS_WEI=str(250_000 * 10**9))
    fields = TransactionFields(31337, 7, settings.ESCROW_ADDRESS, contract.withdraw_fees(), 100_000, 10**9, 1)
    relayer = notary.signer("relayer")
    relayer.sign_transaction(fields)
    relayer.sign_transaction(replace(fields, max_fee_per_gas=2 * 10**9))  # in place of the first: it counts alone
    with refused("hourly gas"):
        relayer.sign_transaction(replace(fields, nonce=8))
    notary.kill()
    notary.start()
    with refused("hourly gas"):
        notary.signer("relayer").sign_transaction(replace(fields, nonce=8))
    notary.signer("relayer").sign_transaction(replace(fields, nonce=8, gas=50_000))


# ---------------------------------------------------------------------- messages


def test_it_signs_no_message_but_ours(chain: Chain, notary: Notary) -> None:
    payer = notary.signer(f"payer:{uuid4()}")
    pools, token = wire.pool_domain(settings.CHAIN_ID, settings.ESCROW_ADDRESS), chain.token.domain()
    until = int(chain.now().timestamp()) + HOUR
    close = typed.RequestClose(pools, bytes(32), until)
    terms = _terms(
        payer=payer.address,
        authorizer=notary.signer("authorizer").address,
        arbiter=notary.signer("arbiter").address,
    )
    deposit = typed.ReceiveWithAuthorization(
        token, payer.address, settings.ESCROW_ADDRESS, 5_000_000, 0, until, wire.pool_id(pools, terms),
        deposit=typed.Deposit(terms),
    )  # fmt: skip
    key, salt = wire.pool_id(pools, terms), b"\7" * 32
    top_up = replace(deposit, nonce=typed.TopUp(pools, key, salt).digest, deposit=typed.Deposit(terms, salt))
    for message in (close, deposit, top_up, typed.AllowProviders(pools, key, (THIEF,), bytes(32), until),
                    typed.Dispute(pools, key, THIEF, 1, bytes(32), until)):  # fmt: skip
        assert Ethereum._recover_hash(message.digest, signature=payer.sign_typed(message)) == payer.address
    foreign = replace(terms, authorizer=THIEF)
    another = replace(terms, payer=THIEF)
    cases: list[tuple[str, Signer, typed.Message]] = [
        ("domain", payer, replace(close, domain=replace(pools, verifying_contract=THIEF))),
        ("domain", payer, replace(close, domain=replace(pools, chain_id=1))),
        ("domain", payer, replace(close, domain=replace(pools, name="Permit2"))),
        ("domain", payer, replace(deposit, domain=replace(token, verifying_contract=THIEF))),
        ("to", payer, replace(deposit, to=THIEF)),
        ("from", payer, replace(deposit, from_=THIEF)),
        ("deposit", payer, replace(deposit, value=settings.SIGNER_MAX_DEPOSIT_MICROS + 1)),
        ("terms", payer, replace(deposit, deposit=None)),
        ("terms", payer, replace(deposit, deposit=typed.Deposit(foreign), nonce=wire.pool_id(pools, foreign))),
        ("terms", payer, replace(deposit, deposit=typed.Deposit(another), nonce=wire.pool_id(pools, another))),
        ("terms", payer, replace(deposit, nonce=b"\1" * 32)),
        ("terms", payer, replace(top_up, deposit=typed.Deposit(terms, b"\6" * 32))),
        ("deadline", payer, replace(close, deadline=until + 10 * HOUR)),
        ("deadline", payer, replace(deposit, valid_before=until + 10 * HOUR)),
        ("message", payer, typed.SetAuthorizer(pools, key, THIEF, bytes(32), until)),
        ("message", payer, typed.SetPayout(pools, key, THIEF, THIEF, bytes(32), until)),
        ("message", payer, typed.TransferWithAuthorization(token, payer.address, THIEF, 1, 0, until, bytes(32))),
        ("message", payer, typed.Batch(pools, key, b"", bytes(32), until)),
        ("message", notary.signer("authorizer"), close),
        ("message", notary.signer("relayer"), close),
        ("message", notary.signer("arbiter"), deposit),
    ]
    for rule, signer, message in cases:
        with refused(rule):
            signer.sign_typed(message)


def test_it_signs_no_batch_but_of_what_is_owed(chain: Chain, notary: Notary) -> None:
    pool, _, _ = owing(chain, 400_000, 100_000)
    good = wanted(chain, pool)
    authorizer = notary.signer("authorizer")
    one, other = good.leaves
    stranger = UUID(bytes=uuid4().bytes).bytes.ljust(32, b"\0")
    elsewhere, _, _ = owing(chain, 30_000)
    foreign = wanted(chain, elsewhere)
    domain = replace(good.domain, verifying_contract=THIEF)
    cases: list[tuple[str, typed.Batch]] = [
        ("leaves", replace(good, leaves=())),
        ("leaves", made_of(good, [one, replace(one, task_hash=b"\1" * 32)])),
        ("sums", replace(good, leaves=(one,))),
        ("sums", replace(good, leaves=(replace(one, amount=one.amount + 1), other))),
        ("sums", replace(good, leaves=(replace(one, seq=5), other))),
        ("packed", replace(good, packed=good.packed[:-1])),
        ("due", made_of(good, [replace(one, amount=one.amount + 1), other])),
        ("party", made_of(good, [replace(one, provider=THIEF), replace(other, provider=THIEF)])),
        ("payment", made_of(good, [replace(one, payment_id=stranger), other])),
        ("payment", replace(made_of(foreign, list(foreign.leaves)), pool_id=good.pool_id)),
        ("pool", replace(good, pool_id=b"\1" * 32)),
        ("root", replace(good, root=b"\1" * 32)),
        ("root", made_of(good, [replace(one, task_hash=b"\1" * 32), other])),
        ("domain", replace(good, domain=domain)),
        ("deadline", replace(good, deadline=good.deadline + 10 * HOUR)),
    ]
    for rule, message in cases:
        with refused(rule):
            authorizer.sign_typed(message)
    Payment.objects.filter(pk=UUID(bytes=one.payment_id[:16])).update(
        status="refunded", refunded_micros=400_000, deducted_micros=400_000
    )
    with refused("status"):
        authorizer.sign_typed(good)
    authorizer.sign_typed(made_of(good, [other]))


def test_it_signs_no_payment_beyond_its_policy(chain: Chain, notary: Notary) -> None:
    """Rows that a stolen worker could write, and the database would take: the policy is looked at once more."""
    policy = Policy(max_per_tx=500_000, allowed_recipients=("*.acme.dev",))
    pool, _, _ = owing(chain, 400_000, policy=policy)
    lawful = wanted(chain, pool)
    authorizer = notary.signer("authorizer")

    def forged(**changes: Any) -> Payment:
        model = Payment.objects.get(pk=UUID(bytes=lawful.leaves[0].payment_id[:16]))
        fields = {"pk": uuid4(), "idempotency_key": str(uuid4()), **changes}
        for name, value in fields.items():
            setattr(model, name, value)
        model.save(force_insert=True)
        return model

    for changes in (
        {"amount_micros": 500_001},
        {"to": "agent://mallory.dev"},
        {"policy_version": None},
        {"policy_version": 9},
    ):
        row = forged(**changes)
        leaf = replace(lawful.leaves[0], payment_id=row.pk.bytes.ljust(32, b"\0"), amount=row.amount_micros)
        with refused("policy"):
            authorizer.sign_typed(made_of(lawful, [leaf]))
    row = forged(amount_micros=500_000)
    leaf = replace(lawful.leaves[0], payment_id=row.pk.bytes.ljust(32, b"\0"), amount=500_000)
    authorizer.sign_typed(made_of(lawful, [leaf]))


def test_it_signs_a_payment_once_whatever_the_database_says(chain: Chain, notary: Notary) -> None:
    pool, _, _ = owing(chain, 400_000, 100_000)
    good = wanted(chain, pool)
    authorizer = notary.signer("authorizer")
    signature = authorizer.sign_typed(good)
    assert authorizer.sign_typed(good) == signature
    twice = made_of(good, list(good.leaves), first_seq=1)
    with refused("signed"):
        authorizer.sign_typed(twice)
    with refused("signed"):
        authorizer.sign_typed(made_of(good, [good.leaves[0]], first_seq=7))
    beside = replace(good, deadline=good.deadline - 60)
    authorizer.sign_typed(beside)  # the same sequence number: the contract takes one of the two
    notary.kill()
    notary.start()
    authorizer = notary.signer("authorizer")
    with refused("signed"):
        authorizer.sign_typed(twice)
    # It lands, and the database is made to say that it never did: past every deadline it stays signed.
    relayed = contract.settle(good.pool_id, good.packed, good.root, good.deadline, signature)
    _send(chain, relayed)
    assert chain.contract.is_settled(good.pool_id, 0)
    chain.client.request("evm_increaseTime", [2 * HOUR])
    chain.client.request("anvil_mine", ["0x1"])
    with refused("settled"):
        authorizer.sign_typed(replace(twice, deadline=twice.deadline + 60))
    assert {payment.status for payment in Payment.objects.filter(pool=pool)} == {"payable"}


def test_a_batch_that_can_never_land_gives_its_payments_back(chain: Chain, notary: Notary) -> None:
    pool, _, _ = owing(chain, 400_000)
    good = wanted(chain, pool)
    authorizer = notary.signer("authorizer")
    authorizer.sign_typed(good)
    again = made_of(good, list(good.leaves), first_seq=1)
    with refused("signed"):
        authorizer.sign_typed(again)
    chain.client.request("evm_increaseTime", [2 * HOUR])
    chain.client.request("anvil_mine", ["0x1"])
    authorizer.sign_typed(again)


def test_a_node_that_keeps_no_old_states_is_asked_for_its_newest(chain: Chain, notary: Notary) -> None:
    pool, _, _ = owing(chain, 400_000)
    good = wanted(chain, pool)
    notary.kill()
    with RpcProxy(settings.RPC_URL) as node:
        notary.start(RPC_URL=node.url)
        authorizer = notary.signer("authorizer")
        authorizer.sign_typed(good)
        chain.client.request("evm_increaseTime", [2 * HOUR])
        chain.client.request("anvil_mine", ["0x1"])
        node.fault("error", method="eth_call", times=1, message="missing trie node 0b")
        authorizer.sign_typed(made_of(good, list(good.leaves), first_seq=1))
        assert node.met("error") == 1


def test_a_payment_of_a_batch_whose_place_another_took_is_settled_once_the_first_is_too_late(
    chain: Chain, notary: Notary
) -> None:
    """A settlement was rolled back after its signature, and the next one at its place pays less: its landing is not the
    landing of the first."""
    pool, _, seller = owing(chain, 400_000, 100_000)
    lost = wanted(chain, pool)
    authorizer = notary.signer("authorizer")
    authorizer.sign_typed(lost)  # and nothing of it is kept
    settings.SETTLE_MAX_PAYMENTS = 1
    assert chain.settle() == 1
    chain.quiet()
    before = books()
    assert chain.settle() == 0  # for all that anybody knows the first can still land
    told = Setback.objects.get()
    assert ("(signed)" in told.error, told.failures) == (True, 0)  # that passes by itself
    assert books() == before
    chain.client.request("evm_increaseTime", [2 * HOUR])
    chain.client.request("anvil_mine", ["0x1"])
    Setback.objects.update(next_at=chain.now())
    assert chain.settle() == 1
    batch = Batch.objects.get(pool=pool, status=Batch.Status.SIGNED)
    assert (batch.first_seq, ledger.balance(batch.account)) == (1, 100_000)
    assert ledger.balance(ledger.credited(pool, seller)) == 400_000
    Payment.objects.filter(record__batch__status="settled").update(status="payable", record=None)  # that is not so
    paid = next(leaf for leaf in lost.leaves if leaf.amount == 400_000)
    with refused("settled"):
        authorizer.sign_typed(made_of(lost, [paid], first_seq=7, deadline=lost.deadline + 60))


def test_money_is_signed_away_up_to_a_limit_in_an_hour(chain: Chain, notary: Notary) -> None:
    notary.end()
    notary.start(SIGNER_MAX_BATCH_MICROS="450000", SIGNER_MAX_HOURLY_MICROS="500000")
    pool, session, seller = owing(chain, 400_000, 60_000)
    good = wanted(chain, pool)
    authorizer = notary.signer("authorizer")
    with refused("batch"):
        authorizer.sign_typed(good)
    large, small = sorted(good.leaves, key=lambda leaf: -leaf.amount)
    first = made_of(good, [large])
    authorizer.sign_typed(first)
    authorizer.sign_typed(first)
    authorizer.sign_typed(replace(first, deadline=first.deadline - 60))  # in its place: it does not count beside it
    authorizer.sign_typed(made_of(good, [small], first_seq=1))
    chain.pay(session, seller, 50_000)
    rest = [leaf for leaf in wanted(chain, pool).leaves if leaf.amount == 50_000]
    with refused("hourly value"):
        authorizer.sign_typed(made_of(good, rest, first_seq=2))
    notary.kill()
    notary.start()
    with refused("hourly value"):
        notary.signer("authorizer").sign_typed(made_of(good, rest, first_seq=2))


# ---------------------------------------------------------------------- who asks, and how


@pytest.mark.skipif(not AS_ROOT, reason="only root can be somebody else")
def test_nobody_else_is_answered(chain: Chain, notary: Notary) -> None:
    """By the kernel's word: even the user that the process runs as may not ask it."""

    def attempt() -> None:
        notary.signer("relayer")

    assert _as_user(OTHER_USER, attempt) is SignerUnavailable
    notary.path.chmod(0o666)
    assert _as_user("daemon", attempt) is SignerUnavailable
    assert _as_user(OTHER_USER, lambda: list(notary.keys.iterdir())) is PermissionError
    assert notary.signer("relayer").address
    assert "who may not ask" in "".join(notary.said)


def test_whoever_is_not_named_is_hung_up_on_though_the_socket_is_open_to_them(chain: Chain, notary: Notary) -> None:
    pool, _, _ = owing(chain, 400_000)
    chain.quiet()
    authorizer, message, before = notary.signer("authorizer"), wanted(chain, pool), books()
    assert len(authorizer.sign_typed(message)) == 65
    notary.kill()
    notary.start(allow=os.getuid() + 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to:
        to.connect(str(notary.path))  # nothing but its own word is in the way
    with pytest.raises(SignerUnavailable):
        authorizer.sign_typed(message)
    assert chain.settle() == 0
    assert books() == before
    assert notary.end() == 0
    assert f"Hung up on user {os.getuid()}, who may not ask" in "".join(notary.said)


def test_its_memory_is_closed_to_its_own_user_and_it_writes_no_core(chain: Chain, notary: Notary) -> None:
    assert notary.process is not None
    place = Path(f"/proc/{notary.process.pid}")
    assert _unprivileged((place / "environ").read_bytes) is PermissionError
    limits = (place / "limits").read_text().splitlines()
    assert next(line.split()[4:6] for line in limits if line.startswith("Max core file size")) == ["0", "0"]


def test_only_root_becomes_another_user_and_only_one_that_there_is() -> None:
    assert _unprivileged(lambda: server.ids("root")) is server.ServerError
    assert _unprivileged(lambda: server.ids(None)) is None
    for wrong in (server.ids, server.user_id, server.group_id):
        with pytest.raises(server.ServerError, match=r"there is no (user|group) nobody-of-that-name on this machine"):
            wrong("nobody-of-that-name")


def test_a_second_one_at_the_same_socket_does_not_start(chain: Chain, notary: Notary) -> None:
    with pytest.raises(server.ServerError, match="is answered at already: one signing process for one journal"):
        server.Server(notary.path, {os.getuid()})
    assert notary.signer("relayer").address  # the first one answers on


def test_noise_is_hung_up_on_and_the_next_one_is_answered(chain: Chain, notary: Notary) -> None:
    def say(noise: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to:
            to.settimeout(20)
            to.connect(str(notary.path))
            to.sendall(noise)
            to.shutdown(socket.SHUT_WR)
            return to.recv(1 << 16)

    def framed(body: bytes) -> bytes:
        return struct.pack("!I", len(body)) + body

    for noise in (
        b"",
        b"\0\0",
        struct.pack("!I", frames.MAX_ASKED + 1),
        struct.pack("!I", 100) + b"{",
        framed(b"[]"),
        framed(b"\xff\xfe"),
        framed(b"[" * 100_000),
    ):
        assert say(noise) == b""
    for question in (
        b"{}",
        b'{"key": "relayer"}',
        b'{"key": "relayer", "ask": "keys"}',
        b'{"key": {}, "ask": "typed"}',
    ):
        assert b'"refused":"question"' in say(framed(question))
    for ask in (
        b'"transaction"',
        b'"transaction", "fields": {"chain_id": true}',
        b'"transaction", "fields": []',
        b'"typed"',
        b'"typed", "document": {"primaryType": "Permit", "domain": {}, "message": {}}',
        b'"typed", "document": {"primaryType": [], "domain": 1}',
    ):
        assert b'"refused":"question"' in say(framed(b'{"key": "relayer", "ask": ' + ask + b"}"))
    assert notary.signer("relayer").address


def _terms(**changes: Any) -> wire.Terms:
    fields: dict[str, Any] = {
        "payer": THIEF,
        "authorizer": THIEF,
        "arbiter": THIEF,
        "expiry": 2**40,
        "close_delay": 0,
        "per_record_cap": 1,
        "window_cap": 1,
        "window_length": 1,
        "dispute_window": 0,
        "fee_bps": 0,
        "providers_hash": bytes(32),
        "salt": bytes(32),
    }
    return wire.Terms(**(fields | changes))


def _send(chain: Chain, data: bytes) -> None:
    sender: LocalSigner = chain.somebody()
    fees = chain.client.fees()
    fields = TransactionFields(31337, 0, settings.ESCROW_ADDRESS, data, 500_000, fees.max_fee, fees.tip)
    chain.client.send_raw(sender.sign_transaction(fields).raw)


def _unprivileged(attempt: Callable[[], object]) -> type[BaseException] | None:
    """How an attempt ends for a user who is not root: the one that the process runs as, in either case."""
    if AS_ROOT:
        return _as_user(OTHER_USER, attempt)
    try:
        attempt()
    except (SignerUnavailable, PermissionError, server.ServerError) as error:
        return type(error)
    return None


def _as_user(name: str, attempt: Callable[[], object]) -> type[BaseException] | None:
    """How an attempt ends for another user, in a process of its own."""
    kinds: list[type[BaseException]] = [SignerUnavailable, PermissionError, server.ServerError]
    child = os.fork()
    if child == 0:
        code = 99
        try:
            entry = pwd.getpwnam(name)
            os.setgroups([])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
            attempt()
            code = 0
        except BaseException as error:  # noqa: BLE001
            code = 1 + kinds.index(type(error)) if type(error) in kinds else 98
        os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code < 98
    return None if code == 0 else kinds[code - 1]
