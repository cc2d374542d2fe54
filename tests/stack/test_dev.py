"""`manage.py dev`: the whole market runs, the call it suggests works, and its end leaves nothing."""

import json
import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .runs import ROOT, leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


AGENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "sdk" / "src")}
"""All that an agent has: no database, no chain, no setting of the service."""


ELSEWHERE = {"PATH": os.environ["PATH"]}
"""Another terminal."""


@dataclass
class Market:
    process: subprocess.Popen[str]
    text: str
    home: Path

    def pid(self, words: str) -> int:
        """Return the only child of this market with these words on its command line."""
        command = ["pgrep", "-P", str(self.process.pid), "-f", words]
        [pid] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return int(pid)


@pytest.fixture
def market() -> Iterator[Market]:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "dev"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1])
        lines.append(line)
    text = "".join(lines)
    found = re.search(r"Logs +(\S+)/logs", text)
    assert found
    try:
        yield Market(process, text, Path(found[1]))
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.promise("S28", "S31")
def test_what_it_says_works_and_ctrl_c_leaves_nothing(market: Market) -> None:
    suggested = re.search(r"  curl (.|\n)*?}}'\n", market.text)
    assert suggested, market.text
    answer = subprocess.run(shlex.split(suggested[0].replace("\\\n", " ")), capture_output=True, text=True, check=True)
    payment = json.loads(answer.stdout)
    assert payment["status"] == "payable", payment
    assert payment["amount"] == "0.012"
    assert payment["remaining"] == "24.988"

    steps = re.search(r"  import agentmarket\n(  .+\n){4}", market.text)
    assert steps, market.text
    program = textwrap.dedent(steps[0])
    for _ in range(2):  # the second run is another session of the same pool, and has nothing of the grant left
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=AGENT, check=False)
        if run.returncode:
            break
        assert run.stdout == "payable 9.988\n"
    assert "InsufficientFunds" in run.stderr or "BudgetExhausted" in run.stderr, run.stderr
    assert "0.00" in run.stderr

    line = re.search(r"^  (\(\. .+ reconcile\))$", market.text, re.MULTILINE)
    assert line, market.text
    told = subprocess.run(["sh", "-c", line[1]], capture_output=True, text=True, cwd="/", env=ELSEWHERE, check=False)
    assert (told.returncode in (0, 1), told.stderr) == (True, ""), told
    assert told.stdout.startswith("books equal chain: yes")
    settings = market.home / "environment"
    assert settings.stat().st_mode & 0o777 == 0o600
    secret = re.search(r"^export SECRET_KEY=(\S+)$", settings.read_text(encoding="utf-8"), re.MULTILINE)
    assert secret
    assert secret[1] not in market.text

    signer, web = market.pid("manage.py signer"), market.pid("marketplace.server")
    given = dict(part.partition("=")[::2] for part in Path(f"/proc/{web}/environ").read_text().split("\0"))
    assert given["SIGNERS"] == f"socket:{market.home}/signer.sock"
    assert given["SIGNER_KEYS_DIR"] == ""
    if os.geteuid() == 0:  # as PostgreSQL, it is another user's
        assert f"Uid:\t{pwd.getpwnam('nobody').pw_uid}\t" in Path(f"/proc/{signer}/status").read_text()

    market.process.send_signal(signal.SIGINT)
    assert market.process.wait(60) == 130
    assert leftovers([], market.home) == []


def test_a_part_that_dies_ends_the_market_with_its_last_words(market: Market) -> None:
    os.kill(market.pid("A marketplace worker"), signal.SIGKILL)  # it renames itself where setproctitle is installed
    _, said = market.process.communicate(timeout=60)
    assert market.process.returncode == 1
    assert "worker ended by itself with code -9" in said
    assert leftovers([], market.home) == []
