"""Django's entry for the money."""

from django.apps import AppConfig


class EscrowConfig(AppConfig):
    """The escrow app."""

    name = "escrow"
