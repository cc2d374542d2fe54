"""Waits for the end of its standard input, then ends the process groups it was told of and removes the directory.

Started as a file by `home` with a bare interpreter: it imports nothing of the project and costs a few megabytes.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

PATIENCE_SECONDS = 8.0
STEP_SECONDS = 0.02


def kill_group(pid: int, number: int) -> bool:
    """Signal a process group; return whether there was one."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return sys.platform != "darwin"  # macOS says so of a group of zombies
    return True


def main() -> None:
    """Read `+pid signal` and `-pid` lines until the parent is gone, then clear up what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the input is the only reason to go
    groups: dict[int, int] = {}
    for line in sys.stdin:
        sign, words = line[0], line[1:].split()
        if sign == "+":
            groups[int(words[0])] = int(words[1])
        else:
            groups.pop(int(words[0]), None)
    for pid, stop_signal in reversed(groups.items()):
        with contextlib.suppress(OSError):
            os.kill(pid, stop_signal)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(kill_group(pid, 0) for pid in groups) and time.monotonic() < deadline:
        time.sleep(STEP_SECONDS)
    for pid in groups:
        kill_group(pid, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
