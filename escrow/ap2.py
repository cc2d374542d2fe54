"""A payer's limits in the words of the Agent Payments Protocol. Lives here: the constraints of an open payment mandate that
mean a limit of ours, and the refusal of the others. What a limit's value may be is `escrow.limits`'.

A constraint is read under its name as a key of the document, or from the protocol's own list, `constraints`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from escrow.errors import InvalidPolicy

CURRENCY: Final = "USDC"
MAX_CONSTRAINTS: Final = 20
LIST: Final = "constraints"
ALIASES: Final = {
    "payment.amount_range": "max_per_tx",
    "payment.budget": "max_total",
    "payment.allowed_payees": "allowed_recipients",
    "payment.execution_date": "expires_at",
}
"""Which limit a constraint is."""

_REFUSED: Final = {
    "payment.agent_recurrence": "max_tx_per_minute, max_per_hour, max_per_day or windows",
    "payment.reference": "the metadata of each payment",
    "payment.allowed_payment_instruments": "nothing: a session pays from its own pool",
    "payment.allowed_pisps": "nothing: no other service starts a payment",
    "checkout.line_items": "allowed_capabilities",
    "checkout.allowed_merchants": "payment.allowed_payees or allowed_recipients",
}
"""What does instead of a constraint that is the protocol's and no limit here."""


Asked = dict[str, tuple[str, object]]
"""What each limit is asked to be, under our own key: the field that says so, and its value."""


def canonical(document: Mapping[str, object]) -> Asked:
    """Return a document by our own keys. Raises InvalidPolicy for a constraint that is not read, or says a limit again."""
    asked: Asked = {
        key: (f"policy.{key}", value) for key, value in document.items() if key != LIST and not _is_constraint(key)
    }
    said = {key: key for key in asked}
    for name, value, field in _constraints(document):
        if name not in ALIASES:
            instead = _REFUSED.get(name, "one of " + ", ".join(ALIASES))
            raise InvalidPolicy(field, f"names {name}, a constraint that is not checked here", instead)
        limit = ALIASES[name]
        if limit in said:
            raise InvalidPolicy(field, f"says the same as {said[limit]}", "one of the two")
        said[limit] = name
        asked[limit] = _READERS[name](_members(value, field), field)
    return asked


def _is_constraint(key: str) -> bool:
    return key in ALIASES or key in _REFUSED or key.startswith(("payment.", "checkout."))


def _constraints(document: Mapping[str, object]) -> list[tuple[str, object, str]]:
    """Return each constraint's name, its value, and where it was said."""
    found = [(key, value, f"policy.{key}") for key, value in document.items() if _is_constraint(key)]
    if LIST not in document:
        return found
    listed = document[LIST]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_CONSTRAINTS:
        example = '[{"type": "payment.budget", "max": "10.00", "currency": "USDC"}]'
        raise InvalidPolicy(f"policy.{LIST}", f"must be a list of 1 to {MAX_CONSTRAINTS} constraints", example)
    for place, item in enumerate(listed):
        field = f"policy.{LIST}[{place}]"
        name = item.get("type") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise InvalidPolicy(field, "must be an object with its type", "one of " + ", ".join(ALIASES))
        found.append((name, {key: value for key, value in item.items() if key != "type"}, field))
    return found


def _members(value: object, field: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidPolicy(field, "must be an object, as the protocol has it", '{"max": "10.00", "currency": "USDC"}')
    return value


def _amount(members: dict[str, object], field: str) -> tuple[str, object]:
    if "min" in members:
        rule = "is not checked: a limit here is a most, and nobody is made to pay a least"
        raise InvalidPolicy(f"{field}.min", rule, "max alone")
    _require(members, ("max", "currency"), field, '{"max": "10.00", "currency": "USDC"}')
    if members["currency"] != CURRENCY:
        raise InvalidPolicy(f"{field}.currency", f"must be {CURRENCY}", f'"{CURRENCY}"')
    if not isinstance(members["max"], str):
        rule = "must be a decimal string: a number of the protocol is cents in one place and whole units in another"
        raise InvalidPolicy(f"{field}.max", rule, '"10.00"')
    return f"{field}.max", members["max"]


def _payees(members: dict[str, object], field: str) -> tuple[str, object]:
    example = '{"allowed": ["*.acme.dev"]}'
    _require(members, ("allowed",), field, example)
    listed = members["allowed"]
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise InvalidPolicy(f"{field}.allowed", "must be a list of agents' names or patterns", example)
    return f"{field}.allowed", listed


def _end(members: dict[str, object], field: str) -> tuple[str, object]:
    if "not_before" in members:
        rule = "is not checked: a session pays from its opening on"
        raise InvalidPolicy(f"{field}.not_before", rule, "not_after alone, or windows")
    _require(members, ("not_after",), field, '{"not_after": "2030-01-01T00:00:00Z"}')
    return f"{field}.not_after", members["not_after"]


def _require(members: dict[str, object], names: tuple[str, ...], field: str, example: str) -> None:
    for name in members:
        if name not in names:
            raise InvalidPolicy(f"{field}.{name}", "is not a member that is read", example)
    for name in names:
        if name not in members:
            raise InvalidPolicy(f"{field}.{name}", "is missing", example)


_READERS: Final[dict[str, Callable[[dict[str, object], str], tuple[str, object]]]] = {
    "payment.amount_range": _amount,
    "payment.budget": _amount,
    "payment.allowed_payees": _payees,
    "payment.execution_date": _end,
}
