"""What a command says: its answer on stdout (text, or one JSON object), everything else on stderr, and an exit code."""

import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NoReturn

import click

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
    #: the transaction of which nobody has said yet what became of it
    announced: str | None = None

    def note(self, text: str) -> None:
        """Tell a person how it goes; never part of the answer."""
        sys.stderr.write(f"{_plain(text)}\n")

    def progress(self, first: int, last: int, found: int) -> None:
        self.note(f"blocks {first} to {last} read, {found} events found")

    def announce(self, transaction: str) -> None:
        """Tell the hash before it is sent: whoever interrupts the wait can look it up."""
        self.announced = transaction
        self.note(f"transaction {transaction}")

    def finish(self, document: Mapping[str, Any], lines: Sequence[str], code: Exit) -> NoReturn:
        """Answer and end."""
        if self.as_json:
            answer = {"command": self.command, "exit_code": int(code), **document}
            sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(_plain("\n".join(lines)) + "\n")
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
        with stoppable():
            yield output
    except AgentMarketError as error:
        output.fail(error, _code(error))
    except (click.exceptions.Exit, click.Abort):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if output.announced is None and isinstance(error, KeyboardInterrupt):
            raise
        stopped = _stopped(output.announced, type(error).__name__)
        output.fail(stopped, _code(stopped))


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM stop a command as SIGINT does, so that it can say what was sent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stopped(transaction: str | None, why: str) -> AgentMarketError:
    if transaction is None:
        return AgentMarketError(f"The command failed on something that it does not know ({why}): report it, please.")
    return SendUnknown(
        f"The command ended ({why}) after transaction {transaction} was signed and may have been sent. Look it up before "
        "sending again.",
        transaction=transaction,
    )


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
    """A time as people read it; one that no calendar has, in seconds."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"


def _plain(text: str) -> str:
    """Text that a terminal only shows: a node's own words may hold its commands."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def pool_id(text: str) -> bytes:
    """A pool's id on the chain. Raises Denied for anything else."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise Denied(f"{text!r} is not a pool's id on the chain (`pool_key`): 0x and 64 hex digits.")
    return value
