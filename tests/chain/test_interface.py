"""The contract's vocabulary is written for whoever has nothing else."""

from __future__ import annotations

import re
from itertools import pairwise

from escrow.chain.artifacts import CONTRACTS_ROOT


def test_everything_in_the_interface_is_explained() -> None:
    """A NatSpec comment stands right above each struct, event, error, function and view."""
    lines = (CONTRACTS_ROOT / "src/interfaces/IBudgetPool.sol").read_text().splitlines()
    declared = [
        (before.strip(), line.strip())
        for before, line in pairwise(lines)
        if re.match(r"\s+(struct|event|error|function) ", line)
    ]
    assert len(declared) > 90
    assert [line for before, line in declared if not before.startswith("///")] == []
