"""What happens in the demo, in order: agents are hired, a dispute is ruled, the pool is closed, everybody has their money."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Final

from django.contrib.auth import get_user_model
from django.db.models import F, Q
from django.utils import timezone

from agentmarket import Client, SyncClient
from escrow import disputes, intents
from escrow.models import Account, Batch, ChainAction, Dispute, Pool
from examples import orchestrator
from examples.report import ReviewResult
from examples.specialists import SPECIALISTS
from marketplace import keys
from marketplace.management.stack import sample
from marketplace.management.stack.sample import Buyer
from marketplace.management.stack.stack import Stack
from marketplace.management.stack.supervisor import StackError
from marketplace.models import Provider, Scope

Progress = Callable[[str, int, int], None]

LEAST_BUDGET: Final = Decimal(25)
ADMIN: Final = "admin"
TO_PROVIDER_BPS: Final = 7_000
ANSWER: Final = "I did read the findings: none of them mattered, so there was nothing to write."
RULING: Final = (
    "The findings were read, and an empty brief was agreed to by nobody: the time is paid, the brief is not."
)
SETTINGS: Final = {
    # One settlement at the end: a pool that closes settles at once, whatever it owes.
    "SETTLE_MIN_MICROS": str(10**15),
    "SETTLE_MAX_AGE": str(7 * 24 * 3600),
    "DISPUTE_WINDOW": "0",  # credits can be paid out at once: nobody here waits for an hour
    "CLOSE_DELAY": "0",
}
PATIENCE: Final = 60.0
_POLL_SECONDS: Final = 0.1
_ENDED: Final = (ChainAction.Status.FINAL, ChainAction.Status.DROPPED)


@dataclass
class Played:
    """Who took part and what they did."""

    sellers: dict[str, Provider]
    buyer: Buyer
    review: ReviewResult
    admin: str
    password: str
    worker_kills: int
    seconds: dict[str, float]


class Play:
    """One demo on a running stack. With `kill_worker` the worker dies twice and comes back: the books must not notice."""

    def __init__(self, stack: Stack, progress: Progress, *, kill_worker: bool = False) -> None:
        """Take the stack, and who is told how far it is."""
        self.stack, self.progress, self.kill_worker = stack, progress, kill_worker
        self.seconds: dict[str, float] = {}
        self.kills = 0

    def run(self, *, files: int, path: Path | None) -> Played:
        """Play it all; return when the pool is closed and everybody has their money. Raises StackError."""
        budget = budget_for(files)
        with self._timed("specialists"):
            sellers = sample.start_specialists(self.stack)
        with self._timed("pool"):
            buyer = _buyer(budget, sellers.values())
        password = secrets.token_urlsafe(12)
        get_user_model().objects.create_superuser(ADMIN, password=password)
        with self._timed("review"):
            review = asyncio.run(self._review(buyer, files, path))
        if "worker" not in self.stack.supervisor.children:
            self.stack.restart("worker")
        with self._timed("dispute"):
            self._rule(review, sellers["sloppy"])
        with self._timed("closing"):
            self._close(buyer)
        return Played(sellers, buyer, review, ADMIN, password, self.kills, self.seconds)

    async def _review(self, buyer: Buyer, files: int, path: Path | None) -> ReviewResult:
        async with Client(buyer.session_key, base_url=self.stack.urls.web) as client:
            return await orchestrator.review(client=client, path=path, files=files, progress=self._reviewing)

    def _reviewing(self, stage: str, done: int, total: int) -> None:
        self.progress(stage, done, total)
        if self.kill_worker and stage == "calls" and done > total // 2:
            self._kill_worker()

    def _kill_worker(self) -> None:
        if "worker" in self.stack.supervisor.children:
            self.stack.kill("worker")
            self.kills += 1

    def _rule(self, review: ReviewResult, seller: Provider) -> None:
        """The provider answers with its own key, and the admin rules as its page in the admin does."""
        now = timezone.now()
        _, key = keys.issue(scope=Scope.PROVIDER, provider=seller, now=now, name="answers disputes")
        with SyncClient(key, base_url=self.stack.urls.web) as client:
            client.disputes.answer(review.dispute_id, answer=ANSWER)
        self.progress("ruling", 1, 2)
        dispute = Dispute.objects.select_related("session__pool", "session__account", "party", "account").get(
            pk=review.dispute_id
        )
        disputes.rule(
            dispute=dispute, to_provider_bps=TO_PROVIDER_BPS, reason=RULING, ruled_by=ADMIN, now=timezone.now()
        )
        self.progress("ruling", 2, 2)

    def _close(self, buyer: Buyer) -> None:
        """Close the pool as its payer, and watch the chain do the rest."""
        with SyncClient(buyer.payer_key, base_url=self.stack.urls.web) as client:
            client.pools.close(str(buyer.pool.pk))
        deadline = time.monotonic() + PATIENCE
        while not self._closed(buyer.pool):
            self.stack.supervisor.check()
            if time.monotonic() > deadline:
                raise StackError(f"The pool is not closed after {PATIENCE:.0f} s.\n{_state(buyer.pool)}")
            if self.kill_worker and self.kills < 2 and Batch.objects.filter(pool=buyer.pool).exists():
                self._kill_worker()
                self.stack.restart("worker")
            time.sleep(_POLL_SECONDS)

    def _closed(self, pool: Pool) -> bool:
        pool.refresh_from_db()
        actions = intents.of_pool(pool)
        if failed := list(actions.filter(intents.refused() | Q(status=ChainAction.Status.REVERTED))):
            raise StackError("".join(f"{action} is {action.status}: {action.error}\n" for action in failed))
        landed = Batch.objects.filter(pool=pool, status=Batch.Status.SETTLED).count()
        self.progress("settle", landed, max(1, Batch.objects.filter(pool=pool).count()))
        credits = Account.objects.filter(pool=pool, kind=Account.Kind.CREDITED)
        paid = credits.filter(received_micros=F("sent_micros"))
        self.progress("pay out", paid.count(), max(1, credits.count()))
        closed = pool.status == Pool.Status.CLOSED
        self.progress("close", (pool.close_requested_at is not None) + closed, 2)
        return closed and paid.count() == credits.count() and not actions.exclude(status__in=_ENDED)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - begun, 2)


def budget_for(files: int) -> Decimal:
    """Return the budget in USDC: $25, or more in whole dollars when so many files cost more."""
    prices = {name: Decimal(specialist.price) for name, specialist in SPECIALISTS.items()}
    calls = sum(prices[name] for name in orchestrator.CHECKS) * files + prices["lint"]  # and the one that is refunded
    return max(LEAST_BUDGET, (calls + prices["brief"] + prices["sloppy"]).to_integral_value(ROUND_CEILING))


def _buyer(budget: Decimal, sellers: Iterable[Provider]) -> Buyer:
    dearest = max((specialist.price for specialist in SPECIALISTS.values()), key=Decimal)
    policy = {"max_per_tx": dearest, "allowed_recipients": ["*.acme.dev"]}
    amount = f"{budget:.2f}"
    return sample.open_buyer(name="Demo payer", deposit=amount, budget=amount, policy=policy, sellers=list(sellers))


def _state(pool: Pool) -> str:
    actions = intents.of_pool(pool)
    return "".join(f"  {action} is {action.status} {action.error}\n" for action in actions)
