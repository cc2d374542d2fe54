"""What can happen in a history. Lives here: drawing the steps from a seed, and carrying each one out.

All draws are made before the first step, so that a seed is always the same list. A step is its name and small numbers; what
they mean on a ground (which pool, which seller, which worker) is decided here.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import redis
from django.utils import timezone

from escrow import pools, refunds
from escrow.errors import EscrowError
from escrow.models import Attempt, Payment
from marketplace.management.crashtest.answers import is_halt, is_unrefundable
from marketplace.management.crashtest.crew import Outcome
from marketplace.management.crashtest.doors import Doors, Numbers
from marketplace.management.crashtest.ground import SWEEPS, Ground, Tenant
from marketplace.management.crashtest.kills import MOST_MICROS, PLAYS
from marketplace.management.crashtest.web import CREATED, FAILURE, Web

WEIGHTS: Final = {
    "pay": 9, "pay over http": 4, "pay again": 2, "refund": 2, "top up": 1,
    "settle": 6, "relay": 8, "index": 6, "payout": 2, "two at once": 2, "mine": 5,
    "kill": 5, "rpc fails": 4, "rpc loses": 4, "rpc lies": 4, "rpc is stale": 1,
    "chain stalls": 2, "dropped": 2, "reorg": 4, "gas spike": 2, "replace": 2, "short deadline": 1,
    "redis flush": 1, "postgres cut": 2, "postgres answer lost": 2, "clock skew": 2,
}  # fmt: skip
"""How often each step is drawn, of the sum of all."""
FAULTS: Final = frozenset(WEIGHTS) - {
    "pay", "pay over http", "pay again", "refund", "top up", "settle", "relay", "index", "payout", "two at once", "mine",
}  # fmt: skip
SKEWS: Final = (-7_200, -61, 61, 7_200)
DEEPEST: Final = 5
SPIKE: Final = 60
NOT_CHARGED: Final = "not_charged"
NAMES: Final = ("settle", "relay", "index", "payout")


def draw(seed: int, steps: int) -> list[tuple[str, Numbers]]:
    """Return the steps of a seed."""
    at = Random(f"history/{seed}")  # noqa: S311 - draws that can be drawn again
    names = at.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps)
    return [(name, tuple(at.randrange(10**6) for _ in range(5))) for name in names]


@dataclass
class Actor:
    """Carries out steps on one ground. What a fault made of a payment over HTTP stays open until it is answered."""

    ground: Ground
    web: Web
    history: str
    happened: Counter[str] = field(default_factory=Counter)
    """Faults that are there at once."""
    open: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Keys without an answer yet: tenant, seller and amount."""

    def __post_init__(self) -> None:
        """Begin to count what the proxies meet."""
        self.doors = Doors(self.ground)

    def act(self, number: int, name: str, numbers: Numbers) -> None:
        """Carry one step out. What is armed happens when it is met, which `doors` knows."""
        self._number = number
        if _STEPS[name](self, numbers) and name in FAULTS:
            self.happened[name] += 1

    # ------------------------------------------------------------------ asking

    def pay(self, n: Numbers) -> bool:
        tenant, seller, micros, key = self._order(n)
        try:
            self.ground.pay(self.ground.tenants[tenant], seller, micros, key)
        except EscrowError as refused:
            self._refused(refused, f"pay {key}", is_answer=is_halt(self.ground.tenants[tenant].pool, refused.facts))
        return True

    def pay_over_http(self, n: Numbers) -> bool:
        tenant, seller, micros, key = self._order(n)
        self.open[key] = (tenant, seller, micros)
        return self.ask(key)

    def ask(self, key: str) -> bool:
        """Ask once more for a payment that has no answer; return whether it has one now."""
        tenant, seller, micros = self.open[key]
        if not self._ask(self.ground.tenants[tenant], seller, micros, key):
            return False
        del self.open[key]
        return True

    def _ask(self, tenant: Tenant, seller: int, micros: int, key: str) -> bool:
        """Ask over HTTP; return whether the payment was the answer. What is neither that nor a failure is judged."""
        asked, answer = self.ground.asked, self.web.ask(tenant, seller, micros, key)
        if answer is None:
            return False
        status, said = answer
        if status == CREATED:
            self.ground.note(tenant, seller, micros, key, said["id"])
            return True
        told = f"key {key} was answered {status}: {said}"
        if said.get("outcome") == NOT_CHARGED and Payment.objects.filter(idempotency_key=key).exists():
            asked.seconds.append(f"{told}, and it has a payment")  # who believes that pays again under another key
        elif status >= FAILURE:
            return False
        elif key not in asked.orders and is_halt(tenant.pool, said):
            asked.refused += 1
        else:
            asked.wrong.append(told)
        return False

    def pay_again(self, n: Numbers) -> bool:
        """Repeat a key that was answered: the same payment must come back."""
        if not self.ground.asked.recent:
            return False
        order = self.ground.asked.recent[n[0] % len(self.ground.asked.recent)]
        tenant = self.ground.tenant_of(order.pool)
        seller = next(i for i, one in enumerate(self.ground.sellers) if one.party.address == order.address)
        if order.over_http:
            self._ask(tenant, seller, order.micros, order.key)
            return True
        try:
            self.ground.pay(tenant, seller, order.micros, order.key)
        except EscrowError as refused:  # it says that nothing was charged
            self.ground.asked.seconds.append(f"key {order.key} has a payment and was refused: {refused}")
        return True

    def refund(self, n: Numbers) -> bool:
        """Give a part of a payment back: so much less is to land."""
        if not self.ground.asked.recent:
            return False
        order = self.ground.asked.recent[n[0] % len(self.ground.asked.recent)]
        payment = Payment.objects.get(pk=order.payment)
        micros = 1 + n[1] % order.micros
        try:
            refunds.pay(payment=payment, reason="sorry", now=timezone.now(), amount_micros=micros)
        except EscrowError as refused:
            self._refused(refused, f"refund {micros} of {order.key}", is_answer=is_unrefundable(refused))
        else:
            self.ground.asked.owed[order.pool_key, order.address] -= micros
        return True

    def top_up(self, n: Numbers) -> bool:
        tenant, micros = self.ground.tenants[n[0] % len(self.ground.tenants)], 1 + n[1]
        try:
            pools.top_up(pool=tenant.pool, amount_micros=micros, now=timezone.now())
        except EscrowError as refused:
            self._refused(refused, f"top up {micros}", is_answer=is_halt(tenant.pool, refused.facts))
        else:
            self.ground.asked.deposited[tenant.pool_key] += micros
        return True

    def _refused(self, refused: EscrowError, asked: str, *, is_answer: bool) -> None:
        """Count a refusal that is an answer; any other is nothing that a healthy market says here."""
        if is_answer:
            self.ground.asked.refused += 1
        else:
            self.ground.asked.wrong.append(f"{asked}: {type(refused).__name__}: {refused} {refused.facts}")

    def _order(self, n: Numbers) -> tuple[int, int, int, str]:
        ground = self.ground
        key = f"{self.history}/{self._number}"
        return n[0] % len(ground.tenants), n[1] % len(ground.sellers), 1 + n[2] % MOST_MICROS, key

    # ------------------------------------------------------------------ sweeps, and who dies in them

    def sweep(self, name: str) -> bool:
        self.ground.bring_forward()
        for task in SWEEPS[name]:
            self._ended(task, self.ground.crew.deliver(task))
        return True

    def two_at_once(self, n: Numbers) -> bool:
        tasks = [task for k in (0, 1) for task in SWEEPS[NAMES[n[k] % len(NAMES)]]]
        for task, outcome in zip(tasks, self.ground.crew.deliver_at_once(tasks), strict=True):
            self._ended(task, outcome)
        return True

    def kill(self, n: Numbers) -> bool:
        points = sorted(PLAYS)
        point = points[n[0] % len(points)]
        play = PLAYS[point]
        born = {"settings": {**self.ground.crew.born["settings"], **dict(play.born)}}
        self.ground.bring_forward()
        for task in SWEEPS[play.sweep]:
            outcome = self.ground.crew.deliver_odd(task, born, point=point, passes=int(n[1] % 5 == 0))
            if outcome.killed:
                return True
            self._ended(task, outcome)
        return False

    def odd(self, sweep: str, **settings: Any) -> bool:
        """Deliver to a worker that has other settings."""
        self.ground.bring_forward()
        for task in SWEEPS[sweep]:
            born = {"settings": {**self.ground.crew.born["settings"], **settings}}
            self._ended(task, self.ground.crew.deliver_odd(task, born))
        return True

    def skew(self, n: Numbers) -> bool:
        seconds = SKEWS[n[0] % len(SKEWS)]
        for task in SWEEPS[NAMES[n[1] % len(NAMES)]]:
            self._ended(task, self.ground.crew.deliver_odd(task, {"skew": seconds}))
        return True

    def _ended(self, task: str, outcome: Outcome) -> None:
        """A task may fail while a fault is there; but nobody that was not killed may die of it."""
        if outcome.died:
            self.ground.asked.wrong.append(f"{task} was delivered and {outcome.told}")

    # ------------------------------------------------------------------ the chain

    def mine(self, n: Numbers) -> bool:
        self.ground.mine(1 + n[0] % (DEEPEST + 4))
        return True

    def stall(self, n: Numbers) -> bool:
        """From here on nothing is mined by itself, or again everything is."""
        self.ground.node.request("evm_setAutomine", [bool(n[0] % 2)])
        return not n[0] % 2

    def drop(self, n: Numbers) -> bool:
        """Let workers send while nothing is mined: the node forgets one, or all that waits. Return whether it had any."""
        mines = self.ground.node.request("anvil_getAutomine", [])
        self.ground.node.request("evm_setAutomine", [False])
        self.sweep("settle")
        self.sweep("relay")
        newest = list(Attempt.objects.order_by("-pk").values_list("tx_hash", flat=True)[:3])
        before = self._in_the_pool()
        if newest:
            self.ground.node.request("anvil_dropTransaction", [newest[n[0] % len(newest)]])
        if n[1] % 4 == 0:
            self.ground.node.request("anvil_dropAllTransactions", [])
        forgotten = self._in_the_pool() < before
        self.ground.node.request("evm_setAutomine", [mines])
        return forgotten

    def _in_the_pool(self) -> int:
        status = self.ground.node.request("txpool_status", [])
        return sum(int(status[of], 16) for of in ("pending", "queued"))

    def reorg(self, n: Numbers) -> bool:
        self.ground.reorganise(1 + n[0] % DEEPEST)
        return True

    def spike(self, n: Numbers) -> bool:
        self.ground.node.request("anvil_setNextBlockBaseFeePerGas", [hex(SPIKE * 10**9 // (1 + n[0] % 4))])
        self.ground.mine()
        return True

    # ------------------------------------------------------------------ the servers below

    def flush(self, n: Numbers) -> bool:
        with redis.Redis.from_url(self.ground.redis) as client:
            client.flushall()
        return True


_STEPS: Final[dict[str, Callable[[Actor, Numbers], bool | None]]] = {
    "pay": Actor.pay,
    "pay over http": Actor.pay_over_http,
    "pay again": Actor.pay_again,
    "refund": Actor.refund,
    "top up": Actor.top_up,
    "settle": lambda actor, _: actor.sweep("settle"),
    "relay": lambda actor, _: actor.sweep("relay"),
    "index": lambda actor, _: actor.sweep("index"),
    "payout": lambda actor, _: actor.sweep("payout"),
    "two at once": Actor.two_at_once,
    "mine": Actor.mine,
    "kill": Actor.kill,
    "replace": lambda actor, _: actor.odd("relay", RELAY_REPLACE_SECONDS=0),
    "short deadline": lambda actor, _: actor.odd("settle", SETTLE_DEADLINE=1),
    "clock skew": Actor.skew,
    "rpc fails": lambda actor, n: actor.doors.rpc_fails(n),
    "rpc loses": lambda actor, n: actor.doors.rpc_loses(n),
    "rpc lies": lambda actor, n: actor.doors.rpc_lies(n),
    "rpc is stale": lambda actor, n: actor.doors.rpc_is_stale(n),
    "chain stalls": Actor.stall,
    "dropped": Actor.drop,
    "reorg": Actor.reorg,
    "gas spike": Actor.spike,
    "redis flush": Actor.flush,
    "postgres cut": lambda actor, n: actor.doors.cut(n),
    "postgres answer lost": lambda actor, n: actor.doors.answer_lost(n),
}
