"""A fresh anvil for one run, with the test USDC, BudgetPool, and everybody who signs.

Lives here: starting and ending the chain, opening pools, signing batches, sending and reading receipts. Keys, dates and
salts are fixed, so that two runs of one contract give the same figures to the unit. Not here: what is measured (scenes.py).
"""

import ctypes
import itertools
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from escrow.chain import contract, deploy, typed, wire
from escrow.chain.client import ChainClient, Receipt
from escrow.chain.contract import BudgetPool, Token
from escrow.chain.signer import LocalSigner, TransactionFields

ROOT: Final = Path(__file__).resolve().parents[2]
DAY: Final = 86_400
FIRST_DAY: Final = 21_915 * DAY  # 2030-01-01: fixed, so that no figure depends on when it is taken
FOREVER: Final = 2**32 - 1
ROOT_HASH: Final = keccak(text="a batch's Merkle root")
RICH: Final = 10**13
_CHAIN_ID: Final = 31337


@contextmanager
def chain(*options: str) -> Iterator[str]:
    """Run anvil as long as the block lasts; give its URL. It logs to a file: a pipe that nobody reads would stop it."""
    with tempfile.TemporaryDirectory(prefix="gas-") as home:
        log = Path(home) / "log"
        command: list[str] = [
            *(str(_binary()), "--port", "0", "--chain-id", str(_CHAIN_ID), "--hardfork", "prague"),
            *("--timestamp", str(FIRST_DAY), "--color", "never", *options),
        ]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=home,
                env={"HOME": home, "PATH": os.environ.get("PATH", "")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (no threads yet; one prctl call)
            )
        try:
            yield f"http://127.0.0.1:{_port(process, log)}"
        finally:
            process.kill()
            process.wait()


def address_of(name: str) -> str:
    """Return an address like any other: one with many zero bytes would be cheaper to send."""
    return to_checksum_address(keccak(text=name)[:20])


def providers(count: int) -> tuple[str, ...]:
    """Return so many providers; the same ones for every caller."""
    return tuple(address_of(f"provider {at}") for at in range(count))


class Yard:
    """The deployed contracts, every key, and the most gas that a transaction took so far."""

    def __init__(self, url: str) -> None:
        self.client = ChainClient(url, timeout=20)
        self.payer, self.authorizer, self.relayer = (LocalSigner(keccak(text=name)) for name in ("p", "a", "r"))
        self.arbiter, self.fee_recipient = address_of("arbiter"), address_of("fee recipient")
        self.largest = 0
        self._salts = itertools.count(1)
        self._nonces: dict[str, int] = {}
        self._next_seq: dict[bytes, int] = {}
        for signer in (self.payer, self.relayer):
            self.client.request("anvil_setBalance", [signer.address, hex(10**24)])
        token = deploy.deploy_test_usdc(self.client, self.relayer)
        pool = deploy.deploy_budget_pool(self.client, self.relayer, token.address, self.fee_recipient)
        self.token, self.contract = Token(self.client, token.address), BudgetPool(self.client, pool.address)
        self.token_domain, self.domain = self.token.domain(), self.contract.domain()
        for holder in (self.payer.address, self.fee_recipient, *providers(20)):
            self.send(contract.mint_test_usdc(holder, RICH), to=token.address)
        self.open(self.terms(providers(1), FOREVER), providers(1), RICH // 100)  # the contract is in use, too
        self.largest = 0

    # ------------------------------------------------------------------ time and transactions

    def at(self, timestamp: int) -> None:
        """Mine one block at exactly this second."""
        self.client.request("evm_setNextBlockTimestamp", [timestamp])
        self.client.request("anvil_mine", [1])

    def next_day(self) -> int:
        """Move to the start of the next day, so that nothing measured runs over midnight; return it."""
        block = self.client.block("latest")
        assert block is not None
        day = (block.timestamp // DAY + 1) * DAY
        self.at(day)
        return day

    def send(self, data: bytes, *, to: str | None = None, signer: LocalSigner | None = None) -> Receipt:
        """Send to the pool contract from the relayer, unless told; it must succeed within the gas of one transaction."""
        sender = signer or self.relayer
        nonce = self._nonces.get(sender.address)
        nonce = self.client.nonce(sender.address, "pending") if nonce is None else nonce
        fields = TransactionFields(
            chain_id=_CHAIN_ID,
            nonce=nonce,
            to=to or self.contract.address,
            data=data,
            gas=deploy.TRANSACTION_GAS_CAP,
            max_fee_per_gas=10**12,
            max_priority_fee_per_gas=1,
        )
        sent = self.client.send_raw(sender.sign_transaction(fields).raw)
        self._nonces[sender.address] = nonce + 1
        receipt = deploy.wait(self.client, sent.transaction_hash)
        if not receipt.ok:
            self.client.call(fields.to or "", data, from_=sender.address)  # raises with the contract's own reason
            raise SystemExit(f"{receipt.transaction_hash} failed")
        self.largest = max(self.largest, receipt.gas_used)
        return receipt

    def count_logs(self, receipt: Receipt, signature: str) -> int:
        """Return how many events of this signature a receipt holds, decoded here or not."""
        found = self.client.request("eth_getTransactionReceipt", [receipt.transaction_hash])
        topic = "0x" + keccak(text=signature).hex()
        return sum(log["topics"][0] == topic for log in found["logs"])

    # ------------------------------------------------------------------ what is signed

    def terms(self, among: Sequence[str], expiry: int, **changes: Any) -> wire.Terms:
        """Return terms with a fee and a day to dispute in."""
        fields: dict[str, Any] = {
            "payer": self.payer.address,
            "authorizer": self.authorizer.address,
            "arbiter": self.arbiter,
            "expiry": expiry,
            "close_delay": DAY,
            "per_record_cap": 5_000_000,
            "window_cap": 1_000_000_000,
            "window_length": DAY,
            "dispute_window": DAY,
            "fee_bps": 250,
            "providers_hash": wire.providers_hash(among),
            "salt": keccak(text=f"salt {next(self._salts)}"),
        }
        return wire.Terms(**(fields | changes))

    def open(self, terms: wire.Terms, among: Sequence[str], value: int) -> tuple[bytes, Receipt]:
        """Open a pool with one signature of the payer; return its id and the receipt."""
        pool_id = wire.pool_id(self.domain, terms)
        signature = self.payer.sign_typed(
            typed.ReceiveWithAuthorization(
                self.token_domain,
                from_=self.payer.address,
                to=self.contract.address,
                value=value,
                valid_after=0,
                valid_before=FOREVER,
                nonce=pool_id,
            )
        )
        return pool_id, self.send(contract.open_pool(terms, among, value, 0, FOREVER, signature))

    def batch(self, pool_id: bytes, records: Sequence[wire.Record]) -> tuple[bytes, bytes, bytes, int, bytes]:
        """Sign a batch that continues the pool's sequence; the arguments of `settle`."""
        first = self._next_seq.get(pool_id, 0)
        self._next_seq[pool_id] = first + len(records)
        packed = wire.encode_batch(first, records)
        message = typed.Batch(self.domain, pool_id, packed, ROOT_HASH, FOREVER)
        return pool_id, packed, ROOT_HASH, FOREVER, self.authorizer.sign_typed(message)

    def allow(self, pool_id: bytes, who: Sequence[str]) -> bytes:
        """Calldata that allows providers, with the payer's signature."""
        nonce = keccak(text=f"nonce {next(self._salts)}")
        message = typed.AllowProviders(self.domain, pool_id, tuple(who), nonce, FOREVER)
        return contract.allow_providers_with_sig(pool_id, who, nonce, FOREVER, self.payer.sign_typed(message))

    def closing(self, pool_id: bytes) -> bytes:
        """Calldata that asks for the pool's end, with the payer's signature."""
        message = typed.RequestClose(self.domain, pool_id, FOREVER)
        return contract.request_close_with_sig(pool_id, FOREVER, self.payer.sign_typed(message))

    def settle(self, pool_id: bytes, records: Sequence[wire.Record]) -> Receipt:
        """Land one batch."""
        return self.send(contract.settle(*self.batch(pool_id, records)))


def _die_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at and process.poll() is None:
        if found := re.search(r"Listening on [\d.]+:(\d+)", log.read_text()):
            return int(found.group(1))
        time.sleep(0.02)
    raise SystemExit(f"anvil did not start: {log.read_text()[-500:]}")


def _binary() -> Path:
    """The platform's own binary: the JavaScript wrapper cannot pass SIGKILL on."""
    if chosen := os.environ.get("ANVIL_BIN"):
        return Path(chosen)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine().lower())
    binary = ROOT / "node_modules" / "@foundry-rs" / f"anvil-{sys.platform}-{machine}" / "bin" / "anvil"
    if not binary.exists():
        raise SystemExit(f"anvil is missing ({binary}): run `make install`, or set ANVIL_BIN")
    return binary
