"""What our books say, read in one snapshot for a comparison with the chain. Lives here: the reading.

Balances are added up from the transfers, and from the logs that the indexer has read: two roads to the same numbers that share
no column. The account columns are read beside them, as a third word. Asking the chain and comparing are not here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q

from escrow import checks, money_checks, order_checks, proving
from escrow.chain import effects
from escrow.findings import Cause, Difference
from escrow.models import Account, Batch, ChainAction, ChainCursor, ChainLog, Pool, SignerNonce

Kind = Account.Kind
CLASSES: Final = {
    Kind.POOL: "available",
    Kind.SESSION: "in_sessions",
    Kind.HOLD: "held",
    Kind.PAYABLE: "payable",
    Kind.SETTLING: "settling",
    Kind.CREDITED: "credited",
    Kind.DISPUTE: "disputed",
    Kind.CONTESTED: "disputed",
    Kind.FEES: "fees",
}
"""What the contract's money is owed as, by the kind of account that has it."""
FLIGHTS_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Log:
    """A log that the ledger has taken, where it stands by the logbook. An orphan stands nowhere."""

    place: tuple[str, int]
    pool_id: UUID | None
    event: str
    args: Mapping[str, Any]
    block_number: int
    block_hash: str
    is_orphan: bool


@dataclass(frozen=True, slots=True)
class Flight:
    """A signed action whose nonce the chain may have used: with every hash under which it may be mined."""

    address: str
    nonce: int
    hashes: Sequence[str]


@dataclass
class Books:
    """One snapshot. Amounts are micro-USDC; places are those of `escrow.chain.effects`."""

    cursor: ChainCursor
    pools: Mapping[UUID, str]
    """The key of each pool that the contract may know, by our id."""
    by_transfers: Mapping[UUID, Counter[str]]
    by_logs: Mapping[UUID | None, Counter[str]]
    """None: pools of others on the same contract."""
    inside: int
    fees: int
    owed: Mapping[tuple[str, str, str], int]
    """What is owed, by class, pool and party: the leaves of a proof of reserves."""
    logs: Sequence[Log]
    """The newest that the ledger has taken, those that have lost their block, and a sample of the older."""
    recent_from: int
    signers: Mapping[str, tuple[int, int]]
    """The first nonce that we used of each signer, and the next one; none of one pool, as the flights."""
    flights: Sequence[Flight]
    steps: Sequence[str]
    alarms: list[str]
    differences: list[Difference] = field(default_factory=list)
    compared: int = 0


def cursor() -> ChainCursor | None:
    """Return how far the indexer has read; None before it has begun."""
    return ChainCursor.objects.filter(chain_id=settings.CHAIN_ID, contract_address=settings.ESCROW_ADDRESS).first()


def read(pool_id: UUID | None = None) -> Books | None:
    """Read all books, or those of one pool, as of one moment; None before the indexer has begun."""
    with transaction.atomic():
        with connection.cursor() as sql:
            sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            sql.execute(f"SET LOCAL statement_timeout = {settings.RECONCILE_STATEMENT_TIMEOUT_MS:d}")
        at = cursor()
        return None if at is None else _read(at, pool_id)


def _read(at: ChainCursor, pool_id: UUID | None) -> Books:
    chosen = Pool.objects.filter(pool_key__isnull=False, contract_address=settings.ESCROW_ADDRESS)
    if pool_id is not None:
        chosen = chosen.filter(pk=pool_id)
    pools = {pk: str(key) for pk, key in chosen.values_list("pk", "pool_key")}
    accounts = _accounts(pool_id)
    recent_from = max(at.block_number - settings.RECONCILE_BLOCKS + 1, settings.ESCROW_START_BLOCK, 0)
    made = [*money_checks.CHECKS, *order_checks.CHECKS, *(order_checks.OF_SIGNERS if pool_id is None else ())]
    balances = {one.id: one.micros for one in accounts if one.pool_id is not None}
    own = checks.run(made, pool_id, balances)
    return Books(
        cursor=at,
        pools=pools,
        by_transfers=_by_pool(accounts),
        by_logs=_by_logs(pool_id),
        inside=sum(one.micros for one in accounts if one.kind != Kind.WORLD),
        fees=sum(one.micros for one in accounts if one.kind == Kind.FEES),
        owed=_owed(accounts, pool_id),
        logs=_logs(recent_from, pool_id),
        recent_from=recent_from,
        signers=_signers() if pool_id is None else {},
        flights=_flights() if pool_id is None else [],
        steps=_steps(pool_id),
        alarms=[reason for reason in (at.stopped_reason, *_stopped()) if reason],
        differences=own + _columns(accounts) + proving.again(pool_id),
        compared=len(made) + len(accounts),
    )


# ---------------------------------------------------------------------- accounts


@dataclass(frozen=True, slots=True)
class _Sums:
    """An account, its columns, and what its transfers say."""

    id: int
    code: str
    kind: str
    pool_id: UUID | None
    party_id: UUID | None
    address: str | None
    columns: tuple[int, int, int]
    sums: tuple[int, int, int]

    @property
    def micros(self) -> int:
        return self.sums[1] - self.sums[0]


_ACCOUNTS: Final = """
WITH account AS (
    SELECT account.* FROM escrow_account AS account LEFT JOIN escrow_pool AS pool ON pool.id = account.pool_id
    WHERE CASE WHEN %(pool)s::uuid IS NOT NULL THEN pool.id = %(pool)s::uuid
        ELSE pool.id IS NULL OR pool.contract_address = %(contract)s END
), moved AS (
    SELECT sender_id AS id, sum(amount_micros) AS sent, 0::numeric AS received, count(*) AS times
    FROM escrow_transfer WHERE %(pool)s::uuid IS NULL OR sender_id IN (SELECT id FROM account) GROUP BY 1
    UNION ALL
    SELECT receiver_id, 0, sum(amount_micros), 0
    FROM escrow_transfer WHERE %(pool)s::uuid IS NULL OR receiver_id IN (SELECT id FROM account) GROUP BY 1
)
SELECT account.id, account.code, account.kind, account.pool_id, account.party_id, party.address, account.sent_micros,
    account.received_micros, account.sent_count, coalesce(sum(moved.sent), 0)::bigint,
    coalesce(sum(moved.received), 0)::bigint, coalesce(sum(moved.times), 0)::bigint
FROM account LEFT JOIN moved ON moved.id = account.id LEFT JOIN escrow_party AS party ON party.id = account.party_id
GROUP BY account.id, account.code, account.kind, account.pool_id, account.party_id, party.address, account.sent_micros,
    account.received_micros, account.sent_count
"""


def _accounts(pool_id: UUID | None) -> list[_Sums]:
    """Return every account, or a pool's, with its transfers added up."""
    with connection.cursor() as sql:
        sql.execute(_ACCOUNTS, {"pool": pool_id, "contract": settings.ESCROW_ADDRESS})
        return [_Sums(*row[:6], columns=row[6:9], sums=row[9:12]) for row in sql.fetchall()]  # type: ignore[misc]


def _columns(accounts: Sequence[_Sums]) -> list[Difference]:
    """Hold each account's columns against its transfers."""
    found: list[Difference] = []
    for one in accounts:
        if one.columns != one.sums:
            where, what = str(one.pool_id or "the market"), f"sums of {one.code}"
            column, detail = one.columns[1] - one.columns[0], f"sent, received, times: {one.columns} and {one.sums}"
            sources = ("the account", "its transfers")
            found.append(Difference("R2", where, what, column, one.micros, Cause.BUG, sources, detail))
    return found


def _by_pool(accounts: Sequence[_Sums]) -> dict[UUID, Counter[str]]:
    pools: dict[UUID, Counter[str]] = {}
    for one in accounts:
        if one.pool_id is None or one.kind == Kind.WORLD:
            continue
        held = pools.setdefault(one.pool_id, Counter())
        if one.kind in Account.IN_FREE:
            held[effects.FREE] += one.micros
        elif one.kind == Kind.CONTESTED:
            held[effects.DISPUTED] += one.micros
        elif one.kind == Kind.CREDITED and one.address:
            held[effects.line(one.address)] += one.micros
    return pools


def _owed(accounts: Sequence[_Sums], pool_id: UUID | None) -> dict[tuple[str, str, str], int]:
    """Return what is owed, by class, pool and party. A batch's money is its records' parties', by their amounts."""
    owed: Counter[tuple[str, str, str]] = Counter()
    settling = {one.code for one in accounts if one.kind == Kind.SETTLING and one.micros}
    for one in accounts:
        if one.micros and one.kind in CLASSES and one.kind != Kind.SETTLING:
            party = "" if one.kind == Kind.HOLD else str(one.party_id or "")  # until it is captured it is the payer's
            owed[CLASSES[Kind(one.kind)], str(one.pool_id or ""), party] += one.micros
    rows = Batch.objects.filter(status=Batch.Status.SIGNED, pool__contract_address=settings.ESCROW_ADDRESS)
    if pool_id is not None:
        rows = rows.filter(pool=pool_id)
    lines = rows.values_list("account__code", "pool", "records__party", "records__amount_micros")
    for code, pool, payee, micros in lines:
        if code in settling and micros:
            owed[CLASSES[Kind.SETTLING], str(pool), str(payee)] += micros
    return dict(owed)


# ---------------------------------------------------------------------- logs

_FIELDS: Final = ("deposit", "amount", "net", "fee", "to_provider", "to_payer")
_BY_LOGS: Final = """
SELECT pool_id, event, coalesce(args->>'provider', ''),
    coalesce(sum((args->>'deposit')::bigint), 0)::bigint,
    coalesce(sum((args->>'amount')::bigint), 0)::bigint,
    coalesce(sum((args->>'net')::bigint), 0)::bigint,
    coalesce(sum((args->>'fee')::bigint), 0)::bigint,
    coalesce(sum((args->>'to_provider')::bigint), 0)::bigint,
    coalesce(sum((args->>'to_payer')::bigint), 0)::bigint
FROM escrow_chainlog WHERE contract_address = %(contract)s AND applied_at IS NOT NULL
    AND (%(pool)s::uuid IS NULL OR pool_id = %(pool)s::uuid) GROUP BY 1, 2, 3
"""


def _by_logs(chosen: UUID | None) -> dict[UUID | None, Counter[str]]:
    """Rebuild every pool, or one, from the logs that were read. Events are linear: the sums of equal ones do the same."""
    pools: dict[UUID | None, Counter[str]] = {}
    with connection.cursor() as sql:
        sql.execute(_BY_LOGS, {"contract": settings.ESCROW_ADDRESS, "pool": chosen})
        for pool_id, event, provider, *sums in sql.fetchall():
            change = effects.effects(event, {"provider": provider, **dict(zip(_FIELDS, sums, strict=True))})
            pools.setdefault(pool_id, Counter()).update(change)
    return pools


def _logs(recent_from: int, pool_id: UUID | None) -> list[Log]:
    taken = ChainLog.objects.filter(contract_address=settings.ESCROW_ADDRESS, applied_at__isnull=False)
    newest = Q(block_number__gte=recent_from) | Q(orphaned_at__isnull=False)
    rows, older = taken.filter(newest), taken.exclude(newest).order_by("?")
    if pool_id is not None:
        rows, older = rows.filter(pool=pool_id), older.filter(pool=pool_id)
    return [_log(row) for row in (*rows, *older[: settings.RECONCILE_SAMPLE])]


def _log(row: ChainLog) -> Log:
    place = (row.tx_hash, row.log_index)
    return Log(place, row.pool_id, row.event, row.args, row.block_number, row.block_hash, row.orphaned_at is not None)


# ---------------------------------------------------------------------- signers


def _signers() -> dict[str, tuple[int, int]]:
    first: dict[str, int] = {}
    used = ChainAction.objects.exclude(nonce=None).values_list("signer_address", "nonce")
    for address, nonce in used.order_by("signer_address", "nonce").distinct("signer_address"):
        first[address] = int(nonce or 0)
    rows = SignerNonce.objects.filter(chain_id=settings.CHAIN_ID).values_list("address", "next_nonce")
    return {address: (first.get(address, upcoming), upcoming) for address, upcoming in rows}


def _flights() -> list[Flight]:
    rows = ChainAction.objects.filter(status__in=ChainAction.IN_FLIGHT, nonce__isnull=False).order_by("nonce")
    return [
        Flight(row.signer_address, int(row.nonce or 0), [attempt.tx_hash for attempt in row.signed_attempts.all()])
        for row in rows.prefetch_related("signed_attempts")[:FLIGHTS_SHOWN]
    ]


def _steps(pool_id: UUID | None) -> list[str]:
    """Return what is planned or sent and not yet final, in words."""
    actions = ChainAction.objects.filter(status__in=ChainAction.LIVE).order_by("pk")
    if pool_id is not None:
        actions = actions.filter(pool=pool_id)
    return [f"{action.kind} is {action.status} {action.tx_hash}".rstrip() for action in actions[:FLIGHTS_SHOWN]]


def _stopped() -> list[str]:
    stopped = SignerNonce.objects.filter(chain_id=settings.CHAIN_ID).exclude(stopped_reason="")
    return list(stopped.values_list("stopped_reason", flat=True))
