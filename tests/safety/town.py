"""The town that a hostile agent lives in: its payer, bystanders, sellers that look alike, and a life that goes on meanwhile.

What they do is theirs to do, and is not judged. What the agent must not have touched is compared after each of its calls.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from random import Random
from typing import Any
from uuid import uuid4

from django.db import connection
from django.utils import timezone

from escrow import approvals, disputes, holds, invoices, pools, refunds, sessions, settlement
from escrow.chain.signer import LocalSigner
from escrow.errors import EscrowError
from escrow.models import Account, Approval, Denial, Dispute, Hold, Payment, Refund, Session
from escrow.policy import Policy
from marketplace import keys, tasks, webhooks
from marketplace.api import rates
from marketplace.models import Task
from tests.marketplace.conftest import Buyer, Seller, World, buyer, funded_pool, seller
from tests.safety.history import History, Yes

NEVER = {"days": ["mon"], "from": "00:00", "to": "00:01", "zone": "Pacific/Kiritimati"}
ALWAYS = {
    "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    "from": "00:00",
    "to": "24:00",
    "zone": "Europe/Berlin",
}
RULES: dict[str, list[Any]] = {
    "max_per_tx": ["1.00", "0.95", "0.80"],
    "max_total": ["300.00", "40.00", "400.00"],
    "max_per_hour": ["4.00", "2.50", "6.00"],
    "max_per_day": ["12.00", "7.00"],
    "max_tx_per_minute": [12, 4],
    "allowed_recipients": [
        ["*.acme.dev", "check.example.dev"],
        ["agent://lint.acme.dev", "test.acme.dev"],
        ["*.acme.dev"],
    ],
    "denied_recipients": [["evil.acme.dev"], ["evil.acme.dev", "test.acme.dev"]],
    "allowed_capabilities": [["code.lint"], ["code.lint", "review"]],
    "windows": [[ALWAYS], [NEVER, ALWAYS], [ALWAYS], [NEVER]],
    "approval_above": ["0.60", "0.50"],
    "new_recipient_max": ["0.30", "0.05"],
    "checkpoint_at": [["0.25", "0.5"]],
    "expires_at": ["2999-01-01T00:00:00Z"],
}
"""What the payer may say of each rule: every one of them is always on."""


@dataclass
class Town:
    """Everybody but the agent."""

    world: World
    session: Session
    key: str
    bystander: Session
    stranger: Buyer
    sellers: list[Seller]
    history: History
    policy: dict[str, Any]
    """What the payer has said last for the agent's session."""
    at: Random
    lived: Counter[str] = field(default_factory=Counter)
    """How often what happened."""

    # --- what is in force, and what must not change ---------------------------------------------------------------

    def policies(self) -> dict[str, dict[str, Any]]:
        """Return the policies of the family; the agent's own as its payer said it."""
        rows = Session.objects.filter(pool=self.session.pool).values_list("pk", "policy")
        return {**{str(pk): dict(policy) for pk, policy in rows}, str(self.session.pk): self.policy}

    def state(self) -> tuple[Any, ...]:
        """Return what no agent may change."""
        mine = [self.session.pk, self.bystander.pk, self.stranger.session.pk]
        with connection.cursor() as cursor:
            cursor.execute(_STATE, [mine, mine, mine, mine, self._known, self._known])
            return cursor.fetchone() or ()

    def denials(self) -> int:
        """Return how many refusals are on record."""
        return Denial.objects.count()

    def answers(self) -> dict[Any, str]:
        """Return what people have said to what they were asked."""
        return dict(Approval.objects.values_list("pk", "status"))

    @property
    def _known(self) -> list[int]:
        return _first_keys(self.key)

    # --- life -----------------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Let something happen that is not the agent's doing."""
        happenings = [
            *[self._time] * 8,
            *[self._policy] * 3,
            *[self._say] * 3,
            *[self._sell] * 4,
            *(self._top_up, self._sweep, self._halt, self._settle),
        ]
        chosen = self.at.choice(happenings)
        try:
            chosen()
            self.lived[chosen.__name__.lstrip("_")] += 1
        except EscrowError:
            self.lived["refused"] += 1  # life, too: a hold that is gone, a payment that is on its way
        self.history.accept()

    def _time(self) -> None:
        """Let time pass: everything that has happened is longer ago."""
        by = timedelta(seconds=self.at.choice([20, 59, 60, 61, 600, 1800, 3599, 3600, 3601, 40_000, 86_399, 86_400]))
        with connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            for table, columns in _moments().items():
                changed = ", ".join(f'"{column}" = "{column}" - %s' for column in columns)
                cursor.execute(f'UPDATE "{table}" SET {changed}', [by] * len(columns))  # noqa: S608 - our own tables' names
            cursor.execute("SET session_replication_role = origin")
        self.history.passed += by

    def _policy(self) -> None:
        policy = {rule: self.at.choice(said) for rule, said in RULES.items()}
        sessions.change_policy(session=self.session, policy=Policy.from_document(policy), now=timezone.now())
        self.policy = policy

    def _say(self) -> None:
        """Answer what the agent has asked a person for, half of it with yes."""
        for asked in Approval.objects.filter(status=Approval.Status.WAITING).order_by("-pk")[:4]:
            if self.at.random() < 0.3:
                approvals.refuse(approval=asked, reason="no", by="a person", now=timezone.now())
                continue
            approvals.approve(approval=asked, by="a person", now=timezone.now())
            until = asked.expires_at + self.history.passed
            self.history.approved.append(Yes(str(asked.session_id), asked.to, asked.amount_micros, until))
            self.lived["yes"] += 1

    def _sell(self) -> None:
        """The sellers do theirs: refund, give up, deliver, grant, answer."""
        now, of = timezone.now(), {"session__pool": self.session.pool}
        with suppress(EscrowError):
            if payment := self._any(Payment.objects.filter(pool=self.session.pool)):
                refunds.pay(payment=payment, reason="sorry", now=now, amount_micros=self.at.choice([None, 1, 10_000]))
        if held := self._any(Hold.objects.filter(status="held", expires_at__isnull=False, **of)):
            holds.release(hold=held, now=now)
        if task := self._any(Task.objects.filter(status="assigned", **of)):
            claim = {"amount_micros": task.budget_micros, "number": uuid4().hex[:8]}
            tasks.submit(task=task, deliverable={}, now=now, **claim)
        if asked := self._any(Refund.objects.filter(status="requested", **of)):
            refunds.grant(refund=asked, now=now)
        if dispute := self._any(Dispute.objects.filter(status="open", **of)):
            disputes.rule(dispute=dispute, to_provider_bps=5000, reason="half", ruled_by="a person", now=now)

    def _top_up(self) -> None:
        sessions.top_up(session=self.session, amount_micros=2 * 10**6, now=timezone.now())

    def _sweep(self) -> None:
        now, limit = timezone.now(), 1000
        holds.release_expired(now=now, limit=limit)
        sessions.close_expired(now=now, limit=limit)
        approvals.expire_due(now=now, limit=limit)
        invoices.approve_by_silence(now=now, limit=limit)
        refunds.lapse_by_silence(now=now, limit=limit)
        tasks.expire_due(now=now)

    def _halt(self) -> None:
        """Pause or freeze; what was stopped the last time goes on."""
        root = sessions.reread(self.session.pk)
        if root.pool.frozen_at:
            pools.unfreeze(payer_id=root.pool.payer_id)
        elif root.status == "paused":
            sessions.resume(session=root, now=timezone.now())
        elif self.at.random() < 0.5:
            sessions.pause(session=root, now=timezone.now())
        else:
            pools.freeze(payer_id=root.pool.payer_id, reason="wait", now=timezone.now())

    def go_on(self) -> None:
        """End a halt soon: an agent that may do nothing tries nothing."""
        root = sessions.reread(self.session.pk)
        if root.pool.frozen_at or root.status == "paused":
            self._halt()
        if self.policy["windows"] == [NEVER]:
            with suppress(EscrowError):  # those inside have more than it would say
                self._policy()
        self.history.accept()

    def _settle(self) -> None:
        settlement.settle(pool=self.session.pool, authorizer=LocalSigner(b"\1" * 32), now=timezone.now())

    def _any(self, rows: Any) -> Any:
        found = list(rows.order_by("-pk")[:5])
        return self.at.choice(found) if found else None


_STATE = """
SELECT
    (SELECT md5(string_agg(row::text, '|' ORDER BY id)) FROM escrow_session AS row WHERE id = ANY(%s::uuid[])),
    (SELECT md5(string_agg(row::text, '|' ORDER BY version, session_id)) FROM escrow_sessionpolicy AS row
        WHERE session_id = ANY(%s::uuid[])),
    (SELECT count(*) FROM escrow_session WHERE NOT id = ANY(%s::uuid[]) AND parent_id IS NULL),
    (SELECT count(*) FROM escrow_session WHERE parent_id = ANY((%s::uuid[])[2:])),
    (SELECT md5(string_agg((to_jsonb(row) - 'last_used_at')::text, '|' ORDER BY id)) FROM marketplace_apikey AS row
        WHERE id = ANY(%s::uuid[])),
    (SELECT count(*) FROM marketplace_apikey
        WHERE NOT id = ANY(%s::uuid[]) AND (scope <> 'session' OR session_id IN (
            SELECT id FROM escrow_session WHERE parent_id IS NULL))),
    (SELECT md5(string_agg(row::text, '|' ORDER BY id)) FROM marketplace_webhookendpoint AS row),
    (SELECT md5(string_agg(row::text, '|' ORDER BY id)) FROM escrow_pool AS row),
    (SELECT md5(string_agg(row::text, '|' ORDER BY id)) FROM marketplace_agent AS row),
    (SELECT md5(string_agg(row::text, '|' ORDER BY id)) FROM marketplace_offering AS row),
    (SELECT count(*) FROM marketplace_payer), (SELECT count(*) FROM marketplace_provider)
"""


def make_town(world: World, seed: int) -> Town:
    """Make the town: the agent's session has every rule on, its payer has another one, and there is another payer."""
    at = Random(seed)
    names = [("evil", "acme.dev"), ("a", "check.example.dev"), ("lint", "evilacme.dev"), ("lint", "acme.dev.evil.dev")]
    names += [("lint", "acrne.dev"), ("test", "acme.dev")]
    others = [seller(label, domain) for label, domain in names]
    policy = {rule: said[0] for rule, said in RULES.items()}
    pool = funded_pool(world.a.payer, 10**9)
    session, key = keys.open_session(
        pool=pool, budget_micros=500 * 10**6, policy=Policy.from_document(policy), now=timezone.now()
    )
    stranger = buyer("a stranger")
    webhooks.create(url="https://93.184.215.14/in", payer=world.a.payer, seed=uuid4())
    pools_free = [
        f"pool:{stranger.pool.pk}",
        f"pool:{world.a.pool.pk}",
        f"pool:{world.b.pool.pk}",
        f"session:{world.b.session.pk}",
    ]
    codes = [*pools_free, f"session:{world.a.session.pk}", f"session:{stranger.session.pk}"]
    history = History(frozenset(Account.objects.filter(code__in=codes).values_list("pk", flat=True)))
    made = Town(
        world=world, session=session, key=key, bystander=world.a.session, stranger=stranger,
        sellers=[world.one, world.two, *others], history=history, policy=policy, at=at,
    )  # fmt: skip
    rates.forget()
    return made


def stolen(town: Town) -> dict[str, list[str]]:
    """Return ids of what is not the agent's: of its payer, of the bystander, of the stranger, of nobody."""
    world, key = town.world, {"expires_in_seconds": 3600}
    found: dict[str, list[str]] = {}
    for one in (world.a, town.stranger):
        paid = one.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.01"}).json
        held = one.by_session.post("/v1/holds", {"to": "agent://lint.acme.dev", "amount": "0.01", **key}).json
        asked = {"title": "t", "capability": "review", "budget": "0.01", "agent": "agent://lint.acme.dev"}
        task = one.by_session.post("/v1/tasks", asked).json
        wanted = one.by_session.post("/v1/refunds", {"payment_id": paid["id"], "reason": "x"}).json
        sessions.change_policy(session=one.session, policy=Policy(approval_above=1_000), now=timezone.now())
        above = one.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.02"}).json
        for name, value in {
            "payment_id": paid["id"], "hold_id": held["id"], "task_id": task["id"], "refund_id": wanted["id"],
            "approval_id": above["approval_id"], "session_id": str(one.session.pk), "pool_id": str(one.pool.pk),
        }.items():  # fmt: skip
            found.setdefault(name, []).append(value)
        listed = one.by_payer.get("/v1/keys").json["items"] + one.by_payer.get("/v1/webhooks").json["items"]
        for row in listed:
            found.setdefault("webhook_id" if "url" in row else "key_id", []).append(row["id"])
    town.history.accept()
    return found


@cache
def _moments() -> dict[str, list[str]]:
    """Return the columns of time of each table, but for pools: they last."""
    found: dict[str, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.table_name, c.column_name FROM information_schema.columns AS c JOIN information_schema.tables AS t "
            "USING (table_schema, table_name) WHERE t.table_schema = 'public' AND t.table_type = 'BASE TABLE' "
            "AND c.data_type = 'timestamp with time zone' AND c.table_name ~ '^(escrow|marketplace)_' "
            "AND c.table_name <> 'escrow_pool'"
        )
        for table, column in cursor.fetchall():
            found.setdefault(table, []).append(column)
    return found


@cache
def _first_keys(_: str) -> list[Any]:
    """Return the keys that were there before the agent's first call."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM marketplace_apikey")
        return [row[0] for row in cursor.fetchall()]
