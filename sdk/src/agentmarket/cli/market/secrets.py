"""Where a key that was just made goes: to a private file, or on the screen once, with a warning."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agentmarket.cli.market.run import Run
from agentmarket.cli.market.shown import document, facts

option = click.option(
    "--key-to", "key_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the key to this new file (mode 0600) and show it nowhere.",
)  # fmt: skip


def make(run: Run, file: Path | None, ask: Callable[[], Any], *names: str, field: str = "api_key") -> None:
    """Make something that has a secret, and hand the secret over. The file is opened first: a key must not be lost."""
    if file is None:
        shown = document(ask())
        made = shown.get(field)
        run.say(shown, facts(shown, *names, field), is_secret=bool(made))
        if made:
            what = "API key" if field == "api_key" else field
            run.note(f"Keep the {what} now: it is shown only this once, and whoever has it can use it.")
        return
    descriptor = _opened(file)
    try:
        shown = document(ask())
        os.write(descriptor, f"{shown.pop(field, None) or ''}\n".encode())
    except BaseException:
        file.unlink()
        raise
    finally:
        os.close(descriptor)
    shown["key_file"] = str(file)
    run.tell(shown, *names, "key_file")


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.UsageError(f"--key-to {file}: {error.strerror}. Nothing was asked of the market.") from None
