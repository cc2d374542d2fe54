"""The catalogue: registering agents, publishing prices, searching without a key."""

import pytest
from django.db import IntegrityError

from escrow.errors import InvalidInput, StateConflict
from marketplace import agents
from marketplace.models import Offering
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db

NEW = {
    "uri": "agent://security.acme.dev",
    "name": "security",
    "endpoint": "https://security.acme.dev",
    "offerings": [{"capability": "code.security", "pricing": "per_call", "price": "0.025", "unit": "file"}],
}


def test_a_provider_registers_an_agent_with_its_prices(world: World) -> None:
    answer = world.one.by_provider.post("/v1/agents", NEW, idempotency_key=None)
    assert answer.status == 201
    agent = answer.json
    assert (agent["uri"], agent["capabilities"]) == ("agent://security.acme.dev", ["code.security"])
    offering = agent["offerings"][0]
    assert (offering["version"], offering["price"], offering["currency"]) == (1, "0.025", "USDC")
    assert world.nobody.get("/v1/agents/security.acme.dev").json == agent


@pytest.mark.promise("S32")
def test_a_name_belongs_to_whoever_came_first(world: World) -> None:
    answer = world.two.by_provider.post("/v1/agents", {**NEW, "uri": "agent://lint.acme.dev"})
    assert (answer.status, answer.json["code"]) == (409, "conflict")


def test_a_new_price_is_a_new_version_and_the_old_one_stays(world: World) -> None:
    body = {"capability": "code.lint", "pricing": "per_call", "price": "0.015", "unit": "file"}
    answer = world.one.by_provider.post("/v1/agents/lint.acme.dev/offerings", body)
    assert (answer.status, answer.json["version"], answer.json["price"]) == (201, 2, "0.015")
    shown = {row["capability"]: row for row in world.nobody.get("/v1/agents/lint.acme.dev").json["offerings"]}
    assert shown["code.lint"]["version"] == 2
    assert Offering.objects.filter(
        agent=world.one.agent, capability="code.lint", version=1, price_micros=12_000
    ).exists()


def test_the_database_keeps_offerings_as_they_are(world: World) -> None:
    with pytest.raises(IntegrityError, match="never change"):
        Offering.objects.filter(agent=world.one.agent).update(price_micros=1)


def test_a_price_for_what_the_agent_cannot_do_is_refused(world: World) -> None:
    body = {"capability": "translate", "pricing": "per_call", "price": "0.015"}
    answer = world.one.by_provider.post("/v1/agents/lint.acme.dev/offerings", body)
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "capability")


def test_anybody_searches_by_capability_and_text(world: World) -> None:
    world.one.by_provider.post("/v1/agents", NEW)

    def found(query: str) -> list[str]:
        return [row["uri"] for row in world.nobody.get(f"/v1/agents?{query}").json["items"]]

    assert found("capability=code.security") == ["agent://security.acme.dev"]
    assert set(found("capability=review")) == {"agent://lint.acme.dev", "agent://check.example.dev"}
    assert found("q=EXAMPLE") == ["agent://check.example.dev"]
    assert found("q=%25") == []
    assert found("capability=nothing") == []


def test_pages_walk_through_all_agents_once(world: World) -> None:
    for number in range(5):
        world.one.by_provider.post("/v1/agents", {**NEW, "uri": f"agent://a{number}.acme.dev"})
    seen, cursor = [], ""
    while cursor is not None:
        page = world.nobody.get(f"/v1/agents?limit=3{cursor and '&cursor=' + cursor}").json
        seen += [row["uri"] for row in page["items"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen)) == 7


BAD_ENDPOINTS = (
    *("ftp://acme.dev", "acme.dev", "https://", "https://u:p@acme.dev", "https://a b", "javascript:x", "http://[::1"),
)


@pytest.mark.parametrize("endpoint", BAD_ENDPOINTS)
def test_an_endpoint_that_is_no_http_url_is_refused(world: World, endpoint: str) -> None:
    answer = world.one.by_provider.post("/v1/agents", {**NEW, "endpoint": endpoint})
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "endpoint")


def test_a_payout_address_is_checked_and_belongs_to_one_provider(world: World) -> None:
    made = agents.register_provider(name="p", payout_address="0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")
    assert made.party.address == "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    with pytest.raises(StateConflict):
        agents.register_provider(name="q", payout_address=made.party.address)
    wrong_sum = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"
    for wrong in (wrong_sum, "0x" + "0" * 40, "0x12", "", "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed00"):
        with pytest.raises(InvalidInput):
            agents.register_provider(name="q", payout_address=wrong)
