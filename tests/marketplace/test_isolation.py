"""Every route with every kind of key: who is refused, and that what is another's is not found. Made from the routes."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from uuid import uuid4

import pytest
from django.conf import settings as django
from django.utils import timezone

from escrow import sessions, settlement
from escrow.books import CLASSES
from escrow.chain.signer import LocalSigner
from escrow.models import ReserveReport
from escrow.policy import Policy
from marketplace import keys, webhooks
from marketplace.api import bodies, hold_shapes, policy_shapes, refund_shapes, webhook_shapes
from marketplace.api.endpoint import Rule, rules_of
from marketplace.api.urls import endpoints
from marketplace.models import ApiKey, Scope
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, money, publish

pytestmark = pytest.mark.django_db

ROUTES: list[tuple[str, str, Rule]] = [
    (method, "/" + str(pattern.pattern), rule)
    for pattern in endpoints
    for method, rule in rules_of(pattern.callback.cls)  # type: ignore[union-attr]
]
SUBJECTS = (
    *("payment_id", "session_id", "pool_id", "task_id", "invoice_id", "dispute_id", "hold_id", "refund_id", "batch_id"),
    *("key_id", "webhook_id", "approval_id"),
)
NAMING = (bodies.InvoiceIn, bodies.DisputeIn, refund_shapes.RefundIn)
"""Bodies that name what belongs to buyer A or provider one."""
LISTED = {
    "/v1/payments": "payment_id",
    "/v1/sessions": "session_id",
    "/v1/pools": "pool_id",
    "/v1/tasks": "task_id",
    "/v1/invoices": "invoice_id",
    "/v1/disputes": "dispute_id",
    "/v1/holds": "hold_id",
    "/v1/refunds": "refund_id",
    "/v1/batches": "batch_id",
    "/v1/keys": "key_id",
    "/v1/approvals": "approval_id",
    "/v1/decisions": "payment_id",
    "/v1/events": "payment_id",
    "/v1/webhooks": "webhook_id",
}
"""Each list of what is somebody's, and a row that its owner sees there."""
OF_ONE = ("key_id", "webhook_id")
"""What belongs to the payer alone, and is no business of the provider either."""
HOOK = "https://93.184.215.14/in"
"""An address, so that no name is looked up."""
REFUSED = {
    ("POST", "/v1/invoices", Scope.PROVIDER): "the session's policy names no agent",
    ("POST", "/v1/keys/<uuid:key_id>/rotate", Scope.PAYER): "the newest key is the payer's full one",
    **{
        ("POST", f"/v1/sessions/<uuid:session_id>/{verb}", Scope.SESSION): "a key does not govern its own session"
        for verb in ("pause", "resume", "close", "top-up")
    },
}
"""Where a scope that a route allows is refused all the same, and why."""
ROLES = {
    "payer B": Scope.PAYER,
    "session of B": Scope.SESSION,
    "other session of A": Scope.SESSION,
    "provider B": Scope.PROVIDER,
}


@pytest.fixture
def subjects(world: World) -> dict[str, str]:
    """Return one of everything that belongs to buyer A and provider one."""
    buyer, seller = world.a.by_session, world.one.by_provider
    buyer.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.03"})
    ReserveReport.objects.create(
        chain_id=django.CHAIN_ID,
        contract_address=django.ESCROW_ADDRESS,
        tier="final",
        block_number=1,
        block_hash="0x" + "0" * 64,
        verdict="equal",
        root="0" * 64,
        secret=b"s",
        duration_ms=1,
        **{f"{name}_micros": 0 for name in ("held", "owed", "flying", "others", "surplus")},
        liabilities=dict.fromkeys(CLASSES.values(), 0),
    )
    batch = settlement.settle(pool=world.a.pool, authorizer=LocalSigner(b"\1" * 32), now=timezone.now())
    assert batch is not None
    payment = buyer.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.01"}).json
    body = {"title": "t", "capability": "review", "budget": "1.00", "agent": "agent://lint.acme.dev"}
    task = buyer.post("/v1/tasks", body).json
    delivery = {"deliverable": {}, "invoice": {"amount": "1.00", "number": "INV-1"}}
    invoice = seller.post(f"/v1/tasks/{task['id']}/submit", delivery).json["invoice"]
    other = buyer.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.02"}).json
    dispute = buyer.post("/v1/disputes", {"payment_id": other["id"], "reason": "nothing came"}).json
    hold = buyer.post("/v1/holds", {"to": "agent://lint.acme.dev", "amount": "0.05"}).json
    refund = buyer.post("/v1/refunds", {"payment_id": payment["id"], "reason": "nothing came"}).json
    sessions.change_policy(session=world.a.session, policy=Policy(approval_above=1_000_000), now=timezone.now())
    asked = buyer.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "1.01"}).json
    return {
        "approval_id": asked["approval_id"],
        "payment_id": payment["id"],
        "session_id": str(world.a.session.pk),
        "pool_id": str(world.a.pool.pk),
        "task_id": task["id"],
        "invoice_id": invoice["id"],
        "dispute_id": dispute["id"],
        "hold_id": hold["id"],
        "refund_id": refund["id"],
        "batch_id": str(batch.pk),
        "key_id": world.a.by_payer.get("/v1/keys").json["items"][0]["id"],
        "webhook_id": str(webhooks.create(url=HOOK, payer=world.a.payer, seed=uuid4()).pk),
        "name": "lint.acme.dev",
    }


BODIES: dict[type[bodies.Shape], dict[str, object]] = {
    bodies.Nothing: {},
    webhook_shapes.WebhookIn: {"url": HOOK},
    webhook_shapes.SecretRotation: {},
    webhook_shapes.ReplayIn: {},
    bodies.Redemption: {"request_hash": "a" * 64},
    bodies.Reason: {"reason": "x"},
    refund_shapes.RefundTerms: {"reason": "x"},
    hold_shapes.HoldIn: {"to": "agent://lint.acme.dev", "amount": "0.01"},
    hold_shapes.Capture: {"amount": "0.01"},
    bodies.AmountBody: {"amount": "0.01"},
    bodies.PaymentIn: {"to": "agent://lint.acme.dev", "amount": "0.01"},
    bodies.SessionIn: {"budget": "0.01"},
    bodies.PoolIn: {"deposit": "1.00"},
    bodies.TaskIn: {"title": "t", "capability": "review", "budget": "0.01"},
    bodies.Assignment: {"agent": "agent://lint.acme.dev"},
    bodies.Delivery: {"deliverable": {}, "invoice": {"amount": "0.01", "number": "INV-9"}},
    bodies.Answer: {"answer": "x"},
    bodies.OfferingIn: {"capability": "review", "pricing": "per_call", "price": "0.01"},
    bodies.AgentBody: {"uri": "agent://new.acme.dev", "name": "new"},
    bodies.KeyIn: {"read_only": True},
    bodies.ChildIn: {"budget": "0.01"},
    bodies.PauseIn: {},
    policy_shapes.CheckIn: {"to": "agent://lint.acme.dev", "amount": "0.01"},
    policy_shapes.BacktestIn: {"policy": {"max_per_tx": "1.00"}},
    bodies.PolicyBody: {"policy": {"max_per_tx": "1.00"}},
    bodies.Rotation: {"overlap_seconds": 60},
}


def body_of(rule: Rule, subjects: dict[str, str]) -> dict[str, object]:
    """Return a body that is right in form and names what belongs to buyer A and provider one."""
    if rule.body is bodies.InvoiceIn:
        return {
            "session_id": subjects["session_id"], "agent": "agent://lint.acme.dev", "amount": "0.01", "number": "INV-9",
        }  # fmt: skip
    if rule.body in (bodies.DisputeIn, refund_shapes.RefundIn):
        return {"payment_id": subjects["payment_id"], "reason": "x"}
    return BODIES[rule.body]


def fill(path: str, subjects: dict[str, str]) -> str:
    """Put the subjects' ids into a route."""
    for name in (*SUBJECTS, "name"):
        path = path.replace(f"<uuid:{name}>", subjects[name]).replace(f"<host:{name}>", subjects[name])
    return path


def send(caller: Caller, method: str, path: str, body: dict[str, object]) -> int:
    """Call a route."""
    if method == "POST":
        return caller.post(path, body).status
    return caller.get(path).status if method == "GET" else caller.delete(path).status


def callers(world: World) -> Iterator[tuple[str, Caller]]:
    """Return a caller for each role that is not the owner."""
    _, text = keys.open_session(pool=world.a.pool, budget_micros=1, policy=Policy(), now=timezone.now())
    yield "payer B", world.b.by_payer
    yield "session of B", world.b.by_session
    yield "other session of A", Caller(text)
    yield "provider B", world.two.by_provider


def owners(world: World) -> dict[Scope, Caller]:
    """Return the owner's caller of each scope."""
    return {Scope.PAYER: world.a.by_payer, Scope.SESSION: world.a.by_session, Scope.PROVIDER: world.one.by_provider}


def ids(caller: Caller, path: str) -> set[str]:
    """Return what the rows of a list are, or are about."""
    answer = caller.get(path)
    assert answer.status == 200, path
    return {str(row[name]) for row in answer.json["items"] for name in ("id", "subject_id") if name in row}


def test_the_matrix_has_every_route() -> None:
    assert len(ROUTES) == 87
    for _, _, rule in ROUTES:
        assert rule.body in BODIES or rule.body in NAMING


def test_what_belongs_to_another_is_not_found_and_not_touched(
    world: World, subjects: dict[str, str], subtests: pytest.Subtests
) -> None:
    for (method, path, rule), (role, caller) in product(ROUTES, list(callers(world))):
        target, body = fill(path, subjects), body_of(rule, subjects)
        named = path != target or rule.body in NAMING
        before = money()
        with subtests.test(method=method, path=path, role=role):
            status = send(caller, method, target, body)
            if rule.scopes and ROLES[role] not in rule.scopes:
                assert status == 403
                assert money() == before
            elif rule.scopes and named:
                assert status == 404
                assert money() == before
            else:
                assert status < 500 or path == "/readyz"


def test_no_key_a_wrong_key_a_revoked_key_and_one_that_ended_open_nothing(
    world: World, subjects: dict[str, str], subtests: pytest.Subtests
) -> None:
    now = timezone.now()
    revoked, text = keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=now)
    keys.revoke(key=revoked, now=now)
    expired, ended = keys.issue(scope=Scope.PAYER, payer=world.a.payer, now=now, expires_at=now + timedelta(days=1))
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=now)
    strangers = {"none": None, "nonsense": "am_test_nonsense", "revoked": text, "ended": ended}
    before = money()
    for (method, path, rule), (name, key) in product(ROUTES, strangers.items()):
        with subtests.test(method=method, path=path, key=name):
            status = send(Caller(key), method, fill(path, subjects), body_of(rule, subjects))
            assert (status == 401) == bool(rule.scopes)
            assert money() == before


def test_a_read_only_key_of_the_owner_changes_nothing(
    world: World, subjects: dict[str, str], subtests: pytest.Subtests
) -> None:
    now = timezone.now()
    readers = {
        "payer": keys.issue(scope=Scope.PAYER, payer=world.a.payer, read_only=True, now=now)[1],
        "session": keys.issue(scope=Scope.SESSION, session=world.a.session, read_only=True, now=now)[1],
        "provider": keys.issue(scope=Scope.PROVIDER, provider=world.one.provider, read_only=True, now=now)[1],
    }
    before = money()
    for (method, path, rule), (scope, text) in product(ROUTES, readers.items()):
        if method == "GET":
            continue
        with subtests.test(method=method, path=path, scope=scope):
            status = send(Caller(text), method, fill(path, subjects), body_of(rule, subjects))
            assert (status == 403) != (rule.reads and Scope(scope) in rule.scopes)
            assert money() == before


def test_a_post_that_only_reads_is_said_to_be_one_and_moves_no_money() -> None:
    reading = {path for _, path, rule in ROUTES if rule.reads}
    assert reading == {"/v1/policy/check", "/v1/policy/backtest"}
    assert not any(rule.reads and (rule.money or rule.reveals or rule.pays) for _, _, rule in ROUTES)


@pytest.mark.parametrize(("method", "path", "rule"), ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
def test_the_owner_reaches_every_route_that_its_scope_allows(
    world: World, subjects: dict[str, str], method: str, path: str, rule: Rule
) -> None:
    for scope, caller in owners(world).items():
        status = send(caller, method, fill(path, subjects), body_of(rule, subjects))
        if rule.scopes and scope not in rule.scopes:
            assert status == 403, scope
        else:
            assert status not in (401, 405, 500), scope
            assert (status == 403) == ((method, path, scope) in REFUSED), scope
            assert status != 404 or any(name in path for name in OF_ONE), scope


def test_lists_show_what_is_the_callers_and_nothing_else(world: World, subjects: dict[str, str]) -> None:
    publish()
    mine = set(subjects.values())
    lists = {path: rule for method, path, rule in ROUTES if method == "GET" and "<" not in path and rule.scopes}
    with_items = {path for path in lists if "items" in world.a.by_payer.get(path).json}
    assert with_items == {*LISTED, "/v1/reserves/proof"}  # which lists what is owed, and is no list of rows
    for path, name in LISTED.items():
        for scope, owner in owners(world).items():
            if scope in lists[path].scopes and not (name in OF_ONE and scope == Scope.PROVIDER):
                assert subjects[name] in ids(owner, path), (path, scope)
        for role, caller in callers(world):
            if ROLES[role] in lists[path].scopes:
                assert not mine & ids(caller, path), (path, role)
