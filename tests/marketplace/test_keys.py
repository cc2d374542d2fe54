"""API keys: their form, what is stored, who may issue which, and that they end."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from escrow import sessions
from escrow.errors import InvalidInput
from marketplace import keys
from marketplace.api.endpoint import rules_of
from marketplace.api.urls import endpoints
from marketplace.models import ApiKey, IdempotencyRecord, Scope
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, make_world

pytestmark = pytest.mark.django_db


def test_a_key_has_id_secret_and_check(world: World) -> None:
    key, text = keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=timezone.now())
    prefix, network, key_id, rest = text.split("_")
    assert (prefix, network, key_id) == ("am", "test", key.key_id)
    assert (len(key_id), len(rest)) == (12, 38)
    assert set(key_id + rest) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert rest[:32].encode() not in bytes(key.secret_hash)
    assert len(bytes(key.secret_hash)) == 32


def test_on_base_keys_say_that_they_are_live(world: World, settings) -> None:
    _, test_text = keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=timezone.now())
    settings.CHAIN_ID = 8453
    _, text = keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=timezone.now())
    assert text.startswith("am_live_")
    assert Caller(text).get("/v1/me").status == 200
    assert "another network" in Caller(test_text).get("/v1/me").json["detail"]


def test_a_mistyped_key_is_told_apart_from_an_unknown_one_without_a_query(world: World) -> None:
    text = str(world.a.by_payer.key)
    typo = text[:-10] + ("a" if text[-10] != "a" else "b") + text[-9:]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        mistyped = Caller(typo).get("/v1/me")
    assert mistyped.status == 401
    assert "mistyped" in mistyped.json["detail"]
    assert len(queries) == 0
    unknown = Caller(keys.text_of("a" * 12, "b" * 32)).get("/v1/me")
    wrong_secret = Caller(keys.text_of(text.split("_")[2], "b" * 32)).get("/v1/me")
    assert unknown.json["detail"] == wrong_secret.json["detail"] == "No such API key."


def test_authentication_is_one_query_and_notes_use_once_a_minute(world: World) -> None:
    now = timezone.now() + timedelta(hours=1)
    token = str(world.a.by_session.key)
    keys.authenticate(token=token, now=now)
    with CaptureQueriesContext(connection) as queries:
        key = keys.authenticate(token=token, now=now + timedelta(seconds=59))
        assert key.session_id == world.a.session.pk
    assert len(queries) == 1
    assert ApiKey.objects.get(pk=key.pk).last_used_at == now
    keys.authenticate(token=token, now=now + timedelta(seconds=61))
    assert ApiKey.objects.get(pk=key.pk).last_used_at == now + timedelta(seconds=61)


def test_a_revoked_key_ends_at_once(world: World) -> None:
    issued = world.a.by_payer.post("/v1/keys", {"session_id": str(world.a.session.pk), "name": "agent 7"}).json
    caller = Caller(issued["api_key"])
    assert caller.get("/v1/me").json["session_id"] == str(world.a.session.pk)
    revoked = world.a.by_payer.delete(f"/v1/keys/{issued['id']}")
    assert (revoked.status, revoked.json["revoked_at"] is not None) == (200, True)
    assert "revoked" in caller.get("/v1/me").json["detail"]
    assert world.a.by_payer.delete(f"/v1/keys/{issued['id']}").json["revoked_at"] == revoked.json["revoked_at"]


def test_a_key_ends_when_it_expires(world: World) -> None:
    now = timezone.now()
    _, text = keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=now, expires_at=now + timedelta(minutes=1))
    keys.authenticate(token=text, now=now + timedelta(seconds=59))
    with pytest.raises(keys.Unauthenticated, match="expired"):
        keys.authenticate(token=text, now=now + timedelta(minutes=1))
    with pytest.raises(InvalidInput):
        keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=now, expires_at=now)


def test_a_payer_issues_session_keys_and_read_only_keys_but_no_full_key(world: World) -> None:
    text = world.a.by_payer.post("/v1/keys", {"scope": "payer", "read_only": True}).json["api_key"]
    assert Caller(text).get("/v1/pools").status == 200
    assert Caller(text).http.head("/v1/pools", headers={"Authorization": f"Bearer {text}"}).status_code == 200
    assert Caller(text).post("/v1/sessions", {"budget": "1.00"}).status == 403
    assert world.a.by_payer.post("/v1/keys", {"scope": "payer"}).status == 403
    assert world.a.by_payer.post("/v1/keys", {"scope": "provider"}).status == 403
    assert world.a.by_payer.post("/v1/keys", {"session_id": str(world.b.session.pk)}).status == 404


def test_a_provider_issues_its_own_key(world: World) -> None:
    issued = world.one.by_provider.post("/v1/keys", {"name": "next"}).json
    assert Caller(issued["api_key"]).get("/v1/me").json["provider_id"] == str(world.one.provider.pk)


def test_a_lost_answer_is_asked_for_again_with_its_idempotency_key(world: World) -> None:
    body = {"session_id": str(world.a.session.pk), "name": "agent 7"}
    count = ApiKey.objects.count()
    first = world.a.by_payer.post("/v1/keys", body, idempotency_key="key-1")
    again = world.a.by_payer.post("/v1/keys", body, idempotency_key="key-1")
    assert (first.status, again.status, again.raw) == (201, 201, first.raw)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert ApiKey.objects.count() == count + 1
    other = world.a.by_payer.post("/v1/keys", {**body, "name": "agent 8"}, idempotency_key="key-1")
    assert (other.status, other.json["code"]) == (409, "idempotency_conflict")
    assert "outcome" not in other.json
    stored = IdempotencyRecord.objects.get(key="key-1").body
    assert first.json["api_key"] not in stored
    without = [world.a.by_payer.post("/v1/keys", body, idempotency_key=None).json["api_key"] for _ in range(2)]
    assert len({first.json["api_key"], *without}) == 3
    assert all(Caller(text).get("/v1/me").status == 200 for text in without)


# --- Rotation --------------------------------------------------------------------------------------------------------
def test_a_rotated_key_has_a_successor_of_the_same_kind_and_ends_after_the_overlap(world: World) -> None:
    end = timezone.now() + timedelta(days=30)
    old, old_text = keys.issue(
        scope=Scope.SESSION, session=world.a.session, read_only=True, name="agent 7", expires_at=end, now=timezone.now()
    )
    before = timezone.now()
    answer = world.a.by_payer.post(f"/v1/keys/{old.pk}/rotate", {"overlap_seconds": 600})
    assert (answer.status, answer.json["rotated_from"], answer.json["scope"]) == (201, str(old.pk), "session")
    assert (answer.json["session_id"], answer.json["read_only"], answer.json["name"]) == (
        str(world.a.session.pk), True, "agent 7",
    )  # fmt: skip
    assert datetime.fromisoformat(answer.json["expires_at"]) == end
    old.refresh_from_db()
    assert timedelta(seconds=600) <= old.expires_at - before < timedelta(seconds=660)
    for text in (old_text, answer.json["api_key"]):
        assert Caller(text).get("/v1/me").json["session_id"] == str(world.a.session.pk)
    with pytest.raises(keys.Unauthenticated, match="expired"):
        keys.authenticate(token=old_text, now=old.expires_at)


def test_the_overlap_is_an_hour_unless_said_otherwise_and_no_longer_than_the_old_key(world: World) -> None:
    now = timezone.now()
    old, _ = keys.issue(scope=Scope.PROVIDER, provider=world.one.provider, now=now)
    keys.rotate(key=old, now=now)
    old.refresh_from_db()
    assert old.expires_at == now + timedelta(hours=1)
    short, _ = keys.issue(
        scope=Scope.PROVIDER, provider=world.one.provider, now=now, expires_at=now + timedelta(minutes=5)
    )
    made, _ = keys.rotate(key=short, now=now, overlap=timedelta(days=7))
    short.refresh_from_db()
    assert short.expires_at == made.expires_at == now + timedelta(minutes=5)


def test_without_an_overlap_the_old_key_ends_at_once(world: World) -> None:
    issued = world.one.by_provider.post("/v1/keys").json
    own = Caller(issued["api_key"])
    made = own.post(f"/v1/keys/{issued['id']}/rotate", {"overlap_seconds": 0})
    assert own.get("/v1/me").status == 401
    assert Caller(made.json["api_key"]).get("/v1/me").status == 200


@pytest.mark.parametrize("overlap", [-1, 604_801, "60", 1.5, True, None])
def test_an_overlap_is_a_number_of_seconds_up_to_a_week(world: World, overlap: object) -> None:
    issued = world.one.by_provider.post("/v1/keys").json
    answer = world.one.by_provider.post(f"/v1/keys/{issued['id']}/rotate", {"overlap_seconds": overlap})
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "overlap_seconds")
    assert ApiKey.objects.filter(rotated_from_id=issued["id"]).count() == 0


def test_a_key_that_has_ended_or_has_a_successor_is_not_rotated(world: World) -> None:
    now = timezone.now()
    revoked, expired, rotated = (keys.issue(scope=Scope.SESSION, session=world.a.session, now=now)[0] for _ in range(3))
    keys.revoke(key=revoked, now=now)
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=now)
    keys.rotate(key=rotated, now=now)
    count = ApiKey.objects.count()
    for key, state in ((revoked, "revoked"), (expired, "expired"), (rotated, "rotated")):
        answer = world.a.by_payer.post(f"/v1/keys/{key.pk}/rotate")
        assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", state)
    assert ApiKey.objects.count() == count


def test_of_a_line_of_keys_two_are_live_at_most(world: World) -> None:
    texts = []
    key, text = keys.issue(scope=Scope.SESSION, session=world.a.session, now=timezone.now())
    texts.append(text)
    for _ in range(3):
        made = world.a.by_payer.post(f"/v1/keys/{key.pk}/rotate").json
        texts.append(made["api_key"])
        key = ApiKey.objects.get(pk=made["id"])
    assert [Caller(text).get("/v1/me").status for text in texts] == [401, 401, 200, 200]


def test_a_payers_full_key_is_rotated_by_an_admin_only(world: World) -> None:
    full = ApiKey.objects.get(payer=world.a.payer, scope="payer")
    answer = world.a.by_payer.post(f"/v1/keys/{full.pk}/rotate")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    made, text = keys.rotate(key=full, now=timezone.now())
    assert (made.rotated_from_id, Caller(text).post("/v1/keys", {"scope": "payer"}).status) == (full.pk, 403)
    reader = world.a.by_payer.post("/v1/keys", {"scope": "payer", "read_only": True}).json
    assert world.a.by_payer.post(f"/v1/keys/{reader['id']}/rotate").json["read_only"] is True


def test_an_answer_to_a_rotation_that_was_lost_is_asked_for_again(world: World) -> None:
    issued = world.one.by_provider.post("/v1/keys").json
    path = f"/v1/keys/{issued['id']}/rotate"
    first = world.one.by_provider.post(path, {"overlap_seconds": 60}, idempotency_key="rotate-1")
    again = world.one.by_provider.post(path, {"overlap_seconds": 60}, idempotency_key="rotate-1")
    assert (again.status, again.raw) == (201, first.raw)
    assert world.one.by_provider.post(path, {"overlap_seconds": 60}).json["state"] == "rotated"


# --- A ceiling -------------------------------------------------------------------------------------------------------
PAY = {"to": "agent://lint.acme.dev", "amount": "0.40"}


def capped(world: World, ceiling: str = "1.00", **more: object) -> dict[str, Any]:
    """Issue a key of buyer A's session with a ceiling."""
    body = {"session_id": str(world.a.session.pk), "ceiling": ceiling, **more}
    issued = world.a.by_payer.post("/v1/keys", body)
    assert issued.status == 201, issued.json
    return dict(issued.json)


def left(world: World) -> str:
    return str(world.a.by_payer.get(f"/v1/sessions/{world.a.session.pk}").json["remaining"])


@pytest.mark.promise("S21")
def test_a_key_with_a_ceiling_spends_that_and_no_more(world: World, unmoved) -> None:
    issued = capped(world)
    agent = Caller(issued["api_key"])
    assert (issued["ceiling"], issued["scope"], left(world)) == ("1.00", "session", "24.00")
    own = agent.get(f"/v1/sessions/{issued['session_id']}").json
    assert (own["parent_id"], own["budget"]) == (str(world.a.session.pk), "1.00")
    assert [agent.post("/v1/payments", PAY).json["remaining"] for _ in range(2)] == ["0.60", "0.20"]
    with unmoved():
        refused = agent.post("/v1/payments", PAY)
    assert (refused.status, refused.json["remaining"]) == (402, "0.20")
    assert agent.get(f"/v1/sessions/{world.a.session.pk}").status == 404
    assert agent.post("/v1/payments", {**PAY, "session_id": str(world.a.session.pk)}).status == 404


def test_revoking_a_key_with_a_ceiling_gives_back_what_is_left(world: World) -> None:
    issued = capped(world)
    Caller(issued["api_key"]).post("/v1/payments", PAY)
    assert world.a.by_payer.delete(f"/v1/keys/{issued['id']}").status == 200
    assert left(world) == "24.60"
    assert world.a.by_payer.get(f"/v1/sessions/{issued['session_id']}").json["status"] == "closed"
    assert world.a.by_payer.delete(f"/v1/keys/{issued['id']}").status == 200
    assert left(world) == "24.60"


def test_the_end_of_a_key_with_a_ceiling_gives_back_what_is_left(world: World) -> None:
    end = timezone.now() + timedelta(hours=1)
    issued = capped(world, expires_at=end.isoformat())
    assert sessions.close_expired(now=end - timedelta(seconds=1), limit=10) == 0
    assert sessions.close_expired(now=end, limit=10) == 1
    assert left(world) == "25.00"
    assert world.a.by_payer.get(f"/v1/sessions/{issued['session_id']}").json["status"] == "closed"


def test_a_rotation_keeps_the_ceiling_and_what_is_left_of_it(world: World) -> None:
    issued = capped(world)
    Caller(issued["api_key"]).post("/v1/payments", PAY)
    made = world.a.by_payer.post(f"/v1/keys/{issued['id']}/rotate").json
    assert (made["ceiling"], made["session_id"]) == ("1.00", issued["session_id"])
    world.a.by_payer.delete(f"/v1/keys/{issued['id']}")
    assert Caller(made["api_key"]).post("/v1/payments", PAY).json["remaining"] == "0.20", "its successor spends it"
    world.a.by_payer.delete(f"/v1/keys/{made['id']}")
    assert left(world) == "24.20"


def test_revoking_a_key_that_was_replaced_long_ago_takes_nothing_from_the_one_that_spends_now(world: World) -> None:
    first = capped(world)
    second = world.a.by_payer.post(f"/v1/keys/{first['id']}/rotate").json
    third = world.a.by_payer.post(f"/v1/keys/{second['id']}/rotate").json
    for replaced in (second, first):
        world.a.by_payer.delete(f"/v1/keys/{replaced['id']}")
    assert Caller(third["api_key"]).post("/v1/payments", PAY).status == 201
    world.a.by_payer.delete(f"/v1/keys/{third['id']}")
    assert Caller(third["api_key"]).post("/v1/payments", PAY).status == 401
    assert world.a.by_payer.get(f"/v1/sessions/{first['session_id']}").json["status"] == "closed"


def test_a_ceiling_moves_money_once_for_each_idempotency_key(world: World, unmoved) -> None:
    body = {"session_id": str(world.a.session.pk), "ceiling": "1.00"}
    with unmoved():
        refused = world.a.by_payer.post("/v1/keys", body, idempotency_key=None)
    assert (refused.status, refused.json["code"]) == (400, "idempotency_key_required")
    answers = [world.a.by_payer.post("/v1/keys", body, idempotency_key="k-1") for _ in range(2)]
    assert answers[0].raw == answers[1].raw
    assert left(world) == "24.00"


def test_a_ceiling_over_what_is_left_is_refused_with_what_is_missing(world: World, unmoved) -> None:
    body = {"session_id": str(world.a.session.pk), "ceiling": "26.00"}
    count = ApiKey.objects.count()
    with unmoved():
        refused = world.a.by_payer.post("/v1/keys", body)
    assert (refused.status, refused.json["code"], refused.json["outcome"]) == (402, "insufficient_funds", "not_charged")
    assert refused.json["next_actions"][0]["body"] == {"amount": "1.00"}
    assert ApiKey.objects.count() == count


@pytest.mark.parametrize("more", [{"read_only": True}, {"scope": "payer", "session_id": None, "read_only": True}])
def test_a_ceiling_is_for_a_key_that_spends(world: World, unmoved, more: dict[str, object]) -> None:
    body = {"session_id": str(world.a.session.pk), "ceiling": "1.00", **more}
    with unmoved():
        refused = world.a.by_payer.post("/v1/keys", {name: value for name, value in body.items() if value is not None})
        of_provider = world.one.by_provider.post("/v1/keys", {"ceiling": "1.00"})
    assert (refused.status, refused.json["errors"][0]["field"]) == (400, "ceiling")
    assert (of_provider.status, of_provider.json["errors"][0]["field"]) == (400, "ceiling")


# --- What an agent's own key may change ------------------------------------------------------------------------------
@pytest.mark.promise("S21")
def test_what_a_session_key_may_change_is_this_list(world: World) -> None:
    may = {
        (method, str(pattern.pattern))
        for pattern in endpoints
        for method, rule in rules_of(pattern.callback.cls)  # type: ignore[union-attr]
        if method != "GET" and not rule.reads and Scope.SESSION in rule.scopes
    }
    assert may == {
        ("POST", "v1/payments"),
        ("POST", "v1/holds"),
        ("POST", "v1/holds/<uuid:hold_id>/capture"),
        ("POST", "v1/holds/<uuid:hold_id>/release"),
        *(
            # of sessions that it has opened inside its own, never of its own
            ("POST", f"v1/sessions/<uuid:session_id>/{verb}")
            for verb in ("children", "pause", "resume", "close", "top-up")
        ),
        ("POST", "v1/tasks"),
        ("POST", "v1/tasks/<uuid:task_id>/assign"),
        ("POST", "v1/tasks/<uuid:task_id>/accept"),
        ("POST", "v1/tasks/<uuid:task_id>/reject"),
        ("POST", "v1/tasks/<uuid:task_id>/cancel"),
        ("POST", "v1/invoices/<uuid:invoice_id>/approve"),
        ("POST", "v1/invoices/<uuid:invoice_id>/reject"),
        ("POST", "v1/disputes"),
        ("POST", "v1/refunds"),  # asks; the provider answers
    }, (
        "an agent's key spends and reviews; it changes no policy, key, webhook or freeze: is the new operation one of these?"
    )


@pytest.mark.promise("S21")
def test_who_revokes_a_stolen_key_revokes_those_that_it_has_made(world: World, unmoved) -> None:
    thief = world.a.by_session
    children = f"/v1/sessions/{world.a.session.pk}/children"
    first = thief.post(children, {"budget": "5.00"}).json
    made = Caller(first["api_key"])
    second = made.post(f"/v1/sessions/{first['id']}/children", {"budget": "1.00"}).json
    payers = world.a.by_payer.post(children, {"budget": "1.00"}).json
    stolen = ApiKey.objects.get(session=world.a.session)
    world.a.by_payer.delete(f"/v1/keys/{stolen.pk}")
    with unmoved():
        for caller in (thief, made, Caller(second["api_key"])):
            assert caller.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.01"}).status == 401
    assert Caller(payers["api_key"]).get("/v1/me").status == 200


@pytest.mark.django_db(transaction=True)
def test_no_key_outlives_the_revocation_of_the_key_that_makes_it() -> None:
    market = make_world()
    thief, stolen = market.a.by_session, ApiKey.objects.get(session=market.a.session)
    gate = threading.Barrier(5)

    def open_on(_: int) -> int:
        opened = 0
        try:
            gate.wait()
            path = f"/v1/sessions/{market.a.session.pk}/children"
            while Caller(thief.key).post(path, {"budget": "0.01"}).status == 201:
                opened += 1
        finally:
            connection.close()
        return opened

    with ThreadPoolExecutor(4) as threads:
        opening = [threads.submit(open_on, number) for number in range(4)]
        gate.wait()
        while ApiKey.objects.filter(opened_by=stolen).count() < 8:
            pass
        keys.revoke(key=stolen, now=timezone.now())
        opened = sum(each.result() for each in opening)
    made = ApiKey.objects.filter(opened_by=stolen)
    assert made.count() == opened >= 8
    assert not made.filter(revoked_at__isnull=True).exists()


def test_a_session_key_neither_makes_nor_sees_keys(world: World) -> None:
    assert world.a.by_session.post("/v1/keys", {"read_only": True}).status == 403
    assert world.a.by_session.get("/v1/keys").status == 403


def test_keys_are_listed_without_their_secrets(world: World) -> None:
    listed = world.a.by_payer.get("/v1/keys").json["items"]
    assert {row["scope"] for row in listed} == {"payer", "session"}
    assert all("api_key" not in row and "secret_hash" not in row for row in listed)


def test_a_key_belongs_to_just_the_owner_that_its_scope_says(world: World) -> None:
    with pytest.raises(IntegrityError, match="key_owner_fits_its_scope"):
        ApiKey.objects.create(
            key_id="a" * 12, secret_hash=b"x", scope=Scope.PAYER, payer=world.a.payer, provider=world.one.provider
        )
