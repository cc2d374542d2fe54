"""`marketplace.outside`: a user names an address, and nothing of ours is ever connected to.

A socket that really listens on this machine counts what connects. The names that the tests use are looked up by a function
of theirs, because what a hostile name server answers cannot be had from a real one.
"""

import contextlib
import ipaddress
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from escrow.errors import InvalidInput
from marketplace import addresses, outside
from marketplace.outside import Unreached

PUBLIC = "93.184.215.14"
HOSTILE_NUMBERS = [
    *("127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7f.1", "0177.0.0.1"),
    *("0177.0.0.01", "127.0.0.1.", "0", "0.0.0.0", "00.0.0.0", "10.0.0.1", "10.1", "172.16.0.1", "172.31.255.255"),  # noqa: S104
    *("192.168.0.1", "192.168.1", "100.64.0.1", "100.127.255.254", "100.100.100.200", "169.254.169.254", "169.254.1"),
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("168.63.129.16", "256.1.1.1", "1.2.3.4.5", "1.2.3", "4294967297"),
]
HOSTILE_SIXES = [
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]"),
    *(
        "[64:ff9b::7f00:1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::]",
    ),
    *("[2001::1]", "[2001:0:7f00:1::]", "[2001:10::1]", "[2001:db8::1]", "[3fff::1]", "[fc00::1]", "[fd00:ec2::254]"),
    *("[fe80::1]", "[fe80::1%25eth0]", "[2606:4700::1%25lo]", "[fec0::1]", "[ff02::1]", "[100::1]", "[5f00::1]"),
    *("[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::1", "::1", "[127.0.0.1]", "[v1.a]", "[]"),
]
HOSTILE_NAMES = [
    *("localhost", "LOCALHOST", "localhost.", "a.localhost", "localhost.localdomain", "metadata.google.internal"),
    *("metadata", "redis", "db.local", "printer.lan", "router.home.arpa", "intranet", "hooks.acme.dev.", "-a.dev"),
    *(
        "a..dev",
        ".dev",
        "a_b.dev",
        "xn--.dev-",
        "１２７.0.0.1",
        "127。0。0。1",
        "ⓛocalhost",
        "exämple.dev",
        "a" * 64 + ".dev",
    ),
    *("*.acme.dev", "acme.0x7f", "acme.127", "%31%32%37.0.0.1", "127.0.0.1%00.acme.dev", "127.0.0.1%2eacme.dev"),
]
HOSTILE_URLS = [
    *(
        "http://hooks.acme.dev/",
        "ftp://hooks.acme.dev/",
        "file:///etc/passwd",
        "gopher://hooks.acme.dev/",
        "//hooks.acme.dev",
    ),
    *(
        "javascript:alert(1)",
        "https:hooks.acme.dev",
        "https:/hooks.acme.dev",
        "https://",
        "https:///x",
        "hooks.acme.dev",
        "",
    ),
    *("https://user@hooks.acme.dev/", "https://user:pass@hooks.acme.dev/", "https://hooks.acme.dev@127.0.0.1/"),
    *(
        "https://127.0.0.1#@hooks.acme.dev/",
        "https://127.0.0.1\\@hooks.acme.dev/",
        "https://hooks.acme.dev\\.evil.dev/",
    ),
    *(
        "https://hooks.acme.dev/#x",
        "https://hooks.acme.dev/#",
        "https://hooks.acme.dev/ x",
        "https://hooks.acme.dev/\tx",
    ),
    *(
        "https://hooks.acme.dev/\r\nHost: a",
        "https://hooks.acme.dev/\x00",
        " https://hooks.acme.dev/",
        "https://hooks.acme.dev\n",
    ),
    *(
        "https://hooks.acme.dev:0/",
        "https://hooks.acme.dev:22/",
        "https://hooks.acme.dev:25/",
        "https://hooks.acme.dev:80/",
    ),
    *("https://hooks.acme.dev:6000/", "https://hooks.acme.dev:6667/", "https://hooks.acme.dev:65536/"),
    *(
        "https://hooks.acme.dev:-1/",
        "https://hooks.acme.dev:/",
        "https://hooks.acme.dev:443443/",
        "https://hooks.acme.dev:x/",
    ),
    *(
        "https://hooks.acme.dev:４43/",
        "https://hooks.acme.dev/é",
        "https://hooks.acme.dev/" + "a" * 500,
        "https://[::1]x/",
    ),
]
HOSTILE = [
    *(f"https://{host}/" for host in [*HOSTILE_NUMBERS, *HOSTILE_SIXES, *HOSTILE_NAMES]),
    *HOSTILE_URLS,
]


class Listener:
    """A port of this machine that counts who connects, and answers as it is told."""

    def __init__(self, answer: Callable[[socket.socket], None], port: int = 0) -> None:
        self.answer = answer
        self.connections = 0
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.threads = [threading.Thread(target=self._serve, daemon=True)]
        self.threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self.socket.accept()
                self.connections += 1
                answering = threading.Thread(target=self._answer, args=(line,), daemon=True)
                self.threads.append(answering)
                answering.start()

    def _answer(self, line: socket.socket) -> None:
        with line, contextlib.suppress(OSError):
            self.answer(line)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join(30)


def asked(line: socket.socket) -> bytes:
    """Read a whole request with its body."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += line.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(next(row for row in head.lower().split(b"\r\n") if row.startswith(b"content-length")).split(b":")[1])
    while len(body) < length:
        body += line.recv(65536)
    return head + b"\r\n\r\n" + body


def says(text: bytes) -> Callable[[socket.socket], None]:
    def answer(line: socket.socket) -> None:
        asked(line)
        line.sendall(text)

    return answer


OK = says(b"HTTP/1.1 204 No Content\r\n\r\n")


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def listen(answer: Callable[[socket.socket], None] = OK, port: int = 0) -> Listener:
        made.append(Listener(answer, port))
        return made[-1]

    yield listen
    for listener in made:
        listener.close()


@pytest.fixture
def at_home(settings) -> None:
    settings.LOCAL_WEBHOOKS = True


def resolves(*found: str) -> outside.LookUp:
    return lambda host, seconds: found


def post(url: str, *, look_up: outside.LookUp | None = None, seconds: float = 20.0) -> int:
    return outside.post(url, b"{}", {"webhook-id": "evt_1"}, seconds=seconds, look_up=look_up)


# --- What is refused by its text -------------------------------------------------------------------------------------


def test_the_list_is_long() -> None:
    assert len(HOSTILE) == len(set(HOSTILE)) >= 120


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_a_hostile_url_is_refused_before_anything_is_looked_up(url: str) -> None:
    def never(host: str, seconds: float) -> tuple[str, ...]:
        raise AssertionError(f"{host} was looked up")

    for refused in (lambda: outside.vet(url, look_up=never), lambda: post(url, look_up=never)):
        with pytest.raises(InvalidInput) as error:
            refused()
        assert error.value.facts["field"] == "url"
        assert error.value.facts["rule"]
        assert error.value.facts["would_pass"]


@pytest.mark.parametrize(
    ("url", "host", "authority", "target"),
    [
        ("https://hooks.acme.dev", "hooks.acme.dev", "hooks.acme.dev", "/"),
        ("HTTPS://Hooks.Acme.DEV/In?to=me&x=%20", "hooks.acme.dev", "hooks.acme.dev", "/In?to=me&x=%20"),
        ("https://hooks.acme.dev:443/a", "hooks.acme.dev", "hooks.acme.dev", "/a"),
        ("https://hooks.acme.dev:8443/a", "hooks.acme.dev", "hooks.acme.dev:8443", "/a"),
        ("https://xn--exmple-cua.dev/", "xn--exmple-cua.dev", "xn--exmple-cua.dev", "/"),
        (f"https://{PUBLIC}/", PUBLIC, PUBLIC, "/"),
        ("https://[2606:4700::1111]:8443/", "2606:4700::1111", "[2606:4700::1111]:8443", "/"),
        ("https://a.dev//evil.dev/../x", "a.dev", "a.dev", "//evil.dev/../x"),
    ],
)
def test_an_honest_url_is_read(url: str, host: str, authority: str, target: str) -> None:
    place = addresses.read(url)
    assert (place.host, place.authority, place.target) == (host, authority, target)
    outside.vet(url, look_up=resolves(PUBLIC))


# --- What is refused by its address ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "0.0.0.0",  # noqa: S104
            "10.9.8.7",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
        ),
        *(
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:93.184.215.14",
            "::7f00:1",
            "64:ff9b::1.1.1.1",
        ),
        *("2002:7f00:1::", "2001::1", "fe80::1", "fe80::1%1", "fec0::1", "fd00::1", "ff02::1"),
    ],
)
def test_a_name_that_resolves_to_it_is_refused_alone_and_beside_a_public_one(address: str) -> None:
    for found in ((address,), (PUBLIC, address), (address, PUBLIC), (PUBLIC, PUBLIC, address)):
        with pytest.raises(InvalidInput, match="cannot be called: the host has an address that is not on the public"):
            outside.vet("https://hooks.acme.dev/", look_up=resolves(*found))
        with pytest.raises(Unreached, match="not on the public internet"):
            post("https://hooks.acme.dev/", look_up=resolves(*found))


def test_a_name_without_an_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be called: the host has no address"):
        outside.vet("https://nothing.invalid/", look_up=resolves())


def test_the_systems_resolver_is_asked_and_knows_no_such_name() -> None:
    with pytest.raises(InvalidInput, match="cannot be called"):
        outside.vet("https://nothing.invalid/")


def test_what_the_operator_rules_out_is_not_public(settings) -> None:
    assert addresses.is_public(ipaddress.ip_address(PUBLIC))
    settings.OUTSIDE_REFUSED_NETWORKS = ["93.184.215.0/24", "2606:4700::/32"]
    assert not addresses.is_public(ipaddress.ip_address(PUBLIC))
    assert not addresses.is_public(ipaddress.ip_address("2606:4700::1111"))
    assert addresses.is_public(ipaddress.ip_address("93.184.216.14"))


def test_a_name_that_changes_its_address_reaches_nothing_here(listen) -> None:
    """First public, then ours: it is looked up once for an attempt, and what was vetted is what is connected to."""
    here = listen()
    answers = iter([(PUBLIC,), ("127.0.0.1",), (PUBLIC, "127.0.0.1")])
    asked_for: list[str] = []

    def rebinding(host: str, seconds: float) -> tuple[str, ...]:
        asked_for.append(host)
        return next(answers)

    url = f"https://rebind.acme.dev:{here.port}/"
    outside.vet(url, look_up=rebinding)
    for _ in range(2):
        with pytest.raises(Unreached):
            post(url, look_up=rebinding)
    assert asked_for == ["rebind.acme.dev"] * 3
    assert here.connections == 0


def test_the_connection_goes_to_the_very_address_that_was_vetted(at_home, listen) -> None:
    here = listen()
    lookups = 0

    def once(host: str, seconds: float) -> tuple[str, ...]:
        nonlocal lookups
        lookups += 1
        return ("127.0.0.1",)

    assert post(f"http://localhost:{here.port}/", look_up=once) == 204
    assert (lookups, here.connections) == (1, 1)


def test_a_name_server_that_never_answers_is_not_waited_for(settings, monkeypatch) -> None:
    settings.OUTSIDE_LOOKUP_SECONDS = 0.05
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(30) and [])
    try:
        with pytest.raises(InvalidInput, match=r"did not come within 0\.05 seconds"):
            outside.vet("https://tarpit.acme.dev/")
    finally:
        released.set()


# --- At home: a market that is tried on one machine ------------------------------------------------------------------


def test_at_home_this_machine_may_be_called_in_plain_http_and_nothing_else_of_ours(at_home, listen) -> None:
    here = listen()
    for host in ("127.0.0.1", "localhost"):
        assert post(f"http://{host}:{here.port}/in") == 204
    for url in ("http://10.0.0.1/", "http://hooks.acme.dev/", "http://169.254.169.254/", "https://192.168.0.1/"):
        with pytest.raises(InvalidInput):
            post(url, look_up=resolves("127.0.0.1"))
    with pytest.raises(Unreached):
        post("https://hooks.acme.dev/", look_up=resolves("127.0.0.1", "10.0.0.1"))
    with pytest.raises(Unreached):
        post("http://localhost/", look_up=resolves("10.0.0.1"))


def test_elsewhere_this_machine_is_not_called(listen) -> None:
    here = listen()
    for url in (f"http://127.0.0.1:{here.port}/", f"https://127.0.0.1:{here.port}/", f"https://localhost:{here.port}/"):
        with pytest.raises(InvalidInput):
            post(url)
    assert here.connections == 0


def test_no_proxy_is_taken_from_the_environment(at_home, listen, monkeypatch) -> None:
    here, proxy = listen(), listen()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert post(f"http://127.0.0.1:{here.port}/") == 204
    assert (here.connections, proxy.connections) == (1, 0)


# --- What is sent and what may be answered ---------------------------------------------------------------------------


def test_what_is_sent(at_home, listen) -> None:
    got: list[bytes] = []

    def answer(line: socket.socket) -> None:
        got.append(asked(line))
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    here = listen(answer)
    assert outside.post(f"http://localhost:{here.port}/in?to=me", b'{"a":1}', {"X-One": "1"}, seconds=20.0) == 200
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    assert head.split(b"\r\n") == [
        b"POST /in?to=me HTTP/1.1",
        b"Content-Length: 7",
        b"X-One: 1",
        b"Host: localhost:%d" % here.port,
        b"Connection: close",
        b"Accept-Encoding: identity",
    ]


def test_the_status_is_enough(at_home, listen) -> None:
    """What follows it is dropped, so it may as well be cut off."""
    here = listen(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"))
    assert post(f"http://127.0.0.1:{here.port}/") == 200


def test_a_redirect_is_an_answer_and_is_not_followed(at_home, listen) -> None:
    elsewhere = listen()
    here = listen(says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/\r\n\r\n" % elsewhere.port))
    assert post(f"http://127.0.0.1:{here.port}/") == 302
    assert (here.connections, elsewhere.connections) == (1, 0)


def test_a_huge_answer_is_not_read_to_its_end(at_home, listen) -> None:
    sent = 0

    def pour(line: socket.socket) -> None:
        nonlocal sent
        asked(line)
        line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while sent < 64 * 2**20:
                line.sendall(b"x" * 65536)
                sent += 65536

    here = listen(pour)
    assert post(f"http://127.0.0.1:{here.port}/") == 200
    here.close()
    assert sent < 64 * 2**20


def _reset(line: socket.socket) -> None:
    asked(line)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _drip(line: socket.socket) -> None:
    asked(line)
    for character in b"HTTP/1.1 200 OK\r\nA: " + b"b" * 10_000:
        line.sendall(bytes([character]))
        threading.Event().wait(0.01)


def _hang(line: socket.socket) -> None:
    asked(line)
    line.recv(1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_reset, "The connection was reset."),
        (_hang, "No whole answer came within 0.3 seconds."),
        (_drip, "No whole answer came within 0.3 seconds."),
        (says(b""), "The connection was closed without an answer."),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "The answer is not HTTP."),
        (says(b"\x15\x03\x01\x00\x02\x02\x16"), "The answer is not HTTP."),
        (says(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000), "The answer's headers are too long."),
        (says(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200), "The connection broke off before there was an answer."),
        (says(b"HTTP/1.1 2e2 OK\r\n\r\n"), "The answer is not HTTP."),
    ],
)
def test_whatever_goes_wrong_is_said_in_a_sentence_of_ours(at_home, listen, answer, reason) -> None:
    here = listen(answer)
    with pytest.raises(Unreached) as failure:
        post(f"http://127.0.0.1:{here.port}/", seconds=0.3 if answer in (_hang, _drip) else 20.0)
    assert failure.value.reason == reason


def test_a_port_at_which_nobody_listens(at_home, listen) -> None:
    here = listen()
    here.close()
    with pytest.raises(Unreached, match="was refused"):
        post(f"http://127.0.0.1:{here.port}/")


def test_a_dead_address_is_passed_over(at_home, listen) -> None:
    here = listen()
    assert post(f"http://localhost:{here.port}/", look_up=resolves("127.0.0.9", "127.0.0.1")) == 204


# --- TLS: the name is what is verified, the address is what is connected to ------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(made), "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return key, made


@pytest.fixture
def tls(certificate: tuple[Path, Path], listen) -> tuple[Listener, list[str | None]]:
    key, made = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    names: list[str | None] = []
    context.sni_callback = lambda _line, name, _context: names.append(name)

    def answer(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as secured:
            OK(secured)

    return listen(answer), names


def test_a_certificate_of_nobody_known_is_refused(at_home, tls) -> None:
    here, names = tls
    with pytest.raises(Unreached, match="certificate could not be verified"):
        post(f"https://localhost:{here.port}/")
    assert names == ["localhost"]


def test_the_name_is_sent_and_verified(at_home, tls, certificate, monkeypatch) -> None:
    here, names = tls
    monkeypatch.setattr(outside, "_tls", lambda: ssl.create_default_context(cafile=str(certificate[1])))
    assert post(f"https://localhost:{here.port}/") == 204
    assert names == ["localhost"]
    with pytest.raises(Unreached, match="certificate could not be verified"):
        post(f"https://hooks.acme.dev:{here.port}/", look_up=resolves("127.0.0.1"))
    assert names == ["localhost", "hooks.acme.dev"]


def test_plain_http_on_a_port_of_tls(at_home, listen) -> None:
    here = listen(lambda line: line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(Unreached, match="TLS could not be agreed on"):
        post(f"https://localhost:{here.port}/")
