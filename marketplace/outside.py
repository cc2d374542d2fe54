"""Requests to an address that a user named. Lives here: the only way to make one, and what keeps it out of our own network.

The host is looked up once; when any of its addresses is not public nothing is connected; and the connection goes to one of
those very addresses, with the name only in ``Host`` and in TLS. No redirect is followed, no proxy is taken from the
environment. Which URLs and addresses are good is `marketplace.addresses`'; what is sent, and why, is the caller's.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeAlias, cast

from django.conf import settings

from escrow.errors import InvalidInput
from marketplace.addresses import EXAMPLE, Place, is_public, read

LookUp: TypeAlias = Callable[[str, float], tuple[str, ...]]

ADDRESSES_TRIED: Final = 4
"""Of a host with many, so that a dead one is passed over, and a list of dead ones is not walked for long."""


class Unreached(Exception):
    """There is no answer. ``reason`` is one short sentence of ours that tells nothing of what the other side sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def vet(url: str, *, field: str = "url", look_up: LookUp | None = None) -> None:
    """Return when a URL may be called now. Raises InvalidInput when its text or any address of its host is refused."""
    place = read(url, field=field)
    try:
        _addresses(place, settings.OUTSIDE_LOOKUP_SECONDS, look_up)
    except Unreached as refusal:
        reason = refusal.reason[:1].lower() + refusal.reason[1:].rstrip(".")
        raise InvalidInput(field, f"cannot be called: {reason}", EXAMPLE) from None


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, look_up: LookUp | None = None) -> int:
    """Post a body; return the status of the answer. What else the answer says is read and dropped.

    ``seconds`` is for everything together: the look-up, the connection, TLS, sending, and an answer that drips.
    Raises InvalidInput and Unreached.
    """
    ends = time.monotonic() + seconds
    place = read(url)
    addresses = _addresses(place, min(seconds, settings.OUTSIDE_LOOKUP_SECONDS), look_up)
    try:
        with _connected(place, addresses, ends) as line:
            return _exchange(place, line, body, headers, ends)
    except TimeoutError:
        raise Unreached(f"No whole answer came within {seconds:g} seconds.") from None
    except ssl.SSLCertVerificationError:
        raise Unreached("The host's certificate could not be verified.") from None
    except (OSError, http.client.HTTPException, ValueError) as failure:
        raise Unreached(_REASONS.get(type(failure), "The connection broke off before there was an answer.")) from None


_REASONS: Final[Mapping[type[Exception], str]] = {
    ConnectionRefusedError: "The connection was refused.",
    ConnectionResetError: "The connection was reset.",
    http.client.RemoteDisconnected: "The connection was closed without an answer.",
    http.client.BadStatusLine: "The answer is not HTTP.",
    http.client.LineTooLong: "The answer's headers are too long.",
    ssl.SSLError: "TLS could not be agreed on.",
}


def _exchange(place: Place, line: socket.socket, body: bytes, headers: Mapping[str, str], ends: float) -> int:
    connection = http.client.HTTPConnection(place.host, place.port)
    connection.sock = cast("Any", _Line(line, ends))  # connected already, so it does not look up or connect
    try:
        fixed = {"Host": place.authority, "Connection": "close", "Accept-Encoding": "identity"}
        connection.request("POST", place.target, body, {**headers, **fixed})
        answer = connection.getresponse()
        answer.read(settings.OUTSIDE_ANSWER_BYTES)
        return answer.status
    finally:
        connection.close()


class _Line:
    """A socket as `http.client` wants one, on which everything together ends in time, however slowly it drips."""

    def __init__(self, line: socket.socket, ends: float) -> None:
        self._line, self._ends = line, ends

    def sendall(self, content: bytes) -> None:
        self._line.settimeout(_left(self._ends))
        self._line.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._line, self._ends))

    def close(self) -> None:
        """Leave it: who connected closes."""


class _Reading(io.RawIOBase):
    def __init__(self, line: socket.socket, ends: float) -> None:
        self._line, self._ends = line, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._line.settimeout(_left(self._ends))
        return self._line.recv_into(buffer)


def _connected(place: Place, addresses: tuple[str, ...], ends: float) -> socket.socket:
    failure: OSError = ConnectionRefusedError()
    for address in addresses[:ADDRESSES_TRIED]:
        line = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            line.settimeout(_left(ends))
            line.connect((address, place.port))
            line.settimeout(_left(ends))
            return _tls().wrap_socket(line, server_hostname=place.host) if place.scheme == "https" else line
        except OSError as refusal:
            line.close()
            failure = refusal
    raise failure


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _addresses(place: Place, seconds: float, look_up: LookUp | None) -> tuple[str, ...]:
    """Return the addresses of a host, all of them good. Raises Unreached."""
    found = (look_up or _look_up)(place.host, seconds)
    addresses = [ipaddress.ip_address(address) for address in found]
    if not addresses:
        raise Unreached("The host has no address.")
    if settings.LOCAL_WEBHOOKS and all(address.is_loopback for address in addresses):
        return found
    if place.scheme != "https" or not all(map(is_public, addresses)):
        raise Unreached("The host has an address that is not on the public internet.")
    return found


_SLOTS: Final = threading.BoundedSemaphore(16)
"""Look-ups at once. Whose name server never answers holds a slot for as long as the system's resolver has patience."""


def _look_up(host: str, seconds: float) -> tuple[str, ...]:
    """Ask the system's resolver, which knows no timeout of ours: in a thread that is left behind when it takes too long."""
    found: list[tuple[str, ...]] = []

    def ask() -> None:
        try:
            places = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.append(tuple(dict.fromkeys(str(place[0]) for *_, place in places)))
        except (OSError, UnicodeError):
            found.append(())
        finally:
            _SLOTS.release()

    ends = time.monotonic() + seconds
    if not _SLOTS.acquire(timeout=seconds):
        raise Unreached("Too many names are being looked up.")
    asking = threading.Thread(target=ask, name="look-up", daemon=True)
    asking.start()
    asking.join(max(0.0, ends - time.monotonic()))
    if not found:
        raise Unreached(f"The host's address did not come within {seconds:g} seconds.")
    return found[0]
