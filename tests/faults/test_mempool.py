"""Rows 18 to 21: what becomes of what a node has taken. Dropped, priced out or unpaid for, it is mined once in the end."""

import itertools
from typing import Any

import pytest

from escrow.chain.client import ChainClient
from escrow.models import Attempt, ChainAction, Party, Session, SignerNonce
from marketplace.management.faults.rpc_proxy import RpcProxy
from tests.faults.conftest import check_books, check_paid_once
from tests.onchain.conftest import Chain, books, party
from tests.onchain.towns import open_pools, standing_still

PRICE = 300_000
GWEI = 10**9
Status = ChainAction.Status


@pytest.fixture
def lint(transactional_db: None) -> Party:
    return party("lint")


def owing(chain: Chain, lint: Party, many: int = 1) -> list[Session]:
    """Sessions of as many pools that owe a provider 0.30 each, in batches that are signed and not yet sent."""
    sessions = open_pools(chain, many, [lint])
    for session in sessions:
        chain.pay(session, lint, PRICE)
    assert chain.settle() == many
    return sessions


def settling() -> list[ChainAction]:
    return list(ChainAction.objects.filter(kind="settle").order_by("pk"))


def attempts() -> list[Attempt]:
    return list(Attempt.objects.filter(action__kind="settle").order_by("pk"))


def waiting(chain: Chain) -> int:
    return int(chain.client.request("txpool_status")["pending"], 16)


def check_nonces(chain: Chain) -> None:
    """Check that each nonce of the relayer is one of our chain transactions, and that none is left out."""
    relayer = chain.keyring.relayer(0).address
    row = SignerNonce.objects.get(address=relayer)
    ours = ChainAction.objects.filter(signer_address=relayer).order_by("nonce").values_list("nonce", flat=True)
    assert all(later == earlier + 1 for earlier, later in itertools.pairwise(ours))
    assert (row.stopped_reason, chain.client.nonce(relayer)) == ("", row.next_nonce)


@pytest.mark.parametrize("dropped", [0, 1])
def test_what_a_node_drops_is_sent_again_and_what_waited_behind_it_is_mined(
    chain: Chain, lint: Party, settings: Any, dropped: int
) -> None:
    settings.SETTLE_MAX_GROUP = 1
    owing(chain, lint, 3)
    with standing_still(chain):
        chain.relay()
        assert waiting(chain) == 3
        chain.client.request("anvil_dropTransaction", [attempts()[dropped].tx_hash])
        assert waiting(chain) < 3
        chain.relay()
        chain.relay()
        assert waiting(chain) == 3
    chain.quiet()
    assert len(attempts()) == 3  # the same bytes
    check_nonces(chain)
    check_paid_once(chain, {lint: 3 * PRICE})
    check_books(chain)


def test_a_node_that_forgets_everything_is_told_again(chain: Chain, lint: Party, settings: Any) -> None:
    settings.SETTLE_MAX_GROUP = 1
    owing(chain, lint, 2)
    with standing_still(chain):
        chain.relay()
        chain.client.request("anvil_dropAllTransactions")
        chain.relay()
        assert waiting(chain) == 2
    chain.quiet()
    assert len(attempts()) == 2
    check_nonces(chain)
    check_paid_once(chain, {lint: 2 * PRICE})


def test_a_spike_of_the_base_fee_is_outbid_at_the_same_nonce_by_an_eighth_or_more_on_both_fees(
    chain: Chain, lint: Party, settings: Any
) -> None:
    settings.RELAY_REPLACE_SECONDS = 0
    owing(chain, lint)
    with RpcProxy(settings.RPC_URL) as proxy:  # which asks for a tenth more of a replacement, as real nodes do
        through = ChainClient(proxy.url, finality=1)
        with standing_still(chain):
            chain.relay(through)
            chain.client.request("anvil_setNextBlockBaseFeePerGas", [hex(40 * GWEI)])
            chain.client.request("evm_mine", [])
            assert settling()[0].status == Status.BROADCAST
            for _ in range(4):
                chain.relay(through)
        chain.until(lambda: settling()[0].status == Status.FINAL, "it has landed")
    chain.quiet()
    made = attempts()
    assert len(made) >= 2
    for earlier, later in itertools.pairwise(made):
        assert later.max_fee_wei * 8 >= earlier.max_fee_wei * 9
        assert later.tip_wei * 8 >= earlier.tip_wei * 9
    assert len(settling()) == 1
    check_nonces(chain)
    check_paid_once(chain, {lint: PRICE})
    check_books(chain)


def test_a_signer_without_eth_uses_no_nonce_says_so_and_goes_on_when_it_has_some(
    chain: Chain, lint: Party, caplog: pytest.LogCaptureFixture
) -> None:
    owing(chain, lint)
    relayer = chain.keyring.relayer(0).address
    nonce = SignerNonce.objects.get(address=relayer).next_nonce
    chain.client.request("anvil_setBalance", [relayer, "0x0"])
    before = books()
    for _ in range(3):
        chain.relay()
    (action,) = settling()
    assert (action.status, action.nonce, SignerNonce.objects.get(address=relayer).next_nonce) == (
        Status.PLANNED,
        None,
        nonce,
    )
    assert "too little for gas" in action.error
    assert any(record.levelname == "ERROR" and relayer in record.getMessage() for record in caplog.records)
    assert books() == before
    chain.client.request("anvil_setBalance", [relayer, hex(10**18)])
    chain.quiet()
    assert settling()[0].nonce == nonce
    check_nonces(chain)
    check_paid_once(chain, {lint: PRICE})
    check_books(chain)


def test_a_signer_that_runs_dry_after_it_has_signed_sends_the_same_bytes_when_it_has_some(
    chain: Chain, lint: Party, settings: Any
) -> None:
    owing(chain, lint)
    relayer = chain.keyring.relayer(0).address

    class Dry(ChainClient):
        """Empties the signer just before the bytes are sent."""

        def send_raw(self, raw: bytes) -> Any:
            self.request("anvil_setBalance", [relayer, "0x0"])
            return super().send_raw(raw)

    dry = Dry(settings.RPC_URL, finality=1)
    for _ in range(3):
        chain.relay(dry)
    (action,), (attempt,) = settling(), attempts()
    assert action.status == Status.SIGNED
    assert attempt.outcome in ("refused", "unfunded")
    chain.client.request("anvil_setBalance", [relayer, hex(10**18)])
    chain.quiet()
    assert [one.tx_hash for one in attempts()] == [attempt.tx_hash]
    check_nonces(chain)
    check_paid_once(chain, {lint: PRICE})
    check_books(chain)
