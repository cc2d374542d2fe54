"""API keys: their form, what is stored, who may issue which, and that they end."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from escrow.errors import InvalidInput
from marketplace import keys
from marketplace.models import ApiKey, Scope
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World

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


def test_a_provider_rotates_its_own_key(world: World) -> None:
    issued = world.one.by_provider.post("/v1/keys", {"name": "next"}).json
    assert Caller(issued["api_key"]).get("/v1/me").json["provider_id"] == str(world.one.provider.pk)


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
