"""How a line of the log looks: one JSON object in production, plain text elsewhere; never a whole API key, nor
where a person answers an approval.

What is worth a line is decided where it happens.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Final

from escrow import trail

_API_KEY: Final = re.compile(r"\b(am_(?:test|live)_[a-z2-7]{12}_)[a-z2-7]+")
_APPROVAL: Final = re.compile(r"(/approvals/[0-9a-f-]{36}/)\w+")
"""The page of `marketplace.consent`: Django writes the path of what it refuses."""
_LINE_BREAKS: Final = str.maketrans({"\n": "\\n", "\r": "\\r"})


def redact(text: str) -> str:
    """Cut the secret out of every API key and every address of an approval's page, and leave the part that names it."""
    return _APPROVAL.sub(r"\1***", _API_KEY.sub(r"\1***", text))


def request_id(record: logging.LogRecord) -> str | None:
    """Return the id of the request that the line is about, where there is one."""
    found = getattr(record, "request_id", None) or getattr(getattr(record, "request", None), "request_id", None)
    return str(found or trail.request_id()) or None


class Json(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger, message, and where known the request's id, the chain action, the task, the traceback."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id(record),
            "action": trail.action_id(),
            "task": trail.task() or None,
            "traceback": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return redact(json.dumps({key: value for key, value in line.items() if value is not None}, default=str))


class Text(logging.Formatter):
    """One line for a person; a message cannot pretend to be another line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger and message, and the traceback below."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        about = f" [{found}]" if (found := request_id(record)) else ""
        line = f"{at} {record.levelname:<7} {record.name}: {record.getMessage().translate(_LINE_BREAKS)}{about}"
        return redact(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)
