"""The ledger. Lives here: the only code that writes accounts and transfers. Why money moves is the verbs' to say.

Three rules are the database's (migrations 0002, 0004): transfers are only ever added; an account's sums are what its
transfers say; an account other than ``world`` never sends more than it has received. Accounts are locked in primary-key
order. A payment's transfer alone is written elsewhere, by `escrow_send`, which has its sums and its locks already.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import connection
from django.db.models import F, QuerySet, Sum

from escrow import money
from escrow.errors import InsufficientFunds
from escrow.models import Account, Party, Pool, Reason, Transfer

Kind = Account.Kind

_POST: Final = "SELECT escrow_post(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])"


@dataclass(frozen=True, slots=True)
class Move:
    """A transfer to be posted."""

    sender: Account
    receiver: Account
    micros: int
    reason: Reason
    ref: str


def open_account(kind: Account.Kind, *, pool: Pool | None, subject: UUID | str, party: Party | None = None) -> Account:
    """Return the account ``<kind>:<subject>``, opened when it is not there yet."""
    account, _ = Account.objects.get_or_create(
        code=f"{kind}:{subject}", defaults={"kind": kind, "pool": pool, "party": party}
    )
    return account


def world(pool: Pool) -> Account:
    """Return the account that mirrors the contract for one pool: it has sent what the contract has received."""
    return open_account(Kind.WORLD, pool=pool, subject=pool.pk)


def free(pool: Pool) -> Account:
    """Return the account of the money of a pool that no session has."""
    return open_account(Kind.POOL, pool=pool, subject=pool.pk)


def payable(pool: Pool, party: Party) -> Account:
    """Return the account of what a pool owes a party and has not yet put into a batch."""
    return open_account(Kind.PAYABLE, pool=pool, party=party, subject=f"{pool.pk}:{party.pk}")


def credited(pool: Pool, party: Party) -> Account:
    """Return the account of what the contract has credited to a party and not yet paid out."""
    return open_account(Kind.CREDITED, pool=pool, party=party, subject=f"{pool.pk}:{party.pk}")


def fees() -> Account:
    """Return the account of the fees that the contract has kept and not yet paid out."""
    return open_account(Kind.FEES, pool=None, subject="market")


def lock(accounts: Iterable[Account]) -> dict[int, Account]:
    """Lock accounts in primary-key order until the database transaction ends; return them fresh, by id."""
    ids = {account.pk for account in accounts}
    locked = Account.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=ids).order_by("pk")
    return {account.pk: account for account in locked}


def require(account: Account, micros: int, name: str) -> None:
    """Return when a (locked) account holds an amount. Raises InsufficientFunds with what it has."""
    if account.balance_micros < micros:
        raise InsufficientFunds(name, money.render(account.balance_micros), money.render(micros))


def post(moves: Sequence[Move]) -> None:
    """Write transfers; the sums of each account follow. The caller has locked what it checked.

    The database refuses an overdraft and a repeated (ref, reason, sender, receiver) with IntegrityError: both would be
    faults of ours, since every verb checks before it posts. Moves of nothing are left out.
    """
    rows = [
        (move.sender.pk, move.receiver.pk, move.micros, str(move.reason), move.ref) for move in moves if move.micros
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(_POST, [list(column) for column in zip(*rows, strict=True)])


def balance(account: Account) -> int:
    """Return what an account holds now, in micro-USDC."""
    return Account.objects.get(pk=account.pk).balance_micros


def balances_by_kind(pool: Pool) -> dict[str, int]:
    """Return what the accounts of a pool hold, summed by kind, in micro-USDC."""
    rows = (
        Account.objects.filter(pool=pool)
        .values_list("kind")
        .annotate(held=Sum(F("received_micros") - F("sent_micros")))
    )
    return {kind: int(held) for kind, held in rows}


def sent_by(account: Account) -> "QuerySet[Transfer]":
    """Return the transfers from an account."""
    return Transfer.objects.filter(sender=account).select_related("sender", "receiver")


def received_by(account: Account) -> "QuerySet[Transfer]":
    """Return the transfers to an account, but for payments: those that a party receives are listed as payments."""
    received = Transfer.objects.filter(receiver=account).exclude(reason=Reason.PAYMENT)
    return received.select_related("sender", "receiver")


def budget_of(session_account: Account) -> int:
    """Return what a session was given at opening and by top-ups, in micro-USDC."""
    given = Transfer.objects.filter(receiver=session_account, reason__in=[Reason.SESSION_OPEN, Reason.SESSION_TOP_UP])
    return given.aggregate(total=Sum("amount_micros"))["total"] or 0
