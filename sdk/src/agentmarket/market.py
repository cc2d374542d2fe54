"""The market as a client sees it: its nouns as attributes, and the few verbs that stand alone. No I/O.

`client` adds the nouns that answer with verbs of their own: payments and sessions.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentmarket import calling, wire
from agentmarket.answers import Agent, Balance, Called, Event, Frozen, Me, Payment
from agentmarket.errors import AgentMarketError, Resumable
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.resources.holds import Holds
from agentmarket.resources.market import Agents, Keys, Pools, agent_path
from agentmarket.resources.orders import Order, Orders, order
from agentmarket.resources.oversight import Approvals, Refunds
from agentmarket.resources.policies import Amount, Decisions, Policies
from agentmarket.resources.reserves import Reserve
from agentmarket.resources.webhooks import Webhooks
from agentmarket.resources.work import Disputes, Invoices, Tasks
from agentmarket.steps import Steps, stating

#: seconds an agent has to answer a paid call
CALL_TIMEOUT = 30.0


class Market(Resource[S_co]):
    def __init__(self, shell: S_co) -> None:
        super().__init__(shell)
        self._orders = Orders(shell)
        self.holds: Holds[S_co] = Holds(shell)
        self.refunds: Refunds[S_co] = Refunds(shell)
        self.approvals: Approvals[S_co] = Approvals(shell)
        self.decisions: Decisions[S_co] = Decisions(shell)
        self.policy: Policies[S_co] = Policies(shell)
        self.pools: Pools[S_co] = Pools(shell)
        self.agents: Agents[S_co] = Agents(shell)
        self.keys: Keys[S_co] = Keys(shell)
        self.tasks: Tasks[S_co] = Tasks(shell)
        self.invoices: Invoices[S_co] = Invoices(shell)
        self.disputes: Disputes[S_co] = Disputes(shell)
        self.webhooks: Webhooks[S_co] = Webhooks(shell)
        self.reserves: Reserve[S_co] = Reserve(shell)
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
    def freeze(self, *, reason: str) -> Steps[Frozen]:
        """Stop all of a payer's money at once, whatever key would spend it: the payer's verb, with a full key."""
        return self._leave(Frozen, "/v1/freeze", {"reason": reason})

    @operation
    def unfreeze(self) -> Steps[Frozen]:
        return self._leave(Frozen, "/v1/unfreeze")

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
        capability: str | None = None,
        key: str | None = None,
        payment: str | Payment | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> Steps[Called]:
        """Pay an agent for one call and make it: POST `json` to `path` under the agent's endpoint.

        The same call (agent, path, json, amount, currency, metadata, session, capability) is one payment, whoever repeats
        it and when, and has the agent's same answer; `key` pays again on purpose. `payment` is an earlier one to use, or
        its id. Raises CallFailed when the agent does not deliver: its `payment` says whether the money came back. When it
        did, the same call pays anew.
        """
        body = wire.canonical(json)
        url = calling.url_of(agent, (yield from self._endpoint(agent)), path)
        yield from calling.require_outside(agent, url, market=self._shell.base_url)
        if payment is not None:
            paid = payment if isinstance(payment, Payment) else (yield from self._given(payment))
            return (yield from self._ask(paid, url, body, timeout))
        bought = order(
            to=agent, amount=amount, currency=currency, metadata=metadata, session=session, capability=capability, key=key,
            call=(path.lstrip("/"), body),
        )  # fmt: skip
        return (yield from self._buy(bought, url, body, timeout))

    def _buy(self, bought: Order, url: str, body: bytes, timeout: float) -> Steps[Called]:
        """Pay and ask; after a halt both go on."""
        try:
            sent = yield from self._orders.deliver(bought)
        except Resumable as halted:
            halted.goes_on(lambda: self._buy(bought, url, body, timeout))
            raise
        called = yield from self._ask(sent.payment, url, body, timeout)
        return replace(called, elapsed=sent.elapsed, replayed=sent.replayed)

    def _ask(self, paid: Payment, url: str, body: bytes, timeout: float) -> Steps[Called]:
        try:
            request = calling.ask(url, body, paid, timeout=timeout)
            value = yield from calling.delivered(request, self._shell.retries)
        except AgentMarketError as cause:
            self._endpoints.pop(paid.to, None)
            raise calling.call_failed(paid.to, cause, (yield from self._payment_now(paid))) from cause
        return Called(value=value, payment=paid, elapsed=0.0)

    def _endpoint(self, agent: str) -> Steps[str | None]:
        if agent not in self._endpoints:
            found = yield from stating("not_charged", self._get(Agent, agent_path(agent)))
            self._endpoints[agent] = found.endpoint
        return self._endpoints[agent]

    def _payment(self, payment_id: str) -> Steps[Payment]:
        return self._get(Payment, f"/v1/payments/{wire.segment(payment_id)}")

    def _given(self, payment_id: str) -> Steps[Payment]:
        return stating("not_charged", self._payment(payment_id))

    def _payment_now(self, paid: Payment) -> Steps[Payment]:
        """The payment as the market has it, or as we last saw it when the market cannot say."""
        try:
            return (yield from self._payment(paid.id))
        except AgentMarketError:
            return paid
