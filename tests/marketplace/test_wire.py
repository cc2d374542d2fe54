"""What only raw bytes over a socket can try: lengths that lie, bodies that are cut, headers that come twice."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection

from escrow.models import Payment
from tests.marketplace.conftest import World, make_world, money

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
BODY = b'{"to": "agent://lint.acme.dev", "amount": "0.001"}'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.fixture
def committed(transactional_db: None) -> World:
    """Return a market that the server sees."""
    return make_world()


@pytest.fixture
def port(transactional_db: None) -> Iterator[int]:
    """Return the port of the real server, on the tests' database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    place = connection.settings_dict
    host = f"{place['HOST']}:{place['PORT']}" if place["PORT"] else place["HOST"]
    url = f"postgres://{place['USER']}@{quote(host, safe=':')}/{place['NAME']}"
    command = [sys.executable, "-m", "marketplace.server", "--port", str(port)]
    environment = {**os.environ, "DATABASE_URL": url, "LOG_LEVEL": "CRITICAL"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            _wait(port)
            yield port
        finally:
            server.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the server did not start")


def post(
    port: int, key: str, *headers: bytes, body: bytes = BODY, length: bytes | None = b"", cut: bool = False
) -> int:
    """Send these very bytes and return the status, 0 for no answer to a caller that has hung up.

    ``length`` None leaves the header out, empty tells the truth.
    """
    lines = [b"POST /v1/payments HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close", b"Content-Type: application/json"]
    lines += [b"Authorization: Bearer " + key.encode(), *headers]
    if length is not None:
        lines.append(b"Content-Length: " + (length or b"%d" % len(body)))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as wire:
        wire.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        if cut:
            wire.shutdown(socket.SHUT_WR)
        answer = b""
        while part := wire.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_requests_that_lie_about_themselves_pay_nobody(committed: World, port: int) -> None:
    key = str(committed.a.by_session.key)
    named = b"Idempotency-Key: k"
    before = money()
    assert post(port, key, named, length=b"10") == 400
    assert post(port, key, named, length=b"1000", cut=True) in (0, 400)
    assert post(port, key, named, length=b"999999999", cut=True) in (0, 413)
    assert post(port, key, named, length=b"999999999") == 413
    assert post(port, key, named, length=b"-5") == 400
    assert post(port, key, named, length=b"x") == 400
    assert post(port, key, named, length=None, cut=True) in (0, 400)
    assert post(port, key, named, length=None) == 400
    assert post(port, key, named, b"Transfer-Encoding: chunked", body=CHUNKED, length=None) == 400
    assert post(port, key, named, b"Transfer-Encoding: chunked", body=CHUNKED[:20], length=None, cut=True) in (0, 400)
    assert post(port, key, named, length=None) == 400
    assert post(port, key, named, b"Authorization: Bearer x") == 401
    assert post(port, key, b"Idempotency-Key: \xe9") == 400
    assert post(port, key, b"Idempotency-Key: a\x00b") == 400
    assert post(port, key, b"Idempotency-Key: " + b"a" * 256) == 400
    assert post(port, key) == 400
    assert money() == before
    assert post(port, key, named) == 201
    assert Payment.objects.count() == 1
