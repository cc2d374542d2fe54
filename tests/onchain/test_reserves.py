"""Proof of reserves: what is published, and that each can prove its own debts and learns nothing of others."""

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agentmarket.answers import Reserves, ReservesProof
from agentmarket.decode import decode
from agentmarket.errors import InvalidReply
from escrow import attesting, reserves, sumtree
from escrow.chain.contract import Token
from escrow.models import ReserveLeaf, ReserveReport, Session, SignerNonce
from escrow.sumtree import Leaf, Sibling
from marketplace import agents, keys
from marketplace.models import Payer, Scope
from tests.marketplace.client import Caller
from tests.onchain.conftest import Chain
from tests.onchain.histories import History
from tests.onchain.test_reconcile import tampering

USDC = 1_000_000


@pytest.fixture
def owed(chain: Chain) -> tuple[Caller, Caller, Session]:
    """A payer with 10 USDC in a pool, of which 0.3 have landed and 0.2 are payable to a provider; and the callers of both."""
    provider = agents.register_provider(name="lint", payout_address=chain.somebody().address)
    history = History(chain, 1, [provider.party])
    payer = Payer.objects.create(id=history.pool.payer_id, name="A")
    session = history.sessions[0]
    chain.pay(session, provider.party, 300_000)
    chain.settle()
    chain.quiet()
    chain.pay(session, provider.party, 200_000)
    made = {"now": timezone.now()}
    by_payer = Caller(keys.issue(scope=Scope.PAYER, payer=payer, **made)[1])
    by_provider = Caller(keys.issue(scope=Scope.PROVIDER, provider=provider, **made)[1])
    return by_payer, by_provider, session


def test_what_is_held_and_owed_is_public_and_provable(chain: Chain, owed: tuple[Caller, Caller, Session]) -> None:
    by_payer, by_provider, session = owed
    nobody = Caller(None)
    assert nobody.get("/v1/reserves").status == 404
    report = attesting.prove_due(client=chain.client)
    assert report is not None
    told = nobody.get("/v1/reserves").json
    assert (told["held"], told["liabilities_total"], told["difference"]) == ("10.00", "10.00", "0.00")
    classes = {name: amount for name, amount in told["liabilities"].items() if amount != "0.00"}
    assert classes == {"available": "4.00", "in_sessions": "5.50", "payable": "0.20", "credited": "0.30"}
    assert (told["verdict"], told["unexplained"], told["root"]) == ("equal", 0, report.root)
    asked = Token(chain.client, told["token"]).balance_of(told["contract"], told["block"])
    assert (told["token"], asked) == (chain.token.address, 10 * USDC)
    assert decode(Reserves, told).token == chain.token.address
    assert decode(Reserves, {name: said for name, said in told.items() if name != "token"}).token is None
    mine = by_provider.get("/v1/reserves/proof").json
    assert [(one["owed_as"], one["amount"]) for one in mine["items"]] == [("credited", "0.30"), ("payable", "0.20")]
    assert decode(ReservesProof, mine).verify(root=told["root"]) == 500_000
    with pytest.raises(InvalidReply, match="not in the root"):
        decode(ReservesProof, mine).verify(root="0" * 64)
    less = [{**one, "micros": str(int(one["micros"]) - 1)} for one in mine["items"]]
    with pytest.raises(InvalidReply, match="not in the root"):
        decode(ReservesProof, {**mine, "items": less}).verify()
    with pytest.raises(InvalidReply, match="twice"):
        decode(ReservesProof, {**mine, "items": mine["items"][:1] * 2}).verify()
    theirs = by_payer.get("/v1/reserves/proof").json
    assert [(one["owed_as"], one["amount"]) for one in theirs["items"]] == [
        ("in_sessions", "5.50"),
        ("available", "4.00"),
    ]
    for proof in (mine, theirs):
        for one in proof["items"]:
            assert sumtree.root_of(*read(one)) == (told["root"], 10 * USDC)
            leaf, steps = read(one)
            assert sumtree.root_of(replace(leaf, micros=leaf.micros - 1), steps) != (told["root"], 10 * USDC)
    assert by_payer.get(f"/v1/reserves/proof?pool_id={session.pk}").json["items"] == []


def test_others_prove_nothing_of_it(chain: Chain, owed: tuple[Caller, Caller, Session]) -> None:
    attesting.prove_due(client=chain.client)
    stranger = agents.register_payer(name="B")
    seller = agents.register_provider(name="check", payout_address=chain.somebody().address)
    made = {"now": timezone.now()}
    for text in (
        keys.issue(scope=Scope.PAYER, payer=stranger, **made)[1],
        keys.issue(scope=Scope.PROVIDER, provider=seller, **made)[1],
    ):
        assert Caller(text).get(f"/v1/reserves/proof?pool_id={owed[2].pool_id}").json["items"] == []
    assert Caller(None).get("/v1/reserves/proof").status == 401
    assert str(owed[2].pool_id) not in str(Caller(None).get("/v1/reserves").json)


def test_a_message_that_comes_twice_makes_one_report_and_old_ones_go(chain: Chain, settings: Any) -> None:
    settings.RESERVES_KEPT, settings.RESERVES_PROVABLE = 3, 1
    History(chain, 1)
    made = [attesting.prove_due(client=chain.client) for _ in range(2)]
    assert [one is not None for one in made] == [True, False]
    for _ in range(4):
        attesting.prove(client=chain.client, now=timezone.now())
    assert ReserveReport.objects.count() == 3
    newest = reserves.newest()
    assert set(ReserveLeaf.objects.values_list("report", flat=True)) == {newest.pk if newest else None}
    page = Caller(None).get("/v1/reserves/history?limit=2").json
    assert len(page["items"]) == 2
    assert [one["verdict"] for one in page["items"]] == ["equal", "equal"]
    assert len(Caller(None).get(f"/v1/reserves/history?limit=2&cursor={page['next']}").json["items"]) == 1


def test_a_difference_is_published_as_unexplained(chain: Chain, owed: tuple[Caller, Caller, Session]) -> None:
    with tampering() as execute:
        execute("DELETE FROM escrow_transfer WHERE reason = 'payment' AND amount_micros = 200000")
    report = attesting.prove(client=chain.client, now=timezone.now())
    assert report is not None
    told = Caller(None).get("/v1/reserves").json
    assert told["verdict"] == "unexplained"
    assert told["unexplained"] == report.unexplained > 0


def test_the_page_for_people_shows_both_sides(
    chain: Chain, owed: tuple[Caller, Caller, Session], client: Client
) -> None:
    assert "Nothing has been compared" in client.get("/reserves").content.decode()
    report = attesting.prove_due(client=chain.client)
    assert report is not None
    page = client.get("/reserves").content.decode()
    for text in (
        "held: 10.00 USDC",
        "owed: 10.00 USDC",
        "landed, not paid out: 0.30 USDC",
        report.root,
        f"cast call {chain.token.address} 'balanceOf(address)(uint256)' {chain.contract.address} --block {report.block_number}",
        "AGENTMARKET_URL=http://testserver agentmarket reserves",
    ):
        assert text in page


def test_an_alarm_alone_is_not_told_as_a_comparison_that_fails(
    chain: Chain, owed: tuple[Caller, Caller, Session], client: Client
) -> None:
    SignerNonce.objects.update(stopped_reason="Nonce 2 is none of ours.")
    attesting.prove(client=chain.client, now=timezone.now())
    assert Caller(None).get("/v1/reserves").json["verdict"] == "unexplained"
    page = client.get("/reserves").content.decode()
    assert "Every comparison holds, but there is an alarm." in page
    assert "does not hold" not in page


def test_a_market_that_does_not_say_its_token_has_no_line_to_run(
    chain: Chain, owed: tuple[Caller, Caller, Session], client: Client, settings: Any
) -> None:
    settings.USDC_ADDRESS = ""
    attesting.prove(client=chain.client, now=timezone.now())
    assert Caller(None).get("/v1/reserves").json["token"] is None
    assert "cast call" not in client.get("/reserves").content.decode()


def read(item: dict[str, Any]) -> tuple[Leaf, list[Sibling]]:
    leaf = Leaf(item["salt"], item["owed_as"], item["pool_id"], item["party_id"], int(item["micros"]))
    return leaf, [Sibling(step["side"], step["hash"], int(step["micros"])) for step in item["proof"]]
