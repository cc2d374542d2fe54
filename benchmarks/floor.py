"""The floor under the hot path: the very SQL function that authorises a payment, one call a commit, driven by pgbench.

Nothing is left out that makes a payment durable, and nothing is in it of HTTP and Python. What is paid here is really paid:
the books have it. Also here: the least that anything durable can cost, an insert of one row.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import psycopg

from benchmarks.market import AGENT, PRICE, PRICE_MICROS, Purse
from marketplace.management.stack.stack import Stack

HOT_CLIENTS: Final = (1, 4, 8)
MANY_CLIENTS: Final = (8, 32)
THREADS: Final = 2
MIN_SECONDS: Final = 1
CALLERS: Final = "benchmark_floor_caller"
ROWS: Final = "benchmark_floor_row"
FUNCTION: Final = "escrow_send"
GIVEN: Final = {
    "patient": "true",
    "sessions": "ARRAY[caller.session_id]",
    "parties": "ARRAY[caller.party_id]",
    "recipients": f"ARRAY['{AGENT}']",
    "amounts": f"ARRAY[{PRICE_MICROS}::bigint]",
    "shown": f"ARRAY['{PRICE}']",
    "metadata": "ARRAY['{}']",
    "keys": "ARRAY[gen_random_uuid()::text]",
    "hashes": "ARRAY[sha256('floor')]",
    "versions": "ARRAY[caller.version]",
    "capabilities": "ARRAY['']",
}
"""What one payment gives to the function's arguments, by name; the others get NULL, or one NULL each."""
INSERT: Final = f"INSERT INTO {ROWS} (amount) VALUES (1);\n"  # noqa: S608 - our own constant
_TPS: Final = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_FAILED: Final = re.compile(r"number of failed transactions: (\d+)")


def best(
    stack: Stack, purses: Sequence[Purse], clients: Sequence[int], seconds: float, say: Callable[[str], None]
) -> float | None:
    """Return the best rate over these numbers of clients; None where there is no pgbench or no such function."""
    if pgbench(stack) is None or not has_function(stack):
        say(f"no floor: pgbench or {FUNCTION} is missing")
        return None
    with callers(stack, purses):
        call = statement(stack)
        script = f"\\set n random(1, {len(purses)})\n{call} WHERE caller.n = :n;\n"
        rates = {count: run(stack, script, count, seconds) for count in clients}
        pays(stack, call)
    say(
        f"floor over {len(purses)} sessions, by clients: {', '.join(f'{n}: {rate:,.0f}/s' for n, rate in rates.items())}"
    )
    return max(rates.values())


def durable_insert(stack: Stack, clients: int, seconds: float) -> float | None:
    """Return how many rows a second so many clients insert, each in a commit of its own."""
    if pgbench(stack) is None:
        return None
    with _table(stack, f"CREATE TABLE {ROWS} (id bigserial PRIMARY KEY, amount bigint)", ROWS):
        return run(stack, INSERT, clients, seconds)


def run(stack: Stack, script: str, clients: int, seconds: float) -> float:
    """Return the commits a second of a script. Raises RuntimeError when one of them failed."""
    url = urlsplit(stack.urls.database)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *(str(pgbench(stack)), "--no-vacuum", "--protocol=prepared", f"--file={file.name}"),
                *(f"--client={clients}", f"--jobs={min(clients, THREADS)}", f"--time={max(MIN_SECONDS, int(seconds))}"),
                *("-h", unquote(url.hostname or ""), "-U", url.username or "postgres", url.path.lstrip("/")),
            ],
            env={"LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
    found, failed = _TPS.search(done.stdout), _FAILED.search(done.stdout)
    if done.returncode or found is None or (failed and int(failed[1])):
        raise RuntimeError(f"pgbench failed:\n{done.stdout}{done.stderr}")
    return float(found[1])


def pgbench(stack: Stack) -> Path | None:
    """Return the program beside the stack's own server; None when the database is somebody else's."""
    child = stack.supervisor.children.get("postgres")
    found = Path(child.service.argv[0]).with_name("pgbench") if child else None
    return found if found and found.exists() else None


def has_function(stack: Stack) -> bool:
    """Return whether the database has the function that authorises payments."""
    with psycopg.connect(stack.urls.database) as connection:
        return connection.execute("SELECT FROM pg_proc WHERE proname = %s", [FUNCTION]).fetchone() is not None


def statement(stack: Stack) -> str:
    """Return the call that pays from each caller of the table, written for the function as it is in this database."""
    with psycopg.connect(stack.urls.database) as connection:
        found = connection.execute(
            """SELECT argument.name, argument.type::regtype::text FROM pg_proc,
            unnest(proargnames[:pronargs], proargtypes::oid[]) WITH ORDINALITY AS argument (name, type, nth)
            WHERE proname = %s ORDER BY nth""",
            [FUNCTION],
        ).fetchall()
    nothing = {kind: f"ARRAY[NULL]::{kind}" if kind.endswith("[]") else f"NULL::{kind}" for _, kind in found}
    arguments = ", ".join(GIVEN.get(name, nothing[kind]) for name, kind in found)
    return f"SELECT outcome FROM {CALLERS} AS caller, LATERAL {FUNCTION}({arguments})"  # noqa: S608 - our own names


def pays(stack: Stack, call: str) -> None:
    """Return when the call pays, as it must have done all the time: a refusal would be faster. Raises RuntimeError."""
    with psycopg.connect(stack.urls.database) as connection:
        outcomes = {outcome for (outcome,) in connection.execute(call.encode()).fetchall()}
    if outcomes != {"allowed"}:
        raise RuntimeError(f"the floor did not pay: {outcomes}")


@contextmanager
def callers(stack: Stack, purses: Sequence[Purse]) -> Iterator[None]:
    """Have a table of who pays, by number, while the block runs."""
    table = f"CREATE TABLE {CALLERS} (n integer PRIMARY KEY, session_id uuid, party_id uuid, version integer)"
    parties = list(purses[0].pool.providers.values_list("party_id", flat=True))
    with _table(stack, table, CALLERS):
        with psycopg.connect(stack.urls.database) as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {CALLERS} VALUES (%s, %s, %s, %s)",  # noqa: S608 - our own constant
                [
                    (at, purse.session.pk, parties[0], purse.session.policy_version)
                    for at, purse in enumerate(purses, start=1)
                ],
            )
        yield


@contextmanager
def _table(stack: Stack, create: str, name: str) -> Iterator[None]:
    with psycopg.connect(stack.urls.database, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {name}".encode())
        connection.execute(create.encode())
        try:
            yield
        finally:
            connection.execute(f"DROP TABLE {name}".encode())
