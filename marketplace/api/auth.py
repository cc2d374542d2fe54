"""Who is calling. Lives here: from the Authorization header to an actor. What an actor may see is `scope`'s to say."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast
from uuid import UUID

from django.http import HttpRequest
from rest_framework.request import Request

from marketplace import keys
from marketplace.api import rates
from marketplace.api.errors import Problem
from marketplace.models import ApiKey, Provider, Scope

PAYER: Final = frozenset({Scope.PAYER})
BUYER: Final = frozenset({Scope.PAYER, Scope.SESSION})
PROVIDER: Final = frozenset({Scope.PROVIDER})
OWNER: Final = frozenset({Scope.PAYER, Scope.PROVIDER})
ANYONE: Final = frozenset(Scope)
PUBLIC: Final[frozenset[Scope]] = frozenset()
"""No key at all."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The owner of the key that a request came with."""

    key: ApiKey

    @property
    def scope(self) -> Scope:
        """What the key may do at most."""
        return Scope(self.key.scope)

    @property
    def is_buyer(self) -> bool:
        """Whether the key spends: a payer's or a session's."""
        return self.scope in BUYER

    @property
    def owner_id(self) -> UUID:
        """Whose idempotency keys this actor's are: the session's, the payer's or the provider's."""
        return cast("UUID", self.key.session_id or self.key.payer_id or self.key.provider_id)

    @property
    def payer_id(self) -> UUID:
        """Whose pools and sessions: of a payer's or a session's key."""
        return cast("UUID", self.key.payer_id)

    @property
    def provider_id(self) -> UUID:
        """Whose agents: of a provider's key."""
        return cast("UUID", self.key.provider_id)

    @property
    def provider(self) -> Provider:
        """The provider; only of a provider's key."""
        return cast("Provider", self.key.provider)


def actor_of(request: HttpRequest | Request, now: datetime) -> Actor:
    """Return who is calling, with one query. Raises Problem or `keys.Unauthenticated`."""
    header = request.META.get("HTTP_AUTHORIZATION", "")
    scheme, _, token = header.partition(" ")
    if not header:
        raise Problem("unauthenticated", "Send an API key: Authorization: Bearer am_test_...")
    if scheme.lower() != "bearer":
        raise Problem("unauthenticated", "The Authorization header must be: Bearer and an API key.")
    return Actor(_authenticate(token.strip(), rates.address_of(request.META), now))


def _authenticate(token: str, address: str, now: datetime) -> ApiKey:
    """Return the key; who comes with too many that open nothing is refused before the database is asked."""
    try:
        _, secret_hash = keys.parse(token)
        if not rates.is_live(secret_hash):
            rates.UNAUTHENTICATED.standing(address).require()
        key = keys.authenticate(token=token, now=now)
    except keys.Unauthenticated:
        rates.UNAUTHENTICATED.hit(address).require()
        raise
    rates.note_live(secret_hash)
    return key
