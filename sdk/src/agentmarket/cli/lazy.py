"""A group of commands that imports one when it is called, so that listing them, and paying, starts nothing else."""

import importlib
from collections.abc import Mapping
from typing import Any, cast

import click

from agentmarket.chain.extra import INSTALL, PACKAGES


class Refused(click.ClickException):
    """Refused before anything was done."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


class LazyGroup(click.Group):
    """`lazy` has, for each command, where it is (`module:attribute`) and what the list says of it."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        try:
            return cast("click.Command", getattr(importlib.import_module(module), attribute))
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] not in PACKAGES:
                raise
            raise Refused(f"`{cmd_name}` needs {missing.name}, which is not installed: {INSTALL}") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, summary) for name, (_, summary) in self._lazy.items()]
        rows += [(name, command.get_short_help_str(90)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
