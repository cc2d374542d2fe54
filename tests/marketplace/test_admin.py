"""The admin's market pages: people and keys are made there, secrets are not shown there."""

import re
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from marketplace import webhooks
from marketplace.models import ApiKey, Delivery, Payer, Provider
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk(db: None) -> Client:
    """Return a browser in which an admin is signed in."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("admin", password="a long enough password"))
    return client


def test_a_payer_is_added(desk: Client) -> None:
    assert desk.post("/admin/marketplace/payer/add/", {"name": "payer Z", "email": "z@example.dev"}).status_code == 302
    assert Payer.objects.get().email == "z@example.dev"


def test_a_provider_is_added_with_its_party(desk: Client) -> None:
    form = {"name": "provider Z", "payout_address": "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"}
    assert desk.post("/admin/marketplace/provider/add/", form).status_code == 302
    provider = Provider.objects.get()
    assert provider.party.address == "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    again = desk.post("/admin/marketplace/provider/add/", form)
    assert "another provider" in again.content.decode()
    assert desk.post("/admin/marketplace/provider/add/", {**form, "payout_address": "0x1"}).status_code == 200
    change = f"/admin/marketplace/provider/{provider.pk}/change/"
    assert desk.post(change, {"name": "renamed", "payout_address": "0x2"}).status_code == 302
    provider.refresh_from_db()
    assert (provider.name, provider.party.address[:6]) == ("renamed", "0x5aAe")


def test_a_key_is_issued_and_shown_once(world: World, desk: Client) -> None:
    form = {"scope": "payer", "payer": str(world.a.payer.pk), "name": "by hand"}
    page = desk.post("/admin/marketplace/apikey/add/", form, follow=True).content.decode()
    found = re.search(r"am_test_[a-z2-7]{12}_[a-z2-7]{38}", page)
    assert found is not None
    assert Caller(found[0]).get("/v1/me").json["payer_id"] == str(world.a.payer.pk)
    assert found[0] not in desk.get("/admin/marketplace/apikey/").content.decode()


def test_a_key_of_each_scope_needs_its_owner_alone(world: World, desk: Client) -> None:
    count = ApiKey.objects.count()
    for form in (
        {"scope": "payer"},
        {"scope": "payer", "payer": str(world.a.payer.pk), "provider": str(world.one.provider.pk)},
        {"scope": "session", "payer": str(world.a.payer.pk)},
        {
            "scope": "provider",
            "provider": str(world.one.provider.pk),
            "expires_at_0": "2020-01-01",
            "expires_at_1": "00:00",
        },
    ):
        assert desk.post("/admin/marketplace/apikey/add/", form).status_code == 200, form
    assert ApiKey.objects.count() == count
    session = {"scope": "session", "session": str(world.a.session.pk)}
    assert desk.post("/admin/marketplace/apikey/add/", session).status_code == 302
    assert ApiKey.objects.order_by("-created_at").first().payer == world.a.payer


def test_keys_are_rotated_from_the_list_a_payers_full_one_too(world: World, desk: Client) -> None:
    key = ApiKey.objects.get(payer=world.a.payer, scope="payer")
    form = {"action": "rotate_keys", "_selected_action": [str(key.pk)]}
    page = desk.post("/admin/marketplace/apikey/", form, follow=True).content.decode()
    found = re.search(r"am_test_[a-z2-7]{12}_[a-z2-7]{38}", page)
    assert found is not None
    for caller in (Caller(found[0]), world.a.by_payer):
        assert caller.get("/v1/me").json["payer_id"] == str(world.a.payer.pk)
    again = desk.post("/admin/marketplace/apikey/", form, follow=True).content.decode()
    assert "has a successor already" in again
    assert ApiKey.objects.filter(rotated_from=key).count() == 1


def test_keys_are_revoked_from_the_list(world: World, desk: Client) -> None:
    key = ApiKey.objects.get(payer=world.a.payer, scope="payer")
    form = {"action": "revoke_keys", "_selected_action": [str(key.pk)]}
    assert desk.post("/admin/marketplace/apikey/", form).status_code == 302
    assert world.a.by_payer.get("/v1/me").status == 401


@pytest.mark.parametrize("model", ["payer", "provider", "agent", "apikey", "task"])
def test_lists_search_and_rows_open_without_secrets(world: World, desk: Client, model: str) -> None:
    task = {"title": "t", "capability": "review", "budget": "1.00", "agent": "agent://lint.acme.dev"}
    world.a.by_session.post("/v1/tasks", task)
    key = ApiKey.objects.get(payer=world.a.payer, scope="payer")
    listed = desk.get(f"/admin/marketplace/{model}/?q=a")
    assert listed.status_code == 200
    rows = {"payer": world.a.payer, "provider": world.one.provider, "agent": world.one.agent, "apikey": key}
    row = rows.get(model) or world.a.payer.tasks.get()
    opened = desk.get(f"/admin/marketplace/{model}/{row.pk}/change/")
    assert opened.status_code == 200
    for page in (listed, opened):
        assert bytes(key.secret_hash).hex() not in page.content.decode()
        assert "secret_hash" not in page.content.decode()


def test_tasks_are_only_looked_at(world: World, desk: Client) -> None:
    task = world.a.by_session.post("/v1/tasks", {"title": "t", "capability": "review", "budget": "1.00"}).json
    assert desk.get("/admin/marketplace/task/add/").status_code == 403
    assert desk.post(f"/admin/marketplace/task/{task['id']}/delete/", {"post": "yes"}).status_code == 403
    assert desk.post(f"/admin/marketplace/task/{task['id']}/change/", {"title": "x"}).status_code == 403


def test_webhooks_are_looked_at_and_set_going_again_with_a_reason(world: World, desk: Client, unmoved) -> None:
    of = webhooks.create(url="https://hooks.acme.dev/in", payer=world.a.payer, seed=uuid4())
    webhooks.test(endpoint=of, now=timezone.now())
    webhooks.disable(endpoint=of, reason="The endpoint answered 410: it wants no more.")
    delivery = Delivery.objects.get()
    secret = webhooks.secret_of(of.seed)
    for path in (
        "webhookendpoint/",
        f"webhookendpoint/{of.pk}/change/",
        "delivery/",
        f"delivery/{delivery.pk}/change/",
    ):
        page = desk.get(f"/admin/marketplace/{path}")
        assert page.status_code == 200
        assert secret not in page.content.decode()
        assert str(of.seed) not in page.content.decode()
    assert desk.get("/admin/marketplace/webhookendpoint/add/").status_code == 403
    assert desk.post(f"/admin/marketplace/webhookendpoint/{of.pk}/change/", {"url": "https://x.dev"}).status_code == 403
    assert desk.post(f"/admin/marketplace/delivery/{delivery.pk}/delete/", {"post": "yes"}).status_code == 403
    form = {"action": "replay", "_selected_action": [str(of.pk)]}
    with unmoved():
        assert "Say why" in desk.post("/admin/marketplace/webhookendpoint/", form, follow=True).content.decode()
        of.refresh_from_db()
        assert of.status == "disabled"
        desk.post("/admin/marketplace/webhookendpoint/", {**form, "reason": "the owner wrote that it is up again"})
    of.refresh_from_db()
    assert (of.status, of.reason) == ("active", "")
    assert LogEntry.objects.get().change_message == "Replayed: the owner wrote that it is up again"


def test_who_may_only_look_sets_no_webhook_going(world: World) -> None:
    of = webhooks.create(url="https://hooks.acme.dev/in", payer=world.a.payer, seed=uuid4())
    webhooks.disable(endpoint=of, reason="gone")
    looker = get_user_model().objects.create_user("looker", password="a long enough password", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_webhookendpoint"))
    client = Client()
    client.force_login(looker)
    page = client.get("/admin/marketplace/webhookendpoint/").content.decode()
    assert 'value="replay"' not in page
    client.post(
        "/admin/marketplace/webhookendpoint/", {"action": "replay", "_selected_action": [str(of.pk)], "reason": "mine"}
    )
    of.refresh_from_db()
    assert of.status == "disabled"
