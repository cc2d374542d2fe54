"""Ways to know that a child is ready: what it says, or what it answers; and ports for it to answer at."""

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


def free_port() -> int:
    """Return a port on 127.0.0.1 that nobody listens to now."""
    with reserve() as held:
        return port_of(held)


def reserve(first: int = 0, tries: int = 1) -> socket.socket:
    """Hold a port on 127.0.0.1 against other stacks: any free one for 0, else `first` or the next free one.

    Only a server that shares its port with us (SO_REUSEPORT, as `marketplace.server --share-port` does) can listen there
    while it is held; without that, two stacks that start at once would take the same port, and each would find the other's
    web ready.
    """
    for port in range(first, first + tries):
        with contextlib.suppress(OSError):
            if port:
                _bind(port, socket.SO_REUSEADDR).close()
            return _bind(port, socket.SO_REUSEPORT)
    taken = f"Port {first} is" if tries == 1 else f"Ports {first} to {first + tries - 1} are"
    raise StackError(f"{taken} taken by other programs. Choose another with --port, or end what listens there.")


def port_of(held: socket.socket) -> int:
    """Return the port that a socket holds."""
    return int(held.getsockname()[1])


def _bind(port: int, option: int) -> socket.socket:
    """Return a socket at a port; raise OSError when anybody listens to it or, but for SO_REUSEPORT, holds it.

    With SO_REUSEADDR connections that are still closing do not count.
    """
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound
