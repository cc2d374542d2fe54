"""Why the chain, or a signer, did not answer as asked. Lives here: the tree. Not here: what to do about it (relay, indexer).

ChainError
|-- ChainUnavailable   nobody knows: timeout, reset, 5xx, garbage, too many requests; ask again
|   |-- ChainUnconfirmed    two nodes must say the same, and so far one has said anything
|   |   `-- ChainDisagreement   two nodes were asked, and each says something else
|   `-- SignerUnavailable   a signer that is asked over a wire did not answer
|-- ChainReverted      the contract refuses: name and arguments of its error
|-- ChainRefused       the node answered, and it was a JSON-RPC error that is no revert
`-- SignerRefused      a signer looked at what it was asked to sign, and did not: the rule and why
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ChainError(Exception):
    """Any of the below."""


class ChainUnavailable(ChainError):
    """Transport failed, in whatever way. Nothing is known about what the node did with the request."""


class ChainUnconfirmed(ChainUnavailable):
    """Two nodes must say the same, and so far one has said anything. What needs one node only can go on."""


class ChainDisagreement(ChainUnconfirmed):
    """Nodes contradict each other: one lags, lies or is on another branch. Nothing may be decided until they agree."""


class ChainReverted(ChainError):
    """A call or a gas estimate ended in a revert. `name` is empty when the node gave no reason we can decode."""

    def __init__(self, name: str, facts: Mapping[str, Any], detail: str = "") -> None:
        told = ", ".join(f"{k}={v.hex() if isinstance(v, bytes) else v}" for k, v in facts.items())
        super().__init__(f"{name}({told})" if name else detail or "reverted without a reason")
        self.name = name
        self.facts = dict(facts)


class ChainRefused(ChainError):
    """A well-formed JSON-RPC error: code and message as the node gave them."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.method = method
        self.code = code
        self.message = message


class SignerUnavailable(ChainUnavailable):
    """A signer did not answer, or not with what was asked for. Asked again, it gives the same answer or a better one."""


class SignerRefused(ChainError, ValueError):
    """A signer's own rules forbid it; `rule` is the short name of the one that does. Asking again changes nothing by itself."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"the signer refuses ({rule}): {detail}")
        self.rule = rule
        self.detail = detail

    @property
    def passes(self) -> bool:
        """Whether time alone lifts it: an hour goes by, or what was signed before can land no more. Else it needs a person."""
        return self.rule == "signed" or self.rule.startswith("hourly ")
