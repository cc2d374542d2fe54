"""What `make mutate` found: the scores, and each change that no test notices, with the reason that survivors.toml gives."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/MUTANTS.md"
BAR_PERCENT = 90


@dataclass(frozen=True)
class Survivor:
    function: str
    before: str
    after: str

    @property
    def reason(self) -> str:
        return _reasons().get((self.function, self.before, self.after), "")

    def entry(self) -> str:
        """Return it as it stands in survivors.toml."""
        return f'[[survivor]]\nin = "{self.function}"\nbefore = {_toml(self.before)}\nafter = {_toml(self.after)}\nwhy = ""\n'


@dataclass(frozen=True)
class Score:
    piece: str
    files: Sequence[str]
    tests: Sequence[str]
    measured: Mapping[str, Any]
    mutants: int
    stopped: int
    untried: int
    survivors: Sequence[Survivor]

    @property
    def killed(self) -> int:
        return self.mutants - self.untried - len(self.survivors)

    @property
    def percent(self) -> float:
        return 100 * self.killed / self.mutants if self.mutants else 0.0

    def line(self) -> str:
        told = f"{self.piece}: {self.killed} of {self.mutants} noticed, {self.percent:.1f} %, {len(self.survivors)} survive"
        told += f", {self.stopped} hang" if self.stopped else ""
        return told + (f", {self.untried} not tried" if self.untried else "")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(scores: Sequence[Score], *, write: bool) -> int:
    """Say what survives without a reason; return 1 when something does, or when too much does."""
    unexplained = [survivor for score in scores for survivor in score.survivors if not survivor.reason]
    for survivor in unexplained:
        say(survivor.entry())
    for score in scores:
        say(score.line())
    say(f"{len(unexplained)} survive without a reason in .ci/mutants/survivors.toml")
    if write:
        _write([score for score in scores if score.measured], [score for score in scores if not score.measured])
    return 1 if unexplained or any(score.percent < BAR_PERCENT or score.untried for score in scores) else 0


def _toml(text: str) -> str:
    return f"'{text}'" if "'" not in text else f"'''{text}'''"


@cache
def _reasons() -> dict[tuple[str, str, str], str]:
    table = tomllib.loads(Path(HERE, "survivors.toml").read_text(encoding="utf-8"))
    return {(row["in"], row["before"], row["after"]): row["why"] for row in table.get("survivor", [])}


def _write(scores: Sequence[Score], others: Sequence[Score]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- scores -->\n", "<!-- end of scores -->\n"
    head, _, rest = page.partition(begin)
    tail = rest.partition(end)[2]
    PAGE.write_text(
        "".join([head, begin, *_table(scores), *_missing(others), *_lists(scores), end, tail]), encoding="utf-8"
    )


def _table(scores: Sequence[Score]) -> list[str]:
    rows = [
        "| code | content (`git rev-parse HEAD:<file>`) | measured | mutants | noticed | survive | score |\n",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |\n",
    ]
    for score in scores:
        files = ", ".join(f"`{file}`" for file in score.files)
        of = ", ".join(score.measured["of"].values())
        aside = f" ({score.stopped} because they hang)" if score.stopped else ""
        aside += f" ({score.untried} not tried)" if score.untried else ""
        rows.append(
            f"| {files} | {of} | {score.measured['on']} | {score.mutants} | {score.killed}{aside} "
            f"| {len(score.survivors)} | {score.percent:.1f} % |\n"
        )
    return rows


def _missing(others: Sequence[Score]) -> list[str]:
    files = [f"`{file}`" for score in others for file in score.files]
    return [f"\nNot measured yet: {', '.join(files)}.\n"] if files else []


def _lists(scores: Sequence[Score]) -> list[str]:
    lines: list[str] = []
    for score in scores:
        if not score.survivors:
            continue
        lines += [
            f"\n### What survives in {score.piece}\n\n",
            "| in | change | why it is left |\n",
            "| --- | --- | --- |\n",
        ]
        for one in score.survivors:
            change = f"{_code(one.before)} → {_code(one.after)}" if one.after else f"{_code(one.before)} removed"
            lines.append(f"| `{one.function}` | {change} | {one.reason or '**no reason yet**'} |\n")
    return lines


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
