"""Complexity per file, with radon: small enough to be a library (1 MB, about 3 ms a file)."""

from typing import Any

from radon.complexity import cc_visit  # type: ignore[import-untyped]

from agentmarket import Seller
from examples.findings import Finding, answer, read_request, unparsable
from examples.specialists import SPECIALISTS

#: McCabe's number above which radon ranks a block C, D and F
SOME, MUCH, TOO_MUCH = 10, 20, 40


def sell(seller: Seller) -> None:
    @seller.call("/check", price=SPECIALISTS["complexity"].price)
    def check(request: Any) -> dict[str, Any]:
        file = read_request(request)
        try:
            blocks = cc_visit(file.source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise unparsable(file, str(error)) from None
        return answer([_finding(file.filename, block) for block in blocks if block.complexity > SOME])


def _finding(filename: str, block: Any) -> Finding:
    severity = "high" if block.complexity > TOO_MUCH else "medium" if block.complexity > MUCH else "low"
    message = f"{block.fullname} has {block.complexity} independent paths; {SOME} are enough."
    return Finding(filename, block.lineno, "radon/CC", severity, message)
