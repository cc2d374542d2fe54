"""/metrics: the state of money counted from the database, requests counted by the process; read by whoever may."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from escrow.models import (
    Account,
    Attempt,
    Batch,
    ChainAction,
    ChainCursor,
    Event,
    EventMark,
    Pulse,
    ReserveReport,
    Setback,
    SignerNonce,
)
from marketplace import webhooks
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
OPERATIONS = ROOT / "docs" / "operations"


def scrape(client: Client, **headers: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    answer = client.get("/metrics", headers=headers)
    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (200, "text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def busy(world: World, settings: Any) -> World:
    """One of everything that is watched."""
    settings.CHAIN_ID, settings.ESCROW_ADDRESS = 31337, "0xE5c"
    now = timezone.now()
    ages = {"planned": 100, "broadcast": 700, "parked": 9_000, "final": 99_999, "mined": 50}
    for status, age in ages.items():
        action = ChainAction.objects.create(
            kind="withdraw", status=status, dedupe_key=status, created_at=now - timedelta(seconds=age)
        )
        if status == "broadcast":
            for n, outcome in enumerate(("ok", "unknown")):
                Attempt.objects.create(
                    action=action, tx_hash=f"0x{n}", raw=b"", max_fee_wei=1, tip_wei=1, outcome=outcome
                )
    for minutes in (10, 120, 2_000):
        ChainAction.objects.create(
            kind="settle",
            status="reverted",
            dedupe_key=f"mined {minutes}",
            gas_used=10**6,
            gas_price_wei=10**13,
            mined_at=now - timedelta(minutes=minutes),
        )
    SignerNonce.objects.create(chain_id=31337, address=ADDRESS, next_nonce=7, stopped_reason="Foreign.")
    Pulse.objects.create(
        worker="w",
        at=now - timedelta(seconds=20),
        chain_id=31337,
        code_present=True,
        head_block=120,
        head_at=now - timedelta(seconds=30),
        gas_price_wei=10**9,
        signers={ADDRESS: {"balance_wei": "500", "nonce": 8}},
    )
    ChainCursor.objects.create(
        chain_id=31337,
        contract_address="0xE5c",
        block_number=100,
        block_hash="0x2",
        block_time=now,
        read_at=now - timedelta(seconds=40),
    )
    for number, (turns, carried) in enumerate([(0, None), (3, None), (1, action)], start=1):
        account = Account.objects.create(code=f"settling:{number}", kind=Account.Kind.SETTLING, pool=world.a.pool)
        Batch.objects.create(
            pool=world.a.pool,
            account=account,
            first_seq=number * 100,
            packed=b"",
            root="0x",
            signature=b"",
            deadline=now + timedelta(hours=1),
            turns=turns,
            action=carried,
        )
    world.b.pool.__class__.objects.filter(pk=world.b.pool.pk).update(unbacked_at=now)
    for verdict, age in (("equal", 500), ("unexplained", 60)):
        ReserveReport.objects.create(
            chain_id=31337,
            contract_address="0xE5c",
            tier="final",
            block_number=1,
            block_hash="0x1",
            verdict=verdict,
            held_micros=10,
            owed_micros=12,
            flying_micros=0,
            others_micros=0,
            surplus_micros=-2,
            differences=[{"cause": "bug"}, {"cause": "donated"}],
            alarms=["one"],
            root="",
            secret=b"",
            duration_ms=1,
            created_at=now - timedelta(seconds=age),
        )
    Setback.objects.create(sweep="holds", subject="1", error="e", parked_at=now)
    Setback.objects.create(sweep="holds", subject="2", error="e")
    shown = EventMark.objects.values_list("published_id", flat=True).first() or 0
    Event.objects.filter(pk__gt=shown).delete()
    Event.objects.create(
        pk=shown + 10**6,
        payer_id=uuid4(),
        type="a",
        subject_type="b",
        subject_id=uuid4(),
        created_at=now - timedelta(seconds=5),
    )
    return world


EXACT = {
    "market_chain_actions{kind=withdraw,status=planned}": 1,
    "market_chain_actions{kind=withdraw,status=broadcast}": 1,
    "market_chain_actions{kind=withdraw,status=mined}": 1,
    "market_chain_actions{kind=withdraw,status=parked}": 1,
    "market_chain_actions_unknown": 1,
    "market_chain_actions_reverted_in_a_day": 2,
    "market_batches{state=waiting}": 2,
    "market_batches{state=carried}": 1,
    "market_batches{state=turned_down}": 2,
    "market_pools_unbacked": 1,
    "market_unbacked_micros": 0,
    f"market_signer_next_nonce{{address={ADDRESS}}}": 7,
    f"market_signer_chain_nonce{{address={ADDRESS}}}": 8,
    f"market_signer_balance_wei{{address={ADDRESS}}}": 500,
    f"market_signer_stopped{{address={ADDRESS}}}": 1,
    "market_signer_enough_wei": 50 * 250_000 * 10**9,
    "market_workers": 1,
    "market_chain_head_block": 120,
    "market_indexer_block": 100,
    "market_indexer_lag_blocks": 20,
    "market_indexer_stopped": 0,
    "market_gas_spent_wei{window=hour}": 1e19,
    "market_gas_spent_wei{window=day}": 2e19,
    "market_setbacks{state=put_off,sweep=holds}": 1,
    "market_setbacks{state=set_aside,sweep=holds}": 1,
    "market_events_hidden": 1,
    "market_reconcile_verdict{verdict=equal}": 0,
    "market_reconcile_verdict{verdict=explained}": 0,
    "market_reconcile_verdict{verdict=unexplained}": 1,
    "market_reconcile_unexplained": 2,
    "market_reconcile_held_micros": 10,
    "market_reconcile_owed_micros": 12,
    "market_reconcile_surplus_micros": -2,
    "market_deliveries_due": 1,
    "market_check_ok{check=signers}": 0,
    "market_check_ok{check=signer_funds}": 0,
    "market_check_ok{check=worker}": 1,
    "market_check_ok{check=contract}": 1,
}
AGES = {
    "market_chain_action_oldest_seconds{status=planned}": 100,
    "market_chain_action_oldest_seconds{status=parked}": 9_000,
    "market_chain_action_pending_seconds": 700,
    "market_chain_action_unknown_seconds": 700,
    "market_heartbeat_age_seconds": 20,
    "market_chain_head_age_seconds": 30,
    "market_indexer_age_seconds": 40,
    "market_events_hidden_seconds": 5,
    "market_reconcile_age_seconds": 60,
    "market_deliveries_late_seconds": 0,
}


def test_each_gauge_says_what_the_database_has(busy: World, client: Client) -> None:
    webhooks.test(
        endpoint=webhooks.create(url="https://hooks.acme.dev/in", payer=busy.a.payer, seed=uuid4()), now=timezone.now()
    )
    found = scrape(client)
    assert {name: found.get(name) for name in EXACT} == EXACT
    for name, age in AGES.items():
        assert age <= found[name] < age + 60, name
    assert not [name for name in found if "status=final" in name]


def test_a_verdict_on_a_former_contract_is_not_shown(busy: World, client: Client, settings: Any) -> None:
    settings.ESCROW_ADDRESS = "0xE5d"
    assert not [name for name in scrape(client) if name.startswith("market_reconcile_")]


def test_nothing_is_there_yet_and_it_is_still_readable(client: Client) -> None:
    found = scrape(client)
    assert found["market_check_ok{check=worker}"] == 0
    assert found["market_chain_actions_unknown"] == 0
    assert "market_heartbeat_age_seconds" not in found


def test_requests_are_counted_by_route_and_never_by_path(world: World, client: Client) -> None:
    before = scrape(client)
    for _ in range(3):
        world.a.by_payer.get(f"/v1/sessions/{world.a.session.pk}")
    client.get("/nobody/knows/this")
    client.generic("PROPFIND", "/v1/me")
    after = scrape(client)
    name = "market_http_requests_total{{method={},route={},status={},through=django}}"
    for sample, more in {
        name.format("GET", "v1/sessions/<uuid:session_id>", 200): 3,
        name.format("GET", "none", 404): 1,
        name.format("other", "v1/me", 405): 1,
        "market_http_request_seconds_count{route=v1/sessions/<uuid:session_id>,through=django}": 3,
    }.items():
        assert after[sample] - before.get(sample, 0) == more, sample
    assert not [sample for sample in after if str(world.a.session.pk) in sample]


@pytest.mark.parametrize(
    ("options", "address", "headers", "status"),
    [
        ({}, "127.0.0.1", {}, 200),
        ({}, "::1", {}, 200),
        ({}, "10.0.0.7", {}, 403),
        ({}, "", {}, 403),
        ({}, "127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 403),
        ({}, "127.0.0.1", {"forwarded": "for=1.2.3.4"}, 403),
        ({"BEHIND_PROXY": True}, "127.0.0.1", {}, 403),
        ({"METRICS_TOKEN": "t" * 32}, "127.0.0.1", {}, 403),
        ({"METRICS_TOKEN": "t" * 32}, "127.0.0.1", {"authorization": "Bearer nope"}, 403),
        ({"METRICS_TOKEN": "t" * 32}, "127.0.0.1", {"authorization": "Bearer é"}, 403),
        ({"METRICS_TOKEN": "t" * 32}, "127.0.0.1", {"authorization": f"Basic {'t' * 32}"}, 403),
        ({"METRICS_TOKEN": "t" * 32}, "10.0.0.7", {"authorization": f"Bearer {'t' * 32}"}, 200),
    ],
)
def test_who_may_read_it(
    client: Client, settings: Any, options: dict[str, Any], address: str, headers: dict[str, str], status: int
) -> None:
    for name, value in options.items():
        setattr(settings, name, value)
    answer = client.get("/metrics", headers=headers, REMOTE_ADDR=address)
    assert answer.status_code == status
    assert (b"market_" in answer.content) == (status == 200)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_only_read(method: str) -> None:
    answer = Client(enforce_csrf_checks=True).generic(method, "/metrics")
    assert (answer.status_code, answer["Allow"], answer.content) == (405, "GET, HEAD", b"Only GET.\n")


def test_without_the_database_the_meters_are_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.get("/livez")
    with connection.execute_wrapper(_away):
        found = scrape(client)
    assert any(name.startswith("market_http_requests_total") for name in found)
    assert not any(name.startswith("market_check_ok") for name in found)


def _away(*_: object, **__: object) -> None:
    raise OperationalError("the server closed the connection")


def test_each_alarm_is_made_of_what_is_told_and_is_in_the_runbook(busy: World, client: Client) -> None:
    told = {name.partition("{")[0] for name in scrape(client)}
    rules = [
        rule for group in yaml.safe_load((OPERATIONS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    runbook = (OPERATIONS / "runbook.md").read_text()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 15
    for rule in rules:
        names = set(re.findall(r"\bmarket_\w+", rule["expr"]))
        assert names, rule
        assert names <= told, rule
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"docs/operations/runbook.md#{rule['alert'].lower()}"
        assert f"\n## {rule['alert']}\n" in runbook, rule["alert"]
