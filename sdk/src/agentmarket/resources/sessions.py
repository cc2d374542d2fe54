"""Sessions: the verbs of any session by its id, and of one just opened by itself (`OpenedSession`)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from agentmarket import errors, wire
from agentmarket.amounts import canonical, micros, to_wire
from agentmarket.answers import PolicyVersion, Session, Transfer
from agentmarket.decode import decode
from agentmarket.operations import C, Listing, Resource, S_co, Shell, listing, operation
from agentmarket.resources.policies import Amount, policy_document
from agentmarket.steps import Steps, fetch, one_key
from agentmarket.wire import Request


@dataclass(frozen=True, kw_only=True)
class OpenedSession(Session, Generic[C]):
    """A session just opened: its own key, shown once, and its verbs, for the client that opened it.

    What it says of money is how it was when it was opened; `balance()` is how it is now.
    """

    owner: C = field(repr=False, compare=False)

    @property
    def shell(self) -> Shell:
        return self.owner.shell

    def client(self) -> C:
        """A client that can spend this session and nothing else, over the connections of the client that opened it."""
        return self.owner.connect(self.api_key or "")

    @operation
    def balance(self) -> Steps[Session]:
        """The session as it is now: `spent`, `held`, `remaining`."""
        return Sessions.get.steps(self._verbs, self.id)

    @operation
    def ensure(self, amount: Amount) -> Steps[Session]:
        """The session when it has so much left; BudgetExhausted when not, before anything is spent."""
        return Sessions.ensure.steps(self._verbs, self.id, amount)

    @operation
    def top_up(self, amount: Amount, *, key: str | None = None) -> Steps[Session]:
        return Sessions.top_up.steps(self._verbs, self.id, amount=amount, key=key)

    @operation
    def close(self, *, key: str | None = None) -> Steps[Session]:
        """What is left goes back to the pool."""
        return Sessions.close.steps(self._verbs, self.id, key=key)

    @operation
    def pause(self, *, reason: str | None = None) -> Steps[Session]:
        """Nothing is spent until `resume()`."""
        return Sessions.pause.steps(self._verbs, self.id, reason=reason)

    @operation
    def resume(self) -> Steps[Session]:
        return Sessions.resume.steps(self._verbs, self.id)

    @operation
    def change_policy(self, policy: Mapping[str, Any]) -> Steps[Session]:
        """A new version of the policy, from the next payment on."""
        return Sessions.change_policy.steps(self._verbs, self.id, policy)

    @operation
    def child(
        self,
        *,
        budget: Amount,
        policy: Mapping[str, Any] | None = None,
        name: str | None = None,
        expires_at: str | None = None,
        key: str | None = None,
    ) -> "Steps[OpenedSession[C]]":
        """A session of its own inside this one: a part of its budget, under a policy that is no wider."""
        return self._verbs.opening_child(
            self.id, budget=budget, policy=policy, name=name, expires_at=expires_at, key=key
        )

    @listing
    def ledger(self, *, limit: int | None = None) -> Listing[Transfer]:
        """Every transfer in and out; the amounts are signed as the session sees them."""
        return Sessions.ledger.starts(self._verbs, self.id, limit=limit)

    @property
    def _verbs(self) -> "Sessions[Shell, C]":
        return Sessions(self.owner.shell, self.owner)


class Sessions(Resource[S_co], Generic[S_co, C]):
    """Open one with `client.payment.create_session`."""

    def __init__(self, shell: S_co, owner: C) -> None:
        super().__init__(shell)
        self._owner = owner

    @operation
    def get(self, session_id: str) -> Steps[Session]:
        return self._get(Session, _path(session_id))

    @listing
    def list(
        self, *, status: str | None = None, parent: str | None = None, limit: int | None = None
    ) -> Listing[Session]:
        """The caller's sessions; with `parent` those inside one."""
        return Listing(wire.get("/v1/sessions", status=status, parent_id=parent, limit=limit), Session)

    @operation
    def ensure(self, session_id: str, amount: Amount) -> Steps[Session]:
        """The session when it has `amount` left. Spends and holds nothing: what others spend meanwhile is gone.

        Raises BudgetExhausted with where it stands; its `resume()` looks again, after a top-up. Raises Conflict when the
        session is paused or closed.
        """
        return self._ensured(session_id, canonical(amount))

    @operation
    def close(self, session_id: str, *, key: str | None = None) -> Steps[Session]:
        """What is left goes back to the pool."""
        return self._move(Session, _path(session_id, "/close"), key=key)

    @operation
    def top_up(self, session_id: str, *, amount: Amount, key: str | None = None) -> Steps[Session]:
        return self._move(Session, _path(session_id, "/top-up"), {"amount": to_wire(amount)}, key=key)

    @operation
    def pause(self, session_id: str, *, reason: str | None = None) -> Steps[Session]:
        """Nothing is spent until `resume`: the payer's verb."""
        return self._leave(Session, _path(session_id, "/pause"), {"reason": reason})

    @operation
    def resume(self, session_id: str) -> Steps[Session]:
        return self._leave(Session, _path(session_id, "/resume"))

    @operation
    def change_policy(self, session_id: str, policy: Mapping[str, Any]) -> Steps[Session]:
        """A new version of the policy, from the next payment on: the payer's verb."""
        return self._leave(Session, _path(session_id, "/policy"), {"policy": policy_document(policy)})

    @listing
    def policies(self, session_id: str, *, limit: int | None = None) -> Listing[PolicyVersion]:
        return Listing(wire.get(_path(session_id, "/policies"), limit=limit), PolicyVersion)

    @operation
    def child(
        self,
        session_id: str,
        *,
        budget: Amount,
        policy: Mapping[str, Any] | None = None,
        name: str | None = None,
        expires_at: str | None = None,
        key: str | None = None,
    ) -> Steps[OpenedSession[C]]:
        """A session of its own inside another: a part of its budget, under a policy that is no wider."""
        return self.opening_child(session_id, budget=budget, policy=policy, name=name, expires_at=expires_at, key=key)

    @listing
    def ledger(self, session_id: str, *, limit: int | None = None) -> Listing[Transfer]:
        """Every transfer in and out; the amounts are signed as the session sees them."""
        return Listing(wire.get(_path(session_id, "/ledger"), limit=limit), Transfer)

    def opening_child(
        self,
        session_id: str,
        *,
        budget: Amount,
        policy: Mapping[str, Any] | None,
        name: str | None,
        expires_at: str | None,
        key: str | None,
    ) -> Steps[OpenedSession[C]]:
        body = {
            "budget": to_wire(budget, field="budget"),
            "policy": None if policy is None else policy_document(policy),
            "name": name,
            "expires_at": expires_at,
        }
        return self.opening(wire.post(_path(session_id, "/children"), body, key=one_key(key)))

    def opening(self, request: Request) -> Steps[OpenedSession[C]]:
        def read(document: object) -> OpenedSession[C]:
            session = decode(Session, document)
            known = {item.name: getattr(session, item.name) for item in dataclasses.fields(session)}
            return OpenedSession(**known, owner=self._owner)

        return fetch(request, self._shell.retries, read)

    def _ensured(self, session_id: str, amount: str) -> Steps[Session]:
        session = yield from self._get(Session, _path(session_id))
        if session.status != "open":
            raise errors.Conflict(
                f"Session {session_id} is {session.status}.",
                state=session.status,
                outcome="not_charged",
                next_actions=session.next_actions,
            )
        if micros(session.remaining) >= micros(amount):
            return session
        raise errors.BudgetExhausted(
            f"Session {session_id} has {session.remaining} left of {session.budget}, and {amount} is needed: top it up.",
            remaining=session.remaining,
            required=amount,
            spent=session.spent,
            outcome="not_charged",
            next_actions=session.next_actions,
            checkpoint=errors.Checkpoint(session.budget, session.spent, session.remaining),
        ).goes_on(lambda: self._ensured(session_id, amount))


def _path(session_id: str, rest: str = "") -> str:
    return f"/v1/sessions/{wire.segment(session_id)}{rest}"
