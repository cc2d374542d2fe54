"""A seller works only for a payment it has checked, does it once, and gives the money back when it cannot."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

import agentmarket
from agentmarket import Client, Seller, request_hash
from agentmarket.calling import require_outside
from agentmarket.steps import Resolve

from .conftest import async_buyer, seller, served
from .stub import Market

AGENT = "agent://lint.acme.dev"
Scenario = Callable[[Client, httpx2.AsyncClient, str], Awaitable[None]]


def work(market: Market, app: Seller, scenario: Scenario) -> None:
    """Serve the app for one scenario; the agent is listed at its URL."""

    async def run() -> None:
        async with served(app) as url, async_buyer(market) as client, httpx2.AsyncClient() as http:
            market.add_agent("lint.acme.dev", url)
            await scenario(client, http, url)

    asyncio.run(run())


def counting(market: Market, **options: Any) -> tuple[Seller, list[Any]]:
    app, served_requests = seller(market, **options), []

    @app.call("/check", price="0.012")
    def check(request: Any) -> Any:
        served_requests.append(request)
        if request.get("unparsable"):
            raise app.Unserviceable("line 3 is no Python")
        if request.get("bug"):
            raise ZeroDivisionError("a secret detail")
        if request.get("odd"):
            return {"set": {1}}
        return {"findings": [request["n"]]}

    return app, served_requests


def paying(payment_id: str) -> dict[str, str]:
    return {"Agent-Payment": payment_id, "Content-Type": "application/json"}


def problem(reply: httpx2.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    assert document["status"] == reply.status_code
    return reply.status_code, document["code"]


def test_a_paid_call_is_served(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        result = await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012", metadata={"file": "a.py"})
        assert result.value == {"findings": [1]}
        assert result.payment.metadata == {"file": "a.py"}
        assert result.elapsed > 0

    work(market, app, scenario)
    assert (requests, market.charges, market.counts()) == ([{"n": 1}], ["0.012"], {"payable": 1})
    [redeem] = market.posts("/redeem")
    assert redeem.body == {"request_hash": request_hash(AGENT, "POST", "/check", b'{"n":1}')}


def test_unpaid_is_told_how_to_pay(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        reply = await http.post(f"{url}/check", json={"n": 1})
        assert problem(reply) == (402, "payment_required")
        document = reply.json()
        assert (document["price"], document["agent"], document["outcome"]) == ("0.012", AGENT, "not_charged")
        assert document["next_actions"][0]["path"] == "/v1/payments"

    work(market, app, scenario)
    assert (requests, market.charged, market.seen) == ([], 0, [])


def test_an_invented_payment_is_refused(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        made_up = {"Agent-Payment": "0190b2c4-0000-7000-8000-000000000000"}
        assert problem(await http.post(f"{url}/check", json={"n": 1}, headers=made_up)) == (402, "payment_unknown")
        no_id = {"Agent-Payment": "../../v1/sessions"}
        assert problem(await http.post(f"{url}/check", json={"n": 1}, headers=no_id)) == (400, "invalid_request")

    work(market, app, scenario)
    assert (requests, market.charged) == ([], 0)


def test_too_little_is_refunded_and_refused(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        with pytest.raises(agentmarket.CallFailed) as caught:
            await client.call(AGENT, path="/check", json={"n": 1}, amount="0.011")
        assert (caught.value.status, caught.value.refunded, caught.value.outcome) == (402, True, "not_charged")
        assert "costs 0.012" in str(caught.value)

    work(market, app, scenario)
    assert (requests, market.charged, market.counts()) == ([], 0, {"refunded": 1})


def test_a_payment_to_another_agent_of_the_provider_is_refunded_and_refused(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid = await client.payment.send(to="agent://other.acme.dev", amount="0.012")
        reply = await http.post(f"{url}/check", json={"n": 1}, headers={"Agent-Payment": paid.id})
        assert problem(reply) == (402, "payment_insufficient")

    work(market, app, scenario)
    assert (requests, market.charged) == ([], 0)


def test_one_payment_buys_one_request(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid = await client.payment.send(to=AGENT, amount="0.012")
        headers = {"Agent-Payment": paid.id}
        first = await http.post(f"{url}/check", json={"n": 1}, headers=headers)
        again = await http.post(f"{url}/check", json={"n": 1}, headers=headers)
        other = await http.post(f"{url}/check", json={"n": 2}, headers=headers)
        query = await http.post(f"{url}/check?n=2", json={"n": 1}, headers=headers)
        assert (first.json(), again.content) == ({"findings": [1]}, first.content)
        assert problem(other) == problem(query) == (409, "payment_already_used")

    work(market, app, scenario)
    assert (requests, market.charges) == ([{"n": 1}], ["0.012"])
    assert len(market.posts("/redeem")) == 1


def test_a_restarted_seller_still_serves_only_the_request_that_was_paid(market: Market) -> None:
    app, requests = counting(market)
    fresh, fresh_requests = counting(market)
    paid_ids: list[str] = []

    async def before(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid_ids.append((await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012")).payment.id)

    async def after(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        [paid] = paid_ids
        again = await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012", payment=paid)
        assert again.value == {"findings": [1]}
        with pytest.raises(agentmarket.CallFailed) as caught:
            await client.call(AGENT, path="/check", json={"n": 2}, amount="0.012", payment=paid)
        assert (caught.value.status, caught.value.refunded) == (409, False)

    work(market, app, before)
    work(market, fresh, after)
    assert (requests, fresh_requests, market.charges) == ([{"n": 1}], [{"n": 1}], ["0.012"])


def test_an_earned_payment_is_not_refunded_by_another_agent_of_the_provider(market: Market) -> None:
    app, _ = counting(market)
    other, other_requests = counting(market, agent="agent://other.acme.dev")

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        earned = (await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012")).payment.id
        async with served(other) as other_url:
            reply = await http.post(f"{other_url}/check", content=b'{"n":1}', headers=paying(earned))
        assert problem(reply) == (409, "payment_already_used")

    work(market, app, scenario)
    assert (other_requests, market.charges, market.posts("/refund")) == ([], ["0.012"], [])


def test_one_request_to_two_agents_of_a_provider_is_two_requests() -> None:
    hashes = {request_hash(agent, "POST", "/check", b"{}") for agent in (AGENT, "agent://other.acme.dev")}
    assert len(hashes) == 2


@pytest.mark.parametrize("change", ["dearer", "slower", "broken", "picky"])
def test_an_earned_payment_is_not_refunded_after_a_restart(market: Market, change: str) -> None:
    """A seller that forgot its answers is asked again: what it was paid for then was delivered then."""
    app, _ = counting(market)
    changed = seller(market)

    @changed.call("/check", price="0.020" if change == "dearer" else "0.012", timeout=0.01)
    async def check(request: Any) -> None:
        if change == "picky":
            raise changed.Unserviceable("not any more")
        if change == "broken":
            raise ZeroDivisionError
        await asyncio.Event().wait()

    earned: list[str] = []

    async def before(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        earned.append((await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012")).payment.id)

    async def after(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        with pytest.raises(agentmarket.CallFailed) as caught:
            await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012", payment=earned[0])
        assert (caught.value.refunded, caught.value.outcome) == (False, "charged")

    work(market, app, before)
    work(market, changed, after)
    assert (market.charges, market.posts("/refund")) == (["0.012"], [])


def test_the_same_request_at_once_is_worked_once(market: Market) -> None:
    app, runs, started, release = seller(market), [], threading.Event(), threading.Event()

    @app.call("/check", price="0.012")
    def check(request: Any) -> Any:
        runs.append(request)
        started.set()
        release.wait(10)
        return {"run": len(runs)}

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid = await client.payment.send(to=AGENT, amount="0.012")
        ask = [
            asyncio.ensure_future(http.post(f"{url}/check", json={"n": 1}, headers={"Agent-Payment": paid.id}))
            for _ in range(8)
        ]
        assert await asyncio.to_thread(started.wait, 10)
        other = await http.post(f"{url}/check", json={"n": 2}, headers={"Agent-Payment": paid.id})
        assert problem(other) == (409, "payment_already_used")
        release.set()
        assert {reply.content for reply in await asyncio.gather(*ask)} == {b'{"run": 1}'}

    work(market, app, scenario)
    assert (len(runs), market.charges) == (1, ["0.012"])


def test_unserviceable_is_refunded(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        with pytest.raises(agentmarket.CallFailed) as caught:
            await client.call(AGENT, path="/check", json={"unparsable": True}, amount="0.012")
        error = caught.value
        assert (error.status, error.refunded, error.outcome) == (422, True, "not_charged")
        assert error.problem["detail"] == "line 3 is no Python"
        again = await http.post(
            f"{url}/check", content=b'{"unparsable":true}',
            headers={"Agent-Payment": error.payment.id, "Content-Type": "application/json"},
        )  # fmt: skip
        assert problem(again) == (422, "unserviceable")
        assert again.json()["refunded_payment_id"] == error.payment.id

    work(market, app, scenario)
    assert (len(requests), market.charged, market.counts()) == (1, 0, {"refunded": 1})


@pytest.mark.parametrize("fault", ["bug", "odd"])
def test_a_function_that_fails_is_refunded_and_tells_no_detail(market: Market, fault: str) -> None:
    app, _ = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        with pytest.raises(agentmarket.CallFailed) as caught:
            await client.call(AGENT, path="/check", json={fault: True}, amount="0.012")
        assert (caught.value.status, caught.value.refunded) == (500, True)
        assert "secret" not in str(caught.value)

    work(market, app, scenario)
    assert market.charged == 0


def test_a_function_that_takes_too_long_is_refunded(market: Market) -> None:
    app, never = seller(market), asyncio.Event

    @app.call("/check", price="0.012", timeout=0.01)
    async def check(request: Any) -> None:
        await never().wait()

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid = await client.payment.send(to=AGENT, amount="0.012")
        reply = await http.post(f"{url}/check", json={}, headers={"Agent-Payment": paid.id})
        assert problem(reply) == (504, "took_too_long")

    work(market, app, scenario)
    assert market.charged == 0


def test_a_refund_that_cannot_be_made_is_said(market: Market) -> None:
    app, _ = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid = await client.payment.send(to=AGENT, amount="0.012")
        market.payments[paid.id]["status"] = "settling"
        with pytest.raises(agentmarket.CallFailed) as caught:
            await client.call(AGENT, path="/check", json={"unparsable": True}, amount="0.012", payment=paid.id)
        assert (caught.value.refunded, caught.value.outcome) == (False, "charged")
        assert "/v1/disputes" in str(caught.value)

    work(market, app, scenario)
    assert market.charges == ["0.012"]


def test_a_market_that_is_down_uses_up_no_payment(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid = await client.payment.send(to=AGENT, amount="0.012")
        market.faults.extend([(503, {})] * 4)
        headers = {"Agent-Payment": paid.id}
        reply = await http.post(f"{url}/check", json={"n": 1}, headers=headers)
        assert problem(reply) == (503, "market_unavailable")
        assert (reply.json()["retryable"], requests) == (True, [])
        assert (await http.post(f"{url}/check", json={"n": 1}, headers=headers)).status_code == 200

    work(market, app, scenario)
    assert (requests, market.charges) == ([{"n": 1}], ["0.012"])


def test_what_is_no_request_is_refused_and_uses_up_no_payment(market: Market) -> None:
    app, requests = counting(market, body_limit=1000)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        paid = await client.payment.send(to=AGENT, amount="0.012")
        headers = {"Agent-Payment": paid.id, "Content-Type": "application/json"}
        deep = b"[" * 400 + b"]" * 400
        for body, expected in [
            (b"{", (400, "invalid_json")),
            (b"\xff", (400, "invalid_json")),
            (b"x" * 1001, (413, "payload_too_large")),
            (deep + b"}", (400, "invalid_json")),
        ]:
            assert problem(await http.post(f"{url}/check", content=body, headers=headers)) == expected
        text = {**headers, "Content-Type": "text/plain"}
        assert problem(await http.post(f"{url}/check", content=b"{}", headers=text)) == (415, "unsupported_media_type")
        assert problem(await http.get(f"{url}/check", headers=headers)) == (405, "method_not_allowed")
        assert problem(await http.post(f"{url}/other", headers=headers)) == (404, "not_found")
        assert market.posts("/redeem") == []
        assert (await http.post(f"{url}/check", content=b'{"n":1}', headers=headers)).status_code == 200

    work(market, app, scenario)
    assert (requests, market.charges) == ([{"n": 1}], ["0.012"])


def test_health(market: Market) -> None:
    app, _ = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        reply = await http.get(f"{url}/healthz")
        assert (reply.status_code, reply.json()) == (200, {"status": "ok", "agent": AGENT})

    work(market, app, scenario)


def test_a_call_that_was_paid_for_is_answered_by_a_seller_that_is_told_to_stop(market: Market) -> None:
    app, begun, end = seller(market), threading.Event(), threading.Event()

    @app.call("/slow", price="0.012")
    def slow(request: Any) -> Any:
        begun.set()
        assert end.wait(30)
        return {"findings": [request["n"]]}

    async def run() -> None:
        urls: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.ensure_future(app.serve(ready=urls.set_result, stop=stop))
        market.add_agent("lint.acme.dev", (await urls)[0])
        async with async_buyer(market) as client:
            calling = asyncio.ensure_future(client.call(AGENT, path="/slow", json={"n": 1}, amount="0.012"))
            await asyncio.to_thread(begun.wait, 30)
            stop.set()
            await asyncio.wait([serving, calling], timeout=0.5)
            assert (serving.done(), calling.done()) == (False, False)
            end.set()
            assert (await calling).value == {"findings": [1]}
        await serving

    asyncio.run(run())
    assert (market.charges, market.counts()) == (["0.012"], {"payable": 1})


def test_a_body_that_does_not_come_uses_up_no_payment(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentmarket.seller.BODY_TIMEOUT", 0.1)
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        payment = await client.payment.send(to=AGENT, amount="0.012")
        place = httpx2.URL(url)
        reader, writer = await asyncio.open_connection(place.host, place.port)
        headers = {"Host": place.netloc.decode(), "Content-Length": "7", **paying(payment.id)}
        lines = ["POST /check HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", '{"n":']
        writer.write("\r\n".join(lines).encode())
        status = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        assert status.split()[1] == b"408"

    work(market, app, scenario)
    assert (requests, market.posts("/redeem")) == ([], [])


def test_a_silent_agent_leaves_a_payment_that_can_be_used_again(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        market.add_agent("lint.acme.dev", "http://127.0.0.1:9")
        with pytest.raises(agentmarket.CallFailed) as caught:
            await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012")
        assert (caught.value.outcome, caught.value.refunded) == ("charged", False)
        market.add_agent("lint.acme.dev", url)
        paid = caught.value.payment.id
        assert (await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012", payment=paid)).value

    work(market, app, scenario)
    assert (len(requests), market.charges) == (1, ["0.012"])


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "ftp://a",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[::ffff:a9fe:a9fe]",
        "http://0.0.0.0/",
    ],
)
def test_an_agent_that_cannot_be_called_is_not_paid(market: Market, endpoint: str) -> None:
    async def scenario() -> None:
        market.add_agent("lint.acme.dev", endpoint)
        async with async_buyer(market) as client:
            with pytest.raises(agentmarket.InvalidRequest):
                await client.call(AGENT, json={}, amount="0.012")

    asyncio.run(scenario())
    assert market.charged == 0


def test_an_agent_that_has_no_address_is_not_paid(market: Market) -> None:
    async def scenario() -> None:
        market.add_agent("lint.acme.dev", "http://nowhere.invalid/")
        async with async_buyer(market) as client:
            with pytest.raises(agentmarket.Unreachable) as caught:
                await client.call(AGENT, json={}, amount="0.012")
        assert caught.value.outcome == "not_charged"

    asyncio.run(scenario())
    assert market.charged == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",  # noqa: S104 - not bound to
        "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::",
        "2002:a00:1::1", "::127.0.0.1", "2001:db8::1", "2001:0:7f00:1::",
    ],
)  # fmt: skip
def test_an_agent_inside_is_not_called_from_a_market_outside(address: str) -> None:
    """The steps alone, since no test can put a market on the internet: the lookup's answer is data."""
    for market in ("https://1.1.1.1", "https://[2606:4700::1111]"):
        steps = require_outside(AGENT, "https://lint.acme.dev/check", market=market)
        assert next(steps) == Resolve("lint.acme.dev")
        with pytest.raises(agentmarket.InvalidRequest, match="not on the public internet") as caught:
            steps.send(("1.1.1.1", address))
        assert caught.value.outcome == "not_charged"


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1"])
def test_an_agent_outside_is_called(address: str) -> None:
    steps = require_outside(AGENT, "https://lint.acme.dev/check", market="https://1.1.1.1")
    next(steps)
    with pytest.raises(StopIteration):
        steps.send((address,))


def test_an_agent_beside_a_market_at_home_is_called_by_name(market: Market) -> None:
    app, requests = counting(market)

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        market.add_agent("lint.acme.dev", url.replace("127.0.0.1", "localhost"))
        assert (await client.call(AGENT, path="/check", json={"n": 1}, amount="0.012")).value

    work(market, app, scenario)
    assert requests == [{"n": 1}]


def test_the_key_of_the_market_is_not_shown_to_an_agent(market: Market) -> None:
    seen: list[dict[bytes, bytes]] = []

    async def nosy(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append(dict(scope.get("headers", ())))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps({}).encode()})

    app = seller(market)
    app._app = nosy  # type: ignore[assignment]

    async def scenario(client: Client, http: httpx2.AsyncClient, url: str) -> None:
        await client.call(AGENT, json={}, amount="0.012")

    work(market, app, scenario)
    assert b"agent-payment" in seen[-1]
    assert b"authorization" not in seen[-1]
