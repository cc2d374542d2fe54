"""One whole stack: the servers that the environment does not name, the contracts, and the project's own processes.

    with Stack() as stack:
        stack.spawn("lint", [sys.executable, "-m", "examples.lint"], ready=ready.answers(url))
        stack.kill("worker"); stack.restart("worker")

`DATABASE_URL`, `REDIS_URL` and `RPC_URL` name services to use instead of our own.
"""

import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from django.core.management import call_command

from marketplace.management.stack import anvil, contracts, postgres, ready, signals, valkey
from marketplace.management.stack.adopt import adopt
from marketplace.management.stack.home import Home
from marketplace.management.stack.supervisor import Child, Ready, Service, Supervisor

ROOT: Final = Path(__file__).resolve().parents[3]
COMMON: Final = {
    "DJANGO_SETTINGS_MODULE": "marketplace.settings",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "sdk" / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "PYTHONUNBUFFERED": "1",
    "LOCAL_WEBHOOKS": "1",  # a newcomer's receiver is on this machine too
    "CELERY_SKIP_CHECKS": "1",  # they would load the whole API into the worker; `make check` runs them
}
WEB_PROCESSES: Final = 1
"""A second one costs 120 MB, and on two cores that it shares with all the rest it does not answer sooner."""
WORKER_THREADS: Final = 2
"""More would ask the database for more at the same moment, and payments wait for that. One process: forked workers cost
100 MB each. In production they are forked, for their hard time limits."""
WORKERS: Final = {"worker": "marketplace", "offchain": "marketplace.celery:offchain"}
"""Each worker's app. The second takes what asks no node, so that a node that hangs holds none of that up."""
BACKGROUND: Final = 15
"""The niceness of workers here: on one machine they must not take the cores from the web while it answers a payment."""
WATCH_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Urls:
    """Where everything is."""

    web: str
    database: str
    redis: str
    rpc: str

    @property
    def admin(self) -> str:
        """The admin's sign-in page."""
        return f"{self.web}/admin/"

    @property
    def docs(self) -> str:
        """The API's reference."""
        return f"{self.web}/docs"


class Stack:
    """A context manager; inside it everything is ready, after it nothing is left."""

    urls: Urls

    def __init__(
        self,
        *,
        port: int = 0,
        port_tries: int = 1,
        settings: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
        block_seconds: float = anvil.BLOCK_SECONDS,
    ) -> None:
        """Take the web's port (0: any; else it or the next free one), variables for every process, a place for reports."""
        self._wanted = port, port_tries
        self._report = report
        self._block_seconds = block_seconds
        self._exits = ExitStack()
        self.environment = COMMON | dict(settings or {})
        self._ready: dict[str, Ready] = {}
        self._stopped: dict[str, Service] = {}

    def __enter__(self) -> Self:
        """Start everything, in the order of need."""
        with ExitStack() as exits:
            self._port = ready.port_of(exits.enter_context(ready.reserve(*self._wanted)))
            exits.enter_context(signals.orderly_end())
            self.home = exits.enter_context(Home())
            self.supervisor = Supervisor(self.home)
            exits.callback(self.supervisor.close)
            exits.callback(signals.hold_off)
            self._start()
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, in reverse order."""
        self._exits.close()

    def spawn(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        ready: Ready | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        niceness: int = 0,
    ) -> Child:
        """Start another process with the stack's environment, in the project's directory."""
        environment = {**os.environ, **self.environment, **(env or {})}
        child = self.supervisor.start(Service(name, argv, environment, ROOT, niceness=niceness))
        if ready:
            self._ready[name] = ready
            self.supervisor.wait(child, ready, timeout)
        return child

    def environment_file(self) -> Path:
        """Write what every process is given to a file for a shell to read: there are secrets in it, so this user alone may."""
        path = self.home.path / "environment"
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(self.environment.items())]
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.writelines(lines)
        return path

    def kill(self, name: str) -> None:
        """Kill a process and all it started, as a crash would."""
        self._stopped[name] = self.supervisor.kill(name)

    def stop(self, name: str) -> None:
        """Stop a process in good order."""
        self._stopped[name] = self.supervisor.stop(name)

    def restart(self, name: str) -> Child:
        """Start a process again, stopping it first if it runs, and wait until it is ready."""
        if name in self.supervisor.children:
            self.stop(name)
        child = self.supervisor.start(self._stopped.pop(name))
        return self.supervisor.wait(child, self._ready.get(name, lambda _: True))

    def watch(self) -> None:
        """Stay until a signal ends us; a process that ends by itself raises StackError."""
        while True:
            self.supervisor.check()
            time.sleep(WATCH_SECONDS)

    def _start(self) -> None:
        begun = time.monotonic()
        self._start_servers()
        self._say(begun, "PostgreSQL, Valkey and a local chain are up")
        self._start_contracts()
        adopt(self.environment)
        signer = self._start_signer()
        web = self._start_web()
        worker = self._start_worker("worker", WORKER_THREADS)
        call_command("migrate", verbosity=0, interactive=False)
        self._say(begun, "contracts are deployed, tables are made")
        if signer:
            self.supervisor.wait(signer, self._ready["signer"])
        self.supervisor.wait(web, self._ready["web"])
        self.supervisor.wait(worker, self._ready["worker"])
        self._ready["beat"] = ready.says("is starting")
        files = ["--schedule", str(self.home.path / "beat"), "--pidfile", ""]
        self._start_celery("beat", "marketplace.celery:clock", "beat", *files)
        self._start_worker("offchain", 1)  # nobody waits for it: until it is ready the other one takes what it takes
        self._say(begun, f"web, workers and beat are ready: {self.urls.web}")

    def _start_servers(self) -> None:
        given = os.environ
        rpc = given.get("RPC_URL") or anvil.start(self.supervisor, block_seconds=self._block_seconds)
        redis = given.get("REDIS_URL") or valkey.start(self.supervisor)
        database = given.get("DATABASE_URL")
        if not database:
            database = postgres.start(self.supervisor)
            self.environment |= {name: secrets.token_urlsafe(48) for name in ("SECRET_KEY", "API_KEY_PEPPER")}
        self.urls = Urls(f"http://127.0.0.1:{self._port}", database, redis, rpc)
        self.environment |= {"DATABASE_URL": database, "REDIS_URL": redis, "RPC_URL": rpc, "PUBLIC_URL": self.urls.web}

    def _start_contracts(self) -> None:
        if not (os.environ.get("ESCROW_ADDRESS") and os.environ.get("RPC_URL")):
            self.environment |= contracts.prepare(self.urls.rpc, self.home.path / "keys")

    def _start_signer(self) -> Child | None:
        """Give the keys to a process of its own, and to all others its socket; `SIGNERS` names signers to use instead."""
        keys = self.environment.get("SIGNER_KEYS_DIR") or os.environ.get("SIGNER_KEYS_DIR")
        if self.environment.get("SIGNERS") or os.environ.get("SIGNERS") or not keys:
            return None
        socket, journal = self.home.path / "signer.sock", self.home.path / "journal"
        user = ["--user", postgres.ROOT_RUNS_AS] if os.geteuid() == 0 else []
        argv: list[str | Path] = [
            sys.executable,
            "manage.py",
            "signer",
            "--socket",
            socket,
            "--journal",
            journal,
            *user,
        ]
        self._ready["signer"] = ready.says("The signer is ready")
        child = self.spawn("signer", argv, niceness=BACKGROUND, env={"SIGNER_KEYS_DIR": keys})
        self.environment |= {"SIGNERS": f"socket:{socket}", "SIGNER_KEYS_DIR": ""}
        return child

    def _start_web(self) -> Child:
        self._ready["web"] = ready.answers(f"{self.urls.web}/livez")
        server = f"-m marketplace.server --host 127.0.0.1 --port {self._port} --share-port --processes {WEB_PROCESSES}"
        return self.spawn("web", [sys.executable, *server.split()])

    def _start_worker(self, name: str, threads: int) -> Child:
        self._ready[name] = ready.says(" ready.")
        options = ["--pool", "threads", "--concurrency", str(threads), "--hostname", f"{name}@%h"]
        return self._start_celery(name, WORKERS[name], "worker", *options)

    def _start_celery(self, name: str, app: str, *words: str) -> Child:
        return self.spawn(name, [sys.executable, "-m", "celery", "-A", app, *words, "-l", "INFO"], niceness=BACKGROUND)

    def _say(self, begun: float, text: str) -> None:
        self._report(f"{time.monotonic() - begun:5.1f} s  {text}")
