"""The reference x402 stack (PyPI `x402`, with `coincurve`): its own server, facilitator and client on the stack's chain.

    x402.measure(stack, seconds=5)    # {"scheme", "rate", "p50_ms", "p99_ms", "note", "rows": [...]}

Lives here: starting it and asking for each row. The programs that import it are in `reference/`.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

from escrow.chain.client import ChainClient
from escrow.chain.signer import LocalSigner
from marketplace.management.stack import ready, sample
from marketplace.management.stack.contracts import GAS_MONEY

if TYPE_CHECKING:
    from marketplace.management.stack.stack import Stack

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
PROGRAMS: Final = Path(__file__).with_name("reference")
CALLERS: Final = 8
PRESIGNED_PER_SECOND: Final = 150
"""Vouchers signed beforehand for each channel and second: more than it can spend."""
PATIENCE_SECONDS: Final = 120.0
NOTE: Final = (
    "The package's own server, facilitator and client, one process each. The contract of batch-settlement is on public "
    "chains only, so opening a channel is believed by the facilitator; the measured vouchers never need it."
)


@dataclass(frozen=True)
class Row:
    """One way to use it."""

    name: str
    scheme: str
    rate: float
    p50_ms: float
    p99_ms: float
    paid: int
    refused: int


def measure(stack: "Stack", seconds: float = 5.0) -> dict[str, Any]:
    """Measure every way to use it; the figure is the best one of the reference's own client and server."""
    with _market(stack) as url:
        rows = [
            _row(stack, f"{CALLERS} channels, {CALLERS} callers", url, "batch-settlement", CALLERS, CALLERS, seconds),
            _row(stack, "1 channel, 1 caller", url, "batch-settlement", 1, 1, seconds),
            _row(stack, f"1 channel, {CALLERS} callers", url, "batch-settlement", 1, CALLERS, seconds),
            _row(stack, f"{CALLERS} callers", url, "exact", CALLERS, CALLERS, seconds),
        ]
        signed_before = int(PRESIGNED_PER_SECOND * seconds)
        name = f"{CALLERS} channels, vouchers signed before: the server alone"
        alone = _row(stack, name, url, "batch-settlement", CALLERS, CALLERS, seconds, signed_before)
    best = max(rows, key=lambda row: row.rate)
    return {
        "scheme": best.scheme,
        "rate": best.rate,
        "p50_ms": best.p50_ms,
        "p99_ms": best.p99_ms,
        "note": NOTE,
        "rows": [asdict(row) for row in (*rows, alone)],
    }


@contextmanager
def _market(stack: "Stack") -> Iterator[str]:
    """Serve the reference's facilitator and seller; return where the seller is."""
    key, network = secrets.token_bytes(32), f"eip155:{settings.CHAIN_ID}"
    ChainClient(stack.urls.rpc).request("anvil_setBalance", [LocalSigner(key).address, hex(GAS_MONEY)])
    ports = ready.free_port(), ready.free_port()
    facilitator, market = (f"http://127.0.0.1:{port}" for port in ports)
    payee = LocalSigner(secrets.token_bytes(32)).address
    stack.spawn(
        "x402-facilitator",
        [PYTHON, PROGRAMS / "facilitator.py", "--port", str(ports[0]), "--rpc", stack.urls.rpc, "--network", network],
        env={"FACILITATOR_KEY": f"0x{key.hex()}"},
        ready=ready.answers(f"{facilitator}/supported"),
    )
    try:
        where = ["--port", str(ports[1]), "--facilitator", facilitator, "--network", network]
        stack.spawn(
            "x402-market",
            [PYTHON, PROGRAMS / "market.py", *where, "--asset", settings.USDC_ADDRESS, "--payee", payee],
            ready=ready.answers(f"{market}/openapi.json"),
        )
        try:
            yield market
        finally:
            stack.stop("x402-market")
    finally:
        stack.stop("x402-facilitator")


def _row(
    stack: "Stack", name: str, url: str, scheme: str, keys: int, callers: int, seconds: float, presigned: int = 0
) -> Row:
    """Let buyers with fresh keys pay for so many seconds."""
    own = [secrets.token_bytes(32) for _ in range(keys)]
    if scheme == "exact":
        for key in own:
            sample.mint(LocalSigner(key).address, 10**9)
    what = ["--url", f"{url}/{scheme}", "--network", f"eip155:{settings.CHAIN_ID}", "--callers", str(callers)]
    done = subprocess.run(
        [PYTHON, PROGRAMS / "buyer.py", *what, "--seconds", str(seconds), "--presigned", str(presigned)],
        env=os.environ | stack.environment | {"BUYER_KEYS": " ".join(f"0x{key.hex()}" for key in own)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds + PATIENCE_SECONDS,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rate = found["paid"] / found["seconds"]
    return Row(name, scheme, rate, found["p50_ms"], found["p99_ms"], found["paid"], found["refused"])
