"""The market as a client sees it: its nouns as attributes, and the few verbs that stand alone. No I/O."""

from collections.abc import Mapping
from typing import Any

from agentmarket import calling, wire
from agentmarket.answers import Agent, Balance, Called, Event, Me, Payment
from agentmarket.errors import AgentMarketError
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.resources.market import Agents, Keys, Pools, Sessions, agent_path
from agentmarket.resources.payments import Amount, Payments
from agentmarket.resources.work import Disputes, Invoices, Tasks
from agentmarket.steps import Steps

#: seconds an agent has to answer a paid call
CALL_TIMEOUT = 30.0


class Market(Resource[S_co]):
    def __init__(self, shell: S_co) -> None:
        super().__init__(shell)
        self._payments: Payments[S_co] = Payments(shell)
        self.sessions: Sessions[S_co] = Sessions(shell)
        self.pools: Pools[S_co] = Pools(shell)
        self.agents: Agents[S_co] = Agents(shell)
        self.keys: Keys[S_co] = Keys(shell)
        self.tasks: Tasks[S_co] = Tasks(shell)
        self.invoices: Invoices[S_co] = Invoices(shell)
        self.disputes: Disputes[S_co] = Disputes(shell)
        self._endpoints: dict[str, str | None] = {}

    @operation
    def me(self) -> Steps[Me]:
        """Who this key is, and what it may do."""
        return self._get(Me, "/v1/me")

    @operation
    def balance(self) -> Steps[Balance]:
        """What a provider is owed and has been paid."""
        return self._get(Balance, "/v1/balance")

    @listing
    def events(self, *, after: int = 0, limit: int | None = None) -> Listing[Event]:
        """What happened after a position, to the present. Keep the last `position` to go on from there."""
        return Listing(wire.get("/v1/events", after=after, limit=limit), Event, place="after")

    @operation
    def call(
        self,
        agent: str,
        *,
        path: str = "/",
        json: Mapping[str, Any],
        amount: Amount,
        currency: str = "USDC",
        metadata: Mapping[str, Any] | None = None,
        session: str | None = None,
        key: str | None = None,
        payment: str | Payment | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> Steps[Called]:
        """Pay an agent for one call and make it: POST `json` to `path` under the agent's endpoint.

        The payment is made once, however often the call is repeated; `payment` is an earlier one to use (or its id).
        Raises CallFailed when the agent does not deliver: its `payment` says whether the money came back.
        """
        body = wire.encode(json)
        url = calling.url_of(agent, (yield from self._endpoint(agent)), path)
        yield from calling.require_outside(agent, url, market=self._shell.base_url)
        if payment is None:
            sent = yield from self._payments.sending(
                to=agent, amount=amount, currency=currency, metadata=metadata, session=session, key=key
            )
            paid, elapsed = sent.payment, sent.elapsed
        else:
            paid = payment if isinstance(payment, Payment) else (yield from self._payment(payment))
            elapsed = 0.0
        try:
            request = calling.ask(url, body, paid, timeout=timeout)
            value = yield from calling.delivered(request, self._shell.retries)
        except AgentMarketError as cause:
            self._endpoints.pop(agent, None)
            raise calling.call_failed(agent, cause, (yield from self._payment_now(paid))) from cause
        return Called(value=value, payment=paid, elapsed=elapsed)

    def _endpoint(self, agent: str) -> Steps[str | None]:
        if agent not in self._endpoints:
            self._endpoints[agent] = (yield from self._get(Agent, agent_path(agent))).endpoint
        return self._endpoints[agent]

    def _payment(self, payment_id: str) -> Steps[Payment]:
        return self._get(Payment, f"/v1/payments/{wire.segment(payment_id)}")

    def _payment_now(self, paid: Payment) -> Steps[Payment]:
        """The payment as the market has it, or as we last saw it when the market cannot say."""
        try:
            return (yield from self._payment(paid.id))
        except AgentMarketError:
            return paid
