"""Ctrl-C, TERM and HUP end a command in good order: the first unwinds it, later ones do not cut the clean-up short."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def orderly_end() -> Iterator[None]:
    """Turn the first signal into SystemExit, also where a shell has started us with SIGINT ignored."""
    before = {number: signal.signal(number, _end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hold_off() -> None:
    """Ignore the ending signals from now on: the clean-up has begun, and every step of it is bounded."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _: FrameType | None) -> NoReturn:
    hold_off()
    raise SystemExit(128 + number)
