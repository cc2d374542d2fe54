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
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

from benchmarks.peers import ROOT, program
from escrow.chain.client import ChainClient
from escrow.chain.signer import LocalSigner
from marketplace.management.stack import ready, sample
from marketplace.management.stack.contracts import GAS_MONEY
from marketplace.management.stack.supervisor import StackError

if TYPE_CHECKING:
    from marketplace.management.stack.stack import Stack

CALLERS: Final = 8
PRESIGNED_PER_SECOND: Final = 150
"""Vouchers signed beforehand for each channel and second: more than it can spend."""
PLENTY_MICROS: Final = 10**9
PATIENCE_SECONDS: Final = 120.0
NOTE: Final = (
    "The package's own server, facilitator and clients, with coincurve. The contract of batch-settlement is on public "
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
    vouchers = "batch-settlement"
    with _market(stack) as url:
        rows = [
            _row(stack, f"{CALLERS} channels, {CALLERS} callers", url, vouchers, seconds, keys=CALLERS, processes=2),
            _row(stack, "1 channel, 1 caller", url, vouchers, seconds, callers=1),
            _row(stack, f"1 channel, {CALLERS} callers", url, vouchers, seconds),
            _row(stack, f"{CALLERS} callers", url, "exact", seconds, keys=CALLERS, processes=2),
        ]
        ready_made = int(PRESIGNED_PER_SECOND * seconds)
        name = f"{CALLERS} channels, signed before: the server alone"
        alone = _row(stack, name, url, vouchers, seconds, keys=CALLERS, presigned=ready_made)
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
        [*program("facilitator"), "--port", str(ports[0]), "--rpc", stack.urls.rpc, "--network", network],
        env={"FACILITATOR_KEY": f"0x{key.hex()}"},
        ready=ready.answers(f"{facilitator}/supported"),
    )
    try:
        where = ["--port", str(ports[1]), "--facilitator", facilitator, "--network", network]
        stack.spawn(
            "x402-market",
            [*program("market"), *where, "--asset", settings.USDC_ADDRESS, "--payee", payee],
            ready=ready.answers(f"{market}/openapi.json"),
        )
        try:
            yield market
        finally:
            stack.stop("x402-market")
    finally:
        stack.stop("x402-facilitator")


def _row(
    stack: "Stack",
    name: str,
    url: str,
    scheme: str,
    seconds: float,
    *,
    keys: int = 1,
    callers: int = CALLERS,
    processes: int = 1,
    presigned: int = 0,
) -> Row:
    """Let callers with fresh keys, spread over processes, pay for so many seconds."""
    own = [secrets.token_bytes(32) for _ in range(keys)]
    if scheme == "exact":
        for key in own:
            sample.mint(LocalSigner(key).address, PLENTY_MICROS)
    what = ["--url", f"{url}/{scheme}", "--network", f"eip155:{settings.CHAIN_ID}", "--seconds", str(seconds)]
    how = ["--callers", str(callers // processes), "--presigned", str(presigned)]
    started = [
        subprocess.Popen(
            [*program("buyer"), *what, *how],
            env=os.environ
            | stack.environment
            | {"BUYER_KEYS": " ".join(f"0x{key.hex()}" for key in own[at::processes])},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for at in range(processes)
    ]
    try:
        said = [buyer.communicate(timeout=seconds + PATIENCE_SECONDS)[0] for buyer in started]
    finally:
        for buyer in started:
            buyer.kill()
            buyer.wait()
    if any(buyer.returncode for buyer in started):
        raise StackError(f"A buyer of the reference x402 stack failed in: {name}. It has said why above.")
    found = [json.loads(result) for result in said]
    taken = sorted(ms for one in found for ms in one["taken_ms"]) or [0.0]
    return Row(
        name=name,
        scheme=scheme,
        rate=sum(one["paid"] / one["seconds"] for one in found),
        p50_ms=taken[len(taken) * 50 // 100],
        p99_ms=taken[len(taken) * 99 // 100],
        paid=sum(one["paid"] for one in found),
        refused=sum(one["refused"] for one in found),
    )
