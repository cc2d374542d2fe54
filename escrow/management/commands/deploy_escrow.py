"""`manage.py deploy_escrow`: put the escrow on a chain, once. Exit 0: it is there. 1: failed. 2: refused, nothing sent."""

import json
import re
import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from eth_utils.crypto import keccak

from escrow import money
from escrow.chain import create2, rollout
from escrow.chain.client import ChainClient
from escrow.chain.deploy import NO_TVL_CAP
from escrow.chain.errors import ChainError
from escrow.chain.keyring import Keyring
from escrow.chain.networks import LOCAL, LOCAL_CHAINS, PRESETS, Network
from escrow.chain.signer import KeyringError, Role, Signer
from escrow.chain.words import ZERO_ADDRESS
from escrow.errors import InvalidInput

FAILED, REFUSED = 1, 2
UNLIMITED: Final = "unlimited"
_SALT: Final = re.compile(r"0x[0-9a-fA-F]{64}")
_WEI: Final = 10**18


class Command(BaseCommand):
    """Check, deploy through the CREATE2 proxy, verify, and say which settings follow."""

    help = (
        "Deploy BudgetPool to the chain at RPC_URL, to an address that depends on its code and arguments alone. "
        "Where it is already, nothing is sent. Exit 0: it is there; 1: failed; 2: refused, and nothing was sent."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the network, the constructor's arguments and the form of the answer."""
        parser.add_argument("--network", required=True, choices=[*PRESETS, LOCAL], help=f"{LOCAL}: a test node")
        parser.add_argument("--token", help=f"the token of --network {LOCAL}; USDC_ADDRESS unless given")
        parser.add_argument("--fee-recipient", required=True, help="who may have the market's fees; fixed for ever")
        parser.add_argument("--guardian", help="may pause deposits and set the cap; the zero address for nobody")
        parser.add_argument("--tvl-cap", help='USDC that all pools together may hold, as "50000"')
        parser.add_argument("--salt", default="0x" + "00" * 32, help="32 bytes; another one is another address")
        parser.add_argument("--yes-mainnet", action="store_true", help="the money is real, and this is meant")
        parser.add_argument("--dry-run", action="store_true", help="check and price; send nothing")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: object, **options: Any) -> None:
        """Deploy and print; every end has its exit code."""
        try:
            document = self._deploy(options)
        except InvalidInput as error:
            told = f"Refused, nothing was sent. {error.detail}\nWould pass: {error.facts['would_pass']}."
            self._end(REFUSED, {"status": "refused", **error.facts}, told, as_json=options["json"])
        except ChainError as error:
            told = f"Failed. {error}\nWhen the cause is gone, run it again: what is there is not sent twice."
            self._end(FAILED, {"status": "failed", "error": str(error)}, told, as_json=options["json"])
        else:
            self.stdout.write(json.dumps(document) if options["json"] else _page(document))

    def _end(self, code: int, document: dict[str, Any], told: str, *, as_json: bool) -> None:
        if not as_json:
            raise CommandError(told, returncode=code)
        self.stdout.write(json.dumps(document))
        sys.exit(code)

    def _announce(self, transaction_hash: str) -> None:
        """Tell it before anything can be lost, and not where the document goes."""
        self.stderr.write(f"Sending {transaction_hash}", str)

    def _deploy(self, options: dict[str, Any]) -> dict[str, Any]:
        order, signer, client = _order(options), _relayer(), ChainClient(settings.RPC_URL, settings.RPC_TIMEOUT_SECONDS)
        dry = options["dry_run"]
        plan = rollout.plan(client, order, mainnet_allowed=options["yes_mainnet"] or dry)
        document = _facts(plan, signer)
        if plan.deployed:
            cap, paused = (rollout.read(client, order.address, name) for name in ("tvlCap", "depositsPaused"))
            return document | {"status": "already deployed", "tvl_cap_now": _cap(cap), "deposits_paused": paused}
        cost = rollout.price(client, order, signer.address)
        document |= {"gas": cost.gas, "cost_wei": cost.wei, "balance_wei": cost.balance}
        if dry:
            return document | {"status": "dry run"}
        receipt = rollout.carry_out(client, signer, plan, cost, announce=self._announce)
        document |= {"transaction_hash": receipt.transaction_hash, "gas_used": receipt.gas_used}
        if (
            not receipt.ok
        ):  # verified nonetheless, so it was there before this block: no log may be looked for from here on
            return document | {"status": "deployed by another"}
        document["settings"]["ESCROW_START_BLOCK"] = str(receipt.block_number)
        return document | {"status": "deployed", "block_number": receipt.block_number}


# ---------------------------------------------------------------------- what was asked for


def _order(options: dict[str, Any]) -> rollout.Order:
    network = _network(options["network"], options["token"])
    local = network.name == LOCAL
    if not _SALT.fullmatch(options["salt"]):
        raise InvalidInput("salt", f"must be 32 bytes, not {options['salt']!r}", "0x and 64 hex digits")
    fee_recipient = rollout.address(options["fee_recipient"], field="fee-recipient")
    guardian = _guardian(options["guardian"], local=local)
    for field, chosen in (("fee-recipient", fee_recipient), ("guardian", guardian)):
        _can_act(chosen, network, field=field)
    return rollout.Order(
        network=network,
        fee_recipient=fee_recipient,
        guardian=guardian,
        tvl_cap=_tvl_cap(options["tvl_cap"], local=local),
        salt=bytes.fromhex(options["salt"][2:]),
    )


def _network(name: str, token: str | None) -> Network:
    if name != LOCAL:
        if token is not None:
            raise InvalidInput("token", f"is known on {name}: {PRESETS[name].usdc}", "no --token")
        return PRESETS[name]
    if settings.CHAIN_ID not in LOCAL_CHAINS:
        named = [f"--network {preset.name}" for preset in PRESETS.values() if preset.chain_id == settings.CHAIN_ID]
        would_pass = named or [f"CHAIN_ID {' or '.join(map(str, sorted(LOCAL_CHAINS)))}"]
        raise InvalidInput("network", f"is not {LOCAL} on chain {settings.CHAIN_ID}", *would_pass)
    return Network(LOCAL, settings.CHAIN_ID, rollout.address(token or settings.USDC_ADDRESS, field="token"))


def _can_act(chosen: str, network: Network, *, field: str) -> None:
    """Refuse the addresses at hand that are easily pasted in the wrong place: what they are given is lost for ever."""
    at_hand = {"the token": network.usdc, "the deployment proxy": create2.PROXY, "the escrow": settings.ESCROW_ADDRESS}
    for what, at in at_hand.items():
        if chosen.lower() == at.lower():
            raise InvalidInput(field, f"is {what}, which does nothing by itself", "an address whose key somebody holds")


def _guardian(given: str | None, *, local: bool) -> str:
    if given is None:
        if not local:
            raise InvalidInput(
                "guardian",
                "must be chosen: without one the cap is fixed for ever, and deposits cannot be paused",
                f"an address, or {ZERO_ADDRESS} for nobody",
            )
        return ZERO_ADDRESS
    return rollout.address(given, field="guardian", zero_allowed=True)


def _tvl_cap(given: str | None, *, local: bool) -> int:
    if given is None:
        if not local:
            raise InvalidInput("tvl-cap", f"must be chosen on every network but {LOCAL}", 'USDC, as "50000"')
        return NO_TVL_CAP
    return money.parse(given, field="tvl-cap")


def _relayer() -> Signer:
    try:
        return Keyring.load(settings.SIGNER_KEYS_DIR, [Role.RELAYER]).signer(Role.RELAYER)
    except KeyringError as error:
        raise InvalidInput("SIGNER_KEYS_DIR", f"has no key to use: {error}", "a folder with relayer.key") from None


# ---------------------------------------------------------------------- what is said


def _facts(plan: rollout.Plan, signer: Signer) -> dict[str, Any]:
    order, network, domain = plan.order, plan.order.network, plan.token_domain
    code = order.creation_code
    return {
        "network": network.name,
        "chain_id": network.chain_id,
        "address": order.address,
        "token": network.usdc,
        "token_name": domain.name,
        "token_version": domain.version,
        "token_domain_separator": "0x" + domain.separator.hex(),
        "fee_recipient": order.fee_recipient,
        "guardian": order.guardian,
        "tvl_cap": _cap(order.tvl_cap),
        "salt": "0x" + order.salt.hex(),
        "proxy": create2.PROXY,
        "init_code_hash": "0x" + keccak(code).hex(),
        "runtime_code_hash": "0x" + keccak(plan.runtime).hex(),
        "constructor_arguments": "0x" + order.constructor_arguments.hex(),
        "relayer": signer.address,
        "explorer": f"{network.explorer}/address/{order.address}" if network.explorer else None,
        "settings": {
            "CHAIN_ID": str(network.chain_id),
            "USDC_ADDRESS": network.usdc,
            "ESCROW_ADDRESS": order.address,
        },
    }


def _page(document: dict[str, Any]) -> str:
    """The document for a person: a line for each fact, then what to do next."""
    plain = {key: value for key, value in document.items() if key not in {"settings", "status"} and value is not None}
    for key in ("cost_wei", "balance_wei"):
        if key in plain:
            wei = plain.pop(key)
            plain[key.removesuffix("_wei")] = f"{wei // _WEI}.{wei % _WEI:018d} ETH"
    width = max(map(len, plain))
    lines = [f"{key.replace('_', ' '):{width}}  {value}" for key, value in plain.items()]
    lines += ["", _ENDINGS[document["status"]]]
    if document["status"] != "dry run":
        lines += ["", "Put these into the environment of the web and the worker, with RPC_URL as it is here:"]
        lines += [f"  {name}={value}" for name, value in document["settings"].items()]
        if "ESCROW_START_BLOCK" not in document["settings"]:
            lines.append(
                "  ESCROW_START_BLOCK=the block of its creation, as it was printed then or an explorer shows it"
            )
        lines += ["", "Verify the source on a block explorer: docs/operations/deploy.md says how."]
    return "\n".join(lines)


_ENDINGS: Final = {
    "deployed": "Deployed; its code and its views are what was asked for.",
    "deployed by another": "Somebody was faster with exactly this code; what was sent from here was reverted.",
    "already deployed": "It is there already, with exactly this code; nothing was sent.",
    "dry run": "A dry run; nothing was sent. The cost is at most this, without Base's fee for publishing on Ethereum.",
}


def _cap(micros: int) -> str:
    return UNLIMITED if micros == NO_TVL_CAP else money.render(micros)
