"""URLs and addresses that a user named. Lives here: which of them are on the public internet. No request is made here.

A URL is read once, into the parts that a connection is made from, so nothing is checked that is not also used.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from django.conf import settings

from escrow.errors import InvalidInput

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

EXAMPLE: Final = "https://hooks.acme.dev/agent-market"
LONGEST_URL: Final = 500
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+\Z")
_OURS: Final = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "localdomain")
"""Last labels of names that mean something only inside a network (RFC 6761, RFC 8375, and habit)."""

_REFUSED_PORTS: Final = frozenset({1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6679, 6697, 10080,
                                   *range(6665, 6670)})  # fmt: skip
"""Above 1023: what browsers refuse too, because what listens there might take a request for something else (Fetch, 2.9)."""

_REFUSED_V4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # public by its number, and yet a cloud's own door to the machine
        ),
    )
)
"""The IANA registry of special IPv4 addresses: `ipaddress` leaves some out, and which ones depends on its version."""

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 addresses that are handed out. Outside: mapped, compatible, NAT64, local, site-local, multicast."""
_REFUSED_V6: Final = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"))
)
"""Within it: Teredo and other protocols, documentation, 6to4, AS112."""


@dataclass(frozen=True, slots=True)
class Place:
    """A URL that may be called, as far as its text can tell."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        """What ``Host`` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80}


def read(url: str, *, field: str = "url") -> Place:
    """Return the parts of a URL that may be called. Raises InvalidInput, naming the rule; nothing is looked up."""
    if not 1 <= len(url) <= LONGEST_URL:
        raise InvalidInput(field, f"must have 1 to {LONGEST_URL} characters", EXAMPLE)
    if not all("!" <= character <= "~" for character in url) or any(character in '\\"<>^`{|}' for character in url):
        raise InvalidInput(field, "must be printable ASCII without spaces or backslashes", "the URL, percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput(field, "is not a URL", EXAMPLE) from None
    scheme, host = parts.scheme, parts.hostname or ""
    if "@" in parts.netloc:
        raise InvalidInput(field, "must not hold a user name or password", "the URL without what is before the @")
    if parts.fragment or url.endswith("#"):
        raise InvalidInput(field, "must not have a fragment: it is never sent", "the URL without what is after the #")
    if parts.netloc.endswith(":"):
        raise InvalidInput(field, "names a port and does not say which", "a port, or none")
    literal = _literal(host, parts.netloc)
    home = settings.LOCAL_WEBHOOKS and (host == "localhost" or (literal is not None and literal.is_loopback))
    if scheme != "https" and not (home and scheme == "http"):
        raise InvalidInput(field, "must begin with https://", EXAMPLE)
    if not home:
        _check_host(field, host, literal, bracketed="[" in parts.netloc)
    port = _PORTS[scheme] if port is None else port
    _check_port(field, port, home=home)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(scheme, host, port, target)


def _literal(host: str, netloc: str) -> Address | None:
    """Return the address that a host is written as, in its one normal form. `127.1` and `0x7f.1` are no names either."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    if "%" in host:  # an interface of ours
        return None
    return found if (found.version == 6) == ("[" in netloc) else None


def _check_host(field: str, host: str, literal: Address | None, *, bracketed: bool) -> None:
    if literal is not None:
        if not is_public(literal):
            raise InvalidInput(field, "names an address that is not on the public internet", EXAMPLE)
        return
    if bracketed or not _NAME.match(host) or host.rsplit(".", 1)[-1][0].isdigit():
        raise InvalidInput(field, "must name a host in the form of a full DNS name", EXAMPLE)
    if any(host == name or host.endswith(f".{name}") for name in _OURS):
        raise InvalidInput(field, "names a host that exists only inside a network", EXAMPLE)


def _check_port(field: str, port: int, *, home: bool) -> None:
    if home and port > 0:
        return
    if port != 443 and (port < 1024 or port in _REFUSED_PORTS):
        raise InvalidInput(field, f"names port {port}, at which no webhook is served", "443, or a free port above 1023")


def is_public(address: Address) -> bool:
    """Return whether an address is on the public internet, and is not one that the operator has ruled out."""
    if any(address in network for network in _ruled_out() if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _UNICAST and not any(address in network for network in _REFUSED_V6)


def _ruled_out() -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return map(ipaddress.ip_network, settings.OUTSIDE_REFUSED_NETWORKS)
