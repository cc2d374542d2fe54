"""A node that takes connections and answers nothing holds up what asks it, and nothing else."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from django.db.models import QuerySet

from escrow import events
from escrow.chain.keyring import Keyring
from escrow.models import Event, Hold, Pulse
from marketplace.management.stack.supervisor import Child
from tests.escrow import books
from tests.stack.fleet import children, fleet, overdue, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]
PROCESSES = 2
ROUNDS = 20
"""At most: a process that gives up on the node in the middle of one, as each does every 10 seconds, spoils it."""


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a node that is stopped: its kernel takes connections, and nobody reads them."""
    with socket.create_server(("127.0.0.1", 0), backlog=1_000) as held:
        yield int(held.getsockname()[1])


def asked(worker: Child, port: int) -> set[tuple[int, int]]:
    """What a worker waits for from the node: of each process that does, its id and its end of the connection."""
    found = set()
    with suppress(psutil.Error):  # one that has just ended
        for one in children(worker):
            found |= {(one.pid, at.laddr.port) for at in one.net_connections() if at.raddr and at.raddr.port == port}
    return found


def stuck(worker: Child, port: int) -> bool:
    """Whether each process of a worker waits for the node."""
    return len({pid for pid, _ in asked(worker, port)}) == PROCESSES


def unshown() -> QuerySet[Event]:
    """The events that are recorded and not shown."""
    return Event.objects.filter(pk__gt=events.published())


def test_while_a_node_hangs_events_are_shown_and_silence_decides(deaf: int, tmp_path: Path) -> None:
    session = books.session(micros=25_000_000)
    Keyring.create(tmp_path / "keys")
    with fleet(RPC_URL=f"http://127.0.0.1:{deaf}", SIGNER_KEYS_DIR=str(tmp_path / "keys")) as made:
        worker = made.worker("one", processes=PROCESSES)
        made.worker("aside", app="marketplace.celery:offchain")
        made.beat()
        until(lambda: stuck(worker, deaf), "nobody is left to take what asks no node")
        until(lambda: not unshown().exists(), "what was recorded before there was a worker is shown")
        rows, shown = overdue(session, 3), 0
        for _ in range(ROUNDS):
            before = asked(worker, deaf) if stuck(worker, deaf) else None
            events.record(type="test", subject_type="pool", subject_id=uuid4(), payload={}, pool=session.pool)
            until(lambda: not unshown().exists(), "the event is shown")
            shown += asked(worker, deaf) == before  # by whom else: these two have asked for nothing new meanwhile
            if shown == 3:
                break
        assert shown == 3
        until(lambda: Hold.objects.filter(pk__in=[row.pk for row in rows], status="released").count() == 3, "released")
        # The worker that asks the node is alive, says so, and says that it knows nothing of the chain.
        pulse = until(lambda: Pulse.objects.filter(worker="one@test").first(), "what hangs takes turns")
        assert (pulse.chain_id, pulse.error) == (None, "node 1: eth_chainId: ReadTimeout")
        assert max(made.waiting(task) for task in ("escrow.relay_sweep", "escrow.index_sweep")) <= 1
