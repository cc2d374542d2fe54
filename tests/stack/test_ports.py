"""Two stacks that start at once never take one port."""

import socket

import pytest

from marketplace.management.stack import ready
from marketplace.management.stack.supervisor import StackError


def test_a_held_port_is_passed_over() -> None:
    with ready.reserve() as one:
        port = ready.port_of(one)
        with ready.reserve(port, tries=20) as other:
            assert ready.port_of(other) > port
        with pytest.raises(StackError, match=f"Port {port} is taken by other programs. Choose another with --port"):
            ready.reserve(port)
    with ready.reserve(port) as again:
        assert ready.port_of(again) == port


def test_a_port_that_somebody_listens_to_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(StackError):
        ready.reserve(server.getsockname()[1])


def test_a_server_that_shares_its_port_can_listen_where_it_is_held() -> None:
    with ready.reserve() as held, socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", ready.port_of(held)))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=5):
            server.accept()[0].close()
