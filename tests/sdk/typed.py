"""What a type checker says of both clients: `test_typing` has mypy read this in strict mode. Nothing here is run."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

from agentmarket import (
    Approval,
    Called,
    Client,
    Hold,
    OpenedSession,
    Payment,
    Refund,
    Sent,
    Session,
    SyncClient,
    Transfer,
    Verdict,
)


async def fetch() -> bytes:
    return b""


async def with_await(client: Client) -> None:
    assert_type(await client.payment.send(to="a", amount="1"), Sent[None])
    assert_type(await client.payment.send(to="a", amount="1", on_success=fetch), Sent[bytes])
    assert_type(await client.payment.send(to="a", amount="1", on_success=lambda: 5), Sent[int])
    assert_type(
        await client.payment.send(to="a", amount="1", capture="on_success", on_success=fetch, charge=bytes.decode),
        Sent[bytes],
    )
    assert_type(await client.call("a", json={}, amount="1"), Called)
    session = await client.payment.create_session(budget="1.00")
    assert_type(session, OpenedSession[Client])
    assert_type(session.client(), Client)
    assert_type(await session.balance(), Session)
    assert_type(await session.ensure("1"), Session)
    assert_type(await session.child(budget="1"), OpenedSession[Client])
    assert_type(await client.sessions.child("s", budget="1"), OpenedSession[Client])
    assert_type(session.ledger(), AsyncIterator[Transfer])
    assert_type(await client.holds.place(to="a", amount="1"), Hold)
    assert_type(await client.holds.capture("h"), Payment)
    assert_type(await client.refunds.ask("p", reason="r"), Refund)
    assert_type(client.approvals.list(), AsyncIterator[Approval])
    assert_type(await client.policy.check(to="a", amount="1"), Verdict)
    assert_type(Client.from_env(), Client)
    closing: Callable[..., Coroutine[Any, Any, Session]] = session.close
    await closing()


def without(client: SyncClient) -> None:
    assert_type(client.payment.send(to="a", amount="1"), Sent[None])
    assert_type(client.payment.send(to="a", amount="1", on_success=lambda: 5), Sent[int])
    assert_type(
        client.payment.send(to="a", amount="1", capture="on_success", on_success=lambda: b"", charge=bytes.decode),
        Sent[bytes],
    )
    session = client.payment.create_session(budget="1.00")
    assert_type(session, OpenedSession[SyncClient])
    assert_type(session.client(), SyncClient)
    assert_type(session.balance(), Session)
    assert_type(session.child(budget="1"), OpenedSession[SyncClient])
    assert_type(client.sessions.child("s", budget="1"), OpenedSession[SyncClient])
    assert_type(session.ledger(), Iterator[Transfer])
    assert_type(client.holds.place(to="a", amount="1"), Hold)
    assert_type(client.approvals.list(), Iterator[Approval])
    assert_type(SyncClient.from_env(), SyncClient)
    client.payment.send(to="a", amount="1", charge=str)  # type: ignore[call-overload]
    client.payment.send(to="a", amount=0.1)  # type: ignore[call-overload]
