"""Faults of what lies between the crew and its servers. Lives here: arming the proxies, and counting who met a fault.

A fault that was armed and that nobody ran into has not happened: what counts is what the proxies have seen.
"""

from collections import Counter
from typing import Any, Final

from marketplace.management.crashtest.ground import Ground

Numbers = tuple[int, ...]

FAILS: Final = ("error", "status", "garbage", "reset", "hang")
LOSES: Final = ("drop_response", "swallow", "dup")
LIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("nonce", {"by": 1}),
    ("nonce", {"by": -1}),
    ("nonce", {"by": 7}),
    ("receipt", {"says": "null"}),
    ("receipt", {"says": "success"}),
    ("receipt", {"says": "flip"}),
    ("logs", {"without": -1}),
)
COMMITS: Final = (b"COMMIT", b"__asyncpg_stmt_")
"""What commits: a worker's word, and the lane's one statement, which is a database transaction of its own."""
OF_NODES: Final = {
    "rpc fails": FAILS,
    "rpc loses": LOSES,
    "rpc lies": tuple(sorted({kind for kind, _ in LIES})),
    "rpc is stale": ("stale",),
}
OF_DATABASE: Final = {"postgres cut": ("rst",), "postgres answer lost": ("cut_answer",)}


class Doors:
    """The proxies of one history."""

    def __init__(self, ground: Ground) -> None:
        """Take the ground, and what its proxies have met before."""
        self._ground, self._cut = ground, 0
        self._before = self._met()

    def met(self) -> Counter[str]:
        """Return how often each fault was met since the beginning."""
        return self._met() - self._before + Counter({"postgres cut": self._cut})

    def _met(self) -> Counter[str]:
        told = Counter[str]()
        for name, kinds in OF_NODES.items():
            told[name] = sum(node.met(kind) for node in self._ground.nodes for kind in kinds)
        if self._ground.database_door is not None:
            for name, kinds in OF_DATABASE.items():
                told[name] = sum(self._ground.database_door.met(kind) for kind in kinds)
        return told

    def rpc_fails(self, n: Numbers) -> None:
        """One node, or both, answer no question properly for some calls."""
        kind, times = FAILS[n[0] % len(FAILS)], 1 + n[1] % 6
        for node in self._ground.nodes if n[2] % 3 == 0 else self._ground.nodes[:1]:
            node.fault(kind, times=1 if kind == "hang" else times)

    def rpc_loses(self, n: Numbers) -> None:
        """A chain transaction is sent, and its answer, or it itself, is lost, or it is sent twice."""
        self._ground.nodes[0].fault(LOSES[n[0] % len(LOSES)], method="eth_sendRawTransaction", times=1 + n[1] % 2)

    def rpc_lies(self, n: Numbers) -> None:
        """A node tells of a nonce, a receipt or logs that are not so."""
        kind, how = LIES[n[0] % len(LIES)]
        self._ground.nodes[0].fault(kind, times=1 + n[1] % 3, **how)

    def rpc_is_stale(self, n: Numbers) -> None:
        """A node tells of the chain as it was."""
        self._ground.nodes[0].fault("stale", times=5 + n[0] % 10)

    def cut(self, n: Numbers) -> None:
        """Reset every connection to the database there is, or the next that says something."""
        if self._ground.database_door is None:
            return
        if n[0] % 2:
            self._cut += self._ground.database_door.cut_all()
        else:
            self._ground.database_door.fault("rst", times=1)

    def answer_lost(self, n: Numbers) -> None:
        """The next database transaction that commits through the proxy is done, and nobody is told."""
        if self._ground.database_door is not None:
            self._ground.database_door.fault("cut_answer", times=1, after=COMMITS[n[0] % 2])
