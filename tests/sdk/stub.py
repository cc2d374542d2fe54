"""A small market in memory behind a real HTTP server, which loses replies and fails on demand, and counts every charge.

It knows just enough of the API to test the client's own promises; the market's rules are tested against the market.
"""

import json
import re
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

Fault = Literal["drop_before", "drop_after", "garbage", "drip"] | tuple[int, dict[str, str]]
JSON = dict[str, Any]
SECRET = "s" * 32 + "abcdef"
PAYER_KEY = f"am_test_payerpayerpa_{SECRET}"
SELLER_KEY = f"am_test_sellersellse_{SECRET}"


class Refused(Exception):
    def __init__(self, status: int, code: str, detail: str, **facts: Any) -> None:
        super().__init__(code)
        self.status = status
        self.document = {"status": status, "code": code, "title": code, "detail": detail, "retryable": False, **facts}


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Market:
    """The books. `charges` is every time money moved; `faults` are taken by the next POSTs, first in first out."""

    funds: Decimal = Decimal("25.00")
    page: int = 3
    faults: deque[Fault] = field(default_factory=deque)
    charges: list[str] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    payments: dict[str, JSON] = field(default_factory=dict)
    #: the idempotency key of a payment, by its id
    keys: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, JSON] = field(default_factory=dict)
    tasks: dict[str, JSON] = field(default_factory=dict)
    disputes: dict[str, JSON] = field(default_factory=dict)
    holds: dict[str, JSON] = field(default_factory=dict)
    refunds: dict[str, JSON] = field(default_factory=dict)
    approvals: dict[str, JSON] = field(default_factory=dict)
    decisions: list[JSON] = field(default_factory=list)
    policies: dict[str, list[JSON]] = field(default_factory=dict)
    frozen: bool = False
    #: how often a session is answered with `pool_opening` before it opens
    opening: int = 0
    agents: dict[str, JSON] = field(default_factory=dict)
    events: list[JSON] = field(default_factory=list)
    webhooks: dict[str, JSON] = field(default_factory=dict)
    deliveries: list[JSON] = field(default_factory=list)
    #: the receipt of a payment, by its id
    prove: Callable[[str], JSON] | None = None
    redeemed: dict[str, str] = field(default_factory=dict)
    answered: dict[Any, tuple[bytes, int, JSON]] = field(default_factory=dict)
    #: what is answered to every POST whose path has this in it
    stuck: dict[str, tuple[int, JSON]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    arrival: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    @property
    def charged(self) -> int:
        return len(self.charges)

    def posts(self, ending: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST" and seen.path.endswith(ending)]

    def notice(self, seen: Seen) -> None:
        with self.arrival:
            self.seen.append(seen)
            self.arrival.notify_all()

    def wait_for(self, method: str, ending: str) -> None:
        """Wait until a request like this has arrived."""
        with self.arrival:
            came = self.arrival.wait_for(
                lambda: any(seen.method == method and seen.path.endswith(ending) for seen in self.seen), 30
            )
        assert came, f"no {method} of {ending} came"

    def counts(self) -> Counter[str]:
        return Counter(payment["status"] for payment in self.payments.values())

    def add_agent(self, name: str, endpoint: str, **more: Any) -> None:
        self.agents[name] = {"uri": f"agent://{name}", "name": name, "endpoint": endpoint, **more}

    def emit(self, kind: str, subject: str) -> None:
        position = len(self.events) + 1
        self.events.append({"position": position, "type": kind, "subject_id": subject, "payload": {}})

    # the verbs

    def spend(self, seen: Seen, bearer: str, kind: str) -> tuple[JSON | None, Decimal]:
        """Take an amount out of a session, or refuse; the session, and what is left."""
        body = seen.body
        session = self.sessions.get(_key_session(bearer) or body.get("session_id", ""))
        amount = Decimal(body["amount"])
        try:
            self.judge(seen, session, amount, kind)
        except Refused as refused:
            if session:
                rule = refused.document.get("rule")
                self.decide(session, body, kind, "denied", refused.document["code"], rule)
            raise
        if session:
            self.decide(session, body, kind, "allowed", None, None)
        left = (Decimal(session["remaining"]) if session else self.funds) - amount
        self.put(session, left)
        return session, left

    def judge(self, seen: Seen, session: JSON | None, amount: Decimal, kind: str) -> None:
        if session and session["status"] != "open":
            state = session["status"]
            raise Refused(409, "conflict", f"The session is {state}.", state=state, outcome="not_charged")
        policy = (session or {}).get("policy", {})
        limit = policy.get("max_per_tx")
        if limit is not None and amount > Decimal(limit):
            way_on = {
                "method": "GET",
                "path": f"/v1/sessions/{session['id'] if session else ''}",
                "why": "read the policy",
            }
            raise Refused(
                403, "policy_denied", f"One payment may be {limit} at most.", rule="max_per_tx", limit=limit,
                would_allow=limit, outcome="not_charged", next_actions=[way_on], policy_version=1,
            )  # fmt: skip
        above = policy.get("approval_above")
        if session and above is not None and amount > Decimal(above):
            self.require_approval(session, seen, above, kind)
        left = Decimal(session["remaining"]) if session else self.funds
        if amount > left:
            stands = {name: session[name] for name in ("budget", "spent", "remaining")} if session else None
            top_up = {
                "method": "POST", "path": f"/v1/sessions/{session['id'] if session else ''}/top-up",
                "why": "top up", "body": {"amount": str(amount - left)},
            }  # fmt: skip
            raise Refused(
                402, "insufficient_funds", "The session has less than that.", remaining=str(left),
                outcome="not_charged", checkpoint=stands, next_actions=[top_up],
            )  # fmt: skip

    def require_approval(self, session: JSON, seen: Seen, above: str, kind: str) -> None:
        """Pass what a person approved, and ask a person of everything else."""
        key, body = seen.headers.get("idempotency-key"), seen.body
        found = next((one for one in self.approvals.values() if one["asked_with"] == key), None)
        if found is None:
            found = {
                "id": str(uuid.uuid4()), "session_id": session["id"], "kind": kind, "to": body["to"],
                "amount": body["amount"], "metadata": body.get("metadata", {}), "status": "waiting", "asked_with": key,
                "created_at": "2026-01-01T00:00:00Z", "decided_at": None, "reason": None,
            }  # fmt: skip
            self.approvals[found["id"]] = found
        if found["status"] == "refused":
            raise Refused(
                403, "policy_denied", "A person refused it.", rule="approval_above", limit=above, outcome="not_charged"
            )
        if found["status"] != "approved":
            raise Refused(
                403, "approval_required", f"More than {above} needs a person.", rule="approval_above", limit=above,
                approval_id=found["id"], retryable=True, outcome="not_charged",
            )  # fmt: skip

    def decide(self, session: JSON, body: JSON, kind: str, outcome: str, code: str | None, rule: str | None) -> None:
        self.decisions.append(
            {
                "id": str(uuid.uuid4()), "session_id": session["id"], "kind": kind, "outcome": outcome, "code": code,
                "rule": rule, "policy_version": 1, "to": body["to"], "amount": body["amount"], "capability": None,
                "facts": {}, "created_at": "2026-01-01T00:00:00Z", "status": outcome,
            }
        )  # fmt: skip

    def put(self, session: JSON | None, left: Decimal) -> None:
        if session:
            session["remaining"] = str(left)
            session["spent"] = str(Decimal(session["budget"]) - left)
        else:
            self.funds = left

    def send(self, seen: Seen, bearer: str) -> tuple[int, JSON]:
        session, left = self.spend(seen, bearer, "payment")
        return 201, self.pay(seen.body, session, left, seen.headers["idempotency-key"])

    def pay(self, body: JSON, session: JSON | None, left: Decimal, key: str) -> JSON:
        payment = {
            "id": str(uuid.uuid4()), "to": body["to"], "amount": body["amount"], "currency": "USDC", "kind": "call",
            "status": "payable", "metadata": body.get("metadata", {}), "remaining": str(left), "next_actions": [],
            "session_id": session["id"] if session else None, "created_at": "2026-01-01T00:00:00Z", "colour": "new",
            "capability": body.get("capability"), "refunded": "0.00", "policy_version": 1 if session else None,
        }  # fmt: skip
        self.payments[payment["id"]] = payment
        self.keys[payment["id"]] = key
        self.charges.append(body["amount"])
        self.emit("payment.created", payment["id"])
        return payment

    def hold(self, seen: Seen, bearer: str) -> tuple[int, JSON]:
        session, left = self.spend(seen, bearer, "hold")
        hold = {
            **seen.body, "id": str(uuid.uuid4()), "status": "held", "captured": "0.00", "payment_id": None,
            "session_id": session["id"] if session else None, "metadata": seen.body.get("metadata", {}),
            "remaining": str(left), "expires_at": "2026-01-01T00:15:00Z", "created_at": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        hold.pop("expires_in_seconds", None)
        self.holds[hold["id"]] = hold
        return 201, hold

    def end_hold(self, hold_id: str, verb: str, seen: Seen) -> tuple[int, JSON]:
        hold = self.holds[hold_id]
        if hold["status"] != "held":
            state = hold["status"]
            outcome = "charged" if state == "captured" else "not_charged"
            raise Refused(409, "conflict", f"The hold is {state}.", state=state, outcome=outcome)
        session = self.sessions.get(hold["session_id"] or "")
        amount = Decimal(seen.body.get("amount") or hold["amount"]) if verb == "capture" else Decimal(0)
        left = (Decimal(session["remaining"]) if session else self.funds) + Decimal(hold["amount"]) - amount
        self.put(session, left)
        if verb == "release":
            hold["status"] = "released"
            return 200, hold
        paid = self.pay({**hold, "amount": str(amount)}, session, left, seen.headers["idempotency-key"])
        hold.update(status="captured", captured=str(amount), payment_id=paid["id"])
        return 201, paid

    def ledger(self, session_id: str) -> list[JSON]:
        paid = [one for one in self.payments.values() if one["session_id"] == session_id]
        return [{"id": number, "reason": "payment", "amount": f"-{one['amount']}"} for number, one in enumerate(paid)]

    def decide_approval(self, approval_id: str, verb: str, body: JSON) -> tuple[int, JSON]:
        approval = self.approvals[approval_id]
        approval.update(status="approved" if verb == "approve" else "refused", reason=body.get("reason"))
        return 200, approval

    def ask_refund(self, body: JSON) -> tuple[int, JSON]:
        payment = self._payment(body["payment_id"])
        asked = {
            **body, "id": str(uuid.uuid4()), "amount": body.get("amount") or payment["amount"], "status": "requested",
            "answer": None,
        }  # fmt: skip
        self.refunds[asked["id"]] = asked
        return 201, asked

    def answer_refund(self, refund_id: str, verb: str, body: JSON) -> tuple[int, JSON]:
        asked = self.refunds[refund_id]
        if verb == "grant":
            self.refund(asked["payment_id"], asked)
        asked.update(status="paid" if verb == "grant" else "declined", answer=body.get("reason"))
        return 200, asked

    def check(self, body: JSON) -> tuple[int, JSON]:
        policy = body.get("policy") or self.sessions[body["session_id"]]["policy"]
        limit = policy.get("max_per_tx")
        allowed = limit is None or Decimal(body["amount"]) <= Decimal(limit)
        if allowed:
            return 200, {"allowed": True, "remaining": "1.00", "policy_version": 1}
        return 200, {
            "allowed": False, "code": "policy_denied", "rule": "max_per_tx", "limit": limit, "would_allow": limit,
            "detail": "Too much.", "available_at": None, "policy_version": 1,
        }  # fmt: skip

    def backtest(self, body: JSON) -> tuple[int, JSON]:
        limit = Decimal(body["policy"]["max_per_tx"])
        over = [one["amount"] for one in self.decisions if Decimal(one["amount"]) > limit]
        refused = {"count": len(over), "amount": str(sum(map(Decimal, over)))}
        return 200, {
            "days": body.get("days", 30), "decisions": len(self.decisions), "refused": refused,
            "by_rule": [{"rule": "max_per_tx", **refused}], "examples": [], "still_refused": 0, "newly_allowed": 0,
        }  # fmt: skip

    def freeze(self, frozen: bool) -> tuple[int, JSON]:
        self.frozen = frozen
        return 200, {"frozen": frozen, "pools": ["pool"]}

    def redeem(self, payment_id: str, body: JSON) -> tuple[int, JSON]:
        payment = self._payment(payment_id)
        if payment["status"] == "refunded":
            raise Refused(409, "conflict", "The payment was refunded.")
        before = payment_id in self.redeemed
        if self.redeemed.setdefault(payment_id, body["request_hash"]) != body["request_hash"]:
            raise Refused(409, "already_redeemed", "The payment is bound to another request.")
        payment.setdefault("redeemed_at", "2026-01-01T00:00:01Z")
        shown = {name: value for name, value in payment.items() if name != "remaining"}
        return 200, shown | {"redeemed_before": before}

    def refund(self, payment_id: str, body: JSON) -> tuple[int, JSON]:
        payment = self._payment(payment_id)
        if payment["status"] != "payable":
            raise Refused(409, "conflict", f"The payment is {payment['status']}.", outcome="charged")
        amount = Decimal(body.get("amount") or payment["amount"])
        payment["refunded"] = str(Decimal(payment["refunded"]) + amount)
        if Decimal(payment["refunded"]) == Decimal(payment["amount"]):
            payment["status"] = "refunded"
            self.charges.remove(payment["amount"])
        session = self.sessions.get(payment["session_id"] or "")
        self.put(session, (Decimal(session["remaining"]) if session else self.funds) + amount)
        return 200, payment

    def open_session(self, body: JSON) -> tuple[int, JSON]:
        if self.opening:
            self.opening -= 1
            raise Refused(
                409, "pool_opening", "The pool is being opened.", retryable=True, outcome="not_charged", retry_after="0"
            )
        budget = Decimal(body["budget"])
        if budget > self.funds:
            raise Refused(
                402, "insufficient_funds", "The pool has less.", remaining=str(self.funds), outcome="not_charged"
            )
        self.funds -= budget
        return 201, self.start_session(body)

    def open_child(self, session_id: str, body: JSON) -> tuple[int, JSON]:
        parent, budget = self.sessions[session_id], Decimal(body["budget"])
        if budget > Decimal(parent["remaining"]):
            stands = {name: parent[name] for name in ("budget", "spent", "remaining")}
            raise Refused(
                402, "insufficient_funds", "The parent has less.", remaining=parent["remaining"], checkpoint=stands,
                outcome="not_charged",
            )  # fmt: skip
        parent["remaining"] = str(Decimal(parent["remaining"]) - budget)
        parent["delegated"] = body["budget"]
        return 201, self.start_session(body, parent_id=session_id)

    def start_session(self, body: JSON, parent_id: str | None = None) -> JSON:
        name = f"sess{len(self.sessions):08d}".translate(str.maketrans("0123456789", "abcdefghij"))
        session = {
            "id": name, "status": "open", "budget": body["budget"], "spent": "0.00", "held": "0.00", "currency": "USDC",
            "remaining": body["budget"], "policy": body.get("policy", {}), "policy_version": 1, "pool_id": "pool",
            "parent_id": parent_id, "delegated": "0.00", "checkpoints": ["0.5", "0.8", "0.95"],
        }  # fmt: skip
        self.sessions[name] = session
        self.policies[name] = [{"version": 1, "policy": session["policy"], "created_at": "2026-01-01T00:00:00Z"}]
        return {**session, "api_key": f"am_test_{name}_{SECRET}"}

    def change_session(self, session_id: str, verb: str, body: JSON) -> tuple[int, JSON]:
        session = self.sessions[session_id]
        if verb == "close":
            session.update(status="closed", remaining="0.00")
        elif verb in ("pause", "resume"):
            session["status"] = "paused" if verb == "pause" else "open"
        elif verb == "policy":
            versions = self.policies[session_id]
            versions.append({**versions[-1], "version": len(versions) + 1, "policy": body["policy"]})
            session.update(policy=body["policy"], policy_version=len(versions))
        else:
            for name in ("budget", "remaining"):
                session[name] = str(Decimal(session[name]) + Decimal(body["amount"]))
        return 200, session

    def post_task(self, body: JSON) -> tuple[int, JSON]:
        task = {
            **body, "id": str(uuid.uuid4()), "status": "assigned" if body.get("agent") else "posted",
            "deliverable": None, "invoice": None, "invoice_id": None, "next_actions": [],
        }  # fmt: skip
        self.tasks[task["id"]] = task
        return 201, task

    def change_task(self, task_id: str, verb: str, body: JSON) -> tuple[int, JSON]:
        task = self.tasks[task_id]
        needed = "assigned" if verb == "submit" else "submitted"
        if task["status"] != needed:
            raise Refused(409, "conflict", f"The task is {task['status']}.")
        if verb == "submit":
            invoice = {**body["invoice"], "id": str(uuid.uuid4()), "status": "submitted"}
            task.update(status="submitted", deliverable=body["deliverable"], invoice=invoice, invoice_id=invoice["id"])
        elif verb == "accept":
            task["invoice"].update(status="approved", approved_amount=task["invoice"]["amount"])
            task["status"] = "accepted"
            self.charges.append(task["invoice"]["amount"])
        else:
            task["invoice"]["status"] = task["status"] = "rejected"
            task["reason"] = body["reason"]
        return 200, task

    def open_dispute(self, body: JSON) -> tuple[int, JSON]:
        dispute = {**body, "id": str(uuid.uuid4()), "status": "open", "amount": body.get("amount") or "2.40"}
        self.disputes[dispute["id"]] = dispute
        return 201, dispute

    def make_webhook(self, body: JSON) -> tuple[int, JSON]:
        webhook = {**body, "id": str(uuid.uuid4()), "status": "active", "position": 7, "pending": 0}
        self.webhooks[webhook["id"]] = webhook
        return 201, {**webhook, "secret": "whsec_b25l"}

    def deliver(self, webhook_id: str) -> JSON:
        one = {"id": str(uuid.uuid4()), "webhook_id": f"test_{webhook_id}", "type": "webhook.test", "status": "pending"}
        self.deliveries.append(one)
        return one

    def _payment(self, payment_id: str) -> JSON:
        if payment_id not in self.payments:
            raise Refused(404, "not_found", "There is no such payment.")
        return self.payments[payment_id]

    # the front door

    def ask(self, seen: Seen) -> tuple[int, JSON, bool]:
        """The answer, and whether it is a replay."""
        with self.lock:
            for part, (status, facts) in self.stuck.items():
                if seen.method == "POST" and part in seen.path:
                    raise Refused(status, **{"code": "stuck", "detail": "Stuck.", **facts})
            bearer = seen.headers.get("authorization", "").removeprefix("Bearer ")
            if not bearer.endswith(SECRET):
                raise Refused(401, "unauthenticated", "This key is not known.")
            if seen.method != "POST" or not _moves_money(seen.path):
                return *self._route(seen, bearer), False
            given = seen.headers.get("idempotency-key")
            key = (seen.body.get("session_id") or _key_session(bearer), given)
            if given is None:
                raise Refused(400, "idempotency_key_required", "Send an Idempotency-Key.")
            body = json.dumps(seen.body, sort_keys=True).encode()
            if key in self.answered:
                first, status, document = self.answered[key]
                if first != body:
                    raise Refused(
                        409, "idempotency_conflict", "This key was used with another body.", outcome="not_charged"
                    )
                return status, document, True
            status, document = self._route(seen, bearer)
            self.answered[key] = (body, status, json.loads(json.dumps(document)))
            return status, document, False

    def _route(self, seen: Seen, bearer: str) -> tuple[int, JSON]:
        for method, pattern, serve in self._ROUTES:
            match = re.fullmatch(pattern, seen.path)
            if match and method == seen.method:
                return serve(self, seen, bearer, *map(unquote, match.groups()))
        raise Refused(404, "not_found", f"Nothing at {seen.method} {seen.path}.")

    def listed(self, items: list[JSON], seen: Seen) -> tuple[int, JSON]:
        start, size = int(seen.query.get("cursor", 0)), int(seen.query.get("limit", self.page))
        for name in ("status", "session_id", "outcome"):
            wanted = seen.query.get(name)
            items = [item for item in items if wanted in (None, item.get(name))]
        key = seen.query.get("idempotency_key")
        items = [item for item in items if key in (None, self.keys.get(item.get("id", "")))]
        return 200, {
            "items": items[start : start + size],
            "next": str(start + size) if start + size < len(items) else None,
        }

    def feed(self, seen: Seen) -> tuple[int, JSON]:
        after = int(seen.query["after"])
        found = self.events[after : after + self.page]
        return 200, {"items": found, "next": found[-1]["position"] if found else after}

    def me(self, bearer: str) -> tuple[int, JSON]:
        scope = "provider" if bearer == SELLER_KEY else "session" if _key_session(bearer) in self.sessions else "payer"
        return 200, {"scope": scope, "key_id": bearer.split("_")[2], "chain_id": 31337, "read_only": False}

    _ROUTES: ClassVar[list[tuple[str, str, Callable[..., tuple[int, JSON]]]]] = [
        ("POST", "/v1/payments", lambda m, s, k: m.send(s, k)),
        ("GET", "/v1/payments", lambda m, s, k: m.listed([*m.payments.values()], s)),
        ("GET", "/v1/payments/([^/]+)", lambda m, s, k, i: (200, m._payment(i))),
        ("GET", "/v1/payments/([^/]+)/receipt", lambda m, s, k, i: (200, m.prove(i))),
        ("POST", "/v1/payments/([^/]+)/redeem", lambda m, s, k, i: m.redeem(i, s.body)),
        ("POST", "/v1/payments/([^/]+)/refund", lambda m, s, k, i: m.refund(i, s.body)),
        ("POST", "/v1/sessions", lambda m, s, k: m.open_session(s.body)),
        ("GET", "/v1/sessions/([^/]+)", lambda m, s, k, i: (200, m.sessions[i])),
        (
            "POST",
            "/v1/sessions/([^/]+)/(close|top-up|pause|resume|policy)",
            lambda m, s, k, i, v: m.change_session(i, v, s.body),
        ),
        ("POST", "/v1/sessions/([^/]+)/children", lambda m, s, k, i: m.open_child(i, s.body)),
        ("GET", "/v1/sessions/([^/]+)/ledger", lambda m, s, k, i: m.listed(m.ledger(i), s)),
        ("GET", "/v1/sessions/([^/]+)/policies", lambda m, s, k, i: m.listed(m.policies[i], s)),
        ("POST", "/v1/holds", lambda m, s, k: m.hold(s, k)),
        ("GET", "/v1/holds", lambda m, s, k: m.listed([*m.holds.values()], s)),
        ("GET", "/v1/holds/([^/]+)", lambda m, s, k, i: (200, m.holds[i])),
        ("POST", "/v1/holds/([^/]+)/(capture|release)", lambda m, s, k, i, v: m.end_hold(i, v, s)),
        ("POST", "/v1/refunds", lambda m, s, k: m.ask_refund(s.body)),
        ("GET", "/v1/refunds", lambda m, s, k: m.listed([*m.refunds.values()], s)),
        ("GET", "/v1/refunds/([^/]+)", lambda m, s, k, i: (200, m.refunds[i])),
        ("POST", "/v1/refunds/([^/]+)/(grant|decline)", lambda m, s, k, i, v: m.answer_refund(i, v, s.body)),
        ("GET", "/v1/approvals", lambda m, s, k: m.listed([*m.approvals.values()], s)),
        ("GET", "/v1/approvals/([^/]+)", lambda m, s, k, i: (200, m.approvals[i])),
        ("POST", "/v1/approvals/([^/]+)/(approve|refuse)", lambda m, s, k, i, v: m.decide_approval(i, v, s.body)),
        ("GET", "/v1/decisions", lambda m, s, k: m.listed(m.decisions, s)),
        ("POST", "/v1/policy/check", lambda m, s, k: m.check(s.body)),
        ("POST", "/v1/policy/backtest", lambda m, s, k: m.backtest(s.body)),
        ("POST", "/v1/freeze", lambda m, s, k: m.freeze(True)),
        ("POST", "/v1/unfreeze", lambda m, s, k: m.freeze(False)),
        (
            "POST",
            "/v1/keys/([^/]+)/rotate",
            lambda m, s, k, i: (201, {"id": i, "api_key": f"am_test_rotated_{SECRET}"}),
        ),
        ("POST", "/v1/keys", lambda m, s, k: (201, {"id": "k", "api_key": f"am_test_issued_{SECRET}", **s.body})),
        ("POST", "/v1/tasks", lambda m, s, k: m.post_task(s.body)),
        ("GET", "/v1/tasks", lambda m, s, k: m.listed([*m.tasks.values()], s)),
        ("GET", "/v1/tasks/([^/]+)", lambda m, s, k, i: (200, m.tasks[i])),
        ("POST", "/v1/tasks/([^/]+)/(submit|accept|reject)", lambda m, s, k, i, v: m.change_task(i, v, s.body)),
        ("POST", "/v1/disputes", lambda m, s, k: m.open_dispute(s.body)),
        ("GET", "/v1/agents", lambda m, s, k: m.listed([*m.agents.values()], s)),
        ("GET", "/v1/agents/([^/]+)", lambda m, s, k, n: (200, m.agents[n])),
        ("GET", "/v1/events", lambda m, s, k: m.feed(s)),
        ("GET", "/v1/me", lambda m, s, k: m.me(k)),
        ("POST", "/v1/webhooks", lambda m, s, k: m.make_webhook(s.body)),
        ("GET", "/v1/webhooks", lambda m, s, k: m.listed([*m.webhooks.values()], s)),
        ("GET", "/v1/webhooks/([^/]+)", lambda m, s, k, i: (200, m.webhooks[i])),
        ("DELETE", "/v1/webhooks/([^/]+)", lambda m, s, k, i: (200, m.webhooks.pop(i))),
        ("POST", "/v1/webhooks/([^/]+)/test", lambda m, s, k, i: (202, m.deliver(i))),
        ("POST", "/v1/webhooks/([^/]+)/replay", lambda m, s, k, i: (200, m.webhooks[i] | s.body)),
        (
            "POST",
            "/v1/webhooks/([^/]+)/rotate-secret",
            lambda m, s, k, i: (200, m.webhooks[i] | {"secret": "whsec_dHdv"}),
        ),
        ("GET", "/v1/webhooks/([^/]+)/deliveries", lambda m, s, k, i: m.listed(m.deliveries, s)),
        ("DELETE", "/v1/keys/([^/]+)", lambda m, s, k, i: (200, {"id": i})),
    ]


_KEYLESS = (
    "/redeem", "/answer", "/agents", "/check", "/backtest", "/pause", "/resume", "/policy", "/freeze", "/unfreeze",
    "/approve", "/refuse",
)  # fmt: skip


def _moves_money(path: str) -> bool:
    return not path.endswith(_KEYLESS) and not path.startswith("/v1/webhooks")


def _key_session(bearer: str) -> str | None:
    parts = bearer.split("_")
    return parts[2] if len(parts) > 2 and parts[2].startswith("sess") else None


class _Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    market: ClassVar[Market]

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, parts.path, dict(parse_qsl(parts.query)), headers, json.loads(raw) if raw else {})
        self.market.notice(seen)
        fault = self.market.faults.popleft() if self.market.faults and seen.method == "POST" else None
        if isinstance(fault, tuple):
            self._say(fault[0], b"<html>busy</html>", fault[1])
        elif fault == "drop_before":
            self._drop()
        else:
            self._answer(seen, fault)

    def _answer(self, seen: Seen, fault: Fault | None) -> None:
        try:
            status, document, replayed = self.market.ask(seen)
        except Refused as refused:
            headers = {"X-Request-Id": "req-1"}
            if "retry_after" in refused.document:
                headers["Retry-After"] = refused.document.pop("retry_after")
            self._say(refused.status, json.dumps(refused.document).encode(), headers)
            return
        except KeyError:
            self._say(404, json.dumps(Refused(404, "not_found", "No such thing.").document).encode(), {})
            return
        if fault == "drop_after":
            self._drop()
            return
        if fault == "drip":
            self._drip()
            return
        body = b"not json" if fault == "garbage" else json.dumps(document).encode()
        self._say(status, body, {"Idempotent-Replayed": "true"} if replayed else {})

    def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        """A long answer, byte by byte, each in good time; until nobody listens."""
        self.send_response(201)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        for _ in range(10000):
            self.wfile.write(b" ")
            time.sleep(0.02)

    def _drop(self) -> None:
        """End the connection without a word."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError, OSError):
            return

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        try:
            super().shutdown_request(request)
        except OSError:
            return


def serve(market: Market) -> ThreadingHTTPServer:
    """Start it on a free port; the caller shuts it down."""
    server = _Server(("127.0.0.1", 0), type("Door", (_Door,), {"market": market}))
    market.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server
