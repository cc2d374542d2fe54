"""One run of a command: its client, its answer on stdout, its refusal on stderr, and its exit code.

With `--json` the answer is one JSON object on stdout (one a line where it streams); a refusal is one JSON object on
stderr, and stdout stays empty.
"""

import functools
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Self, TypeVar

import click

from agentmarket import errors
from agentmarket.cli.market.exits import CODES, Exit, exit_of
from agentmarket.cli.market.shown import document, facts, hidden, plain, table
from agentmarket.cli.output import stoppable
from agentmarket.client import RETRIES, TIMEOUT, SyncClient
from agentmarket.settings import environment_retries, environment_timeout

F = TypeVar("F", bound=Callable[..., None])
_KEY_IN_NOTE = re.compile(r'key="([^"]+)"')


class Run:
    """What a command has at hand."""

    def __init__(self, arguments: Sequence[str], *, as_json: bool, url: str | None) -> None:
        self.as_json = as_json
        self.url = url
        #: whether the command does what it does once without naming a key
        self.is_repeatable = False
        self._arguments = tuple(arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        if "client" in vars(self):
            self.client.close()

    @functools.cached_property
    def client(self) -> SyncClient:
        return SyncClient(base_url=self.url, timeout=self.timeout, retries=environment_retries(RETRIES))

    @property
    def timeout(self) -> float:
        """Seconds for one attempt."""
        return environment_timeout(TIMEOUT)

    def say(self, answer: object, lines: Sequence[str], *, is_secret: bool = False) -> None:
        """Answer. `is_secret`: with a key that was just made and is shown this once."""
        text = json.dumps(document(answer), ensure_ascii=False) if self.as_json else plain("\n".join(lines))
        self.write(text if is_secret else hidden(text))

    def tell(self, answer: object, *names: str) -> None:
        """Answer with one thing: all of it as JSON, the named fields for a person."""
        shown = document(answer)
        self.say(shown, facts(shown, *names))

    def tell_all(self, answers: Iterable[object], *columns: str, most: int) -> None:
        """Answer with a list of at most so many; `more` says whether it was cut."""
        shown = [document(answer) for answer in itertools.islice(answers, most + 1)]
        items, more = shown[:most], len(shown) > most
        lines = table(items, columns) if items else ["None."]
        self.say({"items": items, "more": more}, [*lines, "… and more: --limit."] if more else lines)

    def write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell a person something that is no part of the answer."""
        if not self.as_json:
            sys.stderr.write(hidden(plain(text)) + "\n")

    def again(self, key: str | None) -> str:
        """The command that does the same thing, and only once."""
        given = any(argument.partition("=")[0] == "--key" for argument in self._arguments)
        named = key is None or self.is_repeatable or given
        return hidden(shlex.join(["agentmarket", *self._arguments, *([] if named else ["--key", str(key)])]))

    def fail(self, error: errors.AgentMarketError) -> NoReturn:
        """Say what went wrong and what to do, on stderr, and end."""
        code = exit_of(error)
        advice = self._advice(error, code)
        if self.as_json:
            known = {name: value for name, value in vars(error).items() if _is_told(name, value)}
            problem = {"exit_code": int(code), "error": type(error).__name__, **document(known), "advice": advice}
            sys.stderr.write(hidden(json.dumps(problem, ensure_ascii=False, default=str)) + "\n")
        else:
            self.note(f"{error}\n{advice}" if advice else str(error))
        raise SystemExit(int(code))

    def _advice(self, error: errors.AgentMarketError, code: Exit) -> str | None:
        if code == Exit.UNKNOWN:
            return f"It is not known whether money moved. This finds out, and charges once: {self.again(error.key)}"
        if isinstance(error, errors.ApprovalRequired):
            approve = f"agentmarket approval approve {error.approval_id}"
            return f"A person has to approve it: {approve}. Then: {self.again(error.key)}"
        if error.retryable and code == Exit.FAILED:
            return f"Nothing was charged. Later: {self.again(error.key)}"
        return None


def market(command: F) -> F:
    """Make a function a command of the market: its options, its client, and how its errors end."""

    @functools.wraps(command)
    def run(as_json: bool, url: str | None, **given: Any) -> None:
        context = click.get_current_context()
        this = Run(context.find_root().obj or (), as_json=as_json, url=url)
        this.is_repeatable = "key" not in given
        with running(this):
            command(this, **given)

    for option in (
        click.option("--url", help="Where the market is. Else the variable AGENTMARKET_URL."),
        click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object; a refusal is one on stderr."),
    ):  # fmt: skip
        run = option(run)
    return run  # type: ignore[return-value]


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Turn whatever ends a command into its exit code."""
    try:
        with stoppable(), run:
            yield run
    except errors.AgentMarketError as error:
        run.fail(error)
    except KeyboardInterrupt as stopped:
        run.fail(_stopped(stopped))
    except BrokenPipeError:
        # Whoever read us has gone; the interpreter must not write to it again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(int(Exit.DONE)) from None
    except click.ClickException:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, money may have moved before it
        run.fail(
            errors.AgentMarketError(
                f"The command failed on something that it does not know ({type(error).__name__}): report it, please.",
                code="internal",
                outcome="unknown",
            )
        )


def _is_told(name: str, value: object) -> bool:
    return not name.startswith("_") and value is not None and value not in ((), "")


def _stopped(stopped: KeyboardInterrupt) -> errors.AgentMarketError:
    """Stopped by a signal: while money was asked to move, nobody knows whether it did."""
    if notes := getattr(stopped, "__notes__", None):
        key = _KEY_IN_NOTE.search(notes[0])
        return errors.OutcomeUnknown(
            "The command was stopped before the market's answer came.", outcome="unknown", key=key[1] if key else None
        )
    return errors.AgentMarketError("The command was stopped; no money was asked to move.", code="stopped")


def group(help: str) -> Callable[[Callable[[], None]], click.Group]:
    """A group of market commands."""
    return click.group(help=help, epilog=CODES)
