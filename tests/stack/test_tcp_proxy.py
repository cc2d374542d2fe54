"""The proxy before the database and the broker, on real ones."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator

import psycopg
import pytest
import redis

from marketplace.management.faults.tcp_proxy import TcpProxy


@pytest.fixture
def database(database_url: str) -> Iterator[TcpProxy]:
    with TcpProxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def broker(redis_url: str) -> Iterator[TcpProxy]:
    with TcpProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
def table(database_url: str) -> Iterator[None]:
    """A table of the real server, reached past the proxy."""
    with psycopg.connect(database_url, autocommit=True) as direct:
        direct.execute("CREATE TABLE faulty (number int)")
        yield
        direct.execute("DROP TABLE faulty")


def rows(database_url: str) -> list[int]:
    with psycopg.connect(database_url) as direct:
        return [number for (number,) in direct.execute("SELECT number FROM faulty ORDER BY 1")]


def test_an_honest_proxy_is_not_noticed(database: TcpProxy, broker: TcpProxy) -> None:
    with psycopg.connect(database.url) as connection:
        [(answer,)] = connection.execute("SELECT repeat('a', 300000)")
        assert answer == "a" * 300_000
    assert redis.from_url(broker.url).ping()


def test_a_commit_is_done_and_its_answer_lost(database: TcpProxy, database_url: str, table: None) -> None:
    database.fault("cut_answer", after=b"COMMIT", times=1)
    connection = psycopg.connect(database.url)
    connection.execute("INSERT INTO faulty VALUES (1)")
    assert database.met("cut_answer") == 0
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert database.met("cut_answer") == 1
    assert rows(database_url) == [1]
    with psycopg.connect(database.url) as again:
        again.execute("INSERT INTO faulty VALUES (2)")
    assert rows(database_url) == [1, 2]


def test_a_mark_that_was_sent_before_the_fault_began_is_none(
    database: TcpProxy, database_url: str, table: None
) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("INSERT INTO faulty VALUES (1)")
        connection.commit()
        database.fault("cut_answer", after=b"COMMIT", times=1)
        connection.execute("INSERT INTO faulty VALUES (2)")
        connection.rollback()
    assert database.met("cut_answer") == 0
    assert rows(database_url) == [1]


def test_a_mark_may_come_in_two_pieces(broker: TcpProxy) -> None:
    broker.fault("cut_answer", after=b"\r\nPING", times=1)
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as plain:
        plain.sendall(b"PING\r\nPI")
        assert plain.recv(100) == b"+PONG\r\n"
        plain.sendall(b"NG\r\n")
        with pytest.raises(ConnectionResetError):
            plain.recv(100)


def test_a_reset_before_the_commit_leaves_nothing(database: TcpProxy, database_url: str, table: None) -> None:
    connection = psycopg.connect(database.url)
    connection.execute("INSERT INTO faulty VALUES (1)")
    database.fault("rst", times=1)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert database.met("rst") == 1
    assert rows(database_url) == []


def test_refused_until_cleared_at_the_same_port(database: TcpProxy, broker: TcpProxy) -> None:
    held = psycopg.connect(database.url, autocommit=True)
    for proxy in (database, broker):
        proxy.fault("refuse")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(database.url)
    with pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    with pytest.raises(redis.ConnectionError):
        redis.from_url(broker.url).ping()
    for proxy in (database, broker):
        proxy.clear()
    with psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert redis.from_url(broker.url).ping()


def test_a_black_hole_holds_what_was_sent_until_it_is_cleared(
    database: TcpProxy, database_url: str, table: None
) -> None:
    connection = psycopg.connect(database.url, autocommit=True)
    database.fault("blackhole")
    writing = threading.Thread(target=connection.execute, args=("INSERT INTO faulty VALUES (1)",))
    writing.start()
    database.wait("blackhole")
    assert rows(database_url) == []
    assert writing.is_alive()
    database.clear()
    writing.join(10)
    assert rows(database_url) == [1]
    connection.close()


def test_answers_alone_may_be_held(database: TcpProxy, database_url: str, table: None) -> None:
    connection = psycopg.connect(database.url, autocommit=True)
    database.fault("blackhole", method="answer")
    writing = threading.Thread(target=connection.execute, args=("INSERT INTO faulty VALUES (1)",))
    writing.start()
    database.wait("blackhole")
    assert rows(database_url) == [1]
    assert writing.is_alive()
    database.clear()
    writing.join(10)
    assert not writing.is_alive()
    connection.close()


def test_a_delay_loses_nothing(broker: TcpProxy) -> None:
    client = redis.from_url(broker.url)
    broker.fault("delay", seconds=0.01, times=4)
    key = f"faults-{secrets.token_hex(4)}"
    assert [client.rpush(key, number) for number in range(4)] == [1, 2, 3, 4]
    assert client.lrange(key, 0, -1) == [b"0", b"1", b"2", b"3"]
    assert broker.met("delay") == 4
    client.delete(key)


def test_a_pushed_message_whose_answer_is_lost_is_there(broker: TcpProxy, redis_url: str) -> None:
    key = f"faults-{secrets.token_hex(4)}"
    broker.fault("cut_answer", after=b"RPUSH", times=1)
    once = redis.Redis.from_url(broker.url, retry=None, retry_on_error=[])
    with pytest.raises(redis.ConnectionError):
        once.rpush(key, "one")
    direct = redis.from_url(redis_url)
    assert direct.lrange(key, 0, -1) == [b"one"]
    direct.delete(key)


@pytest.mark.parametrize(
    ("url", "there", "through"),
    [
        (
            "postgres://me:p%40ss@%2Ftmp%2FHome/db?x=1",
            ("", 0, "/tmp/Home/.s.PGSQL.5432"),
            "postgres://me:p%40ss@{}/db?x=1",
        ),
        ("postgres://me@db.acme.dev/db", ("db.acme.dev", 5432, ""), "postgres://me@{}/db"),
        ("postgresql://db.acme.dev:6000/db", ("db.acme.dev", 6000, ""), "postgresql://{}/db"),
        ("redis://:secret@broker.acme.dev/3", ("broker.acme.dev", 6379, ""), "redis://:secret@{}/3"),
        ("unix:///tmp/Home/valkey.sock?db=2", ("", 0, "/tmp/Home/valkey.sock"), "redis://{}/2"),
    ],
)
def test_urls_lead_through(url: str, there: tuple[str, int, str], through: str) -> None:
    with TcpProxy(url) as proxy:
        assert (proxy.target.host, proxy.target.port, proxy.target.path) == there
        assert proxy.url == through.format(f"127.0.0.1:{proxy.port}")
