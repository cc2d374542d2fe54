"""`agentmarket.webhooks`: what is the market's and of now passes, and nothing else."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

import agentmarket
from agentmarket import SyncClient, webhooks
from agentmarket.webhooks import InvalidWebhook, WebhookEvent, sign, verify

from . import stub

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"t" * 32).decode()
SENT = 1_790_000_000
CONTENT: dict[str, Any] = {
    "type": "payment.created",
    "timestamp": "2026-11-24T12:00:00.123456Z",
    "data": {"position": 42, "subject_type": "payment", "subject_id": "pay", "payload": {"amount": "0.012"}},
}
BODY = json.dumps(CONTENT).encode()


def headers(body: bytes = BODY, secret: str = SECRET, id: str = "evt_42", sent: int = SENT) -> dict[str, str]:
    signature = sign(body, id=id, timestamp=sent, secret=secret)
    return {"webhook-id": id, "webhook-timestamp": str(sent), "webhook-signature": signature}


def test_a_message_becomes_an_event() -> None:
    event = verify(BODY, headers(), SECRET, now=SENT)
    assert isinstance(event, WebhookEvent)
    assert isinstance(event, agentmarket.Event)
    assert (event.id, event.type, event.position) == ("evt_42", "payment.created", 42)
    assert (event.subject_type, event.subject_id, event.payload) == ("payment", "pay", {"amount": "0.012"})
    assert event.at is not None
    assert event.at.isoformat() == "2026-11-24T12:00:00.123456+00:00"


def test_a_text_and_headers_in_any_case_are_as_good() -> None:
    titled = {name.title(): value for name, value in headers().items()}
    assert verify(BODY.decode(), {"Host": "x", **titled}, SECRET, now=SENT) == verify(BODY, headers(), SECRET, now=SENT)
    assert verify(BODY, headers(), SECRET.removeprefix("whsec_"), now=SENT).id == "evt_42"


def test_the_vector_of_the_specification() -> None:
    signed = sign(
        b'{"test": 2432232314}',
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("late", [-300, -299, 0, 1, 299, 300])
def test_what_is_of_now_passes(late: int) -> None:
    assert verify(BODY, headers(), SECRET, now=SENT + late).id == "evt_42"


@pytest.mark.parametrize("late", [-86_400, -301, 301, 86_400])
def test_what_is_not_of_now_is_refused(late: int) -> None:
    with pytest.raises(InvalidWebhook, match="old" if late > 0 else "ahead"):
        verify(BODY, headers(), SECRET, now=SENT + late)
    assert verify(BODY, headers(), SECRET, now=SENT + late, tolerance=abs(late)).id == "evt_42"


def test_now_is_now_unless_it_is_said() -> None:
    with pytest.raises(InvalidWebhook, match="seconds"):
        verify(BODY, headers(sent=1_000_000_000), SECRET)


def test_every_changed_byte_is_noticed() -> None:
    good = headers()
    for place in range(len(BODY)):
        changed = bytearray(BODY)
        changed[place] ^= 1
        with pytest.raises(InvalidWebhook, match="signature"):
            verify(bytes(changed), good, SECRET, now=SENT)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "evt_43"},
        {"webhook-timestamp": str(SENT + 1)},
        {"webhook-signature": "v1,"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v1,\udc80"},
        {"webhook-signature": "v2," + headers()["webhook-signature"].removeprefix("v1,")},
        {"webhook-signature": headers()["webhook-signature"].removeprefix("v1,")},
        {"webhook-signature": headers()["webhook-signature"].swapcase()},
        {"webhook-signature": headers(secret=OTHER)["webhook-signature"]},
        {"webhook-signature": " ".join([headers(secret=OTHER)["webhook-signature"]] * 40)},
        {"webhook-id": ""},
        {"webhook-id": "é"},
        {"webhook-id": "x" * 257},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": f"{SENT}.0"},
        {"webhook-timestamp": f" {SENT}"},
        {"webhook-timestamp": f"+{SENT}"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "９" * 10},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-id": None},
        {"webhook-signature": ["v1,x"]},
        {"Webhook-Id": "evt_43"},
    ],
)
def test_a_changed_header_is_noticed(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidWebhook):
        verify(BODY, headers() | changed, SECRET, now=SENT)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    with pytest.raises(InvalidWebhook, match=missing):
        verify(BODY, {name: value for name, value in headers().items() if name != missing}, SECRET, now=SENT)


def test_while_secrets_change_either_side_may_know_both() -> None:
    both = headers() | {
        "webhook-signature": f"{headers(secret=OTHER)['webhook-signature']} {headers()['webhook-signature']} v1a,x"
    }
    for secrets in (SECRET, OTHER, [SECRET, OTHER], (OTHER, SECRET)):
        assert verify(BODY, both, secrets, now=SENT).id == "evt_42"
    assert verify(BODY, headers(), [OTHER, SECRET], now=SENT).id == "evt_42"
    for secrets in (OTHER, [OTHER], []):
        with pytest.raises(InvalidWebhook, match="signature"):
            verify(BODY, headers(), secrets, now=SENT)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***", "not base64!", "whsec_é"])
def test_a_secret_that_is_none_is_said_so(secret: str) -> None:
    with pytest.raises(InvalidWebhook, match="secret is not one"):
        verify(BODY, headers(), secret, now=SENT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b"\xff\xfe",
        json.dumps(CONTENT | {"timestamp": 7}).encode(),
        json.dumps(CONTENT | {"timestamp": "yesterday"}).encode(),
        json.dumps(CONTENT | {"data": []}).encode(),
        json.dumps(CONTENT | {"data": {**CONTENT["data"], "position": "x"}}).encode(),
        json.dumps(CONTENT | {"data": {**CONTENT["data"], "payload": 7}}).encode(),
        b'{"type":"a","timestamp":"2026-01-01T00:00:00Z","data":{"position":1e999}}',
    ],
)
def test_whatever_is_signed_nothing_else_is_raised(body: bytes) -> None:
    with pytest.raises(InvalidWebhook, match="not one that this version knows"):
        verify(body, headers(body), SECRET, now=SENT)


def test_the_error_is_of_the_tree_and_says_its_code() -> None:
    assert issubclass(InvalidWebhook, agentmarket.AgentMarketError)
    assert InvalidWebhook is agentmarket.InvalidWebhook is webhooks.InvalidWebhook
    with pytest.raises(InvalidWebhook, match=r"\[invalid_webhook\]"):
        verify(BODY, {}, SECRET)


# --- client.webhooks -------------------------------------------------------------------------------------------------


def test_the_verbs_of_the_resource(market: stub.Market, buyer: SyncClient) -> None:
    made = buyer.webhooks.create(url="https://hooks.acme.dev/in", events=["payment.*"], description="books")
    assert (made.url, made.events, made.status, made.position) == (
        "https://hooks.acme.dev/in", ("payment.*",), "active", 7,
    )  # fmt: skip
    assert made.secret == "whsec_b25l"
    assert "whsec_" not in repr(made)
    assert buyer.webhooks.get(made.id).secret is None
    assert [webhook.id for webhook in buyer.webhooks.list()] == [made.id]
    tried = buyer.webhooks.test(made.id)
    assert (tried.type, tried.status) == ("webhook.test", "pending")
    assert [delivery.id for delivery in buyer.webhooks.deliveries(made.id, status="pending")] == [tried.id]
    buyer.webhooks.replay(made.id, after=3)
    assert market.posts("/replay")[-1].body == {"after": 3}
    turned = buyer.webhooks.rotate_secret(made.id, overlap_seconds=60)
    assert turned.secret == "whsec_dHdv"
    assert market.posts("/rotate-secret")[-1].body == {"overlap_seconds": 60}
    assert buyer.webhooks.delete(made.id).id == made.id
    assert list(buyer.webhooks.list()) == []


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "garbage"])
def test_a_lost_answer_is_asked_for_again_with_the_same_key(market: stub.Market, buyer: SyncClient, fault: Any) -> None:
    if fault == "garbage":
        fault = (503, {})
    market.faults.append(fault)
    buyer.webhooks.create(url="https://hooks.acme.dev/in", key="mine")
    assert [seen.headers["idempotency-key"] for seen in market.posts("/webhooks")] == ["mine", "mine"]
    buyer.webhooks.create(url="https://hooks.acme.dev/in")
    assert market.posts("/webhooks")[-1].headers["idempotency-key"].startswith("am-")


def test_what_the_page_shows_receives(market: stub.Market) -> None:
    """The handler of docs/sdk.md, as a server would call it."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "sdk.md").read_text(encoding="utf-8")
    source = page[page.index("def receive(") : page.index("```", page.index("def receive("))]
    namespace: dict[str, Any] = {"agentmarket": agentmarket, "secret": SECRET, "seen": set()}
    exec(source, namespace)  # noqa: S102 - our own page
    now = int(time.time())
    assert namespace["receive"](BODY, headers(sent=now)) == 204
    assert namespace["receive"](BODY, headers(sent=now)) == 204
    assert namespace["seen"] == {"evt_42"}
    assert namespace["receive"](BODY + b" ", headers(sent=now)) == 400
