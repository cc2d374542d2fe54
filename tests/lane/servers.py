"""The real server on the tests' database, as a process that can be killed; and what it has paid."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.db import connection

from benchmarks.load.launch import Running
from escrow.models import Payment
from tests.lane.doors import PATH, PATIENCE, PAY, until

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """One process of the web."""

    def __init__(self, **environment: str) -> None:
        """Start it and wait until it listens."""
        self._loads: list[Running] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        place = connection.settings_dict
        host = f"{place['HOST']}:{place['PORT']}" if place["PORT"] else place["HOST"]
        url = f"postgres://{place['USER']}@{quote(host, safe=':')}/{place['NAME']}"
        command = [sys.executable, "-m", "marketplace.server", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": url, "LOG_LEVEL": "CRITICAL", **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: self.listens() or self.process.poll() is not None)
            assert self.process.poll() is None, "the server did not start"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave no process behind."""
        for process in (self.process, *(load._process for load in self._loads)):
            process.kill()
            process.wait(PATIENCE)
        for load in self._loads:
            load._process.stdout.close()

    def listens(self) -> bool:
        """Return whether it takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def load(self, token: str, key: str, amount: str = "0.000001", **plan: Any) -> Running:
        """Begin to load it with payments, each of which remembers whether it was answered."""
        caller = {"token": token, "to": PAY["to"], "amount": amount, "refund_token": plan.pop("refund_token", None)}
        given = {"connections": 32, "seconds": 30, "keep_numbers": True, **plan}
        begun = Running({"url": f"http://127.0.0.1:{self.port}", "callers": [caller], "key": key, **given})
        self._loads.append(begun)
        return begun

    def pay(self, token: str, idempotency_key: str, amount: str = "0.000001") -> tuple[int, Any]:
        """Pay once; return the status and the document."""
        wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": idempotency_key}
        headers["Content-Type"] = "application/json"
        try:
            wire.request("POST", PATH, json.dumps({"to": PAY["to"], "amount": amount}), headers)
            answer = wire.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            wire.close()


@contextmanager
def serving(**environment: str) -> Iterator[Server]:
    """Run a server until the block ends, if it lives so long."""
    server = Server(**environment)
    try:
        yield server
    finally:
        server.close()


def paid(key: str) -> dict[int, Payment]:
    """Return the payments of a run by the number that follows its key."""
    found = Payment.objects.filter(idempotency_key__startswith=key)
    return {int(payment.idempotency_key.removeprefix(key)): payment for payment in found}
