"""Reconcile: our ledger against the contract, account class by account class. Lives here: comparing. It never mends.

The ledger takes the chain's word up to the indexer's block, so both are read as of that block: no difference is in flight
by construction. What is still on its way (signed but not final) is listed beside, as an explanation of what comes next.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, QuerySet, Sum

from escrow import ledger, money
from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool
from escrow.chain.errors import ChainReverted
from escrow.models import (
    DUE,
    Account,
    Batch,
    ChainAction,
    ChainCursor,
    ChainLog,
    Payment,
    Pool,
    SignerNonce,
    Transfer,
)

Kind = Account.Kind
STALE = timedelta(minutes=10)
"""A comparison as of an older block says too little about now."""


@dataclass(frozen=True)
class Difference:
    """Two sources that should say the same and do not. Amounts are micro-USDC."""

    pool: str
    what: str
    ledger_micros: int
    other_micros: int

    def __str__(self) -> str:
        return (
            f"{self.what} of {self.pool}: the ledger has {money.render(self.ledger_micros)}, "
            f"the other side {money.render(self.other_micros)}"
        )


@dataclass(frozen=True)
class Report:
    """The outcome: `equal` when there is no difference, `settled` when moreover nothing is on its way."""

    block: int
    read_at: datetime
    pools: int
    compared: int
    held_micros: int
    differences: list[Difference] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether the books equal the chain."""
        return not self.differences and not self.alarms

    @property
    def exit_code(self) -> int:
        """0: equal and nothing on its way; 1: equal, with steps on their way; 2: a difference or an alarm."""
        if not self.equal:
            return 2
        return 1 if self.in_flight else 0

    def document(self) -> dict[str, object]:
        """Return the report as JSON, amounts as decimal strings."""
        return {
            "equal": self.equal,
            "block": self.block,
            "read_at": self.read_at.isoformat(),
            "pools": self.pools,
            "compared": self.compared,
            "held": money.render(self.held_micros),
            "differences": [asdict(difference) for difference in self.differences],
            "in_flight": self.in_flight,
            "alarms": self.alarms,
        }


def reconcile(*, client: ChainClient, now: datetime, pool_id: UUID | None = None) -> Report:
    """Compare every pool (or one) with the contract as of the indexer's block. Raises ChainError when it cannot be asked."""
    with transaction.atomic():
        with connection.cursor() as sql:
            sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            sql.execute(f"SET LOCAL statement_timeout = {settings.RECONCILE_STATEMENT_TIMEOUT_MS:d}")
        return _compare(client, now, pool_id)


def _compare(client: ChainClient, now: datetime, pool_id: UUID | None) -> Report:
    cursor = ChainCursor.objects.filter(chain_id=settings.CHAIN_ID, contract_address=settings.ESCROW_ADDRESS).first()
    if cursor is None:
        return Report(0, now, 0, 0, 0, alarms=["The indexer has not read the chain yet; is the worker running?"])
    chosen = Pool.objects.filter(pool_key__isnull=False, contract_address=settings.ESCROW_ADDRESS).order_by("pk")
    if pool_id is not None:
        chosen = chosen.filter(pk=pool_id)
    book = _Book(BudgetPool(client, settings.ESCROW_ADDRESS), cursor.block_number, _added_up(pool_id))
    pools = list(chosen)
    for pool in pools:
        book.compare_pool(pool)
    if pool_id is None:
        book.compare_whole()
    return Report(
        block=cursor.block_number,
        read_at=cursor.read_at,
        pools=len(pools),
        compared=book.compared,
        held_micros=book.held,
        differences=book.differences,
        in_flight=_in_flight(pool_id),
        alarms=_alarms(cursor, now),
    )


@dataclass(frozen=True)
class _Sums:
    """What transfers and debts add up to, in micro-USDC: by account, and by pool and status."""

    sent: Mapping[int, int]
    received: Mapping[int, int]
    debts: Mapping[tuple[UUID, str], int]


def _added_up(pool_id: UUID | None) -> _Sums:
    """Add up every transfer and open debt, or those of one pool: one walk through each table, however many pools there are.

    All that a pool's accounts receive is sent by one of them, so its senders' transfers have both sides.
    """
    transfers, owed = Transfer.objects.order_by(), Payment.objects.order_by()
    if pool_id is not None:
        transfers, owed = transfers.filter(sender__pool=pool_id), owed.filter(pool=pool_id)
    sent, received = Counter[int](), Counter[int]()
    for sender, receiver, micros in transfers.values_list("sender", "receiver").annotate(moved=Sum("amount_micros")):
        sent[sender] += micros
        received[receiver] += micros
    open_debts = owed.filter(status__in=[Payment.Status.PAYABLE, Payment.Status.SETTLING])
    sums = open_debts.values_list("pool", "status").annotate(owed=Sum(DUE))
    return _Sums(sent, received, Counter({(pool, status): micros for pool, status, micros in sums}))


class _Book:
    """The comparison as it goes: what was compared, and what differed."""

    def __init__(self, contract: BudgetPool, block: int, sums: _Sums) -> None:
        self.contract = contract
        self.block = block
        self.sums = sums
        self.compared = 0
        self.held = 0
        self.differences: list[Difference] = []

    def expect(self, pool: Pool | str, what: str, ours: int, theirs: int) -> None:
        self.compared += 1
        if ours != theirs:
            self.differences.append(Difference(str(pool), what, ours, theirs))

    def compare_pool(self, pool: Pool) -> None:
        if pool.status not in (Pool.Status.OPENING, Pool.Status.FAILED):
            self._against_chain(pool)
        self._against_transfers(pool)
        self._against_debts(pool)

    def compare_whole(self) -> None:
        """The token's own balance against what the contract says it holds; and its totals, unless others have pools in it."""
        held = self.contract.total_held(self.block)
        if not self.contract.solvent(self.block):
            self.differences.append(Difference("the contract", "total held, against its USDC", held, 0))
        if ChainLog.objects.filter(pool=None, event="PoolOpened").exists():
            return
        inside = _sum(Account.objects.exclude(kind=Kind.WORLD))
        kept = _sum(Account.objects.filter(kind=Kind.FEES))
        self.held += self.contract.fees(self.block)
        self.expect("the contract", "total held", inside, held)
        self.expect("the contract", "fees", kept, self.contract.fees(self.block))

    def _against_chain(self, pool: Pool) -> None:
        key = bytes.fromhex(str(pool.pool_key)[2:])
        held = ledger.balances_by_kind(pool)
        free, disputed = self._on_chain(key)
        self.held += free + disputed
        self.expect(pool, "free", sum(held.get(kind, 0) for kind in Account.IN_FREE), free)
        self.expect(pool, "contested", held.get(Kind.CONTESTED, 0), disputed)
        for account in Account.objects.filter(pool=pool, kind=Kind.CREDITED).select_related("party"):
            if account.party is None:
                continue
            line = self.contract.line_of(key, account.party.address, self.block)
            self.held += line.matured + line.pending
            self.expect(pool, f"credit of {account.party}", account.balance_micros, line.matured + line.pending)

    def _on_chain(self, key: bytes) -> tuple[int, int]:
        """Return the contract's free and disputed money of a pool; of one that it does not know, nothing."""
        try:
            state = self.contract.pool(key, self.block)
        except ChainReverted as error:
            if error.name != "NoSuchPool":
                raise
            return 0, 0
        return state.free, state.disputed

    def _against_transfers(self, pool: Pool) -> None:
        """Each account's two sums against its transfers."""
        for account in Account.objects.filter(pool=pool):
            self.compared += 1
            out, into = self.sums.sent[account.pk], self.sums.received[account.pk]
            if (account.sent_micros, account.received_micros) != (out, into):
                self.differences.append(
                    Difference(str(pool), f"sums of {account.code}", account.balance_micros, into - out)
                )

    def _against_debts(self, pool: Pool) -> None:
        """What is payable and settling, against the debts and batches that say why."""
        if pool.status == Pool.Status.CLOSED:
            return  # a pool that was reclaimed past us has debts without money, and both sides know
        held = ledger.balances_by_kind(pool)
        owed = self.sums.debts[pool.pk, Payment.Status.PAYABLE]
        self.expect(pool, "payable, against its debts", held.get(Kind.PAYABLE, 0), owed)
        moving = self.sums.debts[pool.pk, Payment.Status.SETTLING]
        self.expect(pool, "settling, against its debts", held.get(Kind.SETTLING, 0), moving)
        signed = (
            Batch.objects.filter(pool=pool, status=Batch.Status.SIGNED).aggregate(s=Sum("records__amount_micros"))["s"]
            or 0
        )
        self.expect(pool, "settling, against its batches", held.get(Kind.SETTLING, 0), signed)


def _alarms(cursor: ChainCursor, now: datetime) -> list[str]:
    """Return why the comparison alone would not be enough."""
    stopped = SignerNonce.objects.filter(chain_id=settings.CHAIN_ID).exclude(stopped_reason="")
    found = [cursor.stopped_reason, *stopped.values_list("stopped_reason", flat=True)]
    if now - cursor.read_at > STALE:
        found.append(f"The indexer has read nothing since {cursor.read_at.isoformat()}; is the worker running?")
    return [reason for reason in found if reason]


def _in_flight(pool_id: UUID | None) -> list[str]:
    """Return what is planned or sent and not yet final, in words."""
    waiting = [ChainAction.Status.PLANNED, *ChainAction.IN_FLIGHT]
    actions = ChainAction.objects.filter(status__in=waiting).order_by("pk")
    if pool_id is not None:
        actions = actions.filter(pool=pool_id)
    return [f"{action.kind} is {action.status} {action.tx_hash}".rstrip() for action in actions[:100]]


def _sum(accounts: "QuerySet[Account]") -> int:
    return accounts.aggregate(s=Sum(F("received_micros") - F("sent_micros")))["s"] or 0
