"""Keeps a whole market running on this machine, and says how to call it."""

import secrets
import shlex
import sys
from argparse import ArgumentParser

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.markup import escape

from escrow import money
from marketplace.management.stack import sample
from marketplace.management.stack.stack import ROOT, Stack
from marketplace.management.stack.supervisor import StackError

FIRST_PORT, PORT_TRIES = 8000, 20
DEPOSIT, BUDGET = "100.00", "25.00"
POLICY = {"max_per_tx": "5.00", "allowed_recipients": ["*.acme.dev"]}

NEXT = """
[bold]The market is open.[/]
  API        {web}/v1      reference: {docs}
  Admin      {admin}      user [bold]admin[/], password [bold]{password}[/]
  Logs       {logs}
  Chain      {rpc}

[bold]Keys[/] (test money; gone when this ends)
  payer      {payer_key}
  session    {session_key}   budget {budget} USDC, at most {max_per_tx} a payment, only *.acme.dev
  newcomer   {newcomer_key}   a payer with nothing: its first session opens a pool with {grant} test USDC

[bold]Your first payment[/], in five lines of Python (pip install ./sdk)
{first_steps}
[bold]Or try[/] in another terminal
  curl -s {web}/v1/payments \\
    -H 'Authorization: Bearer {session_key}' \\
    -H 'Idempotency-Key: try-1' -H 'Content-Type: application/json' \\
    -d '{{"to": "agent://lint.acme.dev", "amount": "0.012", "metadata": {{"why": "to see it work"}}}}'

[bold]Do its books equal the chain?[/] Exit code 0 or 1: yes ([bold]docs/operations/reconcile.md[/])
  {reconcile}

Ctrl-C ends it all and leaves nothing behind.
"""


FIRST_STEPS = """
  import agentmarket
  client = agentmarket.SyncClient(base_url="{web}", api_key="{newcomer_key}")
  session = client.payment.create_session(budget="10.00", policy={{"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}})
  paid = session.client().payment.send(to="agent://lint.acme.dev", amount="0.012", metadata={{"file": "a.py"}})
  print(paid.status, paid.remaining)
"""


class Command(BaseCommand):
    """`manage.py dev`: web, workers, beat, sample specialists, a payer, and the servers they need."""

    help = "Run the whole market here: real servers, a local chain, sample agents, test money."
    requires_system_checks = ()  # there is no database yet

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the port."""
        parser.add_argument("--port", type=int, help=f"of the web; default: {FIRST_PORT}, or the next free one")

    def handle(self, *_: object, port: int | None, **__: object) -> None:
        """Start, seed, tell, and stay."""
        console = Console(stderr=True, highlight=False)
        try:
            console.print("Starting a market of your own ...")
            tries = 1 if port else PORT_TRIES
            with Stack(
                port=port or FIRST_PORT, port_tries=tries, report=lambda line: console.print(f"  {line}")
            ) as stack:
                self._seed(stack, console)
                stack.watch()
        except StackError as error:
            raise CommandError(f"{error}") from error

    @staticmethod
    def _seed(stack: Stack, console: Console) -> None:
        sellers = sample.start_specialists(stack)
        console.print(f"         {len(sellers)} sample specialists sell")
        buyer = sample.open_buyer(
            name="Sample payer", deposit=DEPOSIT, budget=BUDGET, policy=POLICY, sellers=list(sellers.values())
        )
        console.print(f"         a pool of {DEPOSIT} test USDC is open on chain\n")
        password = secrets.token_urlsafe(12)
        get_user_model().objects.create_superuser("admin", password=password)
        newcomer_key = sample.newcomer_key()
        text = NEXT.format(
            web=stack.urls.web,
            newcomer_key=newcomer_key,
            grant=money.render(settings.SANDBOX_GRANT_MICROS),
            # As it is: its brackets are Python's, and not the console's markup.
            first_steps=escape(FIRST_STEPS.format(web=stack.urls.web, newcomer_key=newcomer_key)),
            docs=stack.urls.docs,
            admin=stack.urls.admin,
            rpc=stack.urls.rpc,
            logs=stack.home.logs,
            password=password,
            payer_key=buyer.payer_key,
            session_key=buyer.session_key,
            budget=BUDGET,
            max_per_tx=POLICY["max_per_tx"],
            reconcile=escape(_with_its_settings(stack, "reconcile")),
        )
        Console(file=sys.stdout, highlight=False, soft_wrap=True).print(text)


def _with_its_settings(stack: Stack, command: str) -> str:
    """Return a line for another terminal, in any directory, that runs a command on this market."""
    python, manage = shlex.quote(sys.executable), shlex.quote(str(ROOT / "manage.py"))
    return f"(. {shlex.quote(str(stack.environment_file()))} && {python} {manage} {command})"
