"""A server of several processes counts in all of them together, whichever answers /metrics."""

import sys

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from marketplace.management.stack import ready
from marketplace.management.stack.supervisor import Service
from tests.stack.fleet import ROOT, fleet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]
COUNT = 40


def test_two_processes_count_together() -> None:
    with ready.reserve(0, 1) as held:
        port = ready.port_of(held)
        url = f"http://127.0.0.1:{port}"
        with fleet() as made:
            argv = [sys.executable, "-m", "marketplace.server", "--port", str(port), "--share-port", "--processes", "2"]
            web = made.supervisor.start(Service("web", argv, made.environment, ROOT))
            made.supervisor.wait(web, ready.answers(f"{url}/livez"), 90)
            before = _counted(url)
            for _ in range(COUNT):  # a connection for each, so that both processes are asked
                assert httpx2.get(f"{url}/v1/me").status_code == 401
            totals = {_counted(url) - before for _ in range(6)}
    assert totals == {COUNT}


def _counted(url: str) -> float:
    text = httpx2.get(f"{url}/metrics", timeout=30).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    named = [sample for sample in samples if sample.name == "market_http_requests_total"]
    assert not [sample for sample in named if "pid" in sample.labels]
    return sum(sample.value for sample in named if sample.labels["route"] == "v1/me")
