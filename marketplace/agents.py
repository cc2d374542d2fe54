"""Who buys and sells. Lives here: registering payers, providers and agents, and finding agents. Prices are
`offerings`'.

An agent's name is a lower-case ASCII DNS name: ``agent://lint.acme.dev``. Internationalised labels (``xn--``) are
refused, because two names that look alike would be two receivers of money.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet, Sum
from eth_hash.auto import keccak

from escrow.errors import InvalidInput, NotFound, StateConflict
from escrow.models import Account, Batch, BatchRecord, Dispute, Party, Reason, Transfer
from escrow.recipients import CAPABILITY, host_of
from marketplace.models import Agent, Offering, Payer, Provider, Terms

MAX_CAPABILITIES: Final = 50
"""More than that is a catalogue, not an agent."""

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")


def register_payer(*, name: str, email: str = "") -> Payer:
    """Register somebody who buys."""
    return Payer.objects.create(name=name, email=email)


def register_provider(*, name: str, payout_address: str) -> Provider:
    """Register somebody who sells, paid at an address on chain. Raises StateConflict when the address is taken."""
    address = checksummed(payout_address)
    check_free(address)
    with transaction.atomic():
        return Provider.objects.create(name=name, party=Party.objects.create(name=name, address=address))


def register(
    *,
    provider: Provider,
    uri: str,
    name: str,
    endpoint: str = "",
    description: str = "",
    capabilities: Sequence[str] = (),
    terms: Sequence[Terms] = (),
) -> Agent:
    """Register an agent and what it sells. A capability that is on sale is a capability, listed or not."""
    check_uri(uri)
    _check_endpoint(endpoint)
    offered = list(dict.fromkeys([*capabilities, *(term.capability for term in terms)]))
    if len(offered) > MAX_CAPABILITIES:
        raise InvalidInput("capabilities", f"must not be more than {MAX_CAPABILITIES}", "fewer of them")
    for capability in offered:
        check_capability(capability)
    if len({term.capability for term in terms}) != len(terms):
        raise InvalidInput("offerings", "must name each capability once", "one offering for each capability")
    try:
        with transaction.atomic():
            agent = Agent.objects.create(
                provider=provider, uri=uri, name=name, endpoint=endpoint, description=description, capabilities=offered
            )
            Offering.objects.bulk_create(Offering.of(agent, term, version=1) for term in terms)
    except IntegrityError:
        raise StateConflict("agent", "registered", f"{uri} is registered already.") from None
    return agent


def find(*, uri: str, capability: str | None = None) -> Agent:
    """Return the agent of that name, its provider loaded, for what it offers. Raises InvalidInput or NotFound."""
    check_uri(uri, field="agent")
    agent = Agent.objects.select_related("provider__party").filter(uri=uri).first()
    if agent is None:
        raise NotFound(f"No agent is registered as {uri}.")
    _require_offered(uri, capability, agent.capabilities)
    return agent


def payee(*, uri: str, capability: str | None = None) -> tuple[UUID, UUID]:
    """Return the ids of the party and of the provider that are paid for an agent, and for what it offers.

    Raises InvalidInput or NotFound.
    """
    check_uri(uri, field="agent")
    wanted = ("provider__party_id", "provider_id", "capabilities")
    found = Agent.objects.filter(uri=uri).values_list(*wanted).order_by().first()
    if found is None:
        raise NotFound(f"No agent is registered as {uri}.")
    party_id, provider_id, offered = found
    _require_offered(uri, capability, offered)
    return party_id, provider_id


def parties(*, uris: Iterable[str]) -> list[Party]:
    """Return who is paid for these agents, each party once. Raises NotFound for a name that no agent has."""
    found = [find(uri=uri).provider.party for uri in uris]
    return list({party.pk: party for party in found}.values())


def search(*, capability: str | None = None, q: str | None = None) -> "QuerySet[Agent]":
    """Return the agents that offer a capability and whose name, URI or description has a text in it."""
    found = Agent.objects.select_related("provider").prefetch_related("offerings")
    if capability is not None:
        found = found.filter(capabilities__contains=[capability])
    if q is not None:
        found = found.filter(Q(name__icontains=q) | Q(uri__icontains=q) | Q(description__icontains=q))
    return found


def balance(*, provider: Provider) -> dict[str, object]:
    """Return what a provider is owed and has been paid, in micro-USDC by state, and its address."""
    party = provider.party
    held = Account.objects.filter(party=party, kind__in=[Account.Kind.PAYABLE, Account.Kind.CREDITED])
    sums = {
        kind: int(total)
        for kind, total in held.values_list("kind").annotate(total=Sum(F("received_micros") - F("sent_micros")))
    }
    signed = BatchRecord.objects.filter(party=party, batch__status=Batch.Status.SIGNED)
    settling = signed.aggregate(total=Sum("amount_micros"))
    paid = Transfer.objects.filter(sender__party=party, reason=Reason.PAYOUT).aggregate(total=Sum("amount_micros"))
    disputed = Dispute.objects.filter(party=party).aggregate(
        total=Sum(F("account__received_micros") - F("account__sent_micros"))
    )
    return {
        "payable": sums.get(Account.Kind.PAYABLE, 0),
        "settling": settling["total"] or 0,
        "credited": sums.get(Account.Kind.CREDITED, 0),
        "withdrawn": paid["total"] or 0,
        "disputed": disputed["total"] or 0,
        "address": party.address,
    }


def check_free(address: str) -> None:
    """Return when nobody is paid at an address yet. Raises StateConflict."""
    if Party.objects.filter(address=address).exists():
        raise StateConflict("provider", "registered", f"{address} is another provider's payout address.")


def check_uri(uri: str, *, field: str = "uri") -> None:
    """Return when a text is an agent's name. Raises InvalidInput."""
    host = host_of(uri)
    if host is None or host.startswith("xn--") or ".xn--" in host:
        raise InvalidInput(field, "must be agent:// and a lower-case ASCII DNS name", '"agent://lint.acme.dev"')


def check_capability(capability: str) -> None:
    """Return when a text can name a capability. Raises InvalidInput."""
    if not CAPABILITY.fullmatch(capability):
        raise InvalidInput(
            "capability", "must be 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit", '"code.lint"'
        )


def checksummed(address: str) -> str:
    """Return an address with its EIP-55 checksum. Raises InvalidInput when it has a wrong one, or is none."""
    if not _ADDRESS.fullmatch(address) or int(address, 16) == 0:
        raise InvalidInput(
            "payout_address", "must be 0x and 40 hexadecimal digits, not all zero", "an address on chain"
        )
    digits = address[2:].lower()
    marks = keccak(digits.encode()).hex()
    proper = "0x" + "".join(
        digit.upper() if int(mark, 16) > 7 else digit for digit, mark in zip(digits, marks, strict=False)
    )
    if address[2:] not in (digits, digits.upper(), proper[2:]):
        raise InvalidInput("payout_address", "has a wrong checksum (EIP-55)", f"{proper}, if that is what you mean")
    return proper


def _require_offered(uri: str, capability: str | None, offered: Sequence[str]) -> None:
    if capability is not None and capability not in offered:
        raise InvalidInput("capability", f"must be one that {uri} offers", " or ".join(offered) or "none: leave it out")


def _check_endpoint(endpoint: str) -> None:
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        sound = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and parts.port != 0
        )
    except ValueError:
        sound = False
    if not sound or not endpoint.isascii() or any(character.isspace() for character in endpoint):
        raise InvalidInput("endpoint", "must be an http or https URL without credentials", '"https://lint.acme.dev"')
