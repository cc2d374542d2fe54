"""The judge: what became of what was asked, by the chain's own logs and the books. Lives here: judging; it mends nothing.

*Lost*: an answered payment without its row, a debt that neither landed nor is payable, a deposit that is short. *Doubled*: more
on chain than was asked for, a second payment of one key. *Unexplained*: reconcile differs, something has not ended, a nonce is
missing or foreign. Judged once everything is healed and final; what was asked is the harness's own record (`asked`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Sum
from django.utils import timezone

from escrow import intents, reconcile
from escrow.chain import events as chain
from escrow.models import Account, Batch, BatchRecord, ChainAction, Party, Payment, SignerNonce
from marketplace.management.crashtest.asked import Order
from marketplace.management.crashtest.ground import FINALITY, Ground


@dataclass
class Verdict:
    """What is wrong, each in words; empty when nothing is."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    orders: int = 0
    """Answered payments that were judged."""
    landed: int = 0
    """Micro-USDC that the chain has credited since the judgement before."""
    refused: int = 0
    """Refusals that were taken for an answer."""

    @property
    def judged(self) -> dict[str, Any]:
        """Return how much was judged."""
        return {"orders": self.orders, "landed": self.landed, "refused": self.refused}

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.unexplained)

    def lines(self) -> list[str]:
        """Return everything that is wrong, each with its kind."""
        kinds = (("LOST", self.lost), ("DOUBLED", self.doubled), ("UNEXPLAINED", self.unexplained))
        return [f"{kind}  {line}" for kind, found in kinds for line in found]


@dataclass
class Told:
    """What the contract has told up to a block, added up by pool and provider."""

    block: int
    credited: Counter[tuple[bytes, str]] = field(default_factory=Counter)
    withdrawn: Counter[tuple[bytes, str]] = field(default_factory=Counter)
    settled: Counter[bytes] = field(default_factory=Counter)
    deposited: Counter[bytes] = field(default_factory=Counter)


class Judge:
    """Reads each final block once. It must be made before the first play."""

    def __init__(self, ground: Ground) -> None:
        """Take the ground, and read from its contract's block on."""
        self._ground = ground
        self._node = ground.node
        self._told, self._landed, self._owed = Told(settings.ESCROW_START_BLOCK - 1), 0, 0

    def judge(self, pools: Iterable[UUID] | None = None) -> Verdict:
        """Judge some pools, or everything there is."""
        verdict = Verdict()
        self._read_chain()
        chosen = {tenant.pool.pk for tenant in self._ground.tenants} if pools is None else set(pools)
        recent = self._ground.asked.of_pools(chosen)
        self._rows(recent if pools is not None else list(self._ground.asked.orders.values()), verdict)
        self._measure(len(recent), verdict, is_whole=pools is None)
        if pools is None:
            self._strangers(verdict)
        for pool in chosen:
            self._pool(pool, verdict)
        self._ends(verdict)
        self._nonces(verdict)
        self._reconcile(None if pools is None else chosen, verdict)
        verdict.doubled += self._ground.asked.seconds
        verdict.unexplained += self._ground.asked.wrong
        self._ground.asked.judged()
        return verdict

    def _measure(self, orders: int, verdict: Verdict, *, is_whole: bool) -> None:
        """Say how much there was to judge: over nothing a judgement would be clean whatever happens."""
        landed, owed = sum(self._told.credited.values()), sum(self._ground.asked.owed.values())
        verdict.orders, verdict.landed, verdict.refused = orders, landed - self._landed, self._ground.asked.refused
        is_new = owed > self._owed  # of a history, all may have been refunded
        self._landed, self._owed = landed, owed
        if not (verdict.landed if is_new else is_whole and landed):
            verdict.unexplained.append("nothing has landed: there was nothing to judge")

    def _read_chain(self) -> None:
        head = self._node.block("latest")
        last = head.number - FINALITY + 1 if head else 0
        if last <= self._told.block:
            return
        told = self._told
        for event in self._node.logs(settings.ESCROW_ADDRESS, told.block + 1, last):
            match event:
                case chain.Credited():
                    told.credited[event.pool_id, event.provider] += event.amount
                case chain.Withdrawn():
                    told.withdrawn[event.pool_id, event.provider] += event.net + event.fee
                case chain.BatchSettled():
                    told.settled[event.pool_id] += event.total
                case chain.PoolOpened():
                    told.deposited[event.pool_id] += event.deposit
                case chain.PoolToppedUp():
                    told.deposited[event.pool_id] += event.amount
        told.block = last

    @staticmethod
    def _rows(orders: Sequence[Order], verdict: Verdict) -> None:
        """Each answered payment has its row, as it was answered; each key has one."""
        ids = [order.payment for order in orders]
        rows = {str(row[0]): row[1:] for row in Payment.objects.filter(pk__in=ids).values_list(*_COLUMNS)}
        for order in orders:
            row = rows.get(order.payment)
            if row is None:
                verdict.lost.append(f"payment {order.payment} of key {order.key} was answered and has no row")
            elif row != (order.key, order.micros, order.pool, order.address):
                verdict.lost.append(f"payment {order.payment} was answered as {order} and its row says {row}")
        keys = [order.key for order in orders]
        twice = Payment.objects.filter(idempotency_key__in=keys).values_list("idempotency_key").annotate(n=Count("pk"))
        verdict.doubled += [f"key {key} has {n} payments" for key, n in twice.filter(n__gt=1)]

    def _strangers(self, verdict: Verdict) -> None:
        """The contract tells of no pool but those that were asked for."""
        told, known = self._told, {tenant.pool_key for tenant in self._ground.tenants}
        met = {key for key, _ in (*told.credited, *told.withdrawn)} | {*told.settled, *told.deposited}
        verdict.unexplained += [f"nobody asked for pool 0x{key.hex()}" for key in sorted(met - known)]

    def _pool(self, pool: UUID, verdict: Verdict) -> None:
        """What landed against what was asked, provider by provider; and what came in."""
        tenant, told = self._ground.tenant_of(pool), self._told
        pairs = {pair for pair in (*self._ground.asked.owed, *told.credited) if pair[0] == tenant.pool_key}
        for pair in pairs:
            owed, landed = self._ground.asked.owed[pair], told.credited[pair]
            if landed > owed:
                verdict.doubled.append(f"{pair[1]} was credited {landed} in {pool}, and {owed} was asked for")
            elif landed < owed:
                waiting = _waiting(pool, pair[1])
                found = verdict.unexplained if waiting >= owed - landed else verdict.lost
                found.append(f"{pair[1]} was credited {landed} of {owed} in {pool}; {waiting} waits")
            if told.withdrawn[pair] > landed:
                verdict.doubled.append(f"{pair[1]} was paid {told.withdrawn[pair]} of {landed} credited in {pool}")
        came, asked = told.deposited[tenant.pool_key], self._ground.asked.deposited[tenant.pool_key]
        if came != asked:
            (verdict.doubled if came > asked else verdict.lost).append(
                f"{came} came into {pool}, {asked} was asked for"
            )
        credited = sum(told.credited[pair] for pair in pairs)
        if told.settled[tenant.pool_key] != credited:
            verdict.unexplained.append(f"batches of {pool} told of {told.settled[tenant.pool_key]} and {credited}")
        rows = Payment.objects.filter(pool=pool).aggregate(n=Count("pk"), micros=Sum("amount_micros"))
        mine = [order for order in self._ground.asked.orders.values() if order.pool == pool]
        have, were = (rows["n"], rows["micros"] or 0), (len(mine), sum(order.micros for order in mine))
        if have != were:
            found = verdict.doubled if have > were else verdict.lost
            found.append(f"{pool} has {have[0]} payments of {have[1]}, and {were[0]} of {were[1]} were asked for")

    def _ends(self, verdict: Verdict) -> None:
        """Everything has come to its end, and none of it by waiting for a person."""
        verdict.unexplained += self._ground.loose_ends()
        refused = ChainAction.objects.filter(intents.refused()).order_by("pk")
        verdict.unexplained += [f"chain action {a.pk} ({a.kind}) is {a.status}: {a.error}" for a in refused[:5]]

    def _nonces(self, verdict: Verdict) -> None:
        """Each relayer's nonce on chain is ours, and each below it an action's: no gap, and none by anybody else."""
        counted = dict(SignerNonce.objects.values_list("address", "next_nonce"))
        for address, first in self._ground.first_nonces.items():
            following = counted.pop(address, first)  # a relayer that has signed nothing has no row
            used = self._node.nonce(address)
            ours = ChainAction.objects.filter(signer_address=address, nonce__gte=first).count()
            if not used == following == first + ours:
                told = f"chain {used}, next {following}, actions from {first}: {ours}"
                verdict.unexplained.append(f"the nonces of {address} do not meet: {told}")
        verdict.unexplained += [f"{address} has signed and is no relayer" for address in counted]

    def _reconcile(self, pools: set[UUID] | None, verdict: Verdict) -> None:
        for pool in pools if pools is not None else [None]:
            report = reconcile.reconcile(client=self._node, now=timezone.now(), pool_id=pool)
            verdict.unexplained += [str(difference) for difference in report.differences] + report.alarms
            if report.exit_code:
                verdict.unexplained += [f"reconcile: {step}" for step in report.in_flight]


_COLUMNS = ("pk", "idempotency_key", "amount_micros", "pool_id", "party__address")


def _waiting(pool: UUID, address: str) -> int:
    """Return what is owed to a provider and has not landed: payable, or in a batch that still may."""
    party = Party.objects.get(address=address)
    payable = Account.objects.filter(pool=pool, party=party, kind=Account.Kind.PAYABLE).first()
    signed = BatchRecord.objects.filter(batch__pool=pool, batch__status=Batch.Status.SIGNED, party=party)
    moving = int(signed.aggregate(s=Sum("amount_micros"))["s"] or 0)
    return (payable.balance_micros if payable else 0) + moving
