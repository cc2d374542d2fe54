"""The pages point at what is there: each relative link of a Markdown file names a file, and each anchor a heading."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
SKIPPED = {".venv", "node_modules", ".git"}


def pages() -> list[Path]:
    """Every page that is ours: what git knows, or without git what is outside installed folders."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout.split("\0")
        return sorted(ROOT / name for name in listed if name and (ROOT / name).exists())
    except (OSError, subprocess.CalledProcessError):
        return sorted(path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    names = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text))
    return set(names)


def broken(page: Path) -> list[str]:
    """What a page links to that is not there."""
    text = INLINE.sub("", FENCED.sub("", page.read_text(encoding="utf-8")))
    missing = []
    for link in LINK.findall(text):
        if ELSEWHERE.match(link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.is_relative_to(ROOT)
        if not inside or not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            missing.append(link)
    return missing


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    assert "LICENSE" in LINK.findall(page.read_text(encoding="utf-8"))
    lost = tmp_path / "lost.md"
    lost.write_text("[gone](nowhere.md) [out](https://acme.dev) `[code](x.md)`", encoding="utf-8")
    assert broken(lost) == ["nowhere.md"]
