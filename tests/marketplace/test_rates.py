"""Rate limits: who is counted as whom, what an answer says of it, and that a refusal moves nothing."""

import time
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from django.utils import timezone

from marketplace import keys
from marketplace.api import rates
from marketplace.api.rates import Counters, Quota
from marketplace.models import Scope
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db

PAY = {"to": "agent://lint.acme.dev", "amount": "0.01"}


def only(monkeypatch: pytest.MonkeyPatch, **most: int) -> None:
    """Let quotas be this small for a test."""
    for name, number in most.items():
        quota = getattr(rates, name)
        monkeypatch.setattr(rates, name, Quota(quota.name, quota.what, f"{number}/minute"))


def unknown(number: int) -> Caller:
    """Return a caller with a key of the right form that nobody has issued."""
    return Caller(keys.text_of("abcdefghijk" + "abcdefgh"[number % 8], "b" * 32))


def test_every_answer_to_a_live_key_says_what_is_left(world: World) -> None:
    first, second = world.a.by_payer.get("/v1/me"), world.a.by_payer.get("/v1/nothing-here")
    assert first.headers["RateLimit-Policy"] == '"calls";q=6000;w=60'
    assert first.headers["RateLimit"] == '"calls";r=5999;t=60'
    assert "RateLimit" not in second.headers, "an address that is none asks for no key"
    refused = world.a.by_payer.get("/v1/payments/0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10")
    assert (refused.status, refused.headers["RateLimit"].split(";")[1]) == (404, "r=5998")
    paid = world.a.by_session.post("/v1/payments", PAY)
    assert paid.headers["RateLimit-Policy"] == '"payments";q=600000;w=60'
    assert paid.headers["RateLimit"].startswith('"payments";r=599999;t=')
    assert "RateLimit" not in world.nobody.get("/livez").headers


def test_a_key_that_has_used_its_calls_up_is_refused_and_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, unmoved
) -> None:
    only(monkeypatch, CALLS=3)
    path = f"/v1/sessions/{world.a.session.pk}/top-up"
    assert [world.a.by_payer.get("/v1/me").status for _ in range(3)] == [200, 200, 200]
    with unmoved():
        refused = world.a.by_payer.post(path, {"amount": "1.00"})
    assert (refused.status, refused.json["code"], refused.json["outcome"]) == (429, "rate_limited", "not_charged")
    assert (refused.json["rule"], refused.json["limit"], refused.json["retryable"]) == ("calls", 3, True)
    wait = int(refused.headers["Retry-After"])
    assert 1 <= wait <= 60
    assert refused.headers["RateLimit-Policy"] == '"calls";q=3;w=60'
    assert refused.headers["RateLimit"] == f'"calls";r=0;t={wait}'
    until = datetime.fromisoformat(refused.json["available_at"]) - datetime.now(UTC)
    assert timedelta(seconds=wait - 2) <= until <= timedelta(seconds=wait)
    assert world.a.by_session.post("/v1/payments", PAY).status == 201, "payments are counted by themselves"
    assert world.b.by_payer.get("/v1/me").status == 200


def test_payments_have_a_quota_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch, unmoved) -> None:
    only(monkeypatch, PAYMENTS=2)
    assert [world.a.by_session.post("/v1/payments", PAY).status for _ in range(2)] == [201, 201]
    with unmoved():
        refused = world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-3")
    assert (refused.status, refused.json["rule"], refused.json["outcome"]) == (429, "payments", "not_charged")
    assert world.a.by_session.get("/v1/payments").status == 200
    rates.forget()
    assert world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-3").status == 201


def test_refused_payments_are_few_because_each_is_kept(world: World, monkeypatch: pytest.MonkeyPatch, unmoved) -> None:
    only(monkeypatch, REFUSALS=2)
    with unmoved():
        dear = [world.a.by_session.post("/v1/payments", {**PAY, "amount": "26.00"}) for _ in range(3)]
    assert [answer.status for answer in dear] == [402, 402, 429]
    assert (dear[2].json["rule"], dear[2].headers["RateLimit-Policy"]) == ("refusals", '"refusals";q=2;w=60')
    with unmoved():
        assert world.a.by_session.post("/v1/payments", PAY).status == 429, "until the window is over"
    assert world.b.by_session.post("/v1/payments", PAY).status == 201


def test_what_is_refused_for_its_form_is_no_kept_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, REFUSALS=1)
    for _ in range(3):
        assert world.a.by_session.post("/v1/payments", {**PAY, "amount": "x"}).status == 400
        assert world.a.by_session.post("/v1/payments", {**PAY, "to": "agent://nobody.acme.dev"}).status == 404
    assert world.a.by_session.post("/v1/payments", PAY).status == 201


# --- Keys that open nothing ------------------------------------------------------------------------------------------
def test_an_address_with_many_keys_that_open_nothing_is_refused_before_the_database_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries
) -> None:
    only(monkeypatch, UNAUTHENTICATED=3)
    assert [unknown(number).get("/v1/me").status for number in range(3)] == [401, 401, 401]
    with django_assert_num_queries(0):
        refused = unknown(4).get("/v1/me")
    assert (refused.status, refused.json["rule"]) == (429, "unauthenticated")
    assert Caller("am_test_mistyped").get("/v1/me").status == 429


def test_a_key_that_has_opened_something_is_not_refused_for_its_neighbours(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, UNAUTHENTICATED=2)
    assert world.a.by_payer.get("/v1/me").status == 200
    for number in range(3):
        unknown(number).get("/v1/me")
    assert world.a.by_payer.get("/v1/me").status == 200
    assert world.b.by_payer.get("/v1/me").status == 429, "it has opened nothing here yet, so it may be a guess"
    other = str(world.b.by_payer.key)
    known_id = keys.text_of(str(world.a.by_payer.key).split("_")[2], "b" * 32)
    assert [Caller(text).get("/v1/me").status for text in (other, known_id)] == [429, 429]


def test_made_up_keys_fill_no_memory(world: World) -> None:
    before = len(rates._live), len(rates.CALLS._counters._counts)
    for number in range(8):
        unknown(number).get("/v1/me")
    assert (len(rates._live), len(rates.CALLS._counters._counts)) == before
    assert len(rates.UNAUTHENTICATED._counters._counts) == 1


@pytest.mark.parametrize(
    ("behind_proxy", "peer", "forwarded", "counted"),
    [
        (False, "203.0.113.7", "198.51.100.1", "203.0.113.7"),
        (True, "10.0.0.1", "198.51.100.1", "198.51.100.1"),
        (True, "10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        (True, "10.0.0.1", "", "10.0.0.1"),
        (True, "10.0.0.1", "nonsense", "10.0.0.1"),
        (False, "2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        (False, "::ffff:203.0.113.7", "", "203.0.113.7"),
        (False, "", "", "unknown"),
    ],
)
def test_an_address_is_the_peers_or_what_our_own_proxy_says(
    settings, behind_proxy: bool, peer: str, forwarded: str, counted: str
) -> None:
    settings.BEHIND_PROXY = behind_proxy
    assert rates.caller_at(peer, forwarded) == counted
    assert rates.address_of({"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}) == counted


# --- Counting --------------------------------------------------------------------------------------------------------
def test_a_window_ends_and_the_next_begins_with_none() -> None:
    quota = Quota("calls", "calls", "2/second")
    assert [quota.hit("a").is_within for _ in range(3)] == [True, True, False]
    assert quota.hit("b").is_within
    quota._counters._ends = time.monotonic()
    assert quota.standing("a").remaining == 1
    assert [quota.hit("a").remaining for _ in range(3)] == [1, 0, 0]


def test_more_callers_than_may_be_counted_begin_again() -> None:
    counters = Counters(60, most=3)
    for who in ("a", "b", "c", "a"):
        counters.add(who)
    assert counters.of("a")[0] == 2
    assert counters.add("d")[0] == 1
    assert counters.of("a")[0] == 0
    assert len(counters._counts) == 1


def test_threads_count_each_once() -> None:
    counters = Counters(60)
    threads = [Thread(target=lambda: [counters.add("a") for _ in range(2_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.of("a")[0] == 8_000


def test_processes_can_share_a_storage_and_count_alone_when_it_is_away(redis_url: str) -> None:
    one, two = (Quota("calls", "calls", "3/minute", storage=redis_url) for _ in range(2))
    who = f"key-{time.time_ns()}"
    assert [quota.hit(who).is_within for quota in (one, two, one, two)] == [True, True, True, False]
    assert one.hit(who).remaining == 0
    away = Quota("calls", "calls", "1/minute", storage="redis://127.0.0.1:1/0")
    assert [away.hit(who).is_within for _ in range(2)] == [True, False]


def test_a_key_that_was_revoked_is_counted_as_one_that_opens_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, UNAUTHENTICATED=2)
    key, text = keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=timezone.now())
    assert Caller(text).get("/v1/me").status == 200
    keys.revoke(key=key, now=timezone.now())
    assert [Caller(text).get("/v1/me").status for _ in range(3)] == [401, 401, 429]
