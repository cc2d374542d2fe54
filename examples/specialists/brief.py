"""A review brief per outcome: from all findings of a run to a page that says what to look at first."""

from collections import Counter, defaultdict
from typing import Any

from agentmarket import Seller, Task, Unserviceable
from examples.findings import SEVERITIES, Finding, read_findings
from examples.specialists import SPECIALISTS

WEIGHTS = {"high": 10, "medium": 3, "low": 1}
MOST_FILES, MOST_FINDINGS, MOST_LINES, MOST_RULES = 10, 5, 8, 15
LONGEST = 160


def sell(seller: Seller) -> None:
    @seller.task("review-brief", price=SPECIALISTS["brief"].price)
    def write(task: Task) -> dict[str, Any]:
        try:
            findings = read_findings(task.brief)
        except ValueError as error:
            raise Unserviceable(str(error)) from None
        return {"markdown": markdown(str(task.brief.get("subject", "the code")), task.brief.get("files", 0), findings)}


def markdown(subject: str, files: int, findings: list[Finding]) -> str:
    by_file: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_file[finding.file].append(finding)
    ranked = sorted(by_file, key=lambda name: (-_weight(by_file[name]), name))
    return "\n".join(
        [
            f"# Review brief: {_plain(subject)}",
            "",
            _summary(files, findings, ranked),
            "",
            "## Look here first",
            "",
            *(line for name in ranked[:MOST_FILES] for line in _file(name, by_file[name])),
            "## What was found, by rule",
            "",
            *_rules(findings),
            "",
        ]
    )


def _summary(files: int, findings: list[Finding], ranked: list[str]) -> str:
    if not findings:
        return f"{files} files were checked for bugs, risks and complexity; nothing was found."
    counts = Counter(finding.severity for finding in findings)
    shares = ", ".join(f"{counts[severity]} {severity}" for severity in SEVERITIES if counts[severity])
    few = ranked[: max(1, len(ranked) // 5)]
    weight = sum(WEIGHTS[finding.severity] for finding in findings)
    inside = sum(WEIGHTS[finding.severity] for finding in findings if finding.file in few)
    return (
        f"{files} files were checked for bugs, risks and complexity: {len(findings)} findings ({shares}) in "
        f"{len(ranked)} of them. {len(few)} files hold {inside * 100 // weight} % of the weight "
        f"(high {WEIGHTS['high']}, medium {WEIGHTS['medium']}, low {WEIGHTS['low']}): begin with those."
    )


def _file(name: str, findings: list[Finding]) -> list[str]:
    """A file's findings, those of one rule and message on one line, the worst first."""
    same: dict[tuple[int, str, str], list[int]] = defaultdict(list)
    for finding in sorted(findings):
        same[SEVERITIES.index(finding.severity), finding.rule, finding.message].append(finding.line)
    worst = sorted(same.items(), key=lambda item: (item[0][0], -len(item[1]), item[1]))
    more = sum(len(lines) for _, lines in worst[MOST_FINDINGS:])
    return [
        f"### `{_plain(name)}` ({len(findings)} findings, weight {_weight(findings)})",
        "",
        *(_line(SEVERITIES[place], rule, message, lines) for (place, rule, message), lines in worst[:MOST_FINDINGS]),
        *([f"- and {more} more"] if more else []),
        "",
    ]


def _line(severity: str, rule: str, message: str, lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:MOST_LINES])) + (" …" if len(lines) > MOST_LINES else "")
    return f"- {severity}, `{_plain(rule)}`, line {shown}: {_plain(message)}"


def _rules(findings: list[Finding]) -> list[str]:
    counts = Counter(finding.rule for finding in findings)
    example = {finding.rule: finding for finding in sorted(findings, reverse=True)}
    rows = [
        f"| `{_plain(rule)}` | {count} | {_plain(example[rule].message)} |"
        for rule, count in counts.most_common(MOST_RULES)
    ]
    return ["| rule | times | for example |", "| --- | ---: | --- |", *rows] if rows else ["Nothing."]


def _weight(findings: list[Finding]) -> int:
    return sum(WEIGHTS[finding.severity] for finding in findings)


def _plain(text: str) -> str:
    """One line that cannot change the page around it, whoever wrote it."""
    line = " ".join(text.replace("`", "'").replace("|", "/").replace("<", "‹").replace(">", "›").split())
    return line if len(line) <= LONGEST else line[:LONGEST] + "…"
