"""What a local chain needs before the service can use it: keys, gas money for them, the test token and the escrow."""

from pathlib import Path
from typing import Final

from django.conf import settings

from escrow.chain import deploy
from escrow.chain.client import ChainClient
from escrow.chain.keyring import Keyring
from escrow.chain.signer import Role
from marketplace.management.stack.anvil import CHAIN_ID
from marketplace.management.stack.supervisor import StackError

FEE_RECIPIENT: Final = "0x00000000000000000000000000000000000FEE00"
"""Nobody's address: on a local chain the fees only have to be seen arriving."""

GAS_MONEY: Final = 10**22  # wei; ten thousand test ether outlast any local chain


def prepare(rpc_url: str, keys: Path) -> dict[str, str]:
    """Deploy to a local chain and return the variables that name what is there."""
    client = ChainClient(rpc_url)
    if (chain_id := client.chain_id()) != CHAIN_ID:
        raise StackError(
            f"RPC_URL is chain {chain_id}: nothing is deployed there by itself.\n"
            f"Set USDC_ADDRESS, ESCROW_ADDRESS and SIGNER_KEYS_DIR to what you have there."
        )
    known, relayers = (keys / "relayer.key").exists(), settings.RELAYERS
    ring = Keyring.load(keys, relayers=relayers) if known else Keyring.create(keys, relayers=relayers)
    relayer = ring.signer(Role.RELAYER)
    # The two roles that send; the others only sign.
    for sender in (*map(ring.relayer, range(relayers)), ring.signer(Role.ARBITER)):
        client.request("anvil_setBalance", [sender.address, hex(GAS_MONEY)])
    token = deploy.deploy_test_usdc(client, relayer)
    escrow = deploy.deploy_budget_pool(client, relayer, token.address, FEE_RECIPIENT)
    return {
        "CHAIN_ID": str(chain_id),
        "USDC_ADDRESS": token.address,
        "ESCROW_ADDRESS": escrow.address,
        "ESCROW_START_BLOCK": str(escrow.block_number),
        "SIGNER_KEYS_DIR": str(keys),
    }
