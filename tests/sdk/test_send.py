"""`payment.send`: the promised shape, paid once whatever the network does, and nothing run before it is paid."""

import asyncio
import socket
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial

import pytest

import agentmarket
from agentmarket import Client, Retries, SyncClient
from agentmarket.resources.payments import policy_document

from .conftest import QUICK, asked, async_buyer
from .stub import PAYER_KEY, Market


class Job:
    id = "task-7"


def test_the_promised_shape(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMARKET_URL", market.url)
    task, query = Job(), "who makes valves"
    charged_when_fetching: list[int] = []

    async def fetch_enriched_data(question: str) -> str:
        charged_when_fetching.append(market.charged)
        return f"answer to {question}"

    async def scenario() -> None:
        client = agentmarket.Client(api_key=PAYER_KEY)
        result = await client.payment.send(
            to="agent://enrich.acme.dev",
            amount="0.008",
            currency="USDC",
            metadata={"task_id": task.id, "query": query},
            on_success=lambda: fetch_enriched_data(query),
        )
        session = await client.payment.create_session(
            budget="10.00", currency="USDC", policy={"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}
        )
        assert result.value == "answer to who makes valves"
        assert (result.status, result.amount, result.remaining) == ("payable", "0.008", "24.992")
        assert result.id == next(iter(market.payments))
        assert result.payment.metadata == {"task_id": "task-7", "query": "who makes valves"}
        assert result.payment.extra == {"colour": "new"}
        assert session.remaining == "10.00"
        async with session.client() as inside:
            spent = await inside.payment.send(to="agent://enrich.acme.dev", amount="0.50")
            assert spent.remaining == "9.50"
        await client.aclose()

    asyncio.run(scenario())
    assert charged_when_fetching == [1]
    assert market.charges == ["0.008", "0.50"]


def test_the_sync_client_is_the_same_without_await(market: Market, buyer: SyncClient) -> None:
    result = buyer.payment.send(to="agent://a.acme.dev", amount=Decimal("0.0080000"), on_success=lambda: 42)
    session = buyer.payment.create_session(budget="1.00", policy={"max_per_tx": Decimal("0.5")})
    assert (result.value, result.amount, session.policy) == (42, "0.008", {"max_per_tx": "0.5"})
    assert session.client().payment.send(to="agent://a.acme.dev", amount="0.4").remaining == "0.60"


def test_the_limits_of_a_policy_are_exact_money_and_its_other_rules_are_the_markets() -> None:
    assert policy_document({"max_total": Decimal("5.0"), "max_tx_per_minute": 7}) == {
        "max_total": "5.0",
        "max_tx_per_minute": 7,
    }
    with pytest.raises(agentmarket.InvalidAmount, match=r"policy\.max_total|float"):
        policy_document({"max_total": 0.5})


@pytest.mark.parametrize(
    "faults",
    [
        ["drop_after"],
        ["drop_before", "drop_after"],
        ["drop_after", "drop_after", "drop_after"],
        [(503, {"Retry-After": "0"}), (502, {}), (429, {"Retry-After": "0"})],
        [(504, {}), "drop_after"],
    ],
    ids=str,
)
def test_a_lost_reply_is_asked_for_again_with_the_same_key(market: Market, buyer: SyncClient, faults: list) -> None:  # type: ignore[type-arg]
    market.faults.extend(faults)
    result = buyer.payment.send(to="agent://a.acme.dev", amount="0.008")
    keys = {seen.headers["idempotency-key"] for seen in market.posts("/v1/payments")}
    assert market.charges == ["0.008"]
    assert len(market.posts("/v1/payments")) == len(faults) + 1
    assert keys == {result.key}


def test_no_answer_at_all_is_an_unknown_outcome_and_its_key_settles_it(market: Market, buyer: SyncClient) -> None:
    market.faults.extend(["drop_after"] * 4)
    ran: list[str] = []
    with pytest.raises(agentmarket.OutcomeUnknown) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008", on_success=lambda: ran.append("early"))
    assert (caught.value.outcome, caught.value.retryable, ran) == ("unknown", True, [])
    assert f'key="{caught.value.key}"' in str(caught.value)
    again = buyer.payment.send(
        to="agent://a.acme.dev", amount="0.008", key=caught.value.key, on_success=lambda: ran.append("late")
    )
    assert (market.charges, again.id, ran) == (["0.008"], next(iter(market.payments)), ["late"])


def test_an_unknown_outcome_that_was_not_charged_is_charged_once_by_its_key(market: Market, buyer: SyncClient) -> None:
    market.faults.extend(["drop_before"] * 4)
    with pytest.raises(agentmarket.OutcomeUnknown) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008")
    assert market.charged == 0
    buyer.payment.send(to="agent://a.acme.dev", amount="0.008", key=caught.value.key)
    assert market.charges == ["0.008"]


@pytest.mark.parametrize("status", [500, 502, 504])
def test_an_error_page_says_nothing_about_the_money(market: Market, buyer: SyncClient, status: int) -> None:
    market.faults.extend([(status, {})] * 4)
    with pytest.raises(agentmarket.OutcomeUnknown) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008")
    assert caught.value.status == status
    assert market.charged == 0


def test_a_refusal_of_the_key_after_a_lost_reply_leaves_the_outcome_unknown(market: Market, buyer: SyncClient) -> None:
    market.faults.extend(["drop_after", (401, {})])
    with pytest.raises(agentmarket.OutcomeUnknown):
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008")
    assert market.charges == ["0.008"]


def test_a_gateway_that_gave_up_and_then_a_refused_connection_leave_the_outcome_unknown() -> None:
    """The market may have charged behind the gateway's 504, whatever the later attempts say."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def answer_once() -> None:
            connection, _ = listener.accept()
            listener.close()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 504 Gone\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        gateway = threading.Thread(target=answer_once)
        gateway.start()
        client = SyncClient(PAYER_KEY, base_url=url, retries=QUICK)
        with client, pytest.raises(agentmarket.OutcomeUnknown) as caught:
            client.payment.send(to="agent://a.acme.dev", amount="0.008", key="mine")
        gateway.join()
    assert isinstance(caught.value.__cause__, agentmarket.Unreachable)
    assert (caught.value.key, caught.value.outcome) == ("mine", "unknown")


@pytest.mark.parametrize(
    "faults",
    [[(504, {}), (429, {"Retry-After": "60"})], ["drop_after", (404, {})], [(502, {}), (409, {})]],
    ids=str,
)
def test_a_refusal_that_states_no_outcome_does_not_end_a_doubt(market: Market, buyer: SyncClient, faults: list) -> None:  # type: ignore[type-arg]
    market.faults.extend(faults)
    with pytest.raises(agentmarket.OutcomeUnknown) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008", key="mine")
    assert (caught.value.key, caught.value.outcome) == ("mine", "unknown")
    assert len(market.seen) == len(faults)
    buyer.payment.send(to="agent://a.acme.dev", amount="0.008", key=caught.value.key)
    assert market.charges == ["0.008"]


def test_a_refusal_by_the_market_itself_ends_a_doubt(market: Market, buyer: SyncClient) -> None:
    market.faults.append((504, {}))
    with pytest.raises(agentmarket.InsufficientFunds) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="25.01")
    assert (caught.value.outcome, market.charged) == ("not_charged", 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429])
def test_a_refusal_that_leaves_no_doubt_says_that_nothing_was_charged(
    market: Market, buyer: SyncClient, status: int
) -> None:
    """A gateway's page states no outcome, and a request that was refused has had none."""
    market.faults.append((status, {"Retry-After": "60"}))
    with pytest.raises(agentmarket.AgentMarketError) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008")
    assert (caught.value.status, caught.value.outcome, market.charged) == (status, "not_charged", 0)


def test_a_market_that_was_never_reached_charged_nothing() -> None:
    client = SyncClient(PAYER_KEY, base_url="http://127.0.0.1:9", retries=QUICK)
    with client, pytest.raises(agentmarket.Unreachable) as caught:
        client.payment.send(to="agent://a.acme.dev", amount="0.008")
    assert caught.value.outcome == "not_charged"
    assert "AGENTMARKET_URL" in str(caught.value)


def test_a_longer_wait_than_allowed_is_left_to_the_caller(market: Market, buyer: SyncClient) -> None:
    market.faults.append((429, {"Retry-After": "3600"}))
    with pytest.raises(agentmarket.RateLimited) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008")
    assert (caught.value.retry_after, len(market.seen), market.charged) == (3600.0, 1, 0)


def test_an_unreadable_success_is_an_invalid_reply_and_its_key_is_kept(market: Market, buyer: SyncClient) -> None:
    market.faults.append("garbage")
    with pytest.raises(agentmarket.InvalidReply) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008")
    assert caught.value.outcome == "unknown"
    assert buyer.payment.send(to="agent://a.acme.dev", amount="0.008", key=caught.value.key).status == "payable"
    assert market.charges == ["0.008"]


def test_on_success_does_not_run_when_refused(market: Market, buyer: SyncClient) -> None:
    ran: list[str] = []
    session = buyer.payment.create_session(budget="1.00", policy={"max_per_tx": "0.50"})
    with pytest.raises(agentmarket.PolicyDenied) as caught:
        session.client().payment.send(to="agent://a.acme.dev", amount="0.80", on_success=lambda: ran.append("ran"))
    assert (ran, market.charged, market.sessions[session.id]["remaining"]) == ([], 0, "1.00")
    error = caught.value
    assert (error.rule, error.limit, error.would_allow, error.outcome) == ("max_per_tx", "0.50", "0.50", "not_charged")
    assert str(error) == (
        "One payment may be 0.50 at most. [policy_denied, rule max_per_tx, limit 0.50, would allow 0.50] "
        f"Nothing was charged. Next: GET /v1/sessions/{session.id} (read the policy). Request req-1."
    )


def test_over_the_balance_is_refused_with_what_is_left(market: Market, buyer: SyncClient) -> None:
    with pytest.raises(agentmarket.InsufficientFunds) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="25.01")
    assert (caught.value.remaining, market.charged, market.funds) == ("25.00", 0, Decimal("25.00"))


def test_one_key_with_another_body_is_a_conflict(market: Market, buyer: SyncClient) -> None:
    buyer.payment.send(to="agent://a.acme.dev", amount="0.008", key="mine")
    with pytest.raises(agentmarket.IdempotencyConflict):
        buyer.payment.send(to="agent://a.acme.dev", amount="0.009", key="mine")
    assert market.charges == ["0.008"]


def test_on_success_that_raises_tells_that_it_is_paid(market: Market, buyer: SyncClient) -> None:
    def fetch() -> None:
        raise ValueError("the page is gone")

    with pytest.raises(agentmarket.OnSuccessFailed) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008", on_success=fetch)
    assert isinstance(caught.value.__cause__, ValueError)
    assert (caught.value.outcome, caught.value.payment.amount, market.charges) == ("charged", "0.008", ["0.008"])


class Fetch:
    async def __call__(self) -> None: ...


async def fetch_nothing() -> None: ...


@pytest.mark.parametrize(
    "fetch", [fetch_nothing, partial(fetch_nothing), Fetch()], ids=["function", "partial", "object"]
)
def test_an_async_on_success_is_refused_by_the_sync_client_before_it_pays(
    market: Market, buyer: SyncClient, fetch: Callable[[], object]
) -> None:
    with pytest.raises(agentmarket.InvalidRequest, match="use the async Client") as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008", on_success=fetch)
    assert (market.seen, caught.value.outcome) == ([], "not_charged")


def test_a_coroutine_that_only_shows_when_called_is_named_and_the_payment_kept(
    market: Market, buyer: SyncClient
) -> None:
    with pytest.raises(agentmarket.OnSuccessFailed, match="use the async Client"):
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008", on_success=lambda: fetch_nothing() or None)
    assert market.charges == ["0.008"]


@pytest.mark.parametrize(
    ("amount", "hint"),
    [
        (0.008, 'write amount="0.008"'),
        (0.1 + 0.2, 'write amount="0.30"'),
        (1e-7, "a float cannot hold money"),
        (float("nan"), "a float cannot hold money"),
        (5, 'write amount="5.00"'),
        (True, "is a bool"),
        (None, "is a NoneType"),
        *((text, "is not an amount") for text in (
            "1e3", "1E-6", "-0", "-1", "+5", "1_000", "١", "１２", ".5", "1.", "00012", "1,5", "0x10", "NaN",
            "Infinity", "0.0000001", " 7 ", "", "7\n", "9" * 13, "9" * 1001,
        )),
        (Decimal("NaN"), "is not an amount"),
        (Decimal("0.0000001"), "is not an amount"),
        (Decimal("-0"), "is not an amount"),
        ("0", "above zero"),
        ("0.000000", "above zero"),
        (Decimal(0), "above zero"),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.promise("S33")
def test_what_is_not_exact_money_is_refused_before_it_is_sent(
    market: Market, buyer: SyncClient, amount: object, hint: str
) -> None:
    with pytest.raises(agentmarket.InvalidAmount, match=hint) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount=amount)  # type: ignore[arg-type]
    assert (market.seen, market.charged, caught.value.outcome) == ([], 0, "not_charged")


@pytest.mark.parametrize(
    "metadata", [{"a": float("nan")}, {"a": "\ud800"}, {"a": object()}], ids=["nan", "surrogate", "object"]
)
def test_metadata_that_is_not_json_is_refused_before_it_is_sent(
    market: Market, buyer: SyncClient, metadata: dict[str, object]
) -> None:
    with pytest.raises(agentmarket.InvalidRequest):
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008", metadata=metadata)
    assert (market.seen, market.charged) == ([], 0)


@pytest.mark.parametrize("key", ["", "with space", "é", "a\r\nX-Evil: 1", "k" * 256])
def test_a_key_that_is_no_key_is_refused_before_it_is_sent(market: Market, buyer: SyncClient, key: str) -> None:
    with pytest.raises(agentmarket.InvalidRequest):
        buyer.payment.send(to="agent://a.acme.dev", amount="0.008", key=key)
    assert (market.seen, market.charged) == ([], 0)


def test_fifty_at_once_through_one_client(market: Market) -> None:
    async def scenario() -> set[str]:
        patient = Retries(attempts=30, first_delay=0.001, longest_delay=0.002)
        async with Client(PAYER_KEY, base_url=market.url, retries=patient) as client:
            market.faults.extend(["drop_after", (503, {"Retry-After": "0"})] * 10)
            sent = await asyncio.gather(
                *(client.payment.send(to="agent://a.acme.dev", amount="0.01", metadata={"n": n}) for n in range(50))
            )
            return {one.id for one in sent}

    assert len(asyncio.run(scenario())) == 50
    assert market.charges == ["0.01"] * 50


def test_a_cancelled_send_can_be_finished_by_its_key(market: Market) -> None:
    async def scenario() -> None:
        async with async_buyer(market) as client:
            market.faults.append((503, {"Retry-After": "20"}))
            sending = asyncio.ensure_future(client.payment.send(to="agent://a.acme.dev", amount="0.01", key="mine"))
            await asked(market, "POST", "/payments")
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await client.payment.send(to="agent://a.acme.dev", amount="0.01", key="mine")

    asyncio.run(scenario())
    assert market.charges == ["0.01"]


def test_a_cancelled_send_carries_the_key_that_finishes_it(market: Market) -> None:
    async def scenario() -> None:
        async with async_buyer(market) as client:
            market.faults.append((503, {"Retry-After": "20"}))
            sending = asyncio.ensure_future(client.payment.send(to="agent://a.acme.dev", amount="0.01"))
            await asked(market, "POST", "/payments")
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await sending
            [note] = caught.value.__notes__
            assert f'key="{market.seen[0].headers["idempotency-key"]}"' in note

    asyncio.run(scenario())


def test_an_interrupted_send_carries_the_key_that_finishes_it(market: Market, buyer: SyncClient) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        buyer.payment.send(to="agent://a.acme.dev", amount="0.01", on_success=interrupt, key="mine")
    assert ['key="mine"' in note for note in caught.value.__notes__] == [True]


def test_an_answer_that_drips_is_given_up(market: Market) -> None:
    """Each byte comes in time and the whole never does: the attempt ends, and the next one has the answer."""

    async def scenario() -> str:
        market.faults.append("drip")
        async with Client(PAYER_KEY, base_url=market.url, timeout=0.2, retries=QUICK) as client:
            return (await client.payment.send(to="agent://a.acme.dev", amount="0.02")).id

    market.faults.append("drip")
    with SyncClient(PAYER_KEY, base_url=market.url, timeout=0.2, retries=QUICK) as client:
        ids = [client.payment.send(to="agent://a.acme.dev", amount="0.01").id, asyncio.run(scenario())]
    assert (ids, market.charges) == ([*market.payments], ["0.01", "0.02"])


def test_the_bounds_of_repeating_are_the_callers(market: Market) -> None:
    market.faults.extend(["drop_before"] * 9)
    twice = Retries(attempts=2, first_delay=0.001)
    with SyncClient(PAYER_KEY, base_url=market.url, retries=twice) as client, pytest.raises(agentmarket.OutcomeUnknown):
        client.payment.send(to="agent://a.acme.dev", amount="0.01")
    with SyncClient(PAYER_KEY, base_url=market.url, retries=0) as client, pytest.raises(agentmarket.OutcomeUnknown):
        client.payment.send(to="agent://a.acme.dev", amount="0.01")
    assert (len(market.seen), market.charged) == (3, 0)
