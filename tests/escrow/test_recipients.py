"""`escrow.recipients`: what is an agent's name, whom a pattern means, and which pattern holds another one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow import recipients
from escrow.errors import InvalidPolicy

LOOK_ALIKES = [
    "agent://acme.dev",
    "agent://evilacme.dev",
    "agent://acme.dev.evil",
    "agent://lint.acme.dev.evil",
    "agent://lint.acme.dev.",
    "agent://lint.acme.dev..",
    "agent://Lint.acme.dev",
    "agent://lint.ACME.dev",
    "AGENT://lint.acme.dev",
    "agent:/lint.acme.dev",
    "agent:lint.acme.dev",
    "agent:///lint.acme.dev",
    "agent://.acme.dev",
    "agent://..acme.dev",
    "agent://*.acme.dev",
    "agent://*",
    "agent://*.*",
    "agent://*.dev",
    "agent://a*.acme.dev",
    "agent://lint..acme.dev",
    "agent://-lint.acme.dev",
    "agent://lint-.acme.dev",
    "agent://li_nt.acme.dev",
    "agent://lint.acme.dev/x",
    "agent://lint.acme.dev?x",
    "agent://lint.acme.dev#x",
    "agent://lint.acme.dev:80",
    "agent://lint.acme.dev\\x",
    "agent://user@lint.acme.dev",
    "agent://evil.dev/.acme.dev",
    "agent://evil.dev#.acme.dev",
    "agent://lint%2eacme.dev",
    "agent:// lint.acme.dev",
    "agent://lint.acme.dev ",
    " agent://lint.acme.dev",
    "agent://lint.acme.dev\n",
    "agent://lint.acme.dev\r\n",
    "agent://lint.acme.dev\t",
    "agent://lint.acme.dev\x00",
    "agent://\x00lint.acme.dev",
    "agent://lint\u200b.acme.dev",
    "agent://lınt.acme.dev",
    "agent://lint.аcme.dev",
    "agent://lint。acme.dev",
    "agent://lint．acme.dev",
    "agent://lint｡acme.dev",
    "agent://ｌｉｎｔ.acme.dev",
    "agent://lint.acme．dev",
    "agent://①.acme.dev",
    "agent://bücher.acme.dev",
    "https://lint.acme.dev",
    "lint.acme.dev",
    "agent://agent://lint.acme.dev",
    f"agent://{'a' * 64}.acme.dev",
    f"agent://{'a.' * 130}acme.dev",
    "agent://" + "a" * 49 + ".a" * 98 + ".acme.dev",
    "agent://",
    "",
]


@pytest.mark.parametrize(
    "agent",
    [
        "agent://lint.acme.dev",
        "agent://a.b.acme.dev",
        "agent://0.acme.dev",
        "agent://acme.dev.acme.dev",
        "agent://xn--bcher-kva.acme.dev",
        f"agent://{'a' * 63}.acme.dev",
        "agent://" + "a" * 48 + ".a" * 98 + ".acme.dev",
    ],
)
@pytest.mark.promise("S8")
def test_a_wildcard_means_the_labels_below(agent: str) -> None:
    assert recipients.matches("*.acme.dev", agent)
    assert recipients.matches("agent://*.acme.dev", agent)


def test_the_longest_name_has_253_characters() -> None:
    longest, longer = ("a" * size + ".a" * 98 + ".acme.dev" for size in (48, 49))
    assert (len(longest), len(longer)) == (253, 254)
    assert recipients.host_of(f"agent://{longest}") == longest
    assert recipients.host_of(f"agent://{longer}") is None


@pytest.mark.parametrize("agent", LOOK_ALIKES, ids=ascii)
@pytest.mark.promise("S8")
def test_a_wildcard_means_nothing_else(agent: str) -> None:
    assert not recipients.matches("*.acme.dev", agent)
    assert not recipients.matches("lint.acme.dev", agent)


@pytest.mark.parametrize("pattern", ["lint.acme.dev", "agent://lint.acme.dev"])
def test_a_name_means_itself(pattern: str) -> None:
    assert recipients.matches(pattern, "agent://lint.acme.dev")
    assert not recipients.matches(pattern, "agent://a.lint.acme.dev")
    assert not recipients.matches(pattern, "agent://acme.dev")
    assert not recipients.matches(pattern, "agent://evillint.acme.dev")


def test_punycode_is_compared_as_it_is_written() -> None:
    assert recipients.matches("xn--bcher-kva.dev", "agent://xn--bcher-kva.dev")
    assert not recipients.matches("xn--bcher-kva.dev", "agent://bücher.dev")


@pytest.mark.parametrize(
    "pattern",
    [
        "*", "*.*", "*.*.dev", "lint.*.dev", "*acme.dev", "l*.acme.dev", "acme.dev*", "*.", "*.dev.", "dev", "**.acme.dev",
        "*.*.acme.dev", "*..acme.dev", "agent://*", "agent://agent://acme.dev", "*.agent://acme.dev",
        "Acme.dev", "ACME.DEV", "acme.dev.", ".acme.dev", "acme..dev", "https://acme.dev", "agent://", "acme.dev/x",
        "acme.dev:80", "user@acme.dev", " acme.dev", "acme.dev ", "acme.dev\n", "acme.dev\x00", "bücher.dev", "acme．dev",
        "acme。dev", "*。acme.dev", "＊.acme.dev", f"{'a' * 64}.dev", "*." + "a." * 124 + "acme.dev", "",
        1, 0.5, True, None, ["acme.dev"], {"host": "acme.dev"},
    ],
    ids=ascii,
)  # fmt: skip
def test_patterns_of_another_form_are_refused(pattern: object) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        recipients.patterns([pattern], field="policy.allowed_recipients")
    assert caught.value.facts == {
        "field": "policy.allowed_recipients",
        "rule": "must hold lower-case DNS names, with a wildcard only as the whole leftmost label",
        "would_pass": '"*.acme.dev", "lint.acme.dev" or "agent://lint.acme.dev"',
    }


@pytest.mark.parametrize("pattern", ["*.dev", "*.com", "agent://*.dev", "*.xn--p1ai", "*.localhost"])
def test_a_wildcard_of_a_whole_top_level_domain_is_refused_and_the_reason_is_said(pattern: str) -> None:
    with pytest.raises(InvalidPolicy, match="anybody can have a name right below"):
        recipients.patterns([pattern], field="policy.allowed_recipients")


def test_each_pattern_is_kept_once_and_in_order() -> None:
    listed = ["b.acme.dev", "*.acme.dev", "b.acme.dev", "agent://b.acme.dev"]
    assert recipients.patterns(listed, field="f") == ("b.acme.dev", "*.acme.dev", "agent://b.acme.dev")


@pytest.mark.parametrize("listed", [[], "acme.dev", None, {}, [f"a{n}.acme.dev" for n in range(101)]], ids=type)
def test_a_list_of_patterns_has_one_to_a_hundred(listed: object) -> None:
    with pytest.raises(InvalidPolicy, match="must be a list of 1 to 100 patterns"):
        recipients.patterns(listed, field="policy.denied_recipients")


@pytest.mark.parametrize("listed", [[], "code.lint", None, {}, [f"c{n}" for n in range(101)]], ids=type)
def test_a_list_of_capabilities_has_one_to_a_hundred(listed: object) -> None:
    with pytest.raises(InvalidPolicy, match="must be a list of 1 to 100 capabilities"):
        recipients.capabilities(listed, field="policy.allowed_capabilities")


@pytest.mark.parametrize(
    "name", ["", "Code", "code lint", "-code", ".code", "code*", "*", "code\n", "a" * 65, "cöde", 1, None], ids=ascii
)
def test_a_capability_of_another_form_is_refused(name: object) -> None:
    with pytest.raises(InvalidPolicy, match="must hold names of 1 to 64"):
        recipients.capabilities(["code.lint", name], field="policy.allowed_capabilities")


@pytest.mark.parametrize(
    ("wider", "narrower", "does"),
    [
        ("*.acme.dev", "*.acme.dev", True),
        ("*.acme.dev", "agent://*.acme.dev", True),
        ("agent://*.acme.dev", "lint.acme.dev", True),
        ("*.acme.dev", "*.lint.acme.dev", True),
        ("*.acme.dev", "a.b.acme.dev", True),
        ("*.acme.dev", "acme.dev", False),
        ("*.acme.dev", "evilacme.dev", False),
        ("*.acme.dev", "*.evilacme.dev", False),
        ("*.acme.dev", "lint.acme.dev.evil", False),
        ("*.lint.acme.dev", "*.acme.dev", False),
        ("lint.acme.dev", "lint.acme.dev", True),
        ("lint.acme.dev", "agent://lint.acme.dev", True),
        ("lint.acme.dev", "*.lint.acme.dev", False),
        ("lint.acme.dev", "a.lint.acme.dev", False),
        ("acme.dev", "*.acme.dev", False),
    ],
)
def test_a_pattern_covers_those_whose_every_agent_it_means(wider: str, narrower: str, does: bool) -> None:
    assert recipients.covers(wider, narrower) is does


names = st.lists(st.sampled_from(["a", "b", "acme"]), min_size=2, max_size=4).map(".".join)
some_pattern = st.tuples(st.sampled_from(["", "agent://"]), st.sampled_from(["", "*."]), names).map("".join)


@given(wider=some_pattern, narrower=some_pattern, name=names)
def test_what_a_covered_pattern_means_the_covering_one_means_too(wider: str, narrower: str, name: str) -> None:
    agent = f"agent://{name}"
    if recipients.covers(wider, narrower) and recipients.matches(narrower, agent):
        assert recipients.matches(wider, agent)


@given(text=st.text())
def test_only_a_name_in_lower_case_ascii_is_a_host(text: str) -> None:
    host = recipients.host_of(f"agent://{text}")
    assert host is None or (
        host == text == text.lower() and text.isascii() and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    )
