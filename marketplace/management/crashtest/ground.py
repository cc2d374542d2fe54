"""The ground that one lane plays on. Lives here: its servers, the market on it, time, blocks, and healing.

The chain's blocks come when somebody sends or asks for them, and carry this machine's time, so that a play is the same
whenever it is played. PostgreSQL need not be durable here: where it is killed, it is (`recovery`).
"""

import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

from django.conf import settings
from django.core.management import call_command
from django.db import close_old_connections, connections
from django.db.models import F
from django.utils import timezone

from escrow import payments, pools
from escrow import workers as escrow_workers
from escrow.chain.client import ChainClient
from escrow.chain.signer import LocalSigner
from escrow.models import Account, Batch, ChainAction, ChainCursor, Party, Pool, Session
from escrow.policy import Policy
from marketplace import agents, keys
from marketplace.celery import app
from marketplace.management.crashtest.asked import Asked, Order
from marketplace.management.crashtest.crew import Crew
from marketplace.management.faults.rpc_proxy import RpcProxy
from marketplace.management.faults.tcp_proxy import TcpProxy
from marketplace.management.stack import anvil, contracts, postgres, sample, valkey
from marketplace.management.stack.adopt import adopt
from marketplace.management.stack.home import Home
from marketplace.management.stack.stack import COMMON
from marketplace.management.stack.supervisor import Supervisor

FINALITY: Final = 8
"""Blocks until final: deeper than any reorganisation that is played."""
POOLS: Final = 4
SELLERS: Final = 5
INITIAL: Final = 3
"""Sellers that a pool allows from its beginning; the others are added when they are first paid."""
DEPOSIT: Final = 100_000 * 10**6
NEVER: Final = 86_400.0
"""Seconds between blocks that nobody asked for: none comes while a lane lives."""
QUIET_TURNS: Final = 40
RPC_SECONDS: Final = 0.3
"""A node on this machine that has not answered by then hangs."""
MINED_SECONDS: Final = 1.0
"""What was sent is in a block by then, if it can be."""
BASE_FEE: Final = 10**9
SETTINGS: Final = {
    "FINALITY": str(FINALITY),
    "CLOSE_DELAY": "0",
    "DISPUTE_WINDOW": "0",  # a credit can be withdrawn at once
    "SETTLE_MIN_MICROS": "1",
    "SETTLE_DEADLINE": str(7 * 86_400),
    "RELAY_RETRY_SECONDS": "0",
    "RELAY_REPLACE_SECONDS": "86400",  # replaced when a play says so
    "RELAY_MAX_ATTEMPTS": "1000",
    "RPC_TIMEOUT_SECONDS": "2",
    "SANDBOX": "0",
    **dict.fromkeys(("RATE_LIMIT_CALLS", "RATE_LIMIT_PAYMENTS", "RATE_LIMIT_REFUSALS"), "10000000/minute"),
}


@dataclass
class Tenant:
    """A pool, its one session, and the key that spends it."""

    pool: Pool
    session: Session
    secret: str
    pool_key: bytes


class Ground:
    """A context manager: inside it everything is up, after it nothing is left."""

    def __init__(self, *, proxied: bool = False, durable: bool = False, block_seconds: float = NEVER) -> None:
        """`proxied`: the crew reaches its two nodes and its database through proxies that fail as they are told."""
        self._proxied, self._durable, self._block_seconds = proxied, durable, block_seconds

    def __enter__(self) -> Self:
        """Start the servers, fork the zygote, make the market."""
        with ExitStack() as exits:
            self.home = exits.enter_context(Home())
            self.supervisor = Supervisor(self.home)
            exits.callback(self.supervisor.close)
            self._start()
            exits.callback(self.crew.close)
            for door in filter(None, [*self.nodes, self.database_door]):
                exits.enter_context(door)
            exits.callback(connections.close_all)
            call_command("migrate", verbosity=0, interactive=False)
            self._settle_in()
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self._exits.close()

    def _start(self) -> None:
        self.database = postgres.start(self.supervisor, durable=self._durable)
        self.redis = valkey.start(self.supervisor)
        self.rpc = anvil.start(self.supervisor, block_seconds=self._block_seconds)
        self.environment = COMMON | SETTINGS | {"DATABASE_URL": self.database, "REDIS_URL": self.redis}
        self.environment |= {"RPC_URL": self.rpc, **contracts.prepare(self.rpc, self.home.path / "keys")}
        adopt(self.environment)
        escrow_workers.chain_client.cache_clear()
        escrow_workers.keyring.cache_clear()
        self.node = ChainClient(self.rpc, finality=settings.FINALITY, chain_id=settings.CHAIN_ID)
        relayers = map(escrow_workers.keyring().relayer, range(settings.RELAYERS))
        self.first_nonces = {relayer.address: self.node.nonce(relayer.address) for relayer in relayers}
        """Of every relayer the first nonce that is the market's: those before deployed the contracts."""
        if self._block_seconds == NEVER:
            self.node.request("anvil_setBlockTimestampInterval", [0])
            self.node.request("evm_setAutomine", [True])  # and no blocks by the clock, which could not be stopped
        self.nodes = [RpcProxy(self.rpc), RpcProxy(self.rpc)] if self._proxied else []
        self.database_door = TcpProxy(self.database) if self._proxied else None
        self.crew = Crew(self.home.logs / "crew.log", self._born())  # forked while there is no connection and no thread

    def _born(self) -> dict[str, Any]:
        """Return what the crew is born with: the way through the proxies."""
        if self.database_door is None:
            return {}
        nodes = ",".join(node.url for node in self.nodes)
        place = {"HOST": "127.0.0.1", "PORT": str(self.database_door.port)}
        return {"settings": {"RPC_URL": nodes, "RPC_TIMEOUT_SECONDS": RPC_SECONDS}, "database": place}

    def _settle_in(self) -> None:
        self.asked, self.played = Asked(), 0
        self.sellers = [
            agents.register_provider(name=f"seller {n}", payout_address=LocalSigner(secrets.token_bytes(32)).address)
            for n in range(SELLERS)
        ]
        for n, seller in enumerate(self.sellers):
            agents.register(provider=seller, uri=agent_of(n), name=f"s{n}", endpoint=f"https://s{n}.acme.dev")
        self.tenants = [self._tenant(n) for n in range(POOLS)]

    def _tenant(self, number: int) -> Tenant:
        payer = agents.register_payer(name=f"payer {number}")
        sample.mint(escrow_workers.keyring().payer(str(payer.pk)).address, 2 * DEPOSIT)
        allowed = [seller.party for seller in self.sellers[:INITIAL]]
        pool = pools.open(payer_id=payer.pk, deposit_micros=DEPOSIT, now=timezone.now(), providers=allowed)
        for _ in range(QUIET_TURNS):
            pool.refresh_from_db()
            if pool.status == Pool.Status.OPEN:
                break
            self.turn()
        session, secret = keys.open_session(
            pool=pool, budget_micros=DEPOSIT // 2, policy=Policy(), now=timezone.now(), name="harness"
        )
        tenant = Tenant(pool, session, secret, pool.key)
        self.asked.deposited[tenant.pool_key] += DEPOSIT
        return tenant

    # ------------------------------------------------------------------ asking

    def pay(self, tenant: Tenant, seller: int, micros: int, key: str) -> Order:
        """Pay in the domain, and note the answer."""
        party: Party = self.sellers[seller].party
        sent = payments.send(
            session_id=tenant.session.pk,
            party_id=party.pk,
            to=agent_of(seller),
            amount_micros=micros,
            metadata={},
            idempotency_key=key,
            request_hash=key.encode().ljust(32, b"\0")[:32],
        )
        return self.note(tenant, seller, micros, key, str(sent.payment.pk), over_http=False)

    def note(
        self, tenant: Tenant, seller: int, micros: int, key: str, payment: str, *, over_http: bool = True
    ) -> Order:
        """Note an answered payment."""
        address = self.sellers[seller].party.address
        order = Order(key, tenant.pool.pk, tenant.pool_key, address, micros, payment, over_http)
        self.asked.paid(order)
        return order

    # ------------------------------------------------------------------ time and sweeps

    def mine(self, blocks: int = 1, *, ahead: int = 0) -> None:
        """Mine blocks; the first one takes this machine's time and some seconds, unless the chain is ahead of that."""
        head = self.node.block("latest")
        if head is not None and (now := int(time.time()) + ahead) > head.timestamp:
            self.node.request("evm_setNextBlockTimestamp", [now])
        self.node.request("anvil_mine", [hex(blocks)])

    def reorganise(self, depth: int) -> None:
        """Put as many empty blocks in the place of the newest ones, once nothing is being mined.

        anvil (1.7.1) mines what was sent beside its own reorganisation: then blocks are missing, and receipts, logs and state
        contradict each other for good. What is not mined after a while has too low a fee, and is not being mined.
        """
        end = time.monotonic() + MINED_SECONDS
        while self.node.request("anvil_getAutomine") and time.monotonic() < end:
            if not int(self.node.request("txpool_status")["pending"], 16):
                break
            time.sleep(0.005)
        self.node.request("anvil_reorg", [depth, []])

    def sweep(self, *names: str) -> None:
        """Run sweeps here, on a connection and a node that nothing disturbs."""
        close_old_connections()
        for name in names:
            for task in SWEEPS[name]:
                app.tasks[task]()

    def turn(self) -> None:
        """Take everything a step further, and make it final."""
        self.bring_forward()
        self.sweep("settle", "relay")
        self.mine(FINALITY)
        self.sweep("relay", "index")

    @staticmethod
    def bring_forward() -> None:
        """Let the time pass that waiting work waits for."""
        now = timezone.now()
        ChainAction.objects.filter(status__in=ChainAction.LIVE, next_at__gt=now).update(next_at=now)
        Batch.objects.filter(status=Batch.Status.SIGNED, next_at__gt=now).update(next_at=now)

    def end_faults(self) -> None:
        """Let the nodes, the database's door and the chain be as they should be."""
        for door in filter(None, [*self.nodes, self.database_door]):
            door.clear()
        self.node.request("evm_setAutomine", [True])
        self.node.request("anvil_setNextBlockBaseFeePerGas", [hex(BASE_FEE)])
        self.mine()

    def heal(self) -> bool:
        """Settle, relay and index until nothing is left to do; return whether that came to be."""
        for _ in range(QUIET_TURNS):
            if self.quiet():
                return True
            self.turn()
        return self.quiet()

    def quiet(self) -> bool:
        """Whether every action has ended, every debt has landed, and the indexer has read all that is final."""
        return not any(self.loose_ends())

    def loose_ends(self) -> list[str]:
        """Return what has not come to its end."""
        found = [f"chain action {a.pk} ({a.kind}) is {a.status}: {a.error}" for a in _unended()]
        pools_here = [tenant.pool.pk for tenant in self.tenants]
        owing = Account.objects.filter(
            pool__in=pools_here, kind=Account.Kind.PAYABLE, received_micros__gt=F("sent_micros")
        )
        found += [f"{account.code} still has {account.balance_micros}" for account in owing[:5]]
        found += [
            f"{batch} is signed: {batch.reason}" for batch in Batch.objects.filter(status=Batch.Status.SIGNED)[:5]
        ]
        cursor = ChainCursor.objects.filter(contract_address=settings.ESCROW_ADDRESS).first()
        head = self.node.block("latest")
        if cursor is None or head is None or cursor.block_number < head.number - FINALITY + 1:
            found.append(f"the indexer is at {cursor and cursor.block_number} of {head and head.number}")
        return found

    def tenant_of(self, pool: UUID) -> Tenant:
        """Return who has a pool."""
        return next(tenant for tenant in self.tenants if tenant.pool.pk == pool)


SWEEPS: Final[dict[str, tuple[str, ...]]] = {
    "settle": ("escrow.settle_sweep",),
    "relay": ("escrow.relay_sweep",),
    "index": ("escrow.index_sweep",),
    "payout": ("escrow.payout_sweep",),
}
"""The tasks of each step, in the order in which they are delivered."""


def agent_of(seller: int) -> str:
    """Return a seller's name."""
    return f"agent://s{seller}.acme.dev"


def _unended() -> list[ChainAction]:
    return list(ChainAction.objects.filter(status__in=ChainAction.LIVE).order_by("pk")[:5])
