"""The seller: functions with prices become an ASGI app that works only for payments it has checked, and a task loop.

seller = agentmarket.Seller(agent="agent://lint.acme.dev")

@seller.call("/check", price="0.012")
def check(request): return {"findings": [...]}

seller.run(port=9001)          # or give seller.app to any ASGI server
"""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from agentmarket import asgi, serving
from agentmarket.amounts import to_wire
from agentmarket.asgi import Receive, Response, Scope, Send
from agentmarket.client import RETRIES, TIMEOUT, Client
from agentmarket.errors import InvalidRequest
from agentmarket.paid import PaidCall, Unserviceable, Work, is_payment_id
from agentmarket.replays import OtherRequest, Replays
from agentmarket.retries import Retries
from agentmarket.settings import settings
from agentmarket.wire import PAYMENT_HEADER, request_hash
from agentmarket.working import PaidTask, Worker

F = TypeVar("F", bound=Work)

#: bytes of a request's body
BODY_LIMIT = 1024 * 1024
#: seconds a function may take
CALL_TIMEOUT = 60.0
#: seconds for a request's body to arrive
BODY_TIMEOUT = 30.0


class Seller:
    """One agent that sells. `api_key` is its provider's key (default: AGENTMARKET_API_KEY)."""

    #: so that a function can `raise seller.Unserviceable("…")`
    Unserviceable = Unserviceable

    def __init__(
        self,
        api_key: str | None = None,
        *,
        agent: str,
        base_url: str | None = None,
        body_limit: int = BODY_LIMIT,
        timeout: float = TIMEOUT,
        retries: int | Retries = RETRIES,
    ) -> None:
        if not agent.startswith("agent://"):
            raise InvalidRequest(f'agent {agent!r} is no agent uri: write it like "agent://lint.acme.dev".')
        self.agent = agent
        self._settings = settings(api_key, base_url, timeout, retries)
        self._body_limit = body_limit
        self._calls: dict[str, PaidCall] = {}
        self._tasks: dict[str, PaidTask] = {}
        self._replays = Replays()
        self._client: Client | None = None
        self._worker: Worker | None = None
        self._working: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Seller({self.agent!r}, {self._settings.shown_key}, base_url={self._settings.base_url!r})"

    def call(self, path: str, *, price: str | Decimal, timeout: float = CALL_TIMEOUT) -> Callable[[F], F]:
        """Sell a function per call: it gets the request's JSON and returns JSON. A plain function runs in a thread.

        When it raises `Unserviceable` the buyer gets the money back and a 422; on anything else, that and a 500.
        """
        wire_price = to_wire(price, field="price")

        def register(function: F) -> F:
            self._calls[path] = PaidCall(self.agent, path, wire_price, function, timeout)
            return function

        return register

    def task(self, capability: str, *, price: str | Decimal) -> Callable[[F], F]:
        """Sell a function per outcome: it gets an assigned Task, and what it returns is delivered and invoiced."""
        wire_price = to_wire(price, field="price")

        def register(function: F) -> F:
            self._tasks[capability] = PaidTask(capability, wire_price, function)
            return function

        return register

    @property
    def app(self) -> asgi.App:
        """The ASGI app. Its lifespan starts and stops the task loop."""
        return self._app

    async def start(self) -> Client:
        """Open the client, and the task loop if there are tasks to do: for a server that runs no ASGI lifespan."""
        if self._client is None:
            config = self._settings
            self._client = Client(
                config.api_key, base_url=config.base_url, timeout=config.timeout, retries=config.retries
            )
        if self._tasks and self._working is None:
            self._worker = Worker(self._client, self.agent, self._tasks)
            self._working = asyncio.ensure_future(self._worker.work())
        return self._client

    async def stop(self) -> None:
        """Finish the task in hand and the calls under way, then close."""
        if self._worker is not None and self._working is not None:
            self._worker.stop()
            await self._working
        await self._replays.settle()
        if self._client is not None:
            await self._client.aclose()
        self._client = self._worker = self._working = None

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ready: Callable[[list[str]], None] | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Serve in the running loop until `stop` is set (needs uvicorn)."""
        await serving.serve([serving.Listener(self.app, host, port)], ready=ready, stop=stop)

    def run(self, host: str = "127.0.0.1", port: int = 8000) -> None:
        """Serve until interrupted (needs uvicorn)."""
        asyncio.run(self.serve(host, port, ready=self._announce))

    def _announce(self, urls: list[str]) -> None:
        print(f"{self.agent} is at {urls[0]}", flush=True)  # noqa: T201 - who runs it by hand wants to see it

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                response = await self._answer(scope, receive)
            except asgi.Disconnected:
                return
            await asgi.respond(send, response, with_body=scope["method"] != "HEAD")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        path, method = scope["path"], scope["method"]
        if path == "/healthz":
            return asgi.answer(200, {"status": "ok", "agent": self.agent})
        paid = self._calls.get(path)
        if paid is None:
            known = ", ".join(sorted(self._calls)) or "none"
            return asgi.problem(404, "not_found", f"Nothing is sold at this path. Paths with a price: {known}.")
        if method != "POST":
            return asgi.problem(405, "method_not_allowed", f"POST to {paid.path}.", headers=(("Allow", "POST"),))
        headers = asgi.headers_of(scope)
        payment_id = headers.get(PAYMENT_HEADER.lower())
        if payment_id is None:
            return paid.payment_required(self._settings.base_url)
        if not is_payment_id(payment_id):
            return asgi.problem(400, "invalid_request", f"{PAYMENT_HEADER} is not the id of a payment.")
        return await self._paid(paid, payment_id.lower(), scope, receive, headers)

    async def _paid(
        self, paid: PaidCall, payment_id: str, scope: Scope, receive: Receive, headers: dict[str, str]
    ) -> Response:
        """Everything that can be refused without touching the payment is refused first."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return asgi.problem(415, "unsupported_media_type", "Send application/json.")
        try:
            body = await asgi.read_body(receive, limit=self._body_limit, seconds=BODY_TIMEOUT)
            document = json.loads(body)
        except asgi.BodyTooLarge:
            return asgi.problem(413, "payload_too_large", f"The body may have {self._body_limit} bytes.")
        except TimeoutError:
            return asgi.problem(
                408, "request_timeout", f"The body was not here after {BODY_TIMEOUT:.0f} s. The payment was not used."
            )
        except (ValueError, RecursionError):
            return asgi.problem(400, "invalid_json", "The body is not JSON. The payment was not used.")
        client = await self.start()
        digest = request_hash(self.agent, scope["method"], asgi.target_of(scope), body)
        try:
            return await self._replays.once(
                payment_id, digest, lambda: paid.serve(client, payment_id, digest, document)
            )
        except OtherRequest:
            return asgi.problem(409, "payment_already_used", "This payment paid for another request: pay again.")
