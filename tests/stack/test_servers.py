"""The embedded servers leave no process and no directory, however the program that started them ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from .runs import ROOT, servers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ENDINGS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def test_the_servers_are_the_real_ones() -> None:
    with servers() as run:
        database, broker, _ = run.urls
        with psycopg.connect(database) as connection:
            [(version, made)] = connection.execute("SELECT current_setting('server_version_num')::int, uuidv7()")
            assert version >= 180000
            assert made.version == 7
        assert redis.from_url(broker).ping()
        assert set(run.children) == {"postgres", "valkey", "anvil"}


@pytest.mark.parametrize("number", ENDINGS, ids=lambda number: number.name)
def test_a_signal_leaves_nothing(number: signal.Signals) -> None:
    with servers() as run:
        assert run.signal(number) == ENDINGS[number]
        assert run.leftovers() == []


def test_ctrl_c_ends_a_background_job_that_was_started_with_it_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with servers() as run:
            assert run.signal(signal.SIGINT) == 130
            assert run.leftovers() == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_open_connection_does_not_hold_the_end_back() -> None:
    with servers() as run, psycopg.connect(run.urls[0]):
        assert run.signal(signal.SIGTERM) == 143
        assert run.leftovers() == []


def test_a_second_signal_does_not_cut_the_clean_up_short() -> None:
    with servers() as run:
        run.process.send_signal(signal.SIGTERM)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(30) in (130, 143)
        assert run.leftovers() == []


def test_killing_the_program_leaves_nothing() -> None:
    with servers() as run:
        assert run.signal(signal.SIGKILL) == -signal.SIGKILL
        assert run.leftovers() == []


def test_killing_program_and_guardian_leaves_no_process() -> None:
    with servers() as run:
        os.kill(run.guardian, signal.SIGKILL)
        run.signal(signal.SIGKILL)
        left = run.leftovers()
        shutil.rmtree(run.home)
        assert left == [str(run.home)]


def test_two_at_once_share_nothing() -> None:
    with servers() as one, servers() as other:
        assert one.home != other.home
        assert not set(one.urls) & set(other.urls)
        assert one.signal(signal.SIGINT) == 130
        assert one.leftovers() == []
        with psycopg.connect(other.urls[0]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_path_with_spaces(tmp_path: Path) -> None:
    project, temporary = tmp_path / "a market", Path("/tmp") / f"am spaces {os.getpid()}"
    for room in ("marketplace", "escrow"):
        shutil.copytree(ROOT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "node_modules").symlink_to(ROOT / "node_modules")
    temporary.mkdir()
    try:
        with servers(cwd=project, env={"TMPDIR": str(temporary)}) as run:
            assert run.home.is_relative_to(temporary)
            assert redis.from_url(run.urls[1]).ping()
            assert run.signal(signal.SIGINT) == 130
            assert run.leftovers() == []
    finally:
        temporary.rmdir()  # fails when something is left in it


def test_a_temporary_directory_with_a_long_path_is_not_used(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    with servers(env={"TMPDIR": str(deep)}) as run:
        assert run.home.parent == Path("/tmp")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; this run is unprivileged already")
def test_an_unprivileged_user_can_do_all_this() -> None:
    try:
        subprocess.run([sys.executable, "-c", "import django"], user="nobody", extra_groups=[], cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("another user cannot reach this Python")
    with servers(user="nobody", group="nogroup", extra_groups=[], env={"HOME": "/nonexistent"}) as run:
        assert run.signal(signal.SIGINT) == 130
        assert run.leftovers() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="an unprivileged run has nobody to become")
def test_root_gives_postgresql_to_nobody() -> None:
    with servers() as run:
        owner = (Path("/proc") / str(run.children["postgres"])).stat().st_uid
        assert owner != 0
        assert run.home.stat().st_mode & 0o777 == 0o711
        assert (run.home / "pg").stat().st_mode & 0o777 == 0o700
        assert (run.home / "logs").stat().st_mode & 0o777 == 0o700
