"""The notary's socket: who may ask, how long and how much, and as which user it is answered. What is answered is desk.py's."""

import contextlib
import ctypes
import grp
import logging
import os
import pwd
import resource
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from django.db import connections

from escrow.chain import frames

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 5.0
"""For a question to arrive and an answer to be taken: both ends are on one machine."""
AT_ONCE: Final = 16
"""Connections that are read at the same time; whoever comes then waits in the socket's queue."""
PR_SET_DUMPABLE: Final = 4
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_PEER: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class ServerError(Exception):
    """It cannot be started; says what is in the way."""


class Server(socketserver.ThreadingUnixStreamServer):
    """Listens at `path` from the start. `allowed` are the user ids that may ask; everybody else is hung up on."""

    daemon_threads = True
    request_queue_size = 128

    answer: Callable[[Mapping[str, Any]], dict[str, Any]]

    def __init__(self, path: Path, allowed: Collection[int]) -> None:
        self.path = path
        self.allowed = frozenset(allowed)
        self._room = threading.BoundedSemaphore(AT_ONCE)
        _make_way(path)
        before = os.umask(0o177)  # nobody's but ours until the mode is set
        try:
            super().__init__(str(path), _Conversation)
        finally:
            os.umask(before)

    def open_to(self, uid: int, gid: int) -> None:
        """Give the socket to the user that will answer, and let its group connect."""
        os.chown(self.path, uid, gid)
        self.path.chmod(0o660)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Ask the kernel who is at the other end: a mode of a file can be wrong, this cannot."""
        uid = peer(request)
        if uid not in self.allowed:
            log.warning("Hung up on user %s, who may not ask", uid)
            return False
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, so many at once."""
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make room when it is answered."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()
            connections.close_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of what was asked: a traceback could."""
        log.warning("A connection ended in an error")

    def server_close(self) -> None:
        """Hang up and take the socket away, where its directory is ours; one that is left is taken away by the next start."""
        super().server_close()
        with contextlib.suppress(OSError):
            self.path.unlink()


class _Conversation(socketserver.BaseRequestHandler):
    """One question, one answer."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.settimeout(PATIENCE_SECONDS)
        try:
            question = frames.receive(connection, frames.MAX_ASKED)
        except (OSError, frames.BadFrame) as error:
            log.warning("A question did not arrive: %s", error)
            return
        server = self.server
        if not isinstance(server, Server):
            return
        answer = server.answer(question)
        try:
            frames.send(connection, answer)
        except OSError:
            log.warning("An answer was not taken; the same question gets it again")


def peer(connection: socket.socket) -> int:
    """Return the user id at the other end of a unix socket, as the kernel knows it."""
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)


def user_id(name: str) -> int:
    """Return the id of a user by name or number; raises ServerError."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ServerError(f"there is no user {name} on this machine") from None


def group_id(name: str) -> int:
    """Return the id of a group by name or number; raises ServerError."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ServerError(f"there is no group {name} on this machine") from None


def ids(user: str | None) -> tuple[int, int]:
    """Return the ids of the user that will answer, our own unless one is named; raises ServerError."""
    if user is None:
        return os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ServerError(f"there is no user {user} on this machine") from None
    if os.geteuid() not in {0, entry.pw_uid}:
        raise ServerError(f"only root can become {user}: start it as root, or as {user}")
    return entry.pw_uid, entry.pw_gid


def become(uid: int, gid: int) -> None:
    """Leave root for good, with no group but this one, and keep others of this user away from our memory."""
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_DUMPABLE, 0)


def leave_no_trace() -> None:
    """A crash must not write the keys to a disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _make_way(path: Path) -> None:
    """Take away a socket that nobody answers at any more; one that is answered at is in the way."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise ServerError(f"{path} is in the way: {error.strerror}") from None
    raise ServerError(f"{path} is answered at already: one signing process for one journal")
