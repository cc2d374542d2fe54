"""Whatever is wrong with the money is a problem by name, and a problem is an exit code that is not 0."""

from typing import Any

import pytest

from marketplace.management.demo.facts import problems_of


def sound() -> dict[str, Any]:
    return {
        "books": {"differences": [], "alarms": [], "in_flight": []},
        "payments": {"unexplained": []},
        "chain_actions": [{"kind": "settle", "status": "final", "tx_hash": "0x1"}],
        "pool": {"adds_up": True},
        "providers": [{"agent": "agent://a.acme.dev", "gross": "1.00", "fee": "0.01", "balance": "0.99"}],
    }


def test_sound_books_have_no_problem() -> None:
    assert problems_of(sound()) == []


@pytest.mark.parametrize(
    ("room", "wrong", "said"),
    [
        ("books", {"differences": ["free"], "alarms": [], "in_flight": []}, "the books differ: free"),
        ("books", {"differences": [], "alarms": ["stopped"], "in_flight": []}, "the books differ: stopped"),
        ("books", {"differences": [], "alarms": [], "in_flight": ["settle"]}, "still on its way: settle"),
        ("payments", {"unexplained": ["p1"]}, "payment p1 is unexplained"),
        ("chain_actions", [{"kind": "settle", "status": "reverted", "tx_hash": "0x1"}], "settle is reverted 0x1"),
        ("chain_actions", [{"kind": "withdraw", "status": "parked", "tx_hash": ""}], "withdraw is parked "),
        ("pool", {"adds_up": False}, "what came back, what was paid out and the fees are not what was deposited"),
        (
            "providers",
            [{"agent": "agent://a.acme.dev", "gross": "1.00", "fee": "0.01", "balance": "0.989999"}],
            "agent://a.acme.dev has 0.989999 USDC, not 1.00 less 0.01",
        ),
    ],
)
def test_each_wrong_is_named(room: str, wrong: object, said: str) -> None:
    assert problems_of(sound() | {room: wrong}) == [said]
