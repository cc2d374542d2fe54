"""A real anvil per test session, our contracts on it, and the people who use them. No Django."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool, Token
from escrow.chain.deploy import deploy_budget_pool, deploy_test_usdc
from escrow.chain.signer import LocalSigner

from . import nodes
from .world import World


@pytest.fixture(scope="session")
def anvil_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nodes.anvil(tmp_path_factory.mktemp("anvil")) as url:
        yield url


def _key(number: int) -> LocalSigner:
    return LocalSigner(number.to_bytes(32, "big"))


@pytest.fixture(scope="session")
def world(anvil_url: str) -> World:
    client = ChainClient(anvil_url, timeout=10)
    relayer, payer, arbiter = _key(0xA1), _key(0xA2), _key(0xA3)
    for signer in (relayer, payer, arbiter):
        client.request("anvil_setBalance", [signer.address, hex(10**20)])
    token = deploy_test_usdc(client, relayer)
    fee_recipient = "0x00000000000000000000000000000000000FEE00"
    pool = deploy_budget_pool(client, relayer, token.address, fee_recipient)
    usdc, reader = Token(client, token.address), BudgetPool(client, pool.address)
    return World(
        client=client,
        usdc=usdc,
        contract=reader,
        payer=payer,
        authorizer=_key(0xA4),
        arbiter=arbiter,
        relayer=relayer,
        fee_recipient=fee_recipient,
        token_domain=usdc.domain(),
        domain=reader.domain(),
    )
