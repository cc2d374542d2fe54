"""`escrow.money`: one form in, one form out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow import money
from escrow.errors import InvalidAmount

HOSTILE = [
    "-0", "-1", "-0.01", "1e3", "1E-6", "1e-7", "NaN", "nan", "Infinity", "-Infinity", "sNaN", "1_000", "１２", "٣",
    "+5", " 7 ", "7 ", " 7", "\t7", "7\n", "7\0", ".5", "1.", ".", "00012", "01", "00.5", "1,5", "1,000.00", "0x10",
    "0b1", "1" + "0" * 30, "1" * 1_001, "1" * 13, "1.0000000", "0.0000001", "1.2.3", "--1", "1-", "½", "²", "1\u200b",
    "\u22121", "$1", "1 USDC", "true", "null", "", "\ud800", "1/2", "∞",
]  # fmt: skip
NOT_STRINGS = [0.1, 0.30000000000000004, 1, 0, -1, 10**30, float("nan"), True, False, None, [], {}, ["1"], b"1.00"]


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
@pytest.mark.promise("S33")
def test_strings_of_another_form_are_refused(value: str) -> None:
    with pytest.raises(InvalidAmount) as caught:
        money.parse(value, field="deposit")
    assert caught.value.facts["field"] == "deposit"
    assert caught.value.code == "invalid_request"
    assert caught.value.facts["would_pass"] == 'a string such as "0.008"'


@pytest.mark.parametrize("value", NOT_STRINGS, ids=repr)
@pytest.mark.promise("S33")
def test_what_is_no_string_is_refused(value: object) -> None:
    with pytest.raises(InvalidAmount, match="must be a decimal string, not a number"):
        money.parse(value)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0.008", 8_000),
        ("0.000001", 1),
        ("1", 1_000_000),
        ("1.0", 1_000_000),
        ("25.00", 25_000_000),
        ("0.10", 100_000),
        ("10", 10_000_000),
        ("999999999999.999999", 10**18 - 1),
    ],
)
@pytest.mark.promise("S3", "S33")
def test_decimal_strings_are_read_to_the_micro(text: str, micros: int) -> None:
    assert money.parse(text) == micros


@pytest.mark.parametrize("zero", ["0", "0.0", "0.000000"])
def test_zero_is_below_the_least_unless_it_is_asked_for(zero: str) -> None:
    with pytest.raises(InvalidAmount) as caught:
        money.parse(zero)
    assert caught.value.facts["would_pass"] == '"0.000001" or more'
    assert money.parse(zero, minimum=0) == 0


def test_a_minimum_is_named_in_the_refusal() -> None:
    assert money.parse("1.00", minimum=1_000_000) == 1_000_000
    with pytest.raises(InvalidAmount, match=r"must be at least 1\.00"):
        money.parse("0.999999", minimum=1_000_000)


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0.00"), (1, "0.000001"), (8_000, "0.008"), (25_000_000, "25.00"), (100_000, "0.10"), (-8_000, "-0.008")],
)
def test_amounts_are_shown_with_two_to_six_decimals(micros: int, text: str) -> None:
    assert money.render(micros) == text


@given(st.integers(min_value=0, max_value=money.MAX_MICROS))
def test_what_is_shown_is_read_back(micros: int) -> None:
    assert money.parse(money.render(micros), minimum=0) == micros


@given(st.text(max_size=25))
def test_no_string_is_read_as_something_it_does_not_show(text: str) -> None:
    try:
        micros = money.parse(text, minimum=0)
    except InvalidAmount:
        return
    assert text.isascii()
    assert money.parse(money.render(micros), minimum=0) == micros


@pytest.mark.parametrize(
    ("micros", "bps", "floor"),
    [(10, 7_000, 7), (1, 5_000, 0), (3, 5_000, 1), (9_999, 1, 0), (10_000, 1, 1), (2_400_001, 7_000, 1_680_000)],
)
def test_a_share_is_floored(micros: int, bps: int, floor: int) -> None:
    assert money.share(micros, bps) == floor


@given(st.integers(0, 10**18), st.integers(0, 10_000))
def test_a_share_and_its_rest_are_the_whole(micros: int, bps: int) -> None:
    assert 0 <= money.share(micros, bps) <= micros
    assert money.share(micros, 10_000) == micros
