"""/v1/me, /v1/balance, /v1/events and the health of the service."""

import pytest

from tests.marketplace.conftest import World, publish

pytestmark = pytest.mark.django_db


def test_me_says_what_the_key_is(world: World) -> None:
    payer = world.a.by_payer.get("/v1/me").json
    assert (payer["scope"], payer["payer_id"], payer["session_id"]) == ("payer", str(world.a.payer.pk), None)
    assert (payer["chain_id"], payer["read_only"]) == (31337, False)
    assert world.a.by_session.get("/v1/me").json["session_id"] == str(world.a.session.pk)
    assert world.one.by_provider.get("/v1/me").json["provider_id"] == str(world.one.provider.pk)


def test_a_provider_sees_what_it_is_owed(world: World) -> None:
    for amount in ("0.012", "0.30"):
        world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": amount})
        world.b.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": amount})
    balance = world.one.by_provider.get("/v1/balance").json
    assert (balance["payable"], balance["credited"], balance["withdrawn"]) == ("0.624", "0.00", "0.00")
    assert balance["address"] == world.one.provider.party.address
    assert world.two.by_provider.get("/v1/balance").json["payable"] == "0.00"


def test_events_are_told_to_their_owner_in_order(world: World) -> None:
    paid = world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.012"}).json
    publish()
    feed = world.a.by_payer.get("/v1/events").json
    positions = [event["position"] for event in feed["items"]]
    assert positions == sorted(positions)
    assert feed["next"] == positions[-1]
    last = feed["items"][-1]
    assert (last["type"], last["subject_type"], last["subject_id"]) == ("payment.created", "payment", paid["id"])
    assert world.a.by_payer.get(f"/v1/events?after={feed['next']}").json == {"items": [], "next": feed["next"]}
    assert paid["id"] in {event["subject_id"] for event in world.one.by_provider.get("/v1/events").json["items"]}
    others = world.b.by_payer.get("/v1/events").json["items"] + world.two.by_provider.get("/v1/events").json["items"]
    assert paid["id"] not in {event["subject_id"] for event in others}


def test_events_are_read_on_from_a_position(world: World) -> None:
    for _ in range(3):
        world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.012"})
    publish()
    seen: list[int] = []
    after = 0
    while True:
        page = world.a.by_payer.get(f"/v1/events?after={after}&limit=2").json
        if not page["items"]:
            break
        seen += [event["position"] for event in page["items"]]
        after = page["next"]
    assert len(seen) == len(set(seen)) == 4


def test_the_process_is_up(world: World) -> None:
    for path in ("/livez", "/healthz"):
        assert world.nobody.get(path).json == {"status": "ok"}
