"""Options that several commands share, and how their text becomes what the SDK takes."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

id = click.argument("id")
status = click.option("--status", help="Only in this state.")
limit = click.option(
    "--limit", "most", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many."
)
session = click.option("--session", metavar="ID", help="The session; a session's own key needs none.")
key = click.option("--key", metavar="KEY", help="The idempotency key: the same key is the same thing, done once.")
reason = click.option("--reason", required=True, help="Why, in a sentence: the other side reads it.")

_AMOUNTS = ("max_total", "max_per_tx", "max_per_hour", "max_per_day", "approval_above", "new_recipient_max")
_LISTS = {"allow": "allowed_recipients", "deny": "denied_recipients", "allow_capability": "allowed_capabilities"}


def policy_options(command: F) -> F:
    """The rules of a policy as options, or the whole of it as JSON."""
    for option in (
        click.option("--policy", "policy_json", metavar="JSON|@FILE|-", help="The whole policy as JSON."),
        click.option("--max-tx-per-minute", type=click.IntRange(min=1), help="Payments in any 60 seconds."),
        click.option(
            "--allow-capability", multiple=True, metavar="NAME", help="Only for these capabilities; repeatable."
        ),
        click.option("--deny", multiple=True, metavar="AGENT", help="Never to these agents; repeatable."),
        click.option("--allow", multiple=True, metavar="AGENT", help="Only to these agents; repeatable."),
        click.option("--new-recipient-max", metavar="AMOUNT", help="Of the first payment to an agent."),
        click.option("--approval-above", metavar="AMOUNT", help="More than this needs a person."),
        click.option("--max-per-day", metavar="AMOUNT", help="In any 24 hours."),
        click.option("--max-per-hour", metavar="AMOUNT", help="In any hour."),
        click.option("--max-per-tx", metavar="AMOUNT", help="Of one payment."),
        click.option("--max-total", metavar="AMOUNT", help="Of all payments together."),
    ):
        command = option(command)
    return command


def policy_of(given: dict[str, Any]) -> dict[str, Any] | None:
    """Take the options of `policy_options` out of `given`: the policy that they say, or None when they say none."""
    whole = read_json(given.pop("policy_json"), "--policy")
    rules: dict[str, Any] = {name: given.pop(name) for name in (*_AMOUNTS, "max_tx_per_minute")}
    rules |= {rule: list(given.pop(option)) or None for option, rule in _LISTS.items()}
    stated = {rule: value for rule, value in rules.items() if value is not None}
    if whole is not None and stated:
        raise click.UsageError("Say the policy either with --policy or with its rules, not with both.")
    return whole if whole is not None else stated or None


def metadata_of(pairs: tuple[str, ...], text: str | None) -> dict[str, Any] | None:
    """`--metadata k=v …` and `--metadata-json`, as one object."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.UsageError("--metadata is name=value.")
        if name in found:
            raise click.UsageError(f"--metadata names {name!r} twice.")
        found[name] = value
    whole = read_json(text, "--metadata-json") or {}
    if twice := sorted(found.keys() & whole.keys()):
        raise click.UsageError(f"--metadata and --metadata-json both name {twice[0]!r}.")
    return {**found, **whole} or None


def read_json(text: str | None, option: str) -> dict[str, Any] | None:
    """A JSON object: as it stands, from a file (`@name`), or from stdin (`-`). No number in it becomes a float."""
    if text is None:
        return None
    try:
        content = sys.stdin.read() if text == "-" else Path(text[1:]).read_text("utf-8") if text[:1] == "@" else text
        found = json.loads(content, parse_float=_exact, parse_constant=_exact)
    except OSError as error:
        raise click.UsageError(f"{option}: {text[1:]} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{option} is not JSON: {error}.") from None
    if not isinstance(found, Mapping):
        raise click.UsageError(f'{option} is one JSON object, like {{"name": "value"}}.')
    return dict(found)


def _exact(text: str) -> str:
    raise ValueError(f'the number {text} is not exact: write "{text}"')
