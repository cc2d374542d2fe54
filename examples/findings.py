"""What a reviewer finds, and the request that asks for it. Shared by the specialists and who hires them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentmarket import Unserviceable

LONGEST_NAME = 200
#: the worst first
SEVERITIES = ("high", "medium", "low")


@dataclass(frozen=True, order=True)
class Finding:
    file: str
    line: int
    rule: str
    severity: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SourceFile:
    """One file as it is sent for review."""

    filename: str
    source: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def read_request(request: Any) -> SourceFile:
    """Raises Unserviceable for anything but a name and a source: who sent it gets the money back."""
    if not isinstance(request, Mapping):
        raise Unserviceable('Send {"filename": "…", "source": "…"}.')
    filename, source = request.get("filename"), request.get("source")
    if not isinstance(filename, str) or not isinstance(source, str) or not filename:
        raise Unserviceable('Send {"filename": "…", "source": "…"}, both as text.')
    if not filename.isprintable() or len(filename) > LONGEST_NAME:
        raise Unserviceable(f"A file name is one line of at most {LONGEST_NAME} visible characters.")
    if "\0" in source or any("\ud800" <= letter <= "\udfff" for letter in source):
        raise Unserviceable(f"{filename} has characters that no Python source has.")
    return SourceFile(filename, source)


def read_findings(document: Any) -> list[Finding]:
    """The findings of an answer or a brief. Raises ValueError for another shape."""
    try:
        return [
            Finding(str(item["file"]), int(item["line"]), str(item["rule"]), _severity(item), str(item["message"]))
            for item in document["findings"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"these are no findings: {error!r}") from None


def answer(findings: list[Finding]) -> dict[str, Any]:
    return {"findings": [finding.to_json() for finding in sorted(findings)]}


def unparsable(file: SourceFile, why: str) -> Unserviceable:
    return Unserviceable(f"{file.filename} is not Python that can be parsed: {why}")


def _severity(item: Mapping[str, Any]) -> str:
    severity = str(item["severity"])
    return severity if severity in SEVERITIES else "low"
