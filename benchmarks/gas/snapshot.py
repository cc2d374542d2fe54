"""The committed figures, and when new ones are worse.

Lives here: `benchmarks/gas.json` and the comparison. Pure but for reading and writing that file.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).resolve().parents[1] / "gas.json"
TOLERANCE: Final = 0.02


def rounded(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report with whole numbers, as it is committed."""
    return {name: rounded(value) if isinstance(value, Mapping) else round(value) for name, value in report.items()}


def flat(report: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Give every figure with its dotted name."""
    for name, value in report.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def compare(measured: Mapping[str, Any], committed: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what is wrong with the measured figures, and what has become better, each as a line.

    Wrong is a figure that is more than 2 % above the committed one, and one that only one side has.
    """
    now, before = dict(flat(measured)), dict(flat(committed))
    wrong = [f"{name}: in the snapshot, not measured" for name in before.keys() - now.keys()]
    wrong += [f"{name}: measured, not in the snapshot" for name in now.keys() - before.keys()]
    better = []
    for name in now.keys() & before.keys():
        line = f"{name}: {before[name]:,.0f} before, {now[name]:,.0f} now ({now[name] / max(before[name], 1) - 1:+.1%})"
        if now[name] > before[name] * (1 + TOLERANCE):
            wrong.append(line)
        elif now[name] < before[name] * (1 - TOLERANCE):
            better.append(line)
    return sorted(wrong), sorted(better)


def read() -> dict[str, Any]:
    """Return the committed figures; none when there is no file yet."""
    committed: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {}
    return committed


def write(report: Mapping[str, Any]) -> None:
    """Make the measured figures the ones to hold to."""
    PATH.write_text(json.dumps(rounded(report), indent=2) + "\n")
