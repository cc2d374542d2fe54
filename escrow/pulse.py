"""The pulse: a worker looks at the chain and writes down what it saw. Lives here: that look, and nothing that acts on it.

The web asks no node, so what it tells operators of the chain is what is written here. A look that fails is written down
too, as what is not known: a worker that is alive and a node that answers are two things.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from django.conf import settings

from escrow.chain.client import ChainClient
from escrow.chain.errors import ChainError
from escrow.models import Pulse, SignerNonce

KEPT: Final = timedelta(days=1)
"""A worker that has not come back by then has another name now."""


def take(*, client: ChainClient, worker: str, now: datetime) -> Pulse:
    """Look at the chain, write it down under a worker's name, and forget workers that are gone."""
    seen: dict[str, object] = {
        **dict.fromkeys(("chain_id", "code_present", "head_block", "head_at", "gas_price_wei")),
        "signers": {},
        "error": "",
    }
    try:
        _look(client, seen)
    except ChainError as error:
        seen["error"] = str(error)
    found, _ = Pulse.objects.update_or_create(worker=worker, defaults={**seen, "at": now})
    Pulse.objects.filter(at__lt=now - KEPT).delete()
    return found


def _look(client: ChainClient, seen: dict[str, object]) -> None:
    """Fill in what the node says, one answer after the other: what came before one that fails is kept."""
    # Not the client's own `chain_id`, which asks once: this is to notice that another chain is behind the address now.
    seen["chain_id"] = int(client.request("eth_chainId"), 16)
    seen["code_present"] = client.request("eth_getCode", (settings.ESCROW_ADDRESS, "latest")) not in ("0x", "", None)
    head = client.block("latest")
    if head is not None:
        seen["head_block"], seen["head_at"] = head.number, datetime.fromtimestamp(head.timestamp, UTC)
    seen["gas_price_wei"] = client.fees().max_fee
    known = SignerNonce.objects.filter(chain_id=settings.CHAIN_ID).order_by("pk").values_list("address", flat=True)
    for address in known:
        funds, nonce = client.balance(address), client.nonce(address)
        seen["signers"] = {**dict(seen["signers"]), address: {"balance_wei": str(funds), "nonce": nonce}}  # type: ignore[call-overload]
