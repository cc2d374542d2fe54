"""Ways to know that a child is ready: what it says, or what it answers."""

import contextlib
import socket
import urllib.error
import urllib.request
from typing import Final

from marketplace.management.stack.supervisor import Child, Ready, StackError

HTTP_SECONDS: Final = 2.0
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never ask a proxy for 127.0.0.1


def says(text: str) -> Ready:
    """Ready when the child has written this text."""
    return lambda child: text in child.output()


def answers(url: str) -> Ready:
    """Ready when a GET of this URL is answered, with anything below 500."""

    def ready(_: Child) -> bool:
        try:
            with _DIRECT.open(url, timeout=HTTP_SECONDS):
                return True
        except urllib.error.HTTPError as refused:
            return refused.code < 500
        except OSError:
            return False

    return ready


def free_port(first: int = 0, tries: int = 20) -> int:
    """Return a port on 127.0.0.1 that nobody listens to: any for 0, else `first` or the next free one after it."""
    for port in range(first, first + tries) if first else [0]:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    taken = f"Port {first} is" if tries == 1 else f"Ports {first} to {first + tries - 1} are"
    raise StackError(f"{taken} taken by other programs. Choose another with --port, or end what listens there.")
