"""What a command says: its answer on stdout (text, or one JSON object), everything else on stderr, and an exit code."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NoReturn

from eth_utils.address import is_address, to_checksum_address

from agentmarket.chain.errors import Denied, MissingExtra, NotAContract, Reverted, SendFailed, SendUnknown
from agentmarket.errors import AgentMarketError, InvalidReply


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    FAILED = 1
    DENIED = 2
    NOTHING = 3
    UNKNOWN = 4


#: refusals of the contract which say that what was wanted is there already, or is not there
NOTHING_LEFT = frozenset({"AlreadySettled", "NothingToWithdraw", "NothingToReclaim"})


@dataclass
class Output:
    """One command's voice. `facts` and `done` are what an error tells besides itself: what had been done before it."""

    command: str
    as_json: bool
    facts: dict[str, Any] = field(default_factory=dict)
    #: a line for each transaction that succeeded
    done: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell a person how it goes; never part of the answer."""
        sys.stderr.write(f"{text}\n")

    def progress(self, first: int, last: int, found: int) -> None:
        self.note(f"blocks {first} to {last} read, {found} events found")

    def announce(self, transaction: str) -> None:
        """Tell the hash before it is sent: whoever interrupts the wait can look it up."""
        self.note(f"transaction {transaction}")

    def finish(self, document: Mapping[str, Any], lines: Sequence[str], code: Exit) -> NoReturn:
        """Answer and end."""
        if self.as_json:
            answer = {"command": self.command, "exit_code": int(code), **document}
            sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write("\n".join(lines) + "\n")
        raise SystemExit(int(code))

    def fail(self, error: AgentMarketError, code: Exit) -> NoReturn:
        """Answer with an error and end: on stdout as JSON, on stderr as text. "Nothing was sent" is never said of more."""
        if self.done and code in (Exit.DENIED, Exit.NOTHING):
            code = Exit.FAILED
        if not self.as_json:
            sys.stdout.writelines(f"{line}\n" for line in self.done)
            self.note(str(error))
            raise SystemExit(int(code))
        told: dict[str, Any] = {"kind": type(error).__name__, "code": error.code, "detail": error.detail}
        for name in ("step", "name", "arguments", "transaction"):
            if (value := getattr(error, name, None)) is not None:
                told[name] = value
        self.finish({**self.facts, "error": told}, [], code)


@contextmanager
def speaking(command: str, *, as_json: bool) -> Iterator[Output]:
    """A command's voice; an error that ends the command becomes its answer and its exit code."""
    output = Output(command, as_json)
    try:
        yield output
    except AgentMarketError as error:
        output.fail(error, _code(error))


def _code(error: AgentMarketError) -> Exit:
    if isinstance(error, SendUnknown):
        return Exit.UNKNOWN
    if isinstance(error, SendFailed):
        return Exit.FAILED
    if isinstance(error, Reverted):
        return Exit.NOTHING if error.name in NOTHING_LEFT else Exit.DENIED
    refused = isinstance(error, Denied | NotAContract | MissingExtra | InvalidReply)
    return Exit.DENIED if refused else Exit.FAILED


def usdc(micros: int) -> str:
    """Micro-USDC as USDC, exactly."""
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{rest:06d} USDC"


def coin(wei: int) -> str:
    """Wei in whole coins, exactly."""
    whole, rest = divmod(wei, 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".") + " of the chain's coin"


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def address(text: str) -> str:
    """An address, checksummed. Raises Denied for anything else, a wrong checksum included."""
    if not is_address(text):
        raise Denied(f"{text!r} is not an address: 0x and 40 hex digits, in one case or with a right checksum.")
    return to_checksum_address(text)


def pool_id(text: str) -> bytes:
    """A pool's id on the chain. Raises Denied for anything else."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise Denied(f"{text!r} is not a pool's id on the chain (`pool_key`): 0x and 64 hex digits.")
    return value
