"""Deploys to a local chain once, and writes what is where into files that settings can read (`ESCROW_ADDRESS_FILE`)."""

from argparse import ArgumentParser
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from escrow.chain.client import ChainClient
from marketplace.management.stack import contracts
from marketplace.management.stack.supervisor import StackError


class Command(BaseCommand):
    """`manage.py prepare_chain --keys DIR --addresses DIR`; does nothing where the contract is already there."""

    help = "Make keys and deploy the test USDC and the escrow to the local chain at RPC_URL."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the two directories."""
        parser.add_argument("--keys", type=Path, required=True, help="directory for the private keys")
        parser.add_argument("--addresses", type=Path, required=True, help="directory for one file per address")

    def handle(self, *_: object, keys: Path, addresses: Path, **__: object) -> None:
        """Deploy, unless the recorded contract has code."""
        known = addresses / "ESCROW_ADDRESS"
        if known.exists():
            code = ChainClient(settings.RPC_URL).request("eth_getCode", [known.read_text(encoding="utf-8"), "latest"])
            if code != "0x":
                self.stdout.write(f"The escrow is at {known.read_text(encoding='utf-8')} already.")
                return
        try:
            found = contracts.prepare(settings.RPC_URL, keys)
        except StackError as error:
            raise CommandError(str(error)) from error
        addresses.mkdir(parents=True, exist_ok=True)
        for name, value in found.items():
            (addresses / name).write_text(value, encoding="utf-8")
        self.stdout.write(f"The escrow is at {found['ESCROW_ADDRESS']}.")
