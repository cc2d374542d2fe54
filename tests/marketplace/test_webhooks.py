"""/v1/webhooks: who may have events delivered where, with which secret."""

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as configured
from django.db import connection
from django.utils import timezone

from agentmarket import webhooks as receiving_side
from escrow import events
from escrow.errors import InvalidInput
from marketplace import keys, outside, webhooks
from marketplace.api import webhooks as api
from marketplace.courier import Courier
from marketplace.models import Delivery, IdempotencyRecord, Payer, Scope, WebhookEndpoint
from tests.marketplace.client import Answer, Caller
from tests.marketplace.conftest import World, publish
from tests.marketplace.receivers import Inline, Receiver, receiving

pytestmark = pytest.mark.django_db

URL = "https://hooks.acme.dev/in"


@pytest.fixture(autouse=True)
def _names(monkeypatch) -> None:
    """Look names up in a directory of our own; addresses are what they say."""
    monkeypatch.setattr(outside, "_look_up", lambda host, seconds: NAMES.get(host, ()))


NAMES = {
    "hooks.acme.dev": ("93.184.215.14",),
    "inside.acme.dev": ("10.0.0.7",),
    "mixed.acme.dev": ("93.184.215.14", "127.0.0.1"),
    "127.0.0.1": ("127.0.0.1",),
    "localhost": ("127.0.0.1",),
}


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    settings.LOCAL_WEBHOOKS = True
    with receiving() as receiver:
        yield receiver


def make(by: Caller, url: str = URL, **more: Any) -> dict[str, Any]:
    answer = by.post("/v1/webhooks", {"url": url, **more})
    assert answer.status == 201, answer.json
    return dict(answer.json)


def sweep() -> int:
    publish()
    return len(Courier(Inline(), threads=64, turn=0.0).run(now=timezone.now()))


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.json["code"]) == (status, code), answer.json
    return dict(answer.json)


# --- Making one ------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_made_and_its_secret_is_shown_once(world: World) -> None:
    made = make(world.a.by_payer, events=["payment.created", "task.*"], description="books")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert (made["url"], made["events"], made["description"]) == (URL, ["payment.created", "task.*"], "books")
    assert (made["status"], made["reason"], made["pending"], made["dead"]) == ("active", None, 0, 0)
    assert made["position"] == events.published()
    read = world.a.by_payer.get(f"/v1/webhooks/{made['id']}")
    assert read.json == made
    assert world.a.by_payer.get("/v1/webhooks").json == {"items": [made], "next": None}


def test_the_database_has_no_secret(world: World) -> None:
    secret = make(world.a.by_payer)["secret"]
    assert secret == webhooks.secret_of(WebhookEndpoint.objects.get().seed)
    with connection.cursor() as cursor:
        for table in ("marketplace_webhookendpoint", "marketplace_idempotencyrecord"):
            cursor.execute(f"SELECT row_to_json(t)::text FROM {table} t")  # noqa: S608 - two names of ours
            assert all(secret[6:20] not in text for (text,) in cursor.fetchall())


def test_a_repeated_request_gets_the_same_endpoint_and_the_same_secret(world: World) -> None:
    body = {"url": URL}
    first = world.a.by_payer.post("/v1/webhooks", body, idempotency_key="one")
    again = world.a.by_payer.post("/v1/webhooks", body, idempotency_key="one")
    assert (again.status, again.json) == (201, first.json)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert WebhookEndpoint.objects.count() == IdempotencyRecord.objects.count() == 1
    refused(
        world.a.by_payer.post("/v1/webhooks", {"url": URL + "2"}, idempotency_key="one"), 409, "idempotency_conflict"
    )
    other = world.a.by_payer.post("/v1/webhooks", body, idempotency_key=None)
    assert other.json["secret"] != first.json["secret"]


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "url", "is required"),
        ({"url": 7}, "url", "must be a string"),
        ({"url": "http://hooks.acme.dev/"}, "url", "must begin with https://"),
        ({"url": "https://127.0.0.1/"}, "url", "names an address that is not on the public internet"),
        ({"url": "https://2130706433/"}, "url", "must name a host in the form of a full DNS name"),
        ({"url": "https://localhost/"}, "url", "must name a host in the form of a full DNS name"),
        ({"url": "https://user:pass@hooks.acme.dev/"}, "url", "must not hold a user name or password"),
        ({"url": "https://hooks.acme.dev:22/"}, "url", "names port 22, at which no webhook is served"),
        ({"url": "https://inside.acme.dev/"}, "url", "cannot be called: the host has an address that is not on the"),
        ({"url": "https://mixed.acme.dev/"}, "url", "cannot be called: the host has an address that is not on the"),
        ({"url": "https://unknown.acme.dev/"}, "url", "cannot be called: the host has no address"),
        ({"url": URL, "events": ["payment"]}, "events.0", "is not a type of event"),
        ({"url": URL, "events": ["task.posted", "*"]}, "events.1", "is not a type of event"),
        ({"url": URL, "events": ["task.*"] * 21}, "events", "must have 20 or fewer items"),
        ({"url": URL, "description": "two\nlines"}, "description", "must be one line of visible text"),
        ({"url": URL, "secret": "whsec_mine"}, "secret", "is not a field here"),
        ({"url": URL, "status": "disabled"}, "status", "is not a field here"),
        ({"url": URL, "payer_id": str(uuid4())}, "payer_id", "is not a field here"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_pass(
    world: World, unmoved, body: dict[str, Any], field: str, says: str
) -> None:
    with unmoved():
        problem = refused(world.a.by_payer.post("/v1/webhooks", body), 400, "invalid_request")
    [error] = problem["errors"]
    assert error["field"] == field
    assert error["rule"].startswith(says)
    assert error["would_pass"]
    assert not WebhookEndpoint.objects.exists()


def test_there_is_an_end_to_how_many(world: World, settings) -> None:
    settings.WEBHOOK_MAX_ENDPOINTS = 2
    first = make(world.a.by_payer)
    make(world.a.by_payer)
    problem = refused(world.a.by_payer.post("/v1/webhooks", {"url": URL}), 409, "conflict")
    assert (problem["subject"], problem["state"]) == ("webhook", "full")
    make(world.b.by_payer)
    make(world.one.by_provider)
    world.a.by_payer.delete(f"/v1/webhooks/{first['id']}")
    make(world.a.by_payer)


@pytest.mark.django_db(transaction=True)
def test_the_last_place_is_given_once(settings) -> None:
    settings.WEBHOOK_MAX_ENDPOINTS = 3
    payer = Payer.objects.create(name="payer")
    start = threading.Barrier(8)

    def ask(_: int) -> bool:
        try:
            start.wait(30)
            webhooks.create(url=URL, payer=payer, seed=uuid4())
        except webhooks.StateConflict:
            return False
        else:
            return True
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(8))) == 3
    assert WebhookEndpoint.objects.count() == 3


def test_name_servers_that_never_answer_do_not_take_every_thread(world: World, monkeypatch) -> None:
    """While two hosts are looked up a third is put off, and told when to come again."""
    asked, released = threading.Semaphore(0), threading.Event()

    def tarpit(host: str, seconds: float) -> tuple[str, ...]:
        asked.release()
        released.wait(30)
        return ()

    monkeypatch.setattr(outside, "_look_up", tarpit)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(_vet_refused) for _ in range(2)]
        assert all(asked.acquire(timeout=30) for _ in waiting)
        problem = world.a.by_payer.post("/v1/webhooks", {"url": URL})
        released.set()
        assert [task.result(30) for task in waiting] == [True, True]
    refused(problem, 503, "unavailable")
    assert (problem.headers["Retry-After"], problem.json["retryable"]) == ("1", True)
    assert not WebhookEndpoint.objects.exists()
    monkeypatch.setattr(outside, "_look_up", lambda host, seconds: NAMES.get(host, ()))
    make(world.a.by_payer)


def _vet_refused() -> bool:
    try:
        api.vet(SimpleNamespace(body=SimpleNamespace(url=URL)))
    except InvalidInput:
        return True
    return False


def test_a_session_has_none_and_a_reader_only_reads(world: World) -> None:
    made = make(world.a.by_payer)
    path = f"/v1/webhooks/{made['id']}"
    refused(world.a.by_session.get("/v1/webhooks"), 403, "forbidden")
    refused(world.a.by_session.post("/v1/webhooks", {"url": URL}), 403, "forbidden")
    reader = Caller(keys.issue(scope=Scope.PAYER, payer=world.a.payer, read_only=True, now=timezone.now())[1])
    assert reader.get("/v1/webhooks").json["items"][0]["id"] == made["id"]
    assert [action["method"] for action in reader.get(path).json["next_actions"]] == ["GET"]
    refused(reader.post("/v1/webhooks", {"url": URL}), 403, "forbidden")
    for ending in ("rotate-secret", "test", "replay"):
        refused(reader.post(f"{path}/{ending}", {}), 403, "forbidden")
    refused(reader.delete(path), 403, "forbidden")


def test_it_is_deleted_with_its_deliveries(world: World, receiver: Receiver) -> None:
    made = make(world.a.by_payer, receiver.url)
    path = f"/v1/webhooks/{made['id']}"
    world.a.by_payer.post(f"{path}/test")
    gone = world.a.by_payer.delete(path)
    assert (gone.status, gone.json["id"], gone.json["pending"], gone.json["next_actions"]) == (200, made["id"], 1, [])
    refused(world.a.by_payer.get(path), 404, "not_found")
    refused(world.a.by_payer.delete(path), 404, "not_found")
    assert not Delivery.objects.exists()
    assert sweep() == 0


# --- Trying it, and seeing what became of it -------------------------------------------------------------------------


def test_a_test_goes_to_this_endpoint_alone(world: World, receiver: Receiver) -> None:
    publish()
    made, other = make(world.a.by_payer, receiver.url, events=["payment.*"]), make(world.a.by_payer, receiver.url)
    asked = world.a.by_payer.post(f"/v1/webhooks/{made['id']}/test")
    assert (asked.status, asked.json["type"], asked.json["status"]) == (202, "webhook.test", "pending")
    again = world.a.by_payer.post(f"/v1/webhooks/{made['id']}/test")
    assert again.json == asked.json
    assert sweep() == 1
    [event] = receiver.events(made["secret"])
    assert (event.id, event.type, event.position) == (asked.json["webhook_id"], "webhook.test", 0)
    assert (event.subject_type, event.subject_id) == ("webhook", made["id"])
    assert world.a.by_payer.get(f"/v1/webhooks/{other['id']}/deliveries").json["items"] == []
    [listed] = world.a.by_payer.get(f"/v1/webhooks/{made['id']}/deliveries").json["items"]
    assert (listed["status"], listed["attempts"], listed["last_status"], listed["next_attempt_at"]) == (
        "delivered", 1, 204, None,
    )  # fmt: skip
    feed = world.a.by_payer.get("/v1/events?limit=200").json["items"]
    assert "webhook.test" not in {event["type"] for event in feed}
    fresh = world.a.by_payer.post(f"/v1/webhooks/{made['id']}/test")
    assert fresh.json["webhook_id"] != event.id


def test_deliveries_are_listed_by_status_and_page_by_page(world: World, receiver: Receiver) -> None:
    made = make(world.a.by_payer, receiver.url)
    path = f"/v1/webhooks/{made['id']}/deliveries"
    receiver.answer = 500
    for _ in range(3):
        world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.012"})
    sweep()
    Delivery.objects.filter(pk=Delivery.objects.order_by("pk")[0].pk).update(attempts=9, next_at=timezone.now())
    sweep()
    assert len(world.a.by_payer.get(f"{path}?status=dead").json["items"]) == 1
    waiting = world.a.by_payer.get(f"{path}?status=pending").json["items"]
    assert waiting
    assert {(row["last_status"], row["last_error"], row["attempts"]) for row in waiting} == {
        (500, "The answer was 500.", 1)
    }
    read = world.a.by_payer.get(f"/v1/webhooks/{made['id']}").json
    assert (read["pending"], read["dead"]) == (len(waiting), 1)
    assert read["failing_since"] is not None
    assert "POST" in [action["method"] for action in read["next_actions"] if action["path"].endswith("/replay")]
    seen, cursor = [], ""
    while True:
        page = world.a.by_payer.get(f"{path}?limit=2{cursor}").json
        seen += [row["id"] for row in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(seen) == len(set(seen)) == len(waiting) + 1
    refused(world.a.by_payer.get(f"{path}?status=lost"), 400, "invalid_request")


def test_a_replay_by_http(world: World, receiver: Receiver, unmoved) -> None:
    made = make(world.a.by_payer, receiver.url)
    path = f"/v1/webhooks/{made['id']}"
    receiver.answer = 410
    world.a.by_payer.post(f"{path}/test")
    sweep()
    off = world.a.by_payer.get(path).json
    assert (off["status"], off["reason"]) == ("disabled", "The endpoint answered 410: it wants no more.")
    problem = refused(world.a.by_payer.post(f"{path}/test"), 409, "conflict")
    assert (problem["subject"], problem["state"]) == ("webhook", "disabled")
    receiver.answer = 204
    with unmoved():
        on = world.a.by_payer.post(f"{path}/replay", {})
        refused(world.a.by_payer.post(f"{path}/replay", {"after": -1}), 400, "invalid_request")
        refused(world.a.by_payer.post(f"{path}/replay", {"after": "0"}), 400, "invalid_request")
        back = world.a.by_payer.post(f"{path}/replay", {"after": 0})
    assert (on.status, on.json["status"], on.json["reason"]) == (200, "active", None)
    assert back.json["position"] == 0
    ahead = world.a.by_payer.post(f"{path}/replay", {"after": 2**53})
    assert ahead.json["position"] == 0  # a position is never skipped


# --- Secrets ---------------------------------------------------------------------------------------------------------


def test_a_rotation_signs_with_both_secrets_and_then_with_the_new_one(world: World, receiver: Receiver) -> None:
    made = make(world.a.by_payer, receiver.url)
    path = f"/v1/webhooks/{made['id']}/rotate-secret"
    turned = world.a.by_payer.post(path, {"overlap_seconds": 3600}, idempotency_key="turn")
    again = world.a.by_payer.post(path, {"overlap_seconds": 3600}, idempotency_key="turn")
    assert turned.status == 200
    assert again.json == turned.json
    old, new = made["secret"], turned.json["secret"]
    assert old != new
    until = datetime.fromisoformat(turned.json["previous_secret_until"])
    assert timedelta(minutes=59) < until - timezone.now() <= timedelta(hours=1)
    of = WebhookEndpoint.objects.get()
    before = webhooks.signed(of, id="evt_1", body=BODY, now=until - timedelta(seconds=1))
    assert len(before["webhook-signature"].split(" ")) == 2
    for secret in (old, new, [old, new]):
        receiving_side.verify(BODY, before, secret, now=until.timestamp())
    after = webhooks.signed(of, id="evt_1", body=BODY, now=until)
    assert len(after["webhook-signature"].split(" ")) == 1
    receiving_side.verify(BODY, after, new, now=until.timestamp())
    with pytest.raises(receiving_side.InvalidWebhook):
        receiving_side.verify(BODY, after, old, now=until.timestamp())
    world.a.by_payer.post(f"/v1/webhooks/{made['id']}/test")
    sweep()
    assert receiver.events(old) == receiver.events(new)


def test_a_secret_that_leaked_is_worth_nothing_at_once(world: World) -> None:
    made = make(world.a.by_payer)
    turned = world.a.by_payer.post(f"/v1/webhooks/{made['id']}/rotate-secret", {"overlap_seconds": 0}).json
    now = timezone.now()
    headers = webhooks.signed(WebhookEndpoint.objects.get(), id="evt_1", body=BODY, now=now)
    receiving_side.verify(BODY, headers, turned["secret"])
    with pytest.raises(receiving_side.InvalidWebhook):
        receiving_side.verify(BODY, headers, made["secret"])
    path = f"/v1/webhooks/{made['id']}/rotate-secret"
    for wrong in (-1, 604_801, "60", 1.5, True):
        refused(world.a.by_payer.post(path, {"overlap_seconds": wrong}), 400, "invalid_request")
    assert world.a.by_payer.post(path).status == 200


def test_another_pepper_is_another_secret(world: World, settings) -> None:
    seed = uuid4()
    first = webhooks.secret_of(seed)
    assert webhooks.secret_of(seed) == first
    assert webhooks.secret_of(uuid4()) != first
    settings.API_KEY_PEPPER = "another pepper, at least as long as the first"
    assert webhooks.secret_of(seed) != first


BODY = json.dumps(
    {
        "type": "payment.created",
        "timestamp": "2026-11-24T12:00:00Z",
        "data": {"position": 1, "subject_type": "payment", "subject_id": "p", "payload": {"amount": "0.012"}},
    }
).encode()


def test_the_vector_of_the_specification(monkeypatch) -> None:
    """From the reference libraries of Standard Webhooks: what they sign so, we sign so."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    monkeypatch.setattr(webhooks, "_bytes_of", lambda seed: base64.b64decode(secret.removeprefix("whsec_")))
    of = WebhookEndpoint(seed=uuid4())
    headers = webhooks.signed(
        of, id="msg_p5jXN8AQM9LWM0D4loKWxJek", body=body, now=datetime.fromtimestamp(1614265330, UTC)
    )
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": expected,
    }
    signed = receiving_side.sign(body, id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, secret=secret)
    assert signed == expected


def test_limits_are_what_the_documentation_says() -> None:
    assert sum(configured.WEBHOOK_RETRY_SECONDS) / 3600 == pytest.approx(75.585, abs=0.01)
    assert configured.WEBHOOK_LEASE_SECONDS > configured.WEBHOOK_TIMEOUT_SECONDS
