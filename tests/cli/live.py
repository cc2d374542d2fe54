"""A whole market for the command line: the real server on a committed database, and a shell that runs commands.

One market serves a module. What a test asserts of money it asserts of the ledger's rows.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.utils import timezone

from escrow.models import ChainCursor, Pulse
from marketplace import keys
from marketplace.models import Scope
from tests.lane.servers import Server, serving
from tests.marketplace.conftest import World, make_world, money

SDK = Path(__file__).resolve().parents[2] / "sdk" / "src"
#: a key's secret part, as it may never be printed
SECRET = re.compile(r"am_(?:test|live)_[a-z2-7]{12}_[a-z2-7]{38}")


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> Any:
        """The one object on stdout; what went wrong is not on it."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def problem(self) -> Any:
        """The one object on stderr, with nothing on stdout."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return json.loads(line)


@dataclass
class Shell:
    """Runs commands, by the key of a session unless another is named. No key may be in what they say."""

    url: str
    session_key: str

    def run(
        self, *arguments: str, key: str | None = None, expect: int = 0, url: str | None = None, shows_key: bool = False,
        stdin: str = "", **env: str,
    ) -> Done:  # fmt: skip
        """Run one command to its end."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(key=key, url=url, **env),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == expect, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        if not shows_key:
            assert not SECRET.search(done.stdout)
        assert not SECRET.search(done.stderr)
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def starts(
        self, *arguments: str, key: str | None = None, url: str | None = None
    ) -> "Iterator[subprocess.Popen[str]]":
        """Start a command that will be stopped. Whoever started the tests may ignore Ctrl-C, and it would inherit that."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        started = subprocess.Popen(
            self.command(*arguments),
            env=self.environment(key=key, url=url, AGENTMARKET_TIMEOUT="60"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        signal.signal(signal.SIGINT, before)
        with started:
            try:
                yield started
            finally:
                started.kill()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "agentmarket", *arguments]

    def environment(self, *, key: str | None = None, url: str | None = None, **env: str) -> dict[str, str]:
        given = {"AGENTMARKET_API_KEY": self.session_key if key is None else key, "AGENTMARKET_URL": url or self.url}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(SDK), "PYTHONWARNINGS": "error", **given, **env}


@dataclass
class Live(Shell):
    """The market and who may do what in it."""

    payer_key: str
    provider_key: str
    server: Server
    world: World

    def refused(self, *arguments: str, expect: int = 2, **options: Any) -> Any:
        """Run a command that is refused, and moves no money; the problem on stderr."""
        before = money()
        problem = self.run(*arguments, "--json", expect=expect, **options).problem
        assert money() == before, "money moved"
        assert problem["exit_code"] == expect
        return problem


@contextmanager
def market(redis_url: str) -> Iterator[Live]:
    """Two buyers, two sellers, and a server that is ready."""
    world = make_world()
    now = timezone.now()
    escrow = "0x" + "11" * 20
    ChainCursor.objects.create(chain_id=31337, contract_address=escrow, block_number=1, block_time=now, read_at=now)
    Pulse.objects.create(worker="worker@live", at=now, chain_id=31337, code_present=True, gas_price_wei=1)
    with serving(REDIS_URL=redis_url) as server:
        yield Live(
            url=f"http://127.0.0.1:{server.port}",
            session_key=str(world.a.by_session.key),
            payer_key=str(world.a.by_payer.key),
            provider_key=str(world.one.by_provider.key),
            server=server,
            world=world,
        )


def read_only_key(world: World) -> str:
    """A key of the first payer that may only look."""
    return keys.issue(scope=Scope.PAYER, payer=world.a.payer, read_only=True, now=timezone.now())[1]
