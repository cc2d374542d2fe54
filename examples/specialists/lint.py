"""Lint per file, with ruff: a program of its own, so it costs this one no memory (about 5 ms a file)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from agentmarket import Seller
from examples.findings import Finding, answer, read_request, unparsable
from examples.specialists import SPECIALISTS

#: likely bugs and needless code; not layout
RULES = "F,B,C4,E7,E9,PERF,PIE,PLE,RET,SIM"
#: seconds for one file
TIMEOUT = 20
_WRONG = ("F", "B", "PLE", "E9")
_BESIDE_PYTHON = Path(sys.executable).parent / "ruff"
_RUFF = str(_BESIDE_PYTHON) if _BESIDE_PYTHON.exists() else shutil.which("ruff") or "ruff"


def sell(seller: Seller) -> None:
    @seller.call("/check", price=SPECIALISTS["lint"].price)
    def check(request: Any) -> dict[str, Any]:
        file = read_request(request)
        command = [
            _RUFF,
            "check",
            "--isolated",
            "--no-cache",
            "--exit-zero",
            "--output-format=json",
            f"--select={RULES}",
            f"--stdin-filename={Path(file.filename).name}",
            "-",
        ]
        done = subprocess.run(command, input=file.source.encode(), capture_output=True, timeout=TIMEOUT, check=True)
        found = json.loads(done.stdout)
        for item in found:
            if item["code"] in (None, "invalid-syntax"):
                raise unparsable(file, f"line {item['location']['row']}: {item['message']}")
        return answer([_finding(file.filename, item) for item in found])


def _finding(filename: str, item: dict[str, Any]) -> Finding:
    severity = "medium" if item["code"].startswith(_WRONG) else "low"
    return Finding(filename, item["location"]["row"], f"ruff/{item['code']}", severity, item["message"])
