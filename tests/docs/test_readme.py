"""The README's lines of the SDK do what their comments say."""

import re
from pathlib import Path

import pytest

from tests.sdk import stub
from tests.sdk.conftest import market

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

__all__ = ["market"]


def test_the_sdk_lines_run(
    market: stub.Market,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AGENTMARKET_URL", market.url)
    monkeypatch.setenv("AGENTMARKET_API_KEY", stub.PAYER_KEY)
    (block,) = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    namespace: dict[str, object] = {}
    exec(block, namespace)  # noqa: S102 - our own page
    promised = re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    for name in ("client", "agent"):
        namespace[name].close()  # type: ignore[attr-defined]
