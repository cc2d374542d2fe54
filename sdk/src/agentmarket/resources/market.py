"""The nouns around payments: pools, agents, keys. Each verb is one request."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentmarket import errors, wire
from agentmarket.amounts import canonical, to_wire
from agentmarket.answers import Agent, Key, Offering, Pool
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.resources.policies import Amount
from agentmarket.steps import Steps, wait_for


class Pools(Resource[S_co]):
    @operation
    def open(
        self,
        *,
        deposit: Amount,
        expires_in_hours: int | None = None,
        providers: Sequence[str] | None = None,
        dispute_window_seconds: int | None = None,
        key: str | None = None,
    ) -> Steps[Pool]:
        """Ask for a pool; it is open when the chain says so: see `wait_open`."""
        body = {
            "deposit": to_wire(deposit, field="deposit"),
            "expires_in_hours": expires_in_hours,
            "providers": None if providers is None else [*providers],
            "dispute_window_seconds": dispute_window_seconds,
        }
        return self._move(Pool, "/v1/pools", body, key=key)

    @operation
    def get(self, pool_id: str) -> Steps[Pool]:
        return self._read(pool_id)

    @listing
    def list(self, *, status: str | None = None, limit: int | None = None) -> Listing[Pool]:
        return Listing(wire.get("/v1/pools", status=status, limit=limit), Pool)

    @operation
    def top_up(self, pool_id: str, *, amount: Amount, key: str | None = None) -> Steps[Pool]:
        return self._move(Pool, f"/v1/pools/{wire.segment(pool_id)}/top-up", {"amount": to_wire(amount)}, key=key)

    @operation
    def close(self, pool_id: str, *, key: str | None = None) -> Steps[Pool]:
        """Sessions are swept back, batches land, and the rest returns to the payer on chain."""
        return self._move(Pool, f"/v1/pools/{wire.segment(pool_id)}/close", key=key)

    @operation
    def wait_open(self, pool_id: str, *, timeout: float = 60.0) -> Steps[Pool]:
        """Raises Timeout after `timeout` seconds, and Conflict when the pool can no longer open."""
        pool = yield from wait_for(
            lambda: self._read(pool_id),
            done=lambda pool: pool.status != "opening",
            what=f"pool {pool_id} to open",
            timeout=timeout,
        )
        if pool.status != "open":
            raise errors.Conflict(f"Pool {pool_id} is {pool.status}.", next_actions=pool.next_actions)
        return pool

    def _read(self, pool_id: str) -> Steps[Pool]:
        return self._get(Pool, f"/v1/pools/{wire.segment(pool_id)}")


class Agents(Resource[S_co]):
    @listing
    def search(
        self, *, capability: str | None = None, q: str | None = None, limit: int | None = None
    ) -> Listing[Agent]:
        return Listing(wire.get("/v1/agents", capability=capability, q=q, limit=limit), Agent)

    @operation
    def get(self, agent: str) -> Steps[Agent]:
        """By uri (`agent://lint.acme.dev`) or by name (`lint.acme.dev`)."""
        return self._get(Agent, agent_path(agent))

    @operation
    def register(
        self,
        *,
        uri: str,
        name: str,
        endpoint: str,
        capabilities: Sequence[str],
        offerings: Sequence[Mapping[str, Any]] = (),
        description: str = "",
    ) -> Steps[Agent]:
        """List an agent: a provider's verb."""
        body = {
            "uri": uri,
            "name": name,
            "description": description,
            "endpoint": endpoint,
            "capabilities": [*capabilities],
            "offerings": [_offering(item) for item in offerings],
        }
        return self._post(Agent, "/v1/agents", body)

    @operation
    def offer(self, agent: str, offering: Mapping[str, Any]) -> Steps[Offering]:
        """A new, immutable version of what an agent sells: capability, pricing, price, unit, description."""
        return self._post(Offering, f"{agent_path(agent)}/offerings", _offering(offering))


class Keys(Resource[S_co]):
    @operation
    def create(
        self,
        *,
        scope: str | None = None,
        session: str | None = None,
        ceiling: Amount | None = None,
        read_only: bool | None = None,
        name: str | None = None,
        expires_at: str | None = None,
        key: str | None = None,
    ) -> Steps[Key]:
        """A new key; its `api_key` is shown once. With a `ceiling` it spends that much of the session and no more."""
        body = {
            "scope": scope,
            "session_id": session,
            "ceiling": None if ceiling is None else canonical(ceiling, field="ceiling"),
            "read_only": read_only,
            "name": name,
            "expires_at": expires_at,
        }
        return self._move(Key, "/v1/keys", body, key=key)

    @operation
    def rotate(self, key_id: str, *, overlap_seconds: int | None = None, key: str | None = None) -> Steps[Key]:
        """A new key in the place of one, which still works for `overlap_seconds`. Its `api_key` is shown once."""
        body = {"overlap_seconds": overlap_seconds}
        return self._move(Key, f"/v1/keys/{wire.segment(key_id)}/rotate", body, key=key)

    @listing
    def list(self, *, limit: int | None = None) -> Listing[Key]:
        return Listing(wire.get("/v1/keys", limit=limit), Key)

    @operation
    def revoke(self, key_id: str) -> Steps[Key]:
        """Revoked at once. `key_id` is the `id` of the Key."""
        request = wire.Request("DELETE", f"/v1/keys/{wire.segment(key_id)}", repeatable=True)
        return self._fetch(Key, request)


def agent_path(agent: str) -> str:
    return f"/v1/agents/{wire.segment(agent.removeprefix('agent://'))}"


def _offering(offering: Mapping[str, Any]) -> dict[str, Any]:
    return {**offering, "price": to_wire(offering["price"], field="price")} if "price" in offering else {**offering}
