"""The zygote: it has imported everything once, holds no connection, and forks a real worker or web server in milliseconds.

Lives here: what runs on the far side of `crew`'s sockets. A worker takes one delivery after the other, as a Celery worker's
child does, with connections of its own, until it is killed; a web server is the one of `marketplace.server`.

Skew: a worker whose clock is wrong has its `time.time`, `time.time_ns` and `django.utils.timezone.now` moved when it is born;
what reads the time otherwise (`datetime.now`) reads the right one.
"""

import ctypes
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import uvicorn
from django.conf import settings
from django.db import close_old_connections, connections
from django.utils import timezone

from escrow import crashpoints, workers
from marketplace.asgi import application
from marketplace.celery import app
from marketplace.management.stack.supervisor import PR_SET_PDEATHSIG
from marketplace.server import OPTIONS

MESSAGE: Final = 65_536
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(log: Path) -> tuple[int, socket.socket]:
    """Fork the zygote; return its process id and the socket that orders go to. The caller must have no connection open."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    ours.close()
    _become_a_child(log)
    gc.freeze()  # so that a child's first collection does not copy every page
    try:
        _serve(theirs)
    finally:
        os._exit(0)


def die_with_parent(number: signal.Signals) -> None:
    """Be sent a signal when whoever forked this process is gone."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, number)


def _become_a_child(log: Path) -> None:
    die_with_parent(signal.SIGKILL)
    os.setsid()  # Ctrl-C reaches only the command, which ends the crew in good order
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.register(signal.SIGUSR1, file=2)  # whoever hangs says where before it is killed


def _serve(control: socket.socket) -> None:
    while True:
        message, passed, _, _ = socket.recv_fds(control, MESSAGE, 1)
        if not message:
            return
        order: dict[str, Any] = json.loads(message)
        if order["do"] == "reap":
            control.send(str(os.waitpid(order["pid"], 0)[1]).encode())
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _live(order, socket.socket(fileno=passed[0]))
        os.close(passed[0])
        control.send(str(pid).encode())


def _live(order: dict[str, Any], line: socket.socket) -> None:
    die_with_parent(signal.SIGKILL)
    try:
        _settle_in(order)
        if order["do"] == "web":
            uvicorn.Server(uvicorn.Config(application, **OPTIONS)).run(sockets=[line])
        else:
            _work(line)
    except BaseException:  # noqa: BLE001 - nothing of the zygote's may run in a child
        traceback.print_exc()
    finally:
        os._exit(0)


def _settle_in(order: dict[str, Any]) -> None:
    """Take this child's own environment: its settings, its way to the database, its clock, its crash point."""
    for name, value in order.get("settings", {}).items():
        setattr(settings, name, value)
    connections["default"].settings_dict.update(order.get("database", {}))
    workers.chain_client.cache_clear()
    if order.get("skew"):
        _skew(float(order["skew"]))
    if order.get("point"):
        crashpoints.arm(order["point"])


def _skew(seconds: float) -> None:
    right, right_ns, now = time.time, time.time_ns, timezone.now
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + int(seconds * 10**9)
    timezone.now = lambda: now() + timedelta(seconds=seconds)


def _work(line: socket.socket) -> None:
    while message := line.recv(MESSAGE):
        job: dict[str, Any] = json.loads(message)
        if job.get("point"):
            crashpoints.arm(job["point"], passes=job.get("passes", 0))
        error = ""
        close_old_connections()
        try:
            app.tasks[job["task"]]()
        except Exception as failure:  # noqa: BLE001 - as Celery does: the task failed, the worker goes on
            traceback.print_exc()
            error = f"{type(failure).__name__}: {failure}"[:500]
        sys.stderr.flush()
        line.send(json.dumps({"error": error}).encode())
