"""`manage.py signer`: the signing process. It holds the keys, listens on a unix socket, and signs nothing but ours."""

import os
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from escrow.chain.client import ChainClient, newest_from
from escrow.chain.contract import BudgetPool
from escrow.chain.errors import ChainRefused
from escrow.chain.events import BatchSettled
from escrow.chain.keyring import Keyring
from escrow.chain.signer import KeyringError
from escrow.chain.words import address_bytes
from escrow.notary import server
from escrow.notary.desk import Chain, Desk
from escrow.notary.journal import Journal
from escrow.notary.rules import Limits

RECURSION: Final = 1_000
"""Python's own. A library for Ethereum raises it a hundredfold, past what a thread's stack holds: nested JSON would end us."""


class Command(BaseCommand):
    """Read the keys, open the socket and the journal, stop being root, and answer until a signal ends it."""

    help = (
        "Run the signing process: it holds the keys of SIGNER_KEYS_DIR and signs only what the service has to sign, for "
        "whom it is told to answer. Workers reach it with SIGNERS=socket:PATH and need no keys."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the places, and the users on both sides."""
        parser.add_argument("--socket", required=True, type=Path, help="where it listens; its directory must exist")
        parser.add_argument("--journal", required=True, type=Path, help="a directory of its own: what it has signed")
        parser.add_argument("--user", help="whom to become once everything is open; only root can")
        parser.add_argument("--group", help="whose members may open the socket; the user's own group unless given")
        parser.add_argument(
            "--allow",
            action="append",
            default=[],
            help="a user that may ask, by name or id; who starts it unless given",
        )

    def handle(self, *_: object, **options: Any) -> None:
        """Serve; a start that fails says why."""
        server.leave_no_trace()
        sys.setrecursionlimit(RECURSION)
        try:
            self._serve(**{name: options[name] for name in ("socket", "journal", "user", "group", "allow")})
        except (KeyringError, server.ServerError) as error:
            raise CommandError(str(error)) from None

    def _serve(self, *, socket: Path, journal: Path, user: str | None, group: str | None, allow: list[str]) -> None:
        keys, limits = Keyring.load(settings.SIGNER_KEYS_DIR, relayers=settings.RELAYERS), _limits()
        allowed = {server.user_id(name) for name in allow} or {os.getuid()}
        uid, gid = server.ids(user)
        _make(journal, uid, gid)
        listening = server.Server(socket, allowed)
        listening.open_to(uid, server.group_id(group) if group else gid)
        server.become(uid, gid)
        # Opened by the user that will write it; a journal that cannot be written stops the start.
        listening.answer = Desk(keys, limits, Journal(journal / "signed.sqlite3"), _chain(), time.time).answer
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        with listening:
            threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
            self.stdout.write(f"The signer is ready at {socket}, as user {os.geteuid()}.")
            self.stdout.flush()
            ended.wait()
            listening.shutdown()


def _make(directory: Path, uid: int, gid: int) -> None:
    """Make the journal's directory, the user's alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for path in (directory, *directory.glob("signed.sqlite3*")):
            os.chown(path, uid, gid)


def _chain() -> Chain:
    client = ChainClient(
        settings.RPC_URL, settings.RPC_TIMEOUT_SECONDS, finality=settings.FINALITY, chain_id=settings.CHAIN_ID
    )
    contract = BudgetPool(client, settings.ESCROW_ADDRESS)

    def settled(pool_id: bytes, seq: int, block: int) -> bool:
        try:
            return contract.is_settled(pool_id, seq, block=block)
        except ChainRefused:  # of a node that keeps no state so old; past a batch's deadline it lands in no later block
            return contract.is_settled(pool_id, seq, block=newest_from(client, block))

    def landed(transaction_hash: str, block: int) -> list[BatchSettled]:
        receipt = client.agreed_receipt(transaction_hash)
        events = receipt.events if receipt and receipt.block_number <= block else ()
        ours = address_bytes(settings.ESCROW_ADDRESS)
        return [one for one in events if isinstance(one, BatchSettled) and address_bytes(one.place.address) == ours]

    return Chain(
        final=lambda: client.agreed_tiers().final,
        settled=settled,
        landed=landed,
    )


def _limits() -> Limits:
    if not settings.ESCROW_ADDRESS or not settings.USDC_ADDRESS:
        raise server.ServerError("ESCROW_ADDRESS and USDC_ADDRESS say what may be signed for, and must be set")
    return Limits(
        chain_id=settings.CHAIN_ID,
        escrow_address=settings.ESCROW_ADDRESS,
        token_address=settings.USDC_ADDRESS,
        sandbox=settings.SANDBOX,
        max_gas=settings.SIGNER_MAX_GAS,
        max_fee_wei=settings.SIGNER_MAX_FEE_WEI,
        max_hourly_gas_wei=settings.SIGNER_MAX_HOURLY_GAS_WEI,
        max_batch_micros=settings.SIGNER_MAX_BATCH_MICROS,
        max_hourly_micros=settings.SIGNER_MAX_HOURLY_MICROS,
        max_deposit_micros=settings.SIGNER_MAX_DEPOSIT_MICROS,
        max_deadline_seconds=settings.SIGNER_MAX_DEADLINE_SECONDS,
    )
