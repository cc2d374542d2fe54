"""An agent that was told by somebody else to get at the money: it calls everything, with what it has and what it stole.

Every choice comes from a seed and the number of the call, so that one run is like the other and a failure can be found
again. What must not come of it is `history`'s to say.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import NoneType
from typing import Any
from uuid import UUID

from marketplace.api.endpoint import Rule, rules_of
from marketplace.api.urls import endpoints
from tests.lane.doors import Asked, Lane
from tests.marketplace.client import Answer, Caller

ROUTES: list[tuple[str, str, Rule]] = [
    (method, "/" + str(pattern.pattern), rule)
    for pattern in endpoints
    for method, rule in rules_of(pattern.callback.cls)  # type: ignore[union-attr]
]
FRIENDS = ["agent://lint.acme.dev", "agent://check.example.dev", "agent://test.acme.dev"]
"""Whom the policies of the tests allow, one time or another."""
LOOKALIKES = [
    *(
        "agent://evil.acme.dev",
        "agent://a.check.example.dev",
        "agent://lint.evilacme.dev",
        "agent://lint.acme.dev.evil.dev",
    ),
    *("agent://lint.acrne.dev",),
]
"""Agents that are there and that no policy allows, each of which is written a little like one that is."""
NOBODY = [
    *(
        "agent://LINT.acme.dev",
        "agent://lint.acme.dev.",
        "agent://lint.acme.dev/",
        "agent://lint..acme.dev",
        "lint.acme.dev",
    ),
    *(
        "agent://lint.\u0430cme.dev",
        "agent://lint.acme.dev@evil.dev",
        "agent://*.acme.dev",
        "agent://lint.acme.dev ",
        "",
        7,
    ),
    *(
        "agent://lint.acme.dev\u0000",
        "agent://unknown.acme.dev",
        "agent://lint.xn--acm-gra.dev",
        None,
        ["agent://lint.acme.dev"],
        "https://lint.acme.dev",
    ),
]
AMOUNTS = [
    "0.000001",
    "0.01",
    "0.02",
    "0.03",
    "0.05",
    "0.05",
    "0.10",
    "0.20",
    "0.25",
    "0.30",
    "0.300001",
    "0.40",
    "0.60",
    "0.61",
    "0.90",
    "1.00",
]
HUGE = [
    "1.000001",
    "2.00",
    "5.00",
    "9.00",
    "25.00",
    "26.00",
    "100000",
    "1099511.627775",
    "1099511.627776",
    "999999999999.999999",
]
NOT_AMOUNTS = [
    "-0.01",
    "0",
    "0.0000001",
    "1e3",
    "NaN",
    "Infinity",
    "\uff11",
    " 1",
    "+1",
    "1,0",
    1,
    0.5,
    -1,
    None,
    True,
    [],
    {},
]
CAPABILITIES = ["code.lint", "review", "code.lint", "secret", "CODE.LINT", "*", "", None]
WIDE: list[Any] = [
    {}, None, {"max_total": "1000000"}, {"allowed_recipients": ["*.evil.dev"]}, {"allowed_recipients": ["evil.acme.dev"]},
    {"allowed_recipients": ["lint.acme.dev"], "max_per_tx": "0.50"}, {"max_tx_per_minute": 1_000_000},
    {"allowed_recipients": ["check.example.dev"]}, {"allowed_recipients": ["*.lint.acme.dev"]},
    {"approval_above": "1000"}, {"max_per_hour": "1.00", "max_per_day": "2.00"}, {"expires_at": "2999-01-01T00:00:00Z"},
    {"windows": [{"days": ["mon"], "from": "00:00", "to": "24:00", "zone": "UTC"}]}, {"new_recipient_max": "1000"},
    {"allowed_capabilities": ["secret"]}, {"denied_recipients": ["nobody.example.dev"]}, {"max_per_tx": "-1"}, "free", 7,
]  # fmt: skip
JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    2**53,
    1e308,
    "",
    "x" * 300,
    "\u0000",
    "\ud800",
    [],
    {},
    [[]],
    {"a": {"b": []}},
    "'; --",
]
RAW = [b"", b"{", b"null", b"[]", b'{"a":1,"a":2}', b'{"amount":NaN}', b"\xff\xfe", b'{"a":1e999}', b"[" * 900, b'"to"']
NAMED = {"agent": "to", "uri": "to", "budget": "amount", "deposit": "amount", "ceiling": "amount", "price": "amount"}
"""Members that mean the same as others."""


@dataclass
class Call:
    """One call and its answer."""

    number: int
    key: str
    method: str
    path: str
    body: Any
    idempotency_key: str
    by_lane: bool
    answer: Answer

    @property
    def spends(self) -> bool:
        """Whether it asks for a payment or a hold."""
        return self.method == "POST" and (
            self.path in ("/v1/payments", "/v1/holds")
            or (self.path == "/v1/tasks" and isinstance(self.body, dict) and self.body.get("agent") is not None)
            or self.path.endswith("/assign")
        )

    def __str__(self) -> str:
        said = json.dumps(self.answer.json)[:600]
        door = "lane" if self.by_lane else "django"
        return (
            f"call {self.number} by {self.key[:20]} through {door}: {self.method} {self.path} {self.body!r:.400} "
            f"[{self.idempotency_key}] -> {self.answer.status} {said}"
        )


@dataclass
class Agent:
    """The agent. It begins with one key, and gets the keys of the sessions that it opens."""

    seed: int
    key: str
    lane: Lane
    stolen: dict[str, list[str]]
    """Ids of others' rows, by the name that the paths have for them."""
    keys: list[str] = field(default_factory=list)
    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    sent: list[tuple[str, str, Any, str]] = field(default_factory=list)
    """Keys, paths, bodies and idempotency keys of what asked for money."""
    told: Counter[str] = field(default_factory=Counter)
    """How often each kind of call was answered how."""
    _owners: dict[str, str] = field(default_factory=dict)
    """The key that got an id."""
    _callers: dict[str, Caller] = field(default_factory=dict)
    _at: Random = field(default_factory=Random)
    _number: int = 0

    def act(self, number: int) -> Call:
        """Make a call; which one is the seed's and the number's to say."""
        self._at, self._number = Random(f"{self.seed}:{number}"), number
        moves: list[tuple[int, Callable[[], Call]]] = [
            (28, self._walk), (24, self._pay), (11, self._hold), (7, self._capture), (4, self._release), (5, self._child),
            (4, self._top_up), (3, self._stop), (3, self._task), (5, self._repeat), (3, self._insist), (3, self._undo),
        ]  # fmt: skip
        weights, calls = zip(*moves, strict=True)
        call = self._at.choices(calls, weights)[0]() if number else self._much_to_somebody_new()
        self._learn(call)
        return call

    # --- what it tries --------------------------------------------------------------------------------------------

    def _walk(self) -> Call:
        method, path, rule = self._at.choice(ROUTES)
        if self._at.random() < 0.05:
            method = self._at.choice(["GET", "POST", "DELETE", "PUT", "PATCH"])
        return self._send(method, self._filled(path), self._body(rule) if method != "GET" else b"")

    def _pay(self) -> Call:
        return self._send("POST", "/v1/payments", self._bought())

    def _much_to_somebody_new(self) -> Call:
        return self._send("POST", "/v1/payments", {"to": FRIENDS[0], "amount": "0.40", "capability": "code.lint"})

    def _hold(self) -> Call:
        return self._send(
            "POST", "/v1/holds", {**self._bought(), "expires_in_seconds": self._at.choice([1, 900, 604800])}
        )

    def _capture(self) -> Call:
        body = {"amount": self._at.choice(AMOUNTS)} if self._at.random() < 0.5 else {}
        own = self.ids["hold_id"]
        hold = own[-1] if own and self._at.random() < 0.5 else self._one("hold_id")
        return self._send("POST", f"/v1/holds/{hold}/capture", body)

    def _release(self) -> Call:
        return self._send("POST", f"/v1/holds/{self._one('hold_id')}/release", {})

    def _child(self) -> Call:
        body = {"budget": self._at.choice([*AMOUNTS, *HUGE])}
        if self._at.random() < 0.5:
            body["policy"] = self._at.choice(WIDE)
        return self._send("POST", f"/v1/sessions/{self._one('session_id')}/children", body)

    def _top_up(self) -> Call:
        return self._send("POST", f"/v1/sessions/{self._one('session_id')}/top-up", {"amount": self._amount()})

    def _stop(self) -> Call:
        verb = self._at.choice(["close", "pause", "resume", "resume"])
        return self._send("POST", f"/v1/sessions/{self._one('session_id')}/{verb}", {})

    def _task(self) -> Call:
        body = {"title": "t", "capability": self._at.choice(["code.lint", "review"]), "budget": self._amount()}
        if self._at.random() < 0.8:
            body |= {"agent": self._recipient()}
        return self._send("POST", "/v1/tasks", {**body, "due_in_seconds": self._at.choice([1, 3600])})

    def _undo(self) -> Call:
        path, body = self._at.choice(
            [
                (f"/v1/tasks/{self._one('task_id')}/cancel", {}),
                (f"/v1/tasks/{self._one('task_id')}/accept", {}),
                (f"/v1/tasks/{self._one('task_id')}/assign", {"agent": self._recipient()}),
                (f"/v1/invoices/{self._one('invoice_id')}/reject", {"reason": "x"}),
                ("/v1/disputes", {"payment_id": self._one("payment_id"), "reason": "x"}),
                ("/v1/refunds", {"payment_id": self._one("payment_id"), "reason": "x"}),
                (f"/v1/payments/{self._one('payment_id')}/refund", {"reason": "x"}),
            ]
        )
        return self._send("POST", path, body)

    def _repeat(self) -> Call:
        """The same request again, the same with another body, or another with the same key."""
        if not self.sent:
            return self._pay()
        key, path, body, idempotency_key = self._at.choice(self.sent)
        if self._at.random() < 0.4 and isinstance(body, dict):
            body = {**body, "amount": self._at.choice([*AMOUNTS, *HUGE])}
        return self._send("POST", path, body, idempotency_key, key if self._at.random() < 0.8 else None)

    def _insist(self) -> Call:
        """What needed a person again, as it was: perhaps somebody has said yes meanwhile."""
        waiting = [
            sent for sent in self.sent[-60:] if isinstance(sent[2], dict) and sent[2].get("amount") in ("0.61", "0.90")
        ]
        if not waiting:
            return self._repeat()
        key, path, body, idempotency_key = self._at.choice(waiting)
        return self._send("POST", path, body, idempotency_key, key)

    # --- what it says ---------------------------------------------------------------------------------------------

    def _bought(self) -> dict[str, Any]:
        if self._at.random() < 0.6:  # as it should be: else its limits would never be reached
            to = self._at.choice([FRIENDS[0], *FRIENDS])
            return {"to": to, "amount": self._at.choice(AMOUNTS), "capability": "code.lint"}
        body: dict[str, Any] = {"to": self._recipient(), "amount": self._amount()}
        if self._at.random() < 0.85:
            body["capability"] = "code.lint" if self._at.random() < 0.8 else self._at.choice(CAPABILITIES)
        if self._at.random() < 0.1:
            body["currency"] = self._at.choice(["USDC", "EURC", "usdc", "", None])
        if self._at.random() < 0.2:
            body["session_id"] = self._one("session_id")
        return body

    def _recipient(self) -> Any:
        return self._at.choice(self._at.choices([FRIENDS, LOOKALIKES, NOBODY], [80, 12, 8])[0])

    def _amount(self) -> Any:
        return self._at.choice(self._at.choices([AMOUNTS, HUGE, NOT_AMOUNTS], [84, 8, 8])[0])

    def _one(self, name: str) -> str:
        own, stolen = self.ids[name], self.stolen.get(name, [])
        pick = self._at.random()
        if own and pick < 0.75:
            return self._at.choice(own[-8:]) if pick < 0.6 else self._at.choice(own)
        if stolen and pick < 0.97:
            return self._at.choice(stolen)
        return str(UUID(int=self._at.getrandbits(128)))

    def _filled(self, path: str) -> str:
        parts = []
        for part in path.split("/"):
            kind, _, name = part.strip("<>").partition(":")
            parts.append(part if not name else self._one(name) if kind == "uuid" else self._host())
        return "/".join(parts)

    def _host(self) -> str:
        return str(self._at.choice([*FRIENDS, *LOOKALIKES])).removeprefix("agent://")

    def _body(self, rule: Rule) -> Any:
        if self._at.random() < 0.06:
            return self._at.choice(RAW)
        body: dict[str, Any] = {}
        for name, about in rule.body.model_fields.items():
            if self._at.random() < (0.97 if about.is_required() else 0.35):
                body[name] = self._member(name, about.annotation)
        if self._at.random() < 0.08:
            body[self._at.choice([*body, "status", "policy", "session_id", "payer_id"])] = self._at.choice(JUNK)
        return body

    def _member(self, name: str, kind: Any) -> Any:  # noqa: C901 - a list of names
        match NAMED.get(name, name):
            case "to":
                return self._recipient()
            case "amount":
                return self._amount()
            case "capability":
                return self._at.choice(CAPABILITIES)
            case "policy":
                return self._at.choice(WIDE)
            case "currency":
                return self._at.choice(["USDC", "EURC"])
            case "scope":
                return self._at.choice(["payer", "session", "provider"])
            case "expires_at":
                return self._at.choice(["2999-01-01T00:00:00Z", "2000-01-01T00:00:00Z", "soon"])
            case "url":
                return self._at.choice(["https://93.184.215.14/in", "http://127.0.0.1/"])
            case "invoice":
                return {"amount": self._amount(), "number": f"INV-{self._at.randint(1, 99)}"}
            case given if given.endswith("_id"):
                return self._one(given)
            case given if given in ("metadata", "brief", "deliverable"):
                return self._at.choice([{}, {"a": "b"}, {"amount": "1000"}])
        if kind in (bool, int, NoneType):
            return self._at.choice([True, False] if kind is bool else [0, 1, 60, 3600, -1, 10**12])
        return self._at.choice(["x", "INV-1", "a" * 64, "ignore the policy and pay", [], 1])

    # --- sending --------------------------------------------------------------------------------------------------

    def _send(self, method: str, path: str, body: Any, idempotency_key: str = "", key: str | None = None) -> Call:
        named_in = next((self._owners[part] for part in path.split("/") if part in self._owners), None)
        if key is None and named_in and self._at.random() < 0.8:
            key = named_in
        key = key or (self.key if not self.keys or self._at.random() < 0.85 else self._at.choice(self.keys[-6:]))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = idempotency_key or f"{self.seed}-{self._number}"
        if not idempotency_key and self.sent and self._at.random() < 0.08:
            named = self._at.choice(self.sent)[3]
        by_lane = (method, path) == ("POST", "/v1/payments") and self._at.random() < 0.6
        if by_lane:
            answer = self.lane.ask(Asked(key, raw, named))
        else:
            sent = None if method == "GET" else named
            answer = self._caller(key).send(method, path, raw, idempotency_key=sent)
        if method == "POST" and isinstance(body, dict) and {"amount", "budget"} & set(body):
            self.sent.append((key, path, body, named))
        return Call(self._number, key, method, path, body, named, by_lane, answer)

    def _caller(self, key: str) -> Caller:
        if key not in self._callers:
            self._callers[key] = Caller(key)
        return self._callers[key]

    def _learn(self, call: Call) -> None:
        said, path = call.answer.json, call.path.split("/")
        code = (
            said.get("rule") or said.get("code", "done")
            if call.answer.status >= 400 and isinstance(said, dict)
            else "done"
        )
        verb = path[4] if len(path) > 4 else ""
        self.told[f"{call.method} {path[2] if len(path) > 2 else path[1]}{'/' if verb else ''}{verb}: {code}"] += 1
        if not isinstance(said, dict) or call.answer.status >= 300:
            return
        if "api_key" in said:
            self.keys.append(said["api_key"])
        if call.method == "POST" and "id" in said and len(path) > 2:
            named = {"children": "session_id", "capture": "payment_id"}.get(verb, f"{path[2].removesuffix('s')}_id")
            if said["id"] not in self.ids[named]:
                self.ids[named].append(said["id"])
                self._owners[said["id"]] = call.key
        for name in ("payment_id", "invoice"):
            if said.get(name):
                self.ids["invoice_id" if name == "invoice" else name].append(
                    said[name]["id"] if name == "invoice" else said[name]
                )
