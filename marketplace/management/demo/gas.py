"""What paying on chain, one transfer a payment, costs here: measured, on the same token and the same chain."""

import secrets
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.conf import settings

from escrow.chain import contract, deploy, typed
from escrow.chain.client import ChainClient
from escrow.chain.contract import Token
from escrow.chain.signer import LocalSigner
from marketplace.management.stack.contracts import GAS_MONEY
from marketplace.management.stack.sample import mint

ETH_DOLLARS: Final = Decimal(3000)
GAS_GWEI: Final = Decimal("0.005")
"""Base's minimum base fee."""
AMOUNT_MICROS: Final = 12_000
_GWEI_PER_ETH: Final = 10**9


@dataclass(frozen=True)
class Prices:
    """What gas is assumed to cost: nothing here asks a market."""

    eth_dollars: Decimal = ETH_DOLLARS
    gas_gwei: Decimal = GAS_GWEI

    def dollars(self, gas: Decimal | int) -> Decimal:
        """Return what so much gas costs."""
        return Decimal(gas) * self.gas_gwei / _GWEI_PER_ETH * self.eth_dollars


def transfer_gas(client: ChainClient) -> int:
    """Return the gas of one ERC-3009 transfer between two that have USDC already: the cheaper, usual case."""
    payer, seller, sender = (LocalSigner(secrets.token_bytes(32)) for _ in range(3))
    mint(payer.address, 2 * AMOUNT_MICROS)
    mint(seller.address, AMOUNT_MICROS)
    client.request("anvil_setBalance", [sender.address, hex(GAS_MONEY)])
    until, nonce = int(time.time()) + 3600, secrets.token_bytes(32)
    message = typed.TransferWithAuthorization(
        Token(client, settings.USDC_ADDRESS).domain(),
        from_=payer.address,
        to=seller.address,
        value=AMOUNT_MICROS,
        valid_after=0,
        valid_before=until,
        nonce=nonce,
    )
    signature = payer.sign_typed(message)
    call = contract.transfer_with_authorization(
        payer.address, seller.address, AMOUNT_MICROS, 0, until, nonce, signature
    )
    return deploy.send(client, sender, settings.USDC_ADDRESS, call).gas_used
