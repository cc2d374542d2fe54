"""The money rooms on a chain of their own: each test gets a fresh anvil, fresh contracts and keys, and real commits."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from escrow import dispatch, indexer, payments, payouts, pools, reconcile, sessions, settlement
from escrow.chain import contract, deploy
from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool, Token
from escrow.chain.keyring import Keyring
from escrow.chain.signer import LocalSigner, Role
from escrow.models import Account, ChainAction, ChainCursor, Party, Payment, Pool, Session, Transfer
from escrow.policy import Policy
from escrow.relay import Relay
from marketplace.management.stack import anvil, contracts
from marketplace.management.stack.home import Home
from marketplace.management.stack.supervisor import Supervisor

_keys = count(0x5E11E4)
PATIENCE_SECONDS = 20.0


@dataclass
class Chain:
    """A chain, the contracts on it, and the sweeps that beat would send."""

    client: ChainClient
    keyring: Keyring
    token: Token
    contract: BudgetPool

    def now(self) -> datetime:
        return timezone.now()

    def relay(self, client: ChainClient | None = None) -> int:
        return Relay(client or self.client, self.keyring, self.now()).run()

    def index(self) -> int:
        return indexer.index(client=self.client, now=self.now())

    def settle(self) -> int:
        settlement.void_expired(landed=settlement.landed_on(self.client), limit=100)
        signed = settlement.settle_due(authorizer=self.keyring.signer(Role.AUTHORIZER), now=self.now())
        dispatch.dispatch_due(now=self.now(), limit=1_000)
        return signed

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Relay and index, block after block, until something holds."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not done():
            self.relay()
            self.index()
            if time.monotonic() > give_up_at:
                actions = list(ChainAction.objects.values_list("kind", "status", "error"))
                raise AssertionError(f"still not so: {what}; {actions}")

    def quiet(self) -> None:
        """Relay and index until every action has come to its end."""
        self.until(self._all_ended, "every action has ended")
        head = self.client.block("latest")
        assert head is not None
        self.until(lambda: self.cursor() >= head.number, "the indexer has caught up")

    @staticmethod
    def _all_ended() -> bool:
        return not ChainAction.objects.exclude(status__in=ChainAction.ENDED).exists()

    def cursor(self) -> int:
        cursor = ChainCursor.objects.filter(contract_address=self.contract.address).first()
        return -1 if cursor is None else cursor.block_number

    def pay_out(self) -> int:
        return payouts.pay_due(now=self.now(), limit=100)

    def step_out(self) -> int:
        return pools.close_due(now=self.now(), limit=100)

    def reconcile(self) -> reconcile.Report:
        return reconcile.reconcile(client=self.client, now=self.now())

    def somebody(self) -> LocalSigner:
        """A key of no role, with gas money."""
        signer = LocalSigner(next(_keys).to_bytes(32, "big"))
        self.client.request("anvil_setBalance", [signer.address, hex(10**20)])
        return signer

    def payer_address(self, payer_id: UUID) -> str:
        return self.keyring.payer(str(payer_id)).address

    def open_pool(
        self,
        deposit: int = 25_000_000,
        *,
        providers: tuple[Party, ...] = (),
        window: int = 0,
        expires_in: timedelta | None = None,
    ) -> Pool:
        """Give a new payer test USDC and open a pool with it, on chain."""
        payer_id = uuid4()
        mint = contract.mint_test_usdc(self.payer_address(payer_id), deposit)
        deploy.send(self.client, self.somebody(), self.token.address, mint)
        pool = pools.open(
            payer_id=payer_id,
            deposit_micros=deposit,
            now=self.now(),
            providers=providers,
            dispute_window_seconds=window,
            expires_in=expires_in,
        )
        self.until(lambda: self.fresh(pool).status == Pool.Status.OPEN, "the pool is open")
        return self.fresh(pool)

    def fresh(self, pool: Pool) -> Pool:
        return Pool.objects.get(pk=pool.pk)

    def session(self, pool: Pool, budget: int) -> Session:
        return sessions.open(pool=pool, budget_micros=budget, policy=Policy(), now=self.now())

    def pay(self, session: Session, party: Party, micros: int) -> Payment:
        return payments.send(
            session_id=session.pk,
            party_id=party.pk,
            to="agent://lint.acme.dev",
            amount_micros=micros,
            metadata={"file": "a.py"},
            idempotency_key=str(uuid4()),
            request_hash=b"\1" * 32,
            now=self.now(),
        ).payment


@pytest.fixture
def chain(transactional_db: None, settings: Any, tmp_path: Path) -> Iterator[Chain]:
    with Home() as home:
        supervisor = Supervisor(home)
        try:
            rpc_url = anvil.start(supervisor)
            found = contracts.prepare(rpc_url, tmp_path / "keys")
            settings.RPC_URL = rpc_url
            settings.CHAIN_ID = int(found["CHAIN_ID"])
            settings.USDC_ADDRESS, settings.ESCROW_ADDRESS = found["USDC_ADDRESS"], found["ESCROW_ADDRESS"]
            settings.ESCROW_START_BLOCK = int(found["ESCROW_START_BLOCK"])
            settings.FINALITY = 1
            settings.CLOSE_DELAY = 0
            settings.SETTLE_MIN_MICROS = 1
            settings.RELAY_RETRY_SECONDS = 0
            client = ChainClient(rpc_url)
            yield Chain(
                client=client,
                keyring=Keyring.load(tmp_path / "keys"),
                token=Token(client, found["USDC_ADDRESS"]),
                contract=BudgetPool(client, found["ESCROW_ADDRESS"]),
            )
        finally:
            supervisor.close()


@pytest.fixture
def lint(transactional_db: None) -> Party:
    """The seller of most stories."""
    return party("lint")


def party(name: str) -> Party:
    """A seller with an address of its own."""
    return Party.objects.create(name=name, address=LocalSigner(next(_keys).to_bytes(32, "big")).address)


def books() -> tuple[dict[str, int], int]:
    """Every account's balance, and how many transfers there are."""
    held = {account.code: account.balance_micros for account in Account.objects.all() if account.balance_micros}
    return held, Transfer.objects.count()
