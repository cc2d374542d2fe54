"""The pages for people."""

import pytest
from django.test import Client

from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db


def test_the_landing_page_links_to_everything(client: Client) -> None:
    page = client.get("/").content.decode()
    for link in ("/docs", "/admin/", "/agents", "/v1/openapi.json"):
        assert f'href="{link}"' in page
        assert client.get(link).status_code in (200, 302)


def test_the_catalogue_shows_prices(world: World, client: Client) -> None:
    page = client.get("/agents").content.decode()
    assert "agent://lint.acme.dev" in page
    assert "0.012 USDC a file" in page
    assert "agent://lint.acme.dev" not in client.get("/agents?capability=nothing").content.decode()
    assert client.get("/agents?capability=%00").status_code == 200


def test_what_providers_write_is_text_not_markup(world: World, client: Client) -> None:
    world.one.by_provider.post("/v1/agents", {"uri": "agent://x.acme.dev", "name": "<script>alert(1)</script>"})
    assert "<script>alert" not in client.get("/agents").content.decode()


def test_pages_are_only_read(client: Client) -> None:
    assert client.post("/").status_code == 405
