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
    sessions: dict[str, JSON] = field(default_factory=dict)
    tasks: dict[str, JSON] = field(default_factory=dict)
    disputes: dict[str, JSON] = field(default_factory=dict)
    agents: dict[str, JSON] = field(default_factory=dict)
    events: list[JSON] = field(default_factory=list)
    #: the receipt of a payment, by its id
    prove: Callable[[str], JSON] | None = None
    redeemed: dict[str, str] = field(default_factory=dict)
    answered: dict[Any, tuple[bytes, int, JSON]] = field(default_factory=dict)
    #: what is answered to every POST whose path has this in it
    stuck: dict[str, tuple[int, JSON]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    url: str = ""

    @property
    def charged(self) -> int:
        return len(self.charges)

    def posts(self, ending: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST" and seen.path.endswith(ending)]

    def counts(self) -> Counter[str]:
        return Counter(payment["status"] for payment in self.payments.values())

    def add_agent(self, name: str, endpoint: str, **more: Any) -> None:
        self.agents[name] = {"uri": f"agent://{name}", "name": name, "endpoint": endpoint, **more}

    def emit(self, kind: str, subject: str) -> None:
        position = len(self.events) + 1
        self.events.append({"position": position, "type": kind, "subject_id": subject, "payload": {}})

    # the verbs

    def send(self, body: JSON, key: str) -> tuple[int, JSON]:
        session = self.sessions.get(_key_session(key) or body.get("session_id", ""))
        amount = Decimal(body["amount"])
        limit = (session or {}).get("policy", {}).get("max_per_tx")
        if limit is not None and amount > Decimal(limit):
            way_on = {
                "method": "GET",
                "path": f"/v1/sessions/{session['id'] if session else ''}",
                "why": "read the policy",
            }
            raise Refused(
                403, "policy_denied", f"One payment may be {limit} at most.", rule="max_per_tx", limit=limit,
                would_allow=limit, outcome="not_charged", next_actions=[way_on],
            )  # fmt: skip
        left = (Decimal(session["remaining"]) if session else self.funds) - amount
        if left < 0:
            raise Refused(
                402,
                "insufficient_funds",
                "The session has less than that.",
                remaining=str(left + amount),
                outcome="not_charged",
            )
        if session:
            session["remaining"] = str(left)
        else:
            self.funds = left
        payment = {
            "id": str(uuid.uuid4()), "to": body["to"], "amount": body["amount"], "currency": "USDC", "kind": "call",
            "status": "payable", "metadata": body.get("metadata", {}), "remaining": str(left), "next_actions": [],
            "session_id": session["id"] if session else None, "created_at": "2026-01-01T00:00:00Z", "colour": "new",
        }  # fmt: skip
        self.payments[payment["id"]] = payment
        self.charges.append(body["amount"])
        self.emit("payment.created", payment["id"])
        return 201, payment

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
        payment.update(status="refunded")
        self.charges.remove(payment["amount"])
        session = self.sessions.get(payment["session_id"] or "")
        if session:
            session["remaining"] = str(Decimal(session["remaining"]) + Decimal(payment["amount"]))
        return 200, payment

    def open_session(self, body: JSON) -> tuple[int, JSON]:
        budget = Decimal(body["budget"])
        if budget > self.funds:
            raise Refused(
                402, "insufficient_funds", "The pool has less.", remaining=str(self.funds), outcome="not_charged"
            )
        self.funds -= budget
        name = f"sess{len(self.sessions):08d}".translate(str.maketrans("01", "ab"))
        session = {
            "id": name, "status": "open", "budget": body["budget"], "spent": "0.00", "held": "0.00", "currency": "USDC",
            "remaining": body["budget"], "policy": body.get("policy", {}), "policy_version": 1, "pool_id": "pool",
        }  # fmt: skip
        self.sessions[name] = session
        return 201, {**session, "api_key": f"am_test_{name}_{SECRET}"}

    def change_session(self, session_id: str, verb: str, body: JSON) -> tuple[int, JSON]:
        session = self.sessions[session_id]
        if verb == "close":
            session.update(status="closed", remaining="0.00")
        else:
            session["remaining"] = str(Decimal(session["remaining"]) + Decimal(body["amount"]))
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
        wanted = seen.query.get("status")
        items = [item for item in items if wanted in (None, item["status"])]
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
        ("POST", "/v1/payments", lambda m, s, k: m.send(s.body, k)),
        ("GET", "/v1/payments", lambda m, s, k: m.listed([*m.payments.values()], s)),
        ("GET", "/v1/payments/([^/]+)", lambda m, s, k, i: (200, m._payment(i))),
        ("GET", "/v1/payments/([^/]+)/receipt", lambda m, s, k, i: (200, m.prove(i))),
        ("POST", "/v1/payments/([^/]+)/redeem", lambda m, s, k, i: m.redeem(i, s.body)),
        ("POST", "/v1/payments/([^/]+)/refund", lambda m, s, k, i: m.refund(i, s.body)),
        ("POST", "/v1/sessions", lambda m, s, k: m.open_session(s.body)),
        ("GET", "/v1/sessions/([^/]+)", lambda m, s, k, i: (200, m.sessions[i])),
        ("POST", "/v1/sessions/([^/]+)/(close|top-up)", lambda m, s, k, i, v: m.change_session(i, v, s.body)),
        ("POST", "/v1/tasks", lambda m, s, k: m.post_task(s.body)),
        ("GET", "/v1/tasks", lambda m, s, k: m.listed([*m.tasks.values()], s)),
        ("GET", "/v1/tasks/([^/]+)", lambda m, s, k, i: (200, m.tasks[i])),
        ("POST", "/v1/tasks/([^/]+)/(submit|accept|reject)", lambda m, s, k, i, v: m.change_task(i, v, s.body)),
        ("POST", "/v1/disputes", lambda m, s, k: m.open_dispute(s.body)),
        ("GET", "/v1/agents", lambda m, s, k: m.listed([*m.agents.values()], s)),
        ("GET", "/v1/agents/([^/]+)", lambda m, s, k, n: (200, m.agents[n])),
        ("GET", "/v1/events", lambda m, s, k: m.feed(s)),
        ("GET", "/v1/me", lambda m, s, k: m.me(k)),
        ("DELETE", "/v1/keys/([^/]+)", lambda m, s, k, i: (200, {"id": i})),
    ]


def _moves_money(path: str) -> bool:
    return not path.endswith(("/redeem", "/answer", "/agents"))


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
        self.market.seen.append(seen)
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
            self._say(refused.status, json.dumps(refused.document).encode(), {"X-Request-Id": "req-1"})
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
