"""The load generator against a server made for the purpose: what it counts, and from when it counts."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.load import wire
from benchmarks.load.launch import drive
from benchmarks.load.plan import BadPlan, Caller, Plan

ROOT = Path(__file__).resolve().parents[2]
CALLER = {"token": "secret", "to": "agent://a.example.dev", "amount": "0.001", "refund_token": "provider"}
Answer = tuple[int, dict[str, Any]]


@contextmanager
def serving(answer: Callable[[str, dict[str, Any], dict[str, str]], Answer | None]) -> Iterator[str]:
    """Serve POSTs on this machine; `answer` gets path, body and headers, and drops the connection with None."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = answer(self.path, body, dict(self.headers))
            if found is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            content = json.dumps(found[1]).encode()
            self.send_response(found[0])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def paid(path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
    return 201, {"id": headers["Idempotency-Key"]}


def test_a_closed_loop_sends_exactly_the_count_and_each_key_once() -> None:
    seen: list[tuple[str, dict[str, Any], str, str]] = []

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        seen.append((path, body, headers["Authorization"], headers["Idempotency-Key"]))
        return paid(path, body, headers)

    with serving(answer) as url:
        result = drive(url=url, callers=[CALLER], key="k:", connections=4, count=50, metadata={"a": 1}, first=7)
    assert (result["sent"], result["paid"], result["codes"], result["errors"]) == (50, 50, {"201": 50}, 0)
    assert sorted(key for *_, key in seen) == sorted(f"k:{number}" for number in range(7, 57))
    body = {"to": "agent://a.example.dev", "amount": "0.001", "metadata": {"a": 1}}
    assert {(path, json.dumps(sent), who) for path, sent, who, _ in seen} == {
        ("/v1/payments", json.dumps(body), "Bearer secret")
    }
    assert sum(count for _, count in result["histogram"]) == sum(result["timeline"]) == 50


def test_a_count_below_the_connections_ends_too() -> None:
    with serving(paid) as url:
        assert drive(url=url, callers=[CALLER], key="k:", connections=8, count=3)["paid"] == 3


def test_refusals_are_told_by_code_and_faults_are_errors() -> None:
    answers: list[Answer] = [
        (201, {}),
        (402, {"code": "insufficient_funds"}),
        (503, {"code": "unavailable"}),
        (404, {}),
    ]
    with serving(lambda *_: answers.pop()) as url:
        result = drive(url=url, callers=[CALLER], key="k:", connections=1, count=4)
    assert result["codes"] == {"201": 1, "insufficient_funds": 1, "unavailable": 1, "404": 1}
    assert (result["refused"], result["errors"], result["errors_by_kind"]) == (2, 1, {"status 503": 1})


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    first = threading.Event()

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        if not first.is_set():
            first.set()
            time.sleep(0.5)
        return paid(path, body, headers)

    with serving(answer) as url:
        result = drive(url=url, callers=[CALLER], key="k:", connections=1, count=50, rate=100.0, seconds=5.0)
    assert result["paid"] == 50
    # A closed loop would have seen one slow answer in fifty. Here everything that was due in that half second was late.
    assert result["max_ms"] >= 500
    assert result["p50_ms"] > 100


def test_an_open_loop_sends_nothing_before_it_is_due() -> None:
    with serving(paid) as url:
        result = drive(url=url, callers=[CALLER], key="k:", connections=4, rate=200.0, seconds=1.0)
    assert result["paid"] == result["sent"] == 200
    assert result["duration_s"] >= 199 / 200  # the last is due then, however fast the answers are


def test_a_lost_connection_is_an_error_with_its_number_and_the_run_goes_on() -> None:
    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer | None:
        return None if headers["Idempotency-Key"] == "k:3" else paid(path, body, headers)

    with serving(answer) as url:
        result = drive(url=url, callers=[CALLER], key="k:", connections=2, count=10, keep_numbers=True)
    assert (result["paid"], result["errors_by_kind"]) == (9, {"connection lost": 1})
    assert result["unanswered"] == [3]
    assert sorted(result["numbers"]) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_a_share_is_refunded_by_the_provider() -> None:
    refunds: list[tuple[str, str, dict[str, Any], str]] = []

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        if path.endswith("/refund"):
            refunds.append((path, headers["Authorization"], body, headers["Idempotency-Key"]))
            return 200, {}
        return paid(path, body, headers)

    with serving(answer) as url:
        result = drive(url=url, callers=[CALLER], key="k:", connections=2, count=20, refund_share=0.3)
    assert result["paid"] == 20
    assert result["refunds"]["codes"] == {"200": len(refunds)}
    assert len(refunds) in (5, 6)  # three of ten, and tenths do not add up exactly
    for path, who, body, key in refunds:
        assert path == f"/v1/payments/{key}/refund"
        assert (who, body) == ("Bearer provider", {"reason": "not needed"})


def test_nothing_that_listens_is_told_and_not_measured() -> None:
    plan = {"url": "http://127.0.0.1:9", "callers": [CALLER], "key": "k:", "count": 1}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=ROOT,
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing listens" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://example.com", "count": 1},
        {"url": "https://127.0.0.1:1", "count": 1},
        {"url": "http://127.0.0.1:1"},
        {"url": "http://127.0.0.1:1", "count": 1, "connections": 0},
        {"url": "http://127.0.0.1:1", "seconds": 10_000.0},
        {"url": "http://127.0.0.1:1", "count": 1, "rate": -1.0},
        {"url": "http://127.0.0.1:1", "count": 1, "callers": ()},
        {"url": "http://127.0.0.1:1", "count": 1, "refund_share": 0.3},
    ],
)
def test_a_plan_has_an_end_and_loads_this_machine_only(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadPlan):
        Plan(**{"callers": (Caller("t", "agent://a.b", "1"),), "key": "k", **wrong})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"callers": [{"who": 1}]}', '{"callers": 3}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(BadPlan):
        Plan.read(text)


@pytest.mark.parametrize("name", ["content-length: ", "Content-Length:", "CONTENT-LENGTH:\t "])
def test_the_end_of_an_answer_is_found_however_its_length_is_spelt(name: str) -> None:
    head = f"HTTP/1.1 201 Created\r\nserver: x\r\n{name}5\r\n\r\n".encode()
    for cut in range(len(head)):
        assert wire.extent(head[:cut]) is None
    assert wire.extent(head + b"12345") == (len(head), len(head) + 5)


def test_an_answer_without_a_length_is_unreadable() -> None:
    with pytest.raises(wire.Unreadable):
        wire.extent(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
