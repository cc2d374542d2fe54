"""A review brief per outcome: from all findings of a run to a page that says what to look at first."""

from collections import Counter, defaultdict
from typing import Any

from agentmarket import Seller, Task, Unserviceable
from examples.findings import SEVERITIES, Finding, read_findings
from examples.specialists import SPECIALISTS

WEIGHTS = {"high": 10, "medium": 3, "low": 1}
MOST_FILES, MOST_FINDINGS, MOST_RULES = 10, 5, 15


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
    worst = sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding.line))
    more = len(worst) - MOST_FINDINGS
    return [
        f"### `{_plain(name)}` ({len(findings)} findings, weight {_weight(findings)})",
        "",
        *(
            f"- line {item.line}, {item.severity}, `{_plain(item.rule)}`: {_plain(item.message)}"
            for item in worst[:MOST_FINDINGS]
        ),
        *([f"- and {more} more"] if more > 0 else []),
        "",
    ]


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
    return " ".join(text.replace("`", "'").replace("|", "/").replace("<", "‹").replace(">", "›").split())[:300]
