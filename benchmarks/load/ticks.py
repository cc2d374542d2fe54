"""A clock that ticks finer than a millisecond, which is as fine as the timers of an event loop are."""

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

COARSE_SECONDS: Final = 0.001
"""Where the kernel has no timer to read (macOS): arrivals are then up to so late, and the latency has it in it."""
FINEST_SECONDS: Final = 0.0001
_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class _Interval(ctypes.Structure):
    """``struct itimerspec``: the interval and the first time, each in seconds and nanoseconds."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


@contextlib.contextmanager
def ticking(loop: asyncio.AbstractEventLoop, seconds: float, tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` every so many seconds while the block runs."""
    step = max(seconds, FINEST_SECONDS)
    if sys.platform == "linux":
        with _kernel(loop, step, tick):
            yield
    else:
        with _loop(loop, max(step, COARSE_SECONDS), tick):
            yield


@contextlib.contextmanager
def _kernel(loop: asyncio.AbstractEventLoop, step: float, tick: Callable[[], None]) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    timer = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
    whole, part = divmod(round(step * 1e9), 10**9)
    if timer < 0 or libc.timerfd_settime(timer, 0, ctypes.byref(_Interval(whole, part, whole, part)), None):
        raise OSError(ctypes.get_errno(), "no timer")

    def ring() -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(timer, 8)
        tick()

    loop.add_reader(timer, ring)
    try:
        yield
    finally:
        loop.remove_reader(timer)
        os.close(timer)


@contextlib.contextmanager
def _loop(loop: asyncio.AbstractEventLoop, step: float, tick: Callable[[], None]) -> Iterator[None]:
    going = True

    def ring() -> None:
        if going:
            loop.call_later(step, ring)
            tick()

    loop.call_later(step, ring)
    try:
        yield
    finally:
        going = False
