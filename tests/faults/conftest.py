"""What every test of a fault has: a chain of its own (`tests/onchain`), and what must hold after it, whatever happened."""

from collections import Counter
from collections.abc import Mapping

from django.conf import settings
from eth_utils.crypto import keccak

from escrow.chain import deploy
from escrow.chain.events import BatchSettled, Credited, PoolEvent
from escrow.models import Party
from tests.escrow import books
from tests.onchain.conftest import Chain, chain, lint

__all__ = ["chain", "lint"]


def told(chain: Chain) -> list[PoolEvent]:
    """Return every event of the contract that the chain has now, whatever our books say."""
    return chain.client.logs(settings.ESCROW_ADDRESS, settings.ESCROW_START_BLOCK, "latest")


def check_paid_once(chain: Chain, owed: Mapping[Party, int]) -> None:
    """Check by the chain alone that no batch landed twice and that each party was credited exactly what it is owed."""
    events = told(chain)
    batches = Counter((event.pool_id, event.first_seq) for event in events if isinstance(event, BatchSettled))
    assert set(batches.values()) <= {1}, batches
    credited: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Credited):
            credited[event.provider] += event.amount
    assert credited == Counter({party.address: micros for party, micros in owed.items() if micros})


def check_books(chain: Chain, *, exit_code: int = 0) -> None:
    """Check that nothing was made or lost, and that our books equal the chain."""
    books.check_conservation()
    report = chain.reconcile()
    assert report.exit_code == exit_code, (report.differences, report.alarms, report.in_flight)


def owner_says(chain: Chain, what: str, *arguments: str) -> None:
    """Have the token's owner call a function of it, such as `blacklist(address)` with an address, or `pause()`.

    The relayer deployed the token, and its nonces are the relay's: so the token is handed to somebody else first.
    """
    token, somebody = chain.token.address, chain.somebody()
    owner = chain.client.call(token, keccak(text="owner()")[:4])[-20:].hex()
    code = str(chain.client.request("eth_getCode", [token, "latest"]))
    chain.client.request("anvil_setCode", [token, code.replace(owner, somebody.address[2:].lower())])
    call = keccak(text=what)[:4] + b"".join(bytes.fromhex(argument[2:]).rjust(32, b"\0") for argument in arguments)
    deploy.send(chain.client, somebody, token, call)
