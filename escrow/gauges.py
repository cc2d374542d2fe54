"""Gauges: what operators watch, counted from the database when it is asked for. Lives here: the numbers and their names.

A number that every process would count for itself is wrong after a restart and different in each of them; these are the same
from wherever they are read. No label takes values without end: kinds, statuses, sweeps, the addresses of our own signers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, DecimalField, F, Min, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Cast

from escrow import events, reserves, vitals
from escrow.chain.outcomes import SendOutcome
from escrow.findings import Verdict
from escrow.models import (
    Attempt,
    Batch,
    ChainAction,
    ChainCursor,
    ChainLog,
    Event,
    Pool,
    Pulse,
    Setback,
    SignerNonce,
)

Status = ChainAction.Status
UNKNOWN: Final = SendOutcome.UNKNOWN.value
"""The outcome of an attempt of which nobody knows whether the node has it."""


@dataclass(frozen=True)
class Gauge:
    """A name, what it says, and its values by labels."""

    name: str
    says: str
    values: Sequence[tuple[Mapping[str, str], float]]

    @property
    def labels(self) -> list[str]:
        """The names of the labels; the same for each value."""
        return sorted(self.values[0][0]) if self.values else []


def read(now: datetime) -> list[Gauge]:
    """Count everything."""
    return [
        *_vitals(now),
        *_actions(now),
        *_batches(),
        *_signers(),
        *_chain(now),
        *_gas(now),
        *_sweeps(now),
        *_reconciled(now),
    ]


def unknown() -> "QuerySet[Any]":
    """Return the actions in flight of which nobody knows whether a node has what was sent last."""
    flying = ChainAction.objects.filter(status__in=ChainAction.UNMINED)
    return with_last_outcome(flying).filter(last_outcome=UNKNOWN)


def with_last_outcome(actions: "QuerySet[ChainAction]") -> "QuerySet[Any]":
    """Have each action know what a node said to the newest attempt at it (`last_outcome`)."""
    newest = Attempt.objects.filter(action=OuterRef("pk")).order_by("-pk").values("outcome")[:1]
    return actions.annotate(last_outcome=Subquery(newest))


def _one(name: str, says: str, value: float | None) -> Gauge:
    return Gauge(name, says, [] if value is None else [({}, value)])


def _age(now: datetime, at: datetime | None) -> float | None:
    return None if at is None else max((now - at).total_seconds(), 0.0)


def _vitals(now: datetime) -> Iterator[Gauge]:
    found = [({"check": vital.name}, float(vital.ok)) for vital in vitals.of_chain(now)]
    yield Gauge("market_check_ok", "Whether a part that the service stands on is there, as /readyz says.", found)


def _actions(now: datetime) -> Iterator[Gauge]:
    live = Q(status__in=ChainAction.LIVE) | Q(status=Status.PARKED)
    counted = (
        ChainAction.objects.filter(live).values("kind", "status").annotate(n=Count("pk"), oldest=Min("created_at"))
    )
    rows = list(counted.order_by("kind", "status"))
    by = [({"kind": row["kind"], "status": row["status"]}, float(row["n"])) for row in rows]
    yield Gauge("market_chain_actions", "Chain actions that have not come to their end, and parked ones.", by)
    oldest = {
        status: _age(now, min(row["oldest"] for row in rows if row["status"] == status))
        for status in sorted({row["status"] for row in rows})
    }
    ages = [({"status": status}, age) for status, age in oldest.items() if age is not None]
    yield Gauge("market_chain_action_oldest_seconds", "For how long the oldest of a status has been asked for.", ages)
    waits = vitals.age_of_oldest_action(now) or 0.0
    yield _one("market_chain_action_pending_seconds", "For how long the chain has not taken the oldest action.", waits)
    lost = unknown().aggregate(n=Count("pk"), oldest=Min("created_at"))
    yield _one("market_chain_actions_unknown", "Actions of which nobody knows whether a node has them.", lost["n"])
    age = _age(now, lost["oldest"]) or 0.0
    yield _one("market_chain_action_unknown_seconds", "For how long the oldest of those has been asked for.", age)


def _batches() -> Iterator[Gauge]:
    signed = Batch.objects.filter(status=Batch.Status.SIGNED)
    found = signed.aggregate(
        waiting=Count("pk", filter=Q(action=None)),
        carried=Count("pk", filter=Q(action__isnull=False)),
        turned_down=Count("pk", filter=Q(turns__gt=0)),
    )
    by = [({"state": state}, float(n)) for state, n in sorted(found.items())]
    yield Gauge("market_batches", "Signed batches that have not landed; one may be turned down and waiting.", by)
    halted = Pool.objects.filter(unbacked_at__isnull=False).count()
    yield _one(
        "market_pools_unbacked", "Pools with a deposit whose block is gone; nothing more is spent there.", halted
    )
    orphans = ChainLog.objects.filter(orphaned_at__isnull=False).aggregate(micros=Sum("deposit_micros"))["micros"] or 0
    yield _one("market_unbacked_micros", "What of the ledger's deposits stands in no block.", orphans)


def _signers() -> Iterator[Gauge]:
    pulse = vitals.newest_pulse()
    known = list(SignerNonce.objects.filter(chain_id=settings.CHAIN_ID).order_by("pk"))
    nonces = [({"address": signer.address}, float(signer.next_nonce)) for signer in known]
    yield Gauge("market_signer_next_nonce", "The next nonce as we count.", nonces)
    stopped = [({"address": signer.address}, float(bool(signer.stopped_reason))) for signer in known]
    yield Gauge("market_signer_stopped", "Whether a signer is stopped until a person looks.", stopped)
    seen = pulse.signers if pulse else {}
    funds = [({"address": address}, float(of["balance_wei"])) for address, of in sorted(seen.items())]
    yield Gauge("market_signer_balance_wei", "What a signer has for gas.", funds)
    on_chain = [({"address": address}, float(of["nonce"])) for address, of in sorted(seen.items())]
    yield Gauge("market_signer_chain_nonce", "The next nonce as the chain counts.", on_chain)
    enough = vitals.enough_wei(pulse) if pulse else None
    yield _one("market_signer_enough_wei", "What a signer should have at today's price.", enough)


def _chain(now: datetime) -> Iterator[Gauge]:
    pulse = vitals.newest_pulse()
    at = pulse.at if pulse else None
    yield _one("market_heartbeat_age_seconds", "Since a worker last wrote down that it is alive.", _age(now, at))
    alive = Pulse.objects.filter(at__gte=now - timedelta(seconds=settings.PULSE_STALE_SECONDS)).count()
    yield _one("market_workers", "Workers that have done so lately.", alive)
    head = pulse.head_block if pulse else None
    yield _one("market_chain_head_block", "The newest block that a node told of.", head)
    head_at = pulse.head_at if pulse else None
    yield _one("market_chain_head_age_seconds", "Since that block's time.", _age(now, head_at))
    cursor = ChainCursor.objects.filter(chain_id=settings.CHAIN_ID).order_by("-read_at").first()
    if cursor is None:
        return
    yield _one("market_indexer_block", "The block up to which the ledger has the chain.", cursor.block_number)
    lag = max(head - cursor.block_number, 0) if head is not None else None
    yield _one("market_indexer_lag_blocks", "How far that is behind the newest block, finality included.", lag)
    yield _one("market_indexer_age_seconds", "Since the chain was read.", _age(now, cursor.read_at))
    yield _one("market_indexer_stopped", "Whether reading has stopped.", float(bool(cursor.stopped_reason)))
    paused = float(cursor.paused_at is not None)
    yield _one("market_settlement_paused", "Whether nothing new is spent until the chain goes on.", paused)


def _gas(now: datetime) -> Iterator[Gauge]:
    wide: DecimalField[Decimal, Decimal] = DecimalField(max_digits=40, decimal_places=0)  # a product may pass 63 bits
    cost = Sum(Cast(F("gas_used"), wide) * Cast(F("gas_price_wei"), wide), output_field=wide)
    spent = []
    for name, length in (("hour", timedelta(hours=1)), ("day", timedelta(days=1))):
        mined = ChainAction.objects.filter(mined_at__gte=now - length)
        spent.append(({"window": name}, float(mined.aggregate(wei=cost)["wei"] or 0)))
    yield Gauge("market_gas_spent_wei", "What mined chain transactions cost.", spent)
    ended = ChainAction.objects.filter(mined_at__gte=now - timedelta(days=1), status=Status.REVERTED).count()
    yield _one("market_chain_actions_reverted_in_a_day", "Actions that reverted or were cancelled in a day.", ended)


def _sweeps(now: datetime) -> Iterator[Gauge]:
    rows = Setback.objects.values("sweep").annotate(
        put_off=Count("pk", filter=Q(parked_at=None)), set_aside=Count("pk", filter=Q(parked_at__isnull=False))
    )
    by = [
        ({"sweep": row["sweep"], "state": state}, float(row[state]))
        for row in rows.order_by("sweep")
        for state in ("put_off", "set_aside")
    ]
    yield Gauge("market_setbacks", "Rows that a sweep could not take a step with.", by)
    waiting = Event.objects.filter(pk__gt=events.published()).aggregate(n=Count("pk"), oldest=Min("created_at"))
    yield _one("market_events_hidden", "Events that are recorded and not shown yet.", waiting["n"])
    age = _age(now, waiting["oldest"]) or 0.0
    yield _one("market_events_hidden_seconds", "Since the oldest of those was recorded.", age)


def _reconciled(now: datetime) -> Iterator[Gauge]:
    newest = reserves.newest()
    if newest is None:
        return
    said = [({"verdict": verdict.value}, float(newest.verdict == verdict)) for verdict in Verdict]
    yield Gauge("market_reconcile_verdict", "What came of comparing books and chain last: one of them is 1.", said)
    yield _one("market_reconcile_age_seconds", "Since they were compared.", _age(now, newest.created_at))
    yield _one("market_reconcile_unexplained", "Comparisons that did not hold, without a reason.", newest.unexplained)
    yield _one("market_reconcile_held_micros", "What the contract held then.", newest.held_micros)
    yield _one("market_reconcile_owed_micros", "What was owed then.", newest.owed_micros)
    yield _one("market_reconcile_surplus_micros", "What the contract held that nobody is owed.", newest.surplus_micros)
