"""Wrong usage of a command: which field, the rule, and what would pass. Lives here: saying so, with an exit code of its own.

Commands whose exit code is an answer must not share it with a mistyped option, and argparse's own is 2.
"""

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

WRONG_USAGE: Final = 64
"""EX_USAGE of sysexits.h."""


class WrongUsage(CommandError):
    """An option that a command cannot go by. Nothing was done."""

    def __init__(self, said: str) -> None:
        super().__init__(said, returncode=WRONG_USAGE)


def refusal(field: str, rule: str, would_pass: str) -> WrongUsage:
    """Return the refusal of one option."""
    return WrongUsage(f"{field}: {rule}; would pass: {would_pass}")


class StrictCommand(BaseCommand):
    """A command that refuses wrong usage in one line, with exit code 64."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Make the parser, and let it refuse as the command does."""
        kwargs.setdefault("allow_abbrev", False)  # `--step 3` is no option, rather than a guess at one
        parser = super().create_parser(prog_name, subcommand, **kwargs)

        def refuse(message: str) -> NoReturn:
            raise WrongUsage(_in_our_words(message, f"{prog_name} {subcommand}"))

        parser.error = refuse  # type: ignore[method-assign]
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        """Run for somebody at a terminal: a refusal is a line, and no traceback."""
        try:
            super().run_from_argv(argv)
        except WrongUsage as refused:  # Django parses before it catches
            self.stderr.write(str(refused))
            sys.exit(refused.returncode)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Do it. A refusal at a terminal comes without the name of a class before it."""
        try:
            return super().execute(*args, **options)
        except WrongUsage as refused:
            if not getattr(self, "_called_from_command_line", False):
                raise
            self.stderr.write(str(refused))
            sys.exit(refused.returncode)


def _in_our_words(message: str, command: str) -> str:
    """Return what argparse has to say, which begins with the word *argument* where one is named."""
    said = message.removeprefix("argument ")
    return said if "would pass: " in said else f"{said}; would pass: what `{command} --help` lists"


# ---------------------------------------------------------------------- kinds of options


def uuid(text: str) -> UUID:
    """Read a UUID."""
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is no UUID; would pass: 32 hexadecimal digits, as 0198c6d2-7a54-7c11-9d0e-5f2b8a1c3e47"
        ) from None


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Make a reader of one of a few words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(f"{text!r} is none of its words; would pass: {' or '.join(choices)}")
        return text

    return read


def whole(least: int) -> Callable[[str], int]:
    """Make a reader of a whole number that is not below another."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ArgumentTypeError(f"{text!r} is no whole number from {least} on; would pass: {max(least, 1)}")
        return number

    return read


def seconds(text: str) -> float:
    """Read a time in seconds, fractions included."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no time in seconds; would pass: 60")
    return number
