"""What both clients share: settings, lists, answers that grow, errors that teach, and keys that are never shown."""

import asyncio
import inspect
import json
import logging
import os
import pickle
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import agentmarket
from agentmarket import Client, Retries, Seller, SyncClient, wire
from agentmarket.answers import Payment
from agentmarket.decode import decode
from agentmarket.retries import may_repeat
from agentmarket.steps import Pause, Transmit, exchange
from agentmarket.wire import Reply, Silence, get, post, refusal, retry_after
from marketplace.api.problems import KINDS

from .conftest import async_buyer
from .stub import PAYER_KEY, SECRET, Market

PLAIN = {**os.environ, "PYTHONPATH": str(Path(agentmarket.__file__).parents[1])}
PAYMENT = {"id": "p", "to": "agent://a.acme.dev", "amount": "0.008", "status": "payable"}


def reply(status: int, body: bytes = b"{}", **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


class TestSettings:
    def test_the_environment_says_where_and_who(self, market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENTMARKET_URL", market.url + "/")
        monkeypatch.setenv("AGENTMARKET_API_KEY", PAYER_KEY)
        with SyncClient() as client:
            assert client.me().scope == "payer"

    @pytest.mark.parametrize("key", ["", " am_test", "key\n", "ключ"])
    def test_a_key_that_is_none_is_refused_at_once(self, key: str) -> None:
        with pytest.raises(agentmarket.Unauthenticated, match="AGENTMARKET_API_KEY"):
            Client(key)

    def test_an_address_that_is_none_is_refused_at_once(self) -> None:
        with pytest.raises(agentmarket.InvalidRequest, match=r"looks like http://127\.0\.0\.1:8000"):
            Client("key", base_url="localhost:8000")

    @pytest.mark.parametrize("kind", [Client, SyncClient])
    def test_from_env(self, kind: type[Client | SyncClient], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENTMARKET_API_KEY", PAYER_KEY)
        for name in ("AGENTMARKET_URL", "AGENTMARKET_TIMEOUT", "AGENTMARKET_RETRIES"):
            monkeypatch.delenv(name, raising=False)
        found = kind.from_env()._config
        assert (found.base_url, found.timeout, found.retries.attempts) == ("http://127.0.0.1:8000", 10.0, 4)
        monkeypatch.setenv("AGENTMARKET_URL", "https://market.acme.dev/")
        monkeypatch.setenv("AGENTMARKET_TIMEOUT", "2.5")
        monkeypatch.setenv("AGENTMARKET_RETRIES", "0")
        found = kind.from_env()._config
        assert (found.base_url, found.timeout, found.retries.attempts) == ("https://market.acme.dev", 2.5, 1)

    @pytest.mark.parametrize(
        ("name", "value", "kind", "says"),
        [
            ("AGENTMARKET_API_KEY", "", agentmarket.Unauthenticated, "is missing"),
            ("AGENTMARKET_API_KEY", "two words", agentmarket.Unauthenticated, "has spaces"),
            ("AGENTMARKET_URL", "market.acme.dev", agentmarket.InvalidRequest, "AGENTMARKET_URL: 'market"),
            ("AGENTMARKET_URL", "http://[", agentmarket.InvalidRequest, "AGENTMARKET_URL"),
            ("AGENTMARKET_URL", "http://a:99999", agentmarket.InvalidRequest, "AGENTMARKET_URL"),
            ("AGENTMARKET_TIMEOUT", "soon", agentmarket.InvalidRequest, "AGENTMARKET_TIMEOUT is 'soon'"),
            ("AGENTMARKET_TIMEOUT", "0", agentmarket.InvalidRequest, "seconds above zero"),
            ("AGENTMARKET_TIMEOUT", "nan", agentmarket.InvalidRequest, "seconds above zero"),
            ("AGENTMARKET_RETRIES", "-1", agentmarket.InvalidRequest, "a whole number from 0 to 99"),
            ("AGENTMARKET_RETRIES", "1.5", agentmarket.InvalidRequest, "a whole number from 0 to 99"),
        ],
    )
    def test_from_env_names_the_variable_that_is_at_fault(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, kind: type[Exception], says: str
    ) -> None:
        monkeypatch.setenv("AGENTMARKET_API_KEY", PAYER_KEY)
        monkeypatch.setenv(name, value)
        with pytest.raises(kind, match=re.escape(says)):
            SyncClient.from_env()

    def test_a_key_the_market_does_not_know(self, market: Market) -> None:
        client = SyncClient("am_test_wrong", base_url=market.url)
        with client, pytest.raises(agentmarket.Unauthenticated):
            client.payment.send(to="agent://a.acme.dev", amount="0.008")
        assert market.charged == 0


class TestNothingShowsTheKey:
    def test_representations(self, market: Market) -> None:
        with SyncClient(PAYER_KEY, base_url=market.url) as client:
            session = client.payment.create_session(budget="1.00")
            seller = Seller(PAYER_KEY, agent="agent://a.acme.dev")
            shown = repr([client, client._config, session, session.client(), Client(PAYER_KEY), seller, vars(seller)])
        assert SECRET not in shown
        assert "am_test_payerpayerpa_…" in shown
        assert SECRET in session.api_key

    def test_logs_and_errors(self, market: Market, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        market.faults.extend(["drop_before"] * 2)
        with SyncClient(PAYER_KEY, base_url=market.url, retries=Retries(2, first_delay=0.001)) as client:
            with pytest.raises(agentmarket.OutcomeUnknown) as caught:
                client.payment.create_session(budget="1.00")
            client.payment.create_session(budget="1.00")
        chain, error = "", caught.value
        while error is not None:
            chain += repr(error) + str(error) + repr(vars(error))
            error = error.__cause__ or error.__context__  # type: ignore[assignment]
        assert SECRET not in caplog.text + chain
        assert caplog.records


class TestLists:
    def test_every_page_is_fetched(self, market: Market, buyer: SyncClient) -> None:
        sent = [buyer.payment.send(to="agent://a.acme.dev", amount="0.01", metadata={"n": n}).id for n in range(7)]
        assert [payment.id for payment in buyer.payment.list()] == sent
        assert [payment.id for payment in buyer.payment.list(limit=2)] == sent
        assert [*buyer.payment.list(status="refunded")] == []
        assert [event.position for event in buyer.events(after=2)] == [3, 4, 5, 6, 7]

        async def scenario() -> list[str]:
            async with async_buyer(market) as client:
                return [payment.id async for payment in client.payment.list(limit=3)]

        assert asyncio.run(scenario()) == sent

    def test_a_page_is_fetched_when_it_is_needed(self, market: Market, buyer: SyncClient) -> None:
        for number in range(4):
            buyer.payment.send(to="agent://a.acme.dev", amount="0.01", metadata={"n": number})
        market.seen.clear()
        found = iter(buyer.payment.list(limit=2))
        assert market.seen == []
        assert [next(found), next(found)]
        assert len(market.seen) == 1

    def test_names_are_safe_in_paths(self, market: Market, buyer: SyncClient) -> None:
        with pytest.raises(agentmarket.NotFound):
            buyer.payment.get("../sessions?x=1#é")
        assert market.seen[-1].path == "/v1/payments/..%2Fsessions%3Fx%3D1%23%C3%A9"

    def test_a_key_is_revoked(self, buyer: SyncClient) -> None:
        assert buyer.keys.revoke("k").id == "k"


class TestAnswers:
    def test_new_fields_are_kept_and_refused_by_none(self) -> None:
        payment = decode(
            Payment, {**PAYMENT, "colour": "new", "next_actions": [{"method": "GET", "path": "/x", "by": "Y"}]}
        )
        assert payment.extra == {"colour": "new"}
        assert str(payment.next_actions[0]) == "GET /x"
        with pytest.raises(AttributeError):
            payment.status = "settled"  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("document", "fault"),
        [
            ([], "expected an object, got list"),
            ({**PAYMENT, "amount": 0.008}, "amount: expected str, got float"),
            ({"id": "p"}, "to is missing"),
            ({**PAYMENT, "created_at": "yesterday"}, "created_at: expected an RFC 3339 time"),
            ({**PAYMENT, "next_actions": {}}, "next_actions: expected a list, got dict"),
            ({**PAYMENT, "metadata": None}, "metadata: expected dict, got NoneType"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_an_answer_of_another_shape_names_the_field(self, document: Any, fault: str) -> None:
        with pytest.raises(agentmarket.InvalidReply, match=fault):
            decode(Payment, document)


class TestErrors:
    def test_errors_survive_pickling(self) -> None:
        error = refusal(
            reply(403, b'{"code":"policy_denied","detail":"No.","rule":"max_per_tx","outcome":"not_charged"}')
        )
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(again), str(again), again.rule) == (agentmarket.PolicyDenied, str(error), "max_per_tx")

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (400, b"<html>", agentmarket.InvalidRequest),
            (418, b"[]", agentmarket.InvalidRequest),
            (409, b"{}", agentmarket.Conflict),
            (409, b'{"code":"already_redeemed"}', agentmarket.Conflict),
            (503, b"null", agentmarket.Unavailable),
            (503, b'{"code":"settlement_paused","outcome":"not_charged"}', agentmarket.SettlementPaused),
            (500, b"\xff", agentmarket.ServerError),
            (
                403,
                b'{"code":"policy_denied","errors":[{"field":"to"},7],"next_actions":[null]}',
                agentmarket.PolicyDenied,
            ),
        ],
    )
    def test_any_refusal_becomes_an_error(self, status: int, body: bytes, kind: type[Exception]) -> None:
        assert type(refusal(reply(status, body))) is kind

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry_after": "7"}, 7.0),
            ({"retry_after": "-7"}, None),
            ({"retry_after": "٣"}, None),
            ({"retry_after": "soon"}, None),
            ({}, None),
            ({"retry_after": "Tue, 24 Nov 2026 10:00:09 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 9.0),
            ({"retry_after": "Tue, 24 Nov 2026 10:00:00 GMT", "date": "Tue, 24 Nov 2026 10:00:09 GMT"}, 0.0),
            ({"retry_after": "Tue, 24 Nov 2026 10:00:09 GMT"}, None),
        ],
    )
    def test_retry_after(self, headers: dict[str, str], seconds: float | None) -> None:
        assert retry_after(reply(503, **headers)) == seconds

    def test_every_code_of_the_market_has_its_class(self) -> None:
        """A code that this package does not know is mapped by its status, so a new one is no reason to fail, here only."""
        assert KINDS.keys() - wire._CODES.keys() == set()
        statuses = {code: refusal(reply(kind.status)) for code, kind in KINDS.items()}
        assert all(
            isinstance(refusal(reply(kind.status, f'{{"code":"{code}"}}'.encode())), type(statuses[code]))
            for code, kind in KINDS.items()
        )

    def test_what_a_problem_says_is_on_the_error(self) -> None:
        document = {
            "code": "insufficient_funds",
            "detail": "Dry.",
            "policy_version": 3,
            "available_at": "2026-01-01T00:00:00Z",
            "checkpoint": {"budget": "1.00", "spent": "0.90", "remaining": "0.10", "colour": "new"},
            "next_actions": [
                {"method": "POST", "path": "/v1/x", "why": "top up", "body": {"amount": "1.00"}},
                {"needs": ["to"]},
            ],
        }
        error = refusal(reply(402, json.dumps(document).encode()), key="k")
        assert isinstance(error, agentmarket.BudgetExhausted)
        assert error.checkpoint == agentmarket.Checkpoint("1.00", "0.90", "0.10")
        assert (error.policy_version, error.available_at, error.next_actions[0].body) == (
            3,
            datetime(2026, 1, 1, tzinfo=UTC),
            {"amount": "1.00"},
        )
        assert error.next_actions[1] == agentmarket.NextAction("", "", "", needs=("to",))
        waiting = refusal(reply(403, b'{"code":"approval_required","approval_id":"a","available_at":7}'))
        assert (type(waiting), waiting.approval_id, waiting.available_at) == (agentmarket.ApprovalRequired, "a", None)


class TestSteps:
    """The protocol with no network at all: what it asks for is data."""

    def test_one_key_over_all_attempts_and_pauses_that_honour_the_answer(self) -> None:
        steps = exchange(post("/v1/payments", {"to": "a"}, key="k"), Retries())
        first = next(steps)
        assert isinstance(first, Transmit)
        pause = steps.send(reply(503, retry_after="3"))
        assert isinstance(pause, Pause)
        assert 3.0 <= pause.seconds <= 3.1
        second = steps.send(None)
        assert second == first
        with pytest.raises(StopIteration) as end:
            steps.send(reply(201))
        assert end.value.value == reply(201)

    def test_pauses_grow_within_bounds(self) -> None:
        bounds = Retries(attempts=9)
        delays = [bounds.delay(attempt, asked=None, chance=1.0) for attempt in range(1, 10)]
        assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, None]

    def test_a_pool_that_is_being_opened_is_waited_for_within_its_own_bound(self) -> None:
        steps = exchange(post("/v1/sessions", {}, key="k"), Retries(attempts=2))
        opening = reply(409, b'{"code":"pool_opening","retryable":true,"outcome":"not_charged"}', retry_after="4")
        next(steps)
        for _ in range(7):
            assert steps.send(opening) == Pause(4.0)
            steps.send(None)
        with pytest.raises(agentmarket.PoolOpening) as caught:
            steps.send(opening)
        assert caught.value.outcome == "not_charged"

    def test_those_attempts_count_for_nothing_else(self) -> None:
        steps = exchange(post("/v1/sessions", {}, key="k"), Retries(attempts=2, first_delay=0.1))
        next(steps)
        for _ in range(5):
            assert steps.send(reply(409, b'{"code":"pool_opening"}', retry_after="0")) == Pause(0.0)
            steps.send(None)
        assert isinstance(steps.send(reply(503)), Pause)
        steps.send(None)
        with pytest.raises(agentmarket.OutcomeUnknown):
            steps.send(reply(503))

    def test_only_what_can_be_repeated_without_harm_is(self) -> None:
        lost, unsent = Silence("reset", sent=True), Silence("refused", sent=False)
        bare, keyed = post("/v1/agents", {}), post("/v1/payments", {}, key="k")
        assert [may_repeat(bare, lost), may_repeat(bare, unsent), may_repeat(bare, reply(502))] == [False, True, False]
        assert not may_repeat(keyed, reply(503, b'{"retryable":false}'))
        assert [may_repeat(keyed, lost), may_repeat(get("/v1/me"), lost), may_repeat(keyed, reply(500))] == [
            True,
            True,
            False,
        ]

    def test_an_answer_that_says_never_is_believed(self) -> None:
        keyed = post("/v1/payments", {}, key="k")
        assert may_repeat(keyed, reply(503, b'{"retryable":true}'))
        assert not may_repeat(keyed, reply(503, b'{"retryable":false}'))


class TestShape:
    def test_both_clients_have_the_same_verbs(self) -> None:
        def verbs(client: object) -> set[str]:
            found = {name for name in dir(client) if not name.startswith("_")}
            nouns = {name for name in vars(client) if not name.startswith("_")}
            return found | {f"{noun}.{verb}" for noun in nouns for verb in verbs(getattr(client, noun))}

        with SyncClient("k") as sync:
            ways_to_end = {"aclose", "close"}
            assert verbs(Client("k")) - ways_to_end == verbs(sync) - ways_to_end

    def test_verbs_show_what_they_take(self) -> None:
        verb = Client("k").tasks.post
        assert verb.__doc__ is not None
        assert "budget" in inspect.signature(verb).parameters

    @pytest.mark.promise("S30")
    def test_a_buyer_loads_no_server_and_no_framework(self) -> None:
        shown = "import sys, agentmarket; print({'uvicorn', 'django', 'web3', 'pydantic'} & {*sys.modules})"
        done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True, env=PLAIN)
        assert done.stdout.strip() == "set()"
