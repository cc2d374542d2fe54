"""The temporary home of one stack: sockets, data, keys and logs; and its guardian, who clears up when we are killed.

The home goes away with the stack. When the parent is killed with SIGKILL no handler runs, so a guardian process waits
for the end of its standard input, kills the groups that are left and removes the directory.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

SOCKET_PATH_ROOM: Final = 60
"""Longest directory for homes: a unix socket's whole path must stay under 104 bytes (macOS)."""


class Home:
    """A private directory and its guardian; both are gone after `close`."""

    def __init__(self) -> None:
        """Make the directory; only this user (and, for root, the database's user) can look inside."""
        self.path = Path(tempfile.mkdtemp(prefix="am-", dir=_short_directory()))
        if os.geteuid() == 0:
            self.path.chmod(0o711)  # PostgreSQL runs as another user and must get through to its own folder
        self.logs = self.path / "logs"
        self.logs.mkdir(mode=0o700)
        guardian = Path(__file__).with_name("guardian.py")
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(guardian), str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    @property
    def guardian(self) -> int:
        """Return the guardian's process id."""
        return self._guardian.pid

    def __enter__(self) -> Self:
        """Return the home itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Clear up."""
        self.close()

    def guard(self, pid: int, stop_signal: signal.Signals) -> None:
        """Have the guardian end the process group of this child when we are gone."""
        self._tell(f"+{pid} {int(stop_signal)}\n")

    def unguard(self, pid: int) -> None:
        """Forget a child that has ended: its number may be given to another process."""
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """Remove the directory and send the guardian home. The children must be stopped before."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            if self._guardian.stdin:
                self._guardian.stdin.close()
        self._guardian.wait()

    def _tell(self, line: str) -> None:
        if self._guardian.stdin:
            with contextlib.suppress(OSError):  # without its guardian the stack still works
                self._guardian.stdin.write(line.encode())
                self._guardian.stdin.flush()


def _short_directory() -> str:
    """Return the directory for temporary files, or /tmp where its path is too long or closed to other users."""
    chosen = tempfile.gettempdir()
    reachable = os.geteuid() != 0 or all(p.stat().st_mode & 0o001 for p in (Path(chosen), *Path(chosen).parents))
    return chosen if reachable and len(chosen) <= SOCKET_PATH_ROOM else "/tmp"  # noqa: S108 - mkdtemp makes it private
