"""GET /v1/payments/{id}/receipt and /v1/batches: what shows and lands a payment without us, actor by actor."""

import json
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.utils import timezone
from eth_utils.crypto import keccak

from escrow import dispatch, settlement
from escrow.chain import contract, typed, wire
from escrow.chain.merkle import Leaf, verify_proof
from escrow.chain.signer import LocalSigner
from escrow.models import Batch, BatchRecord, ChainAction, Payment, Pool
from escrow.policy import Policy
from marketplace import keys
from marketplace.api import chain_shapes, scope
from marketplace.api.auth import Actor
from marketplace.models import ApiKey, Scope
from tests.escrow import books
from tests.marketplace.client import Answer, Caller
from tests.marketplace.conftest import Buyer, World, publish

pytestmark = pytest.mark.django_db

TX = "0x" + "5e" * 32


def pay(buyer: Buyer, to: str = "agent://lint.acme.dev", amount: str = "0.012", **metadata: Any) -> str:
    """Pay an agent; return the payment's id."""
    answer = buyer.by_session.post("/v1/payments", {"to": to, "amount": amount, "metadata": metadata})
    assert answer.status == 201
    return str(answer.json["id"])


def sign(buyer: Buyer) -> Batch:
    """Sign a batch of all that a buyer's pool owes."""
    batch = settlement.settle(pool=buyer.pool, authorizer=LocalSigner(b"\1" * 32), now=timezone.now())
    assert batch is not None
    return batch


def raw(text: str) -> bytes:
    """Return the bytes of a 0x string."""
    return bytes.fromhex(text.removeprefix("0x"))


def leaf_of(receipt: dict[str, Any]) -> Leaf:
    """Make the leaf again from what anybody can read in a receipt, its metadata included."""
    canonical = json.dumps(receipt["metadata"], sort_keys=True, separators=(",", ":")).encode()
    padded = UUID(receipt["payment_id"]).bytes.ljust(32, b"\0")
    provider, micros = receipt["leaf"]["provider"], int(receipt["amount_micros"])
    return Leaf(raw(receipt["pool_key"]), receipt["seq"], padded, provider, micros, keccak(canonical))


@pytest.fixture
def paid(world: World) -> list[str]:
    """Three payments of buyer A: two to provider one, and one to provider two."""
    return [
        pay(world.a, file="ä.py", ratio=0.1, nested={"b": [1, None], "a": "é"}),
        pay(world.a, amount="0.025"),
        pay(world.a, "agent://check.example.dev", "1.50"),
    ]


def test_a_receipt_proves_the_payment_by_itself(world: World, paid: list[str]) -> None:
    batch = sign(world.a)
    receipts = [world.a.by_payer.get(f"/v1/payments/{id}/receipt").json for id in paid]
    for receipt in receipts:
        leaf = leaf_of(receipt)
        assert receipt["leaf"] == {
            "pool_id": world.a.pool.pool_key,
            "seq": receipt["seq"],
            "payment_id": f"0x{leaf.payment_id.hex()}",
            "provider": leaf.provider,
            "amount_micros": receipt["amount_micros"],
            "task_hash": f"0x{leaf.task_hash.hex()}",
        }
        assert receipt["root"] == batch.root
        assert verify_proof(raw(batch.root), leaf, [raw(sibling) for sibling in receipt["proof"]])
        assert (receipt["chain_id"], receipt["contract"]) == (31337, world.a.pool.contract_address)
    first = receipts[0]
    assert (first["amount"], first["amount_micros"], first["status"]) == ("0.012", "12000", "settling")
    assert first["metadata"] == {"file": "ä.py", "ratio": 0.1, "nested": {"b": [1, None], "a": "é"}}
    assert first["batch"] == {
        "id": str(batch.pk), "first_seq": 0, "status": "signed", "transaction_hash": None,
        "block_number": None, "finality": None,
    }  # fmt: skip


def test_a_landed_batch_names_the_chain_transaction_that_the_indexer_read(world: World, paid: list[str]) -> None:
    batch = sign(world.a)
    books.land(batch, tx_hash=TX, block=41)
    receipt = world.one.by_provider.get(f"/v1/payments/{paid[0]}/receipt").json
    assert receipt["status"] == receipt["batch"]["status"] == "settled"
    assert (receipt["batch"]["transaction_hash"], receipt["batch"]["block_number"]) == (TX, 41)
    shown = world.one.by_provider.get(f"/v1/batches/{batch.pk}").json
    assert (shown["status"], shown["transaction_hash"], shown["block_number"]) == ("settled", TX, 41)
    assert (shown["finality"], receipt["batch"]["finality"]) == ("final", "final")


def test_a_payment_names_the_chain_transaction_that_landed_it_and_not_our_own(
    world: World, paid: list[str], django_assert_max_num_queries
) -> None:
    batch = sign(world.a)
    assert dispatch.dispatch_due(now=timezone.now(), limit=10) == 1
    ours = ChainAction.objects.filter(kind=ChainAction.Kind.SETTLE, batches=batch)
    assert ours.update(tx_hash="0x" + "0a" * 32) == 1
    assert world.a.by_payer.get(f"/v1/payments/{paid[0]}").json["tx_hash"] is None
    books.land(batch, tx_hash=TX)
    with django_assert_max_num_queries(3):  # the key, the rows, and where they landed
        page = world.a.by_payer.get("/v1/payments").json["items"]
    assert [row["tx_hash"] for row in page] == [TX] * 3


def test_a_receipt_is_for_whoever_may_see_the_payment(world: World, paid: list[str], unmoved) -> None:
    sign(world.a)
    path = f"/v1/payments/{paid[0]}/receipt"
    _, other = keys.open_session(pool=world.a.pool, budget_micros=1, policy=Policy(), now=timezone.now())
    with unmoved():
        answers = {caller.get(path).raw for caller in (world.a.by_payer, world.a.by_session, world.one.by_provider)}
        assert len(answers) == 1
        for stranger in (world.two.by_provider, world.b.by_payer, world.b.by_session, Caller(other)):
            assert stranger.get(path).status == 404
        assert world.nobody.get(path).status == 401


def test_a_payment_in_no_batch_says_when_to_come_again(world: World, unmoved) -> None:
    id = pay(world.a)
    with unmoved():
        answer = world.one.by_provider.get(f"/v1/payments/{id}/receipt")
    problem = answer.json
    assert (answer.status, problem["code"], problem["state"]) == (409, "not_settled_yet", "payable")
    assert problem["retryable"] is True
    assert datetime.fromisoformat(problem["settles_by"]) > timezone.now()
    assert problem["next_actions"][0]["path"] == f"/v1/payments/{id}"
    sign(world.a)
    assert world.one.by_provider.get(f"/v1/payments/{id}/receipt").status == 200
    offered = world.one.by_provider.get(f"/v1/payments/{id}").json["next_actions"]
    assert f"/v1/payments/{id}/receipt" in {action["path"] for action in offered}


def test_a_refunded_payment_has_nothing_to_prove(world: World, unmoved) -> None:
    id = pay(world.a)
    world.one.by_provider.post(f"/v1/payments/{id}/refund", {"reason": "cannot parse it"})
    with unmoved():
        answer = world.a.by_session.get(f"/v1/payments/{id}/receipt")
    assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", "refunded")
    assert answer.json["retryable"] is False


def test_books_that_no_longer_give_the_root_are_an_alarm_and_no_proof(world: World, paid: list[str], unmoved) -> None:
    sign(world.a)
    Payment.objects.filter(pk=paid[0]).update(metadata={"file": "another"})
    with unmoved():
        for id in paid[:2]:
            answer = world.a.by_session.get(f"/v1/payments/{id}/receipt")
            assert (answer.status, answer.json["code"]) == (500, "internal")


def test_a_batch_can_be_landed_with_what_is_shown(world: World, paid: list[str]) -> None:
    batch = sign(world.a)
    shown = world.one.by_provider.get(f"/v1/batches/{batch.pk}").json
    assert shown["pool_id"] == str(world.a.pool.pk)
    assert shown["status"] == "signed"
    assert (shown["transaction_hash"], shown["block_number"]) == (None, None)
    decoded = wire.decode_batch(raw(shown["packed"]))
    micros = [(record.provider, record.amount) for record in decoded.records]
    assert decoded.first_seq == shown["first_seq"]
    assert [(record["provider_address"], int(record["amount_micros"])) for record in shown["records"]] == micros
    assert {record["amount"] for record in shown["records"]} == {"0.037", "1.50"}
    assert [record["seq"] for record in shown["records"]] == [0, 1]
    assert datetime.fromtimestamp(shown["deadline_unix"], UTC) == datetime.fromisoformat(shown["deadline"])
    words = [raw(shown[name]) for name in ("pool_key", "packed", "root")]
    wanted = contract.settle(*words, shown["deadline_unix"], raw(shown["signature"]))
    assert raw(shown["calldata"]) == wanted
    domain = wire.pool_domain(shown["chain_id"], shown["contract"])
    message = typed.Batch(domain, *words, shown["deadline_unix"])
    assert LocalSigner(b"\1" * 32).sign_typed(message) == raw(shown["signature"])


def test_batches_are_for_who_is_paid_and_who_pays(world: World, unmoved) -> None:
    pay(world.a)
    batch = sign(world.a)
    path = f"/v1/batches/{batch.pk}"
    with unmoved():
        assert world.one.by_provider.get(path).raw == world.a.by_payer.get(path).raw
        assert listed(world.one.by_provider.get("/v1/batches")) == listed(world.a.by_payer.get("/v1/batches"))
        for stranger in (world.two.by_provider, world.b.by_payer):
            assert stranger.get(path).status == 404
            assert listed(stranger.get("/v1/batches")) == []
        for refused, status in ((world.a.by_session, 403), (world.b.by_session, 403), (world.nobody, 401)):
            assert (refused.get(path).status, refused.get("/v1/batches").status) == (status, status)


def test_a_session_has_no_batch_whatever_its_id(world: World) -> None:
    pay(world.a)
    batch = sign(world.a)
    actor = Actor(ApiKey(scope=Scope.SESSION, payer_id=world.a.payer.pk, session_id=batch.pk))
    assert not scope.batches(actor).exists()


def test_lists_are_filtered_and_paged_newest_first(world: World, django_assert_max_num_queries) -> None:
    made = []
    for buyer in (world.a, world.b, world.a):
        pay(buyer)
        pay(buyer, "agent://check.example.dev")
        made.append(sign(buyer))
    for age, batch in enumerate(reversed(made)):  # one database transaction gave them all one time
        Batch.objects.filter(pk=batch.pk).update(created_at=batch.created_at - timedelta(seconds=age))
    settlement.void(batch=made[0])
    books.land(made[1], tx_hash=TX)
    by_provider = world.one.by_provider
    with django_assert_max_num_queries(7):  # the key, the rows, their records and parties, and where they landed
        whole = listed(by_provider.get("/v1/batches"))
    assert whole == [str(batch.pk) for batch in reversed(made)]
    assert listed(by_provider.get(f"/v1/batches?pool_id={world.b.pool.pk}")) == [str(made[1].pk)]
    for status, one in (("void", made[0]), ("settled", made[1]), ("signed", made[2])):
        assert listed(by_provider.get(f"/v1/batches?status={status}")) == [str(one.pk)]
    first = by_provider.get("/v1/batches?limit=2").json
    second = by_provider.get(f"/v1/batches?limit=2&cursor={first['next']}").json
    assert [row["id"] for row in first["items"] + second["items"]] == whole
    assert second["next"] is None
    assert by_provider.get("/v1/batches?status=landed").status == 400


def test_a_page_of_the_largest_batches_is_under_a_megabyte(world: World) -> None:
    pay(world.a)
    batch, records, rows = sign(world.a), settings.SETTLE_MAX_RECORDS, settings.API_PAGE_MAX_BATCHES
    packed = wire.encode_batch(0, [wire.Record(f"0x{1 + at:040x}", 2**40 - 1) for at in range(records)])
    Batch.objects.filter(pk=batch.pk).update(packed=packed)
    party = batch.records.get().party
    BatchRecord.objects.bulk_create(
        BatchRecord(batch=batch, party=party, seq=2**20 + seq, amount_micros=2**40 - 1) for seq in range(records - 1)
    )
    shown = world.a.by_payer.get("/v1/batches?limit=1")
    assert len(shown.json["items"][0]["records"]) == records
    assert rows * len(shown.raw) < 2**20
    assert world.a.by_payer.get(f"/v1/batches?limit={rows}").status == 200
    assert world.a.by_payer.get(f"/v1/batches?limit={rows + 1}").status == 400


def test_a_provider_is_told_of_each_batch_that_pays_it(world: World, paid: list[str]) -> None:
    batch = sign(world.a)
    publish()
    for caller, amount in ((world.one.by_provider, "0.037"), (world.two.by_provider, "1.50")):
        told = [row for row in caller.get("/v1/events").json["items"] if row["type"] == "batch.signed"]
        assert [(row["subject_id"], row["payload"]["amount"]) for row in told] == [(str(batch.pk), amount)]


def test_a_pool_shows_its_terms_to_its_payer(world: World) -> None:
    shown = world.a.by_payer.get(f"/v1/pools/{world.a.pool.pk}").json
    assert shown["terms"] is None
    terms = wire.Terms(
        payer="0x" + "22" * 20,
        authorizer="0x" + "33" * 20,
        arbiter="0x" + "44" * 20,
        expiry=1_800_000_000,
        close_delay=3600,
        per_record_cap=2**40 - 1,
        window_cap=2**56 - 1,
        window_length=86_400,
        dispute_window=3600,
        fee_bps=100,
        providers_hash=b"\5" * 32,
        salt=b"\6" * 32,
    )
    document = {**terms.__dict__, "providers_hash": terms.providers_hash.hex(), "salt": terms.salt.hex()}
    Pool.objects.filter(pk=world.a.pool.pk).update(terms=document)
    shown = world.a.by_payer.get(f"/v1/pools/{world.a.pool.pk}").json
    assert (shown["terms"]["window_cap"], shown["terms"]["salt"]) == (str(2**56 - 1), "0x" + "06" * 32)
    again = {name: shown["terms"][name] for name in shown["terms"]}
    again |= {name: int(again[name]) for name in ("per_record_cap", "window_cap")}
    again |= {name: raw(again[name]) for name in ("providers_hash", "salt")}
    assert wire.Terms(**again) == terms
    assert {field.name for field in fields(wire.Terms)} == set(chain_shapes.PoolTerms.model_fields)


@pytest.mark.promise("S21")
def test_the_web_loads_no_client_of_the_chain_and_no_key() -> None:
    program = (
        "import sys, marketplace.wsgi\n"
        "print(*sorted({'web3', 'eth_account', 'solcx', 'escrow.settlement', 'escrow.chain.client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def listed(answer: Answer) -> list[str]:
    """Return the ids of a page."""
    assert answer.status == 200
    return [row["id"] for row in answer.json["items"]]
