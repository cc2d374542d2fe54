"""Security per file, with bandit as a library: 20 MB once, about 16 ms a file; as a program it costs 300 ms a file."""

import tempfile
import threading
from pathlib import Path
from typing import Any

from bandit.core.config import BanditConfig  # type: ignore[import-untyped]
from bandit.core.manager import BanditManager  # type: ignore[import-untyped]

from agentmarket import Seller
from examples.findings import Finding, answer, read_request, unparsable
from examples.specialists import SPECIALISTS

_CONFIG = BanditConfig()
#: bandit keeps state of its own between files, so one at a time; its work holds Python's lock anyway
_ONE_AT_A_TIME = threading.Lock()


def sell(seller: Seller) -> None:
    @seller.call("/check", price=SPECIALISTS["security"].price)
    def check(request: Any) -> dict[str, Any]:
        file = read_request(request)
        with tempfile.TemporaryDirectory() as folder, _ONE_AT_A_TIME:
            place = Path(folder, "source.py")
            place.write_text(file.source, encoding="utf-8")
            bandit = BanditManager(_CONFIG, "file")
            bandit.discover_files([str(place)])
            bandit.run_tests()
        for _, why in bandit.get_skipped():
            raise unparsable(file, why)
        return answer([_finding(file.filename, issue) for issue in bandit.get_issue_list()])


def _finding(filename: str, issue: Any) -> Finding:
    return Finding(filename, issue.lineno, f"bandit/{issue.test_id}", issue.severity.lower(), issue.text)
