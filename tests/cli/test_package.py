"""What `pip install agentmarket` brings, and what a command imports. Read from what is installed here: no network."""

import os
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agentmarket.chain import extra
from tests.cli.live import SDK

PROJECT = tomllib.loads((SDK.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_PACKAGES = 12


def closure(wanted: list[str]) -> set[str]:
    """Every package that is installed with these, on this machine."""
    found: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            wanted += requires(name) or []
    return found


def test_an_agent_installs_nine_packages() -> None:
    found = closure(list(PROJECT["dependencies"])) | {"agentmarket"}
    assert found == {
        "agentmarket", "anyio", "click", "h11", "httpcore2", "httpx2", "idna", "truststore", "typing-extensions",
    }  # fmt: skip
    assert len(found) <= MOST_PACKAGES


def test_a_clone_s_environment_has_the_command(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    subprocess.run(["sh", ".ci/install-sdk", str(tmp_path / "venv")], cwd=SDK.parents[1], check=True)
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    command = [str(tmp_path / "venv" / "bin" / "agentmarket"), "reserves", "--help"]
    done = subprocess.run(
        command, env={"PYTHONPATH": packages}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: agentmarket reserves ")


def imported(*arguments: str) -> set[str]:
    """The top-level modules that a command has loaded when it ends."""
    code = (
        "import sys\n"
        "from agentmarket.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    sys.stderr.write('\\n' + ' '.join({*sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(SDK)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


def test_a_command_of_the_market_loads_nothing_of_the_chain_nor_of_another_command() -> None:
    loaded = imported("pay", "agent://lint.acme.dev", "0.01")
    assert not extra.PACKAGES & loaded
    assert {name for name in loaded if name.startswith("agentmarket.cli.market.")} <= {
        f"agentmarket.cli.market.{name}" for name in ("exits", "options", "paying", "run", "shown")
    }
    assert not {name for name in imported("--help") if name.startswith("agentmarket.cli.ways_out")}


def test_without_the_extra_the_market_s_commands_work_and_the_others_say_what_to_install() -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(extra.PACKAGES)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from agentmarket.__main__ import main
main()
"""
    for command, expected, said in (
        ("rescue", 2, extra.INSTALL),
        ("pay", 2, "TO"),
        ("doctor", 1, "AGENTMARKET_API_KEY"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, command],
            env={"PYTHONPATH": str(SDK)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (expected, False)
        assert said in done.stdout + done.stderr


def test_shell_completion_knows_the_commands() -> None:
    env = {
        "PYTHONPATH": str(SDK),
        "_AGENTMARKET_COMPLETE": "bash_complete",
        "COMP_WORDS": "agentmarket se",
        "COMP_CWORD": "1",
    }
    code = "from agentmarket.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,session", "plain,search"]
