"""API keys of the naive project: a REST framework authentication class that looks the key up."""

import hmac

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from benchmarks.naive.models import Session


def hash_of(secret: str) -> bytes:
    """Return what is stored of a key's secret."""
    return hmac.digest(settings.API_KEY_PEPPER.encode(), secret.encode(), "sha256")


class KeyAuthentication(BaseAuthentication):
    """Authorization: Bearer <key id>_<secret>."""

    def authenticate(self, request: Request) -> tuple[Session, None] | None:
        """Return the session that the key spends from."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key_id, _, secret = token.partition("_")
        if scheme != "Bearer":
            return None
        session = Session.objects.filter(key_id=key_id).first()
        if session is None or not hmac.compare_digest(bytes(session.secret_hash), hash_of(secret)):
            raise AuthenticationFailed("No such API key.")
        return session, None

    def authenticate_header(self, request: Request) -> str:
        """Name the scheme, so that the answer is 401."""
        return "Bearer"
