"""The sandbox: the first session of an account without a pool opens one with a grant of test money, once."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from escrow import funding, grants, ledger, pools
from escrow.ledger import Move
from escrow.models import ChainAction, Grant, Pool, Reason
from marketplace import agents, keys
from marketplace.models import Payer, Scope
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db

OPEN = {"budget": "2.00"}
MINT, OPENING = ChainAction.Kind.MINT, ChainAction.Kind.OPEN_POOL


def newcomer() -> tuple[Payer, Caller]:
    payer = agents.register_payer(name="newcomer")
    return payer, Caller(keys.issue(scope=Scope.PAYER, payer=payer, now=timezone.now())[1])


def arrive(pool: Pool) -> None:
    """Let the chain have opened a pool, as the indexer would tell."""
    tag = pool.pk.hex
    pools.bind(pool, terms={}, pool_key=f"0x{tag * 2}", payer_address="0x" + "22" * 20)
    funding.opened(pool, deposit_micros=pool.requested_micros, ref=f"0x{tag}:0", at=timezone.now())


def recorded() -> list[str]:
    return list(ChainAction.objects.order_by("pk").values_list("kind", flat=True))


@pytest.mark.promise("S31")
def test_the_first_session_of_a_newcomer_opens_a_pool_with_the_grant(unmoved) -> None:
    payer, caller = newcomer()
    with unmoved():
        answer = caller.post("/v1/sessions", OPEN, idempotency_key="k")
    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (409, "pool_opening", True)
    assert (answer.json["subject"], answer.json["state"], answer.json["outcome"]) == ("pool", "opening", "not_charged")
    assert answer.headers["Retry-After"] == "1"
    again = answer.json["next_actions"][0]
    assert (again["path"], again["body"], again["headers"]) == ("/v1/sessions", OPEN, ["Idempotency-Key"])
    grant = Grant.objects.get()
    assert (grant.payer_id, grant.amount_micros) == (payer.pk, 10_000_000)
    assert (grant.pool.status, grant.pool.requested_micros, grant.pool.payer_id) == ("opening", 10_000_000, payer.pk)
    mint, opening = ChainAction.objects.order_by("pk")
    assert (mint.kind, mint.subject_id, mint.params) == (MINT, payer.pk, {"amount_micros": 10_000_000})
    assert (opening.kind, opening.pool) == (OPENING, grant.pool)

    assert caller.post("/v1/sessions", OPEN, idempotency_key="k").json["code"] == "pool_opening"
    assert recorded() == [MINT, OPENING]
    arrive(grant.pool)
    opened = caller.post("/v1/sessions", OPEN, idempotency_key="k")
    assert (opened.status, opened.json["remaining"], opened.json["pool_id"]) == (201, "2.00", str(grant.pool.pk))


def test_more_than_the_grant_is_refused_with_what_there_is(unmoved) -> None:
    _, caller = newcomer()
    caller.post("/v1/sessions", {"budget": "50.00"})
    arrive(Grant.objects.get().pool)
    with unmoved():
        answer = caller.post("/v1/sessions", {"budget": "50.00"})
    assert (answer.status, answer.json["code"], answer.json["remaining"]) == (402, "insufficient_funds", "10.00")
    assert caller.post("/v1/sessions", {"budget": "10.00"}).status == 201


def test_it_is_given_once_for_ever(unmoved) -> None:
    _, caller = newcomer()
    caller.post("/v1/sessions", OPEN)
    pool = Grant.objects.get().pool
    arrive(pool)
    caller.post(f"/v1/pools/{pool.pk}/close", {})
    ledger.post([Move(ledger.free(pool), ledger.world(pool), 10_000_000, Reason.RECLAIM, "0x1:0")])
    Pool.objects.filter(pk=pool.pk).update(status="closed")
    with unmoved():
        answer = caller.post("/v1/sessions", OPEN)
    assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", "none")
    assert recorded() == [MINT, OPENING]


def test_who_has_a_pool_of_its_own_gets_none(world: World) -> None:
    assert world.a.by_payer.post("/v1/sessions", OPEN).status == 201
    payer, caller = newcomer()
    caller.post("/v1/pools", {"deposit": "5.00"})
    assert caller.post("/v1/sessions", OPEN).json["state"] == "none"
    assert grants.give(payer_id=payer.pk, now=timezone.now()) is None
    assert MINT not in recorded()


def test_an_opening_that_failed_is_told_and_tried_again_without_a_second_mint() -> None:
    payer, caller = newcomer()
    caller.post("/v1/sessions", OPEN)
    first = Grant.objects.get().pool
    pools.opening_failed(first, reason="The node is away.")
    told = caller.post("/v1/sessions", OPEN).json
    assert told["code"] == "pool_opening"
    assert told["detail"].endswith("The last opening failed: The node is away.")
    second = Grant.objects.get().pool
    assert (second.status, second.pk != first.pk, recorded()) == ("opening", True, [MINT, OPENING, OPENING])
    arrive(second)
    assert caller.post("/v1/sessions", OPEN).status == 201
    assert Grant.objects.get().payer_id == payer.pk


def test_a_mint_that_failed_fails_the_opening_and_is_made_again() -> None:
    payer, caller = newcomer()
    caller.post("/v1/sessions", OPEN)
    ChainAction.objects.filter(kind=MINT).update(status="parked")
    grants.minting_failed(payer.pk, reason="This token is not ours to mint.")
    assert Grant.objects.get().pool.status == "failed"
    assert "not ours to mint" in caller.post("/v1/sessions", OPEN).json["detail"]
    assert recorded() == [MINT, OPENING, MINT, OPENING]


def test_a_frozen_account_gets_nothing(unmoved) -> None:
    _, caller = newcomer()
    caller.post("/v1/sessions", OPEN)
    caller.post("/v1/freeze", {"reason": "a stolen key"})
    with unmoved():
        answer = caller.post("/v1/sessions", OPEN)
    assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", "frozen")
    assert recorded() == [MINT, OPENING]


def test_a_read_only_key_and_other_scopes_open_nothing(world: World) -> None:
    payer, _ = newcomer()
    reader = Caller(keys.issue(scope=Scope.PAYER, payer=payer, read_only=True, now=timezone.now())[1])
    for caller in (reader, world.a.by_session, world.one.by_provider):
        assert caller.post("/v1/sessions", OPEN).status == 403
    assert not Grant.objects.exists()


def test_without_a_sandbox_nobody_is_given_anything(settings) -> None:
    settings.SANDBOX = False
    _, caller = newcomer()
    assert caller.post("/v1/sessions", OPEN).json["state"] == "none"
    assert recorded() == []


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_open_one_pool_with_one_mint() -> None:
    payer, caller = newcomer()

    def ask(place: int) -> str:
        try:
            return str(Caller(caller.key).post("/v1/sessions", OPEN, idempotency_key=f"k{place}").json["code"])
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as many:
        assert set(many.map(ask, range(20))) == {"pool_opening"}
    assert recorded() == [MINT, OPENING]
    assert UUID(str(Pool.objects.get().payer_id)) == payer.pk


@pytest.mark.parametrize(("given", "starts"), [
    ({"CHAIN_ID": "8453", "SANDBOX": "on"}, False), ({"CHAIN_ID": "1", "SANDBOX": "on"}, False),
    ({"CHAIN_ID": "8453"}, True), ({"CHAIN_ID": "84532", "SANDBOX": "on"}, True),
])  # fmt: skip
def test_where_money_is_real_it_does_not_start(given: dict[str, str], starts: bool) -> None:
    code = "from marketplace import settings; print(settings.SANDBOX)"
    env = {name: value for name, value in os.environ.items() if name not in ("SANDBOX", "CHAIN_ID")} | given
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, check=False)
    assert (run.returncode == 0) == starts
    assert starts or "SANDBOX must be off" in run.stderr
    assert not starts or run.stdout.strip() == str(given.get("SANDBOX") == "on")
