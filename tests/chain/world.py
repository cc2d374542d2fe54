"""What the tests of this folder share: the Foundry binaries, and one chain with everybody on it."""

from __future__ import annotations

import itertools
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path

from escrow.chain import contract, typed, wire
from escrow.chain.client import ChainClient, Receipt
from escrow.chain.contract import BudgetPool, Token
from escrow.chain.deploy import send
from escrow.chain.signer import LocalSigner

ROOT = Path(__file__).resolve().parents[2]
PROVIDERS = tuple(f"0x{i:040x}" for i in (0x1001, 0x1002, 0x1003))
DAY = 86_400
_salts = itertools.count(1)


def foundry_binary(name: str) -> Path:
    """The platform's own binary of a Foundry tool: the JavaScript wrapper cannot forward SIGKILL."""
    override = os.environ.get(f"{name.upper()}_BIN")
    if override:
        return Path(override)
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    suffix = f"{name}-{sys.platform}-{arch}"
    return ROOT / "node_modules" / "@foundry-rs" / suffix / "bin" / name


@dataclass
class World:
    """One chain with our contracts, and every key of the story."""

    client: ChainClient
    usdc: Token
    contract: BudgetPool
    payer: LocalSigner
    authorizer: LocalSigner
    arbiter: LocalSigner
    relayer: LocalSigner
    fee_recipient: str
    token_domain: wire.Domain
    domain: wire.Domain
    last_gas: int = 0
    standing: wire.Terms | None = None
    next_seq: dict[bytes, int] = field(default_factory=dict)
    terms_of: dict[bytes, wire.Terms] = field(default_factory=dict)

    def now(self) -> int:
        block = self.client.block("latest")
        assert block is not None
        return block.timestamp

    def at(self, timestamp: int) -> None:
        """Mine one block at exactly this second."""
        self.client.request("evm_setNextBlockTimestamp", [timestamp])
        self.client.request("anvil_mine", [1])

    def send(self, data: bytes, signer: LocalSigner | None = None) -> Receipt:
        """Send to the pool contract, from the relayer unless told."""
        receipt = send(self.client, signer or self.relayer, self.contract.address, data)
        assert receipt.ok
        self.last_gas = receipt.gas_used
        return receipt

    def send_token(self, data: bytes, signer: LocalSigner | None = None) -> Receipt:
        receipt = send(self.client, signer or self.relayer, self.usdc.address, data)
        assert receipt.ok
        return receipt

    def terms(self, **changes: object) -> wire.Terms:
        fields: dict[str, object] = {
            "payer": self.payer.address,
            "authorizer": self.authorizer.address,
            "arbiter": self.arbiter.address,
            "expiry": self.now() + 90 * DAY,
            "close_delay": DAY,
            "per_record_cap": 5_000_000,
            "window_cap": 50_000_000,
            "window_length": DAY,
            "dispute_window": 3600,
            "fee_bps": 250,
            "providers_hash": wire.providers_hash(PROVIDERS),
            "salt": next(_salts).to_bytes(32, "big"),
        }
        return wire.Terms(**(fields | changes))  # type: ignore[arg-type]

    def standing_terms(self) -> wire.Terms:
        """The terms of one open pool that lasts the session."""
        if self.standing is None:
            self.standing = self.terms(expiry=2**32 - 1)
            self.open(self.standing, 1_000_000)
        return self.standing

    def authorization(self, value: int, nonce: bytes, signer: LocalSigner | None = None) -> bytes:
        """A signature that lets the pool contract pull `value`, valid for a year."""
        owner = signer or self.payer
        return owner.sign_typed(
            typed.ReceiveWithAuthorization(
                self.token_domain,
                from_=owner.address,
                to=self.contract.address,
                value=value,
                valid_after=0,
                valid_before=2**40,
                nonce=nonce,
            )
        )

    def open(self, terms: wire.Terms, value: int, providers: tuple[str, ...] = PROVIDERS) -> bytes:
        """Mint, sign, open; the pool's id."""
        self.send_token(contract.mint_test_usdc(terms.payer, value))
        pool_id = wire.pool_id(self.domain, terms)
        self.terms_of[pool_id] = terms
        self.send(contract.open_pool(terms, providers, value, 0, 2**40, self.authorization(value, pool_id)))
        return pool_id

    def settlement(self, pool_id: bytes, records: list[wire.Record], first_seq: int | None = None) -> bytes:
        """Calldata of a signed batch that continues the pool's sequence."""
        start = self.next_seq.get(pool_id, 0) if first_seq is None else first_seq
        if first_seq is None:
            self.next_seq[pool_id] = start + len(records)
        packed = wire.encode_batch(start, records)
        root, deadline = b"\x11" * 32, self.now() + 365 * DAY
        signature = self.authorizer.sign_typed(typed.Batch(self.domain, pool_id, packed, root, deadline))
        return contract.settle(pool_id, packed, root, deadline, signature)

    def balances(self, pool_id: bytes) -> dict[str, object]:
        """Everything that may move, to assert that nothing did."""
        return {
            "held": self.contract.total_held(),
            "fees": self.contract.fees(),
            "pool": self.contract.pool(pool_id).free,
            "disputed": self.contract.pool(pool_id).disputed,
            "lines": [
                (line.matured, line.pending)
                for line in (self.contract.line_of(pool_id, provider) for provider in PROVIDERS)
            ],
            "tokens": [
                self.usdc.balance_of(who)
                for who in (self.contract.address, self.payer.address, self.fee_recipient, *PROVIDERS)
            ],
        }
