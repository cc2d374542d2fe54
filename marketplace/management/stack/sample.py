"""A market to try things in: sample specialists that sell, and a payer with test USDC, an open pool and a session."""

import json
import secrets
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.utils import timezone

from escrow import money, pools
from escrow.chain import contract, deploy
from escrow.chain.client import ChainClient
from escrow.chain.keyring import Keyring
from escrow.chain.signer import LocalSigner
from escrow.models import Party, Pool, Session
from escrow.policy import Policy
from examples.specialists import SPECIALISTS, Specialist
from marketplace import agents, keys
from marketplace.management.stack.contracts import GAS_MONEY
from marketplace.management.stack.stack import Stack
from marketplace.management.stack.supervisor import StackError
from marketplace.models import Payer, Provider, Scope, Terms

SELLERS_NICENESS: Final = 10
"""In the world the sellers have machines of their own; here their work must not slow the market down."""
OPEN_SECONDS: Final = 30.0
"""How long the worker may take to open a pool on a local chain; it takes under two."""


@dataclass(frozen=True)
class Buyer:
    """Somebody who can pay; the keys are clear text."""

    payer: Payer
    pool: Pool
    session: Session
    payer_key: str
    session_key: str


def start_specialists(stack: Stack) -> dict[str, Provider]:
    """Register the sample specialists and their prices, and serve them all from one process; return who they are."""
    providers = {
        name: agents.register_provider(name=f"Acme {name}", payout_address=_fresh_address()) for name in SPECIALISTS
    }
    own = {f"AGENTMARKET_API_KEY_{name.upper()}": _provider_key(who) for name, who in providers.items()}
    child = stack.spawn(
        "specialists",
        [sys.executable, "-m", "examples.specialists"],
        env={"AGENTMARKET_URL": stack.urls.web, **own},
        ready=lambda child: len(_announced(child.output())) == len(SPECIALISTS),
        niceness=SELLERS_NICENESS,
    )
    for line in _announced(child.output()):
        _register(SPECIALISTS[line["name"]], providers[line["name"]], line["url"])
    return providers


def open_buyer(*, name: str, deposit: str, budget: str, policy: dict[str, Any], sellers: list[Provider]) -> Buyer:
    """Give a new payer test USDC, open a pool for those sellers on chain, and a session in it. Amounts are USDC."""
    now = timezone.now()
    payer = agents.register_payer(name=name)
    deposit_micros = money.parse(deposit)
    mint(Keyring.load(settings.SIGNER_KEYS_DIR).payer(str(payer.pk)).address, deposit_micros)
    parties: list[Party] = [seller.party for seller in sellers]
    pool = pools.open(payer_id=payer.pk, deposit_micros=deposit_micros, now=now, providers=parties)
    _, payer_key = keys.issue(scope=Scope.PAYER, payer=payer, now=now, name=name)
    wait_open(pool)
    session, session_key = keys.open_session(
        pool=pool, budget_micros=money.parse(budget), policy=Policy.from_document(policy), now=timezone.now(), name=name
    )
    return Buyer(payer, pool, session, payer_key, session_key)


def newcomer_key() -> str:
    """Register a payer that has nothing yet and return its key: its first session opens a pool with the sandbox's grant."""
    return keys.issue(scope=Scope.PAYER, payer=agents.register_payer(name="Newcomer"), now=timezone.now())[1]


def mint(address: str, amount_micros: int) -> None:
    """Mint test USDC with a key of no role: the relayer's nonces are the relay's alone."""
    client, somebody = ChainClient(settings.RPC_URL), LocalSigner(secrets.token_bytes(32))
    client.request("anvil_setBalance", [somebody.address, hex(GAS_MONEY)])
    deploy.send(client, somebody, settings.USDC_ADDRESS, contract.mint_test_usdc(address, amount_micros))


def wait_open(pool: Pool) -> None:
    """Wait until the chain has said that the pool is open."""
    deadline = time.monotonic() + OPEN_SECONDS
    while pool.status != Pool.Status.OPEN:
        if time.monotonic() > deadline or pool.status == Pool.Status.FAILED:
            raise StackError(f"The pool is {pool.status} after {OPEN_SECONDS:.0f} s: look into the worker's log.")
        time.sleep(0.05)
        pool.refresh_from_db()


def _register(specialist: Specialist, provider: Provider, url: str) -> None:
    agents.register(
        provider=provider,
        uri=specialist.agent,
        name=specialist.name,
        endpoint=url,
        description=specialist.description,
        terms=[
            Terms(
                capability=specialist.capability,
                pricing=specialist.pricing,
                price_micros=money.parse(specialist.price),
                unit=specialist.unit,
                description=specialist.description,
            )
        ],
    )


def _provider_key(provider: Provider) -> str:
    return keys.issue(scope=Scope.PROVIDER, provider=provider, now=timezone.now(), name="sample")[1]


def _announced(output: str) -> list[dict[str, str]]:
    """Return the lines of JSON in which each specialist says where it is."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]


def _fresh_address() -> str:
    """Return an address of its own for a seller of no further use: whoever needs its money keeps its key."""
    return LocalSigner(secrets.token_bytes(32)).address
