"""One request, followed by its id: the answer's header, the web's lines, the chain action's row, the worker's lines."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.utils import timezone

from escrow.chain import contract, deploy
from escrow.models import ChainAction
from marketplace import keys
from marketplace.management.stack import ready
from marketplace.management.stack.supervisor import Service
from marketplace.models import Payer, Scope
from tests.onchain.conftest import Chain
from tests.stack.fleet import ROOT, fleet, until

pytestmark = pytest.mark.timeout(240)


def lines(text: str, request_id: str) -> list[dict[str, Any]]:
    """The JSON lines that name a request."""
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("request_id") == request_id]


def test_a_requests_id_leads_from_its_answer_to_the_chain(chain: Chain, settings: Any, tmp_path: Path) -> None:
    payer = Payer.objects.create(name="followed")
    mint = contract.mint_test_usdc(chain.payer_address(payer.pk), 5_000_000)
    deploy.send(chain.client, chain.somebody(), chain.token.address, mint)
    _, key = keys.issue(scope=Scope.PAYER, payer=payer, now=timezone.now())
    addresses = {
        name: str(getattr(settings, name)) for name in ("USDC_ADDRESS", "ESCROW_ADDRESS", "RPC_URL", "CHAIN_ID")
    }
    with ready.reserve(0, 1) as held:
        port = ready.port_of(held)
        with fleet(**addresses, SIGNER_KEYS_DIR=str(tmp_path / "keys"), SANDBOX="off") as made:
            argv = [sys.executable, "-m", "marketplace.server", "--port", str(port), "--share-port"]
            web = made.supervisor.start(Service("web", argv, {**made.environment, **_settings(settings)}, ROOT))
            url = f"http://127.0.0.1:{port}"
            made.supervisor.wait(web, ready.answers(f"{url}/livez"), 60)
            worker = made.worker("one")
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "followed"}
            answer = httpx2.post(f"{url}/v1/pools", json={"deposit": "5.00"}, headers=headers, timeout=30)
            assert answer.status_code == 202, answer.text
            request_id = answer.headers["x-request-id"]
            action = ChainAction.objects.get(pool_id=answer.json()["id"])
            assert action.request_id == request_id

            made.ask("escrow.relay_sweep")  # as beat would: a nudge that comes late is dropped
            at_work = until(lambda: lines(worker.output(), request_id), "the worker has a line about it")
            planned = lines(web.output(), request_id)
            refused = httpx2.post(f"{url}/v1/payments", json={"to": "x"}, headers=headers, timeout=30)
    assert [(line["logger"], line["action"]) for line in planned] == [("escrow.intents", action.pk)]
    assert {(line["action"], line["task"]) for line in at_work if "action" in line} == {
        (action.pk, "escrow.relay_sweep")
    }
    # A refusal names its own request, also in what it says.
    assert refused.json()["request_id"] == refused.headers["x-request-id"] != request_id


def _settings(settings: Any) -> dict[str, str]:
    return {"ESCROW_START_BLOCK": str(settings.ESCROW_START_BLOCK), "PATH": os.environ["PATH"]}
