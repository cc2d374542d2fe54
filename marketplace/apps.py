"""Django's entry for the market."""

from django.apps import AppConfig


class MarketplaceConfig(AppConfig):
    """The marketplace app."""

    name = "marketplace"
