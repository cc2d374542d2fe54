"""A signing process of its own for one test: started, killed, asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from escrow.chain.signer import Signers
from escrow.chain.sockets import SocketSigner
from escrow.chain.sources import open_signers

ROOT = Path(__file__).resolve().parents[2]
OTHER_USER = "nobody"
AS_ROOT = os.geteuid() == 0


class Notary:
    """`manage.py signer` over a directory of keys; as another user than ours where we may make it one."""

    def __init__(self, keys: Path, environment: Mapping[str, str]) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="notary-", dir="/tmp"))
        self.place.chmod(0o711)
        self.path = self.place / "signer.sock"
        self.journal = self.place / "journal"
        self.keys = keys
        self.environment = dict(environment)
        self.said: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self, *, allow: int | None = None, **environment: str) -> None:
        """Start it, and wait until it says that it is ready. `allow` may ask: our own user unless another is named."""
        self.environment |= environment
        user = ["--user", OTHER_USER] if AS_ROOT else []
        asker = str(os.getuid() if allow is None else allow)
        command = ["manage.py", "signer", "--socket", self.path, "--journal", self.journal, "--allow", asker]
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command), *user],
            cwd=ROOT,
            env={**os.environ, **self.environment, "SIGNER_KEYS_DIR": str(self.keys), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if "ready at" in line:
                break
        else:
            raise AssertionError("".join(self.said))
        self.reader = threading.Thread(target=self.said.extend, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def kill(self) -> None:
        """As a crash would."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def end(self) -> int:
        """In good order; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        return code

    def signers(self) -> Signers:
        """What a worker has that is told SIGNERS=socket:PATH, and no keys."""
        return open_signers(f"socket:{self.path}", keys="/nonexistent", relayers=1, timeout=10)

    def signer(self, key: str) -> SocketSigner:
        return SocketSigner(str(self.path), key)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.place)


def environment() -> dict[str, str]:
    """What the process is told: this test's database and chain."""
    at: dict[str, Any] = connection.settings_dict
    host = str(at["HOST"]).replace("/", "%2F")
    port = f":{at['PORT']}" if at["PORT"] else ""
    password = f":{at['PASSWORD']}" if at["PASSWORD"] else ""
    return {
        "DATABASE_URL": f"postgres://{at['USER']}{password}@{host}{port}/{at['NAME']}",
        "RPC_URL": settings.RPC_URL,
        "CHAIN_ID": str(settings.CHAIN_ID),
        "USDC_ADDRESS": settings.USDC_ADDRESS,
        "ESCROW_ADDRESS": settings.ESCROW_ADDRESS,
        "FINALITY": "1",
    }
