"""The page where a person answers an approval. Lives here: its address, which only the payer is told.

The address holds a token, so that whoever has it may answer this one approval, and nothing else. The database does not have it.
"""

import hashlib
import hmac

from django.conf import settings
from django.urls import reverse

from escrow.models import Approval


def token_of(approval: Approval) -> str:
    """Return what proves that somebody was told where an approval is answered."""
    return hmac.new(settings.API_KEY_PEPPER.encode(), f"approval:{approval.pk}".encode(), hashlib.sha256).hexdigest()


def page_of(approval: Approval) -> str:
    """Return the URL of the page where a person answers an approval."""
    path = reverse("approval", args=[approval.pk, token_of(approval)])
    return f"{settings.PUBLIC_URL.rstrip('/')}{path}"


def is_told(approval: Approval, token: str) -> bool:
    """Return whether a token is the approval's."""
    return hmac.compare_digest(token_of(approval).encode(), token.encode())
