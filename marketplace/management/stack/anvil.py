"""A local chain for one stack: anvil, at a port it picks itself."""

import os
import platform
import re
from pathlib import Path
from typing import Final

from marketplace.management.stack.supervisor import Child, Service, StackError, Supervisor

CHAIN_ID: Final = 31337
BLOCK_SECONDS: Final = 0.2
"""Base makes a block every 200 ms; a transaction is also mined as soon as it arrives (mixed mining)."""

_LISTENING: Final = re.compile(r"Listening on 127\.0\.0\.1:(\d+)")
_MODULES: Final = Path(__file__).resolve().parents[3] / "node_modules" / "@foundry-rs"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

NICENESS: Final = 10
"""A chain is elsewhere in production; here its blocks must not take the cores from a payment."""


def start(supervisor: Supervisor, *, block_seconds: float = BLOCK_SECONDS) -> str:
    """Start anvil and return its RPC_URL."""
    service = Service(
        "anvil",
        [
            *(_binary(), "--host", "127.0.0.1", "--port", "0", "--chain-id", str(CHAIN_ID)),
            *("--block-time", str(block_seconds), "--mixed-mining", "--color", "never"),
        ],
        env={"HOME": str(supervisor.home.path)},  # it keeps a cache in its home: ours goes away
        cwd=supervisor.home.path,
        niceness=NICENESS,
    )
    child = supervisor.wait(supervisor.start(service), lambda child: _port(child) is not None)
    return f"http://127.0.0.1:{_port(child)}"


def _port(child: Child) -> int | None:
    found = _LISTENING.search(child.output())
    return int(found[1]) if found else None


def _binary() -> Path:
    """Return the platform's own binary: the wrapper in .bin can be missing, and cannot pass SIGKILL on."""
    if chosen := os.environ.get("ANVIL_BIN"):
        return Path(chosen)
    system, machine = platform.system().lower(), platform.machine().lower()
    binary = _MODULES / f"anvil-{system}-{_MACHINES.get(machine, machine)}" / "bin" / "anvil"
    if not binary.exists():
        raise StackError(
            f"anvil is missing ({binary}).\nRun `make install`, or set RPC_URL to a running chain, "
            f"or ANVIL_BIN to an anvil of your own."
        )
    return binary
