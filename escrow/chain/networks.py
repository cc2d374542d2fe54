"""The chains this is meant for, and their USDC. Pure.

Lives here: what is known beforehand of a public network, to be compared with what its node and its token say.
Not here: asking them (rollout.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAINNET: Final = 8453


@dataclass(frozen=True)
class Network:
    """A chain and its USDC. `usdc_name` and `usdc_version` are None where whatever the token says is taken."""

    name: str
    chain_id: int
    usdc: str
    usdc_name: str | None = None
    usdc_version: str | None = None
    explorer: str | None = None


PRESETS: Final = {
    network.name: network
    for network in (
        # Addresses: https://developers.circle.com/stablecoins/usdc-contract-addresses
        Network(
            name="base",
            chain_id=MAINNET,
            usdc="0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            usdc_name="USD Coin",
            usdc_version="2",
            explorer="https://basescan.org",
        ),
        Network(
            name="base-sepolia",
            chain_id=84532,
            usdc="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            usdc_name="USDC",
            usdc_version="2",
            explorer="https://sepolia.basescan.org",
        ),
    )
}
LOCAL: Final = "local"
LOCAL_CHAINS: Final = frozenset({31337, 1337})
"""The ids of anvil and hardhat, and of geth and ganache: no public chain has them, so no money there is real."""
