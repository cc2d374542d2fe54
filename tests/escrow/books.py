"""Small builders of the money rooms' tests, and what must hold of the books whatever happened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import uuid4

from django.db import connection
from django.db.models import Sum
from eth_utils.address import to_checksum_address

from escrow import funding, holds, invoices, ledger, mirroring, payments, pools, sessions
from escrow.models import Account, Batch, ChainCursor, ChainLog, Hold, Invoice, Party, Payment, Pool, Session, Transfer
from escrow.policy import Policy

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
USDC = 1_000_000
LINT = "agent://lint.acme.dev"
FREE = Policy()

_numbers = count(1)


def party(name: str = "acme.dev") -> Party:
    """Make a party with an address of its own."""
    return Party.objects.create(name=name, address=to_checksum_address(f"0x{uuid4().hex:0>40}"))


def pool(micros: int = 100 * USDC, *, expires_in: timedelta = timedelta(days=90)) -> Pool:
    """Make an open pool, as the relay binds it and the indexer opens it."""
    made = pools.open(payer_id=uuid4(), deposit_micros=micros, now=NOW, expires_in=expires_in)
    bind(made)
    funding.opened(made, deposit_micros=micros, ref=f"0x{uuid4().hex}:0", at=NOW)
    return made


def bind(made: Pool) -> None:
    """Give a pool a key that no contract knows."""
    key = f"0x{uuid4().hex}{uuid4().hex}"
    pools.bind(made, terms={}, pool_key=key, payer_address="0x" + "22" * 20)


def session(of: Pool | None = None, micros: int = 25 * USDC, policy: Policy = FREE) -> Session:
    """Open a session, in a pool of its own when none is given."""
    return sessions.open(pool=of or pool(), budget_micros=micros, policy=policy, now=NOW)


def pay(
    by: Session,
    to: Party,
    micros: int,
    *,
    agent: str = LINT,
    key: str = "",
    request: bytes = b"\1" * 32,
    now: datetime = NOW,
) -> Payment:
    """Pay a party."""
    return payments.send(
        session_id=by.pk,
        party_id=to.pk,
        to=agent,
        amount_micros=micros,
        metadata={"n": next(_numbers)},
        idempotency_key=key or uuid4().hex,
        request_hash=request,
        now=now,
    ).payment


def hold(by: Session, for_: Party, micros: int = 10 * USDC, expires_in: int | None = None) -> Hold:
    """Set an amount aside; without an end it is as a task's."""
    return holds.place(session=by, amount_micros=micros, party=for_, to=LINT, expires_in=expires_in, now=NOW)


def invoice(on: Hold, micros: int, number: str = "INV-1") -> Invoice:
    """Claim a part of a hold."""
    return invoices.submit(
        hold=on, amount_micros=micros, number=number, memo="", task_ref="task", deliverable={"text": "done"}, now=NOW
    )


def never_landed(batch: Batch, block: int) -> bool:
    """Stand for a contract that has not taken a batch."""
    return False


def land(batch: Batch, *, tx_hash: str, block: int = 7, log_index: int = 3) -> None:
    """Let the indexer have read that a batch landed, whoever landed it."""
    ChainLog.objects.create(
        pool=batch.pool,
        event="BatchSettled",
        args={},
        block_number=block,
        block_hash="0x" + "0b" * 32,
        tx_hash=tx_hash,
        log_index=log_index,
        tier=ChainLog.Tier.FINAL,
        applied_at=NOW,
    )
    mirroring.credit(batch, mirroring.Place(ref=f"{tx_hash}:{log_index}", at=NOW))


def settlement_paused(of: Pool) -> None:
    """Let nothing new be spent from a pool's contract, as when the chain stands still and enough is owed."""
    ChainCursor.objects.create(
        chain_id=of.chain_id, contract_address=of.contract_address, block_number=1, block_hash="0x1",
        block_time=NOW, read_at=NOW, paused_at=NOW,
    )  # fmt: skip


def balance(account: Account) -> int:
    """Return what an account holds now."""
    return ledger.balance(account)


def money() -> dict[str, tuple[int, int]]:
    """Return the sums of every account with any, and the count of transfers."""
    sums = Account.objects.values_list("code", "sent_micros", "received_micros")
    held = {code: (sent, received) for code, sent, received in sums if sent or received}
    return held | {"transfers": (Transfer.objects.count(), 0)}


@contextmanager
def unmoved() -> Iterator[None]:
    """Check that no money moves inside."""
    before = money()
    yield
    assert money() == before, "money moved"


def check_conservation() -> None:
    """Check that nothing was made or lost, and that every account's sums are what its transfers say."""
    sent = dict(Transfer.objects.order_by().values_list("sender").annotate(Sum("amount_micros")))
    received = dict(Transfer.objects.order_by().values_list("receiver").annotate(Sum("amount_micros")))
    accounts = list(Account.objects.all())
    assert sum(account.received_micros - account.sent_micros for account in accounts) == 0
    for account in accounts:
        assert account.sent_micros == sent.get(account.pk, 0), account
        assert account.received_micros == received.get(account.pk, 0), account
        assert account.kind == Account.Kind.WORLD or account.balance_micros >= 0, account


def check_pool(of: Pool) -> pools.PoolBalances:
    """Check that where a pool's money is and went adds up to what came in, and return it."""
    at = pools.balances(of)
    rest = [getattr(at, name) for name in pools.PoolBalances.__slots__ if name != "deposited"]
    assert at.deposited == sum(rest), at
    return at


def wait_for_a_lock(many: int, unless: Callable[[], bool] = lambda: False) -> None:
    """Return once so many others wait for a lock, or need not."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with connection.cursor() as cursor:
        while not unless():
            cursor.execute(waiting)
            if cursor.fetchone()[0] >= many:
                return
