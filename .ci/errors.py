"""Writes docs/errors.md from the codes that the API can answer; with --check, only sees that it is written."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")

import django  # noqa: E402

django.setup()

from marketplace.api.error_pages import markdown  # noqa: E402 - it needs Django set up

page = ROOT / "docs" / "errors.md"
if "--check" in sys.argv:
    is_written = page.exists() and page.read_text(encoding="utf-8") == markdown()
    sys.exit(None if is_written else "docs/errors.md is not what the code says. Run: .venv/bin/python .ci/errors.py")
page.write_text(markdown(), encoding="utf-8")
