"""`agentmarket doctor`: one check after the other, each with what it found and what to do. It asks and changes nothing."""

import base64
import os
import platform
import re
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import click
import httpx2

import agentmarket
from agentmarket.cli.market.run import Run, market
from agentmarket.cli.market.shown import cell
from agentmarket.settings import settings, shown

#: seconds that two clocks may differ by: beyond it a policy's windows and an expiry surprise
MOST_SKEW = 30.0
_FORM = re.compile(r"(am_(?:test|live)_[a-z2-7]{12}_[a-z2-7]{32})([a-z2-7]{6})")
_LEFT = re.compile(r"\br=(\d+)")


@dataclass(frozen=True)
class Check:
    """What one check found. `ok` is None where there was nothing to check."""

    name: str
    ok: bool | None
    detail: str
    do: str | None = None


@dataclass
class Findings:
    """What is known so far: a check that needs what an earlier one did not find is left out."""

    http: httpx2.Client
    url: str = ""
    key: str = ""
    reply: httpx2.Response | None = None
    ready: httpx2.Response | None = None
    me: dict[str, Any] = field(default_factory=dict)
    me_reply: httpx2.Response | None = None
    session: dict[str, Any] = field(default_factory=dict)


@click.command(epilog="Exit codes: 0 all is well, 1 something is not: its line says what to do.")
@market
def doctor(run: Run) -> None:
    """Check the key, the market, the clock, the session and the pool; say what to do about each."""
    with httpx2.Client(timeout=run.timeout) as http:
        found = Findings(http)
        checks = [_guarded(check, found, run) for check in CHECKS]
    well = all(check.ok is not False for check in checks)
    lines = [_line(check) for check in checks]
    run.say(
        {"ok": well, "checks": [asdict(check) for check in checks]}, [*lines, "All is well." if well else "Not well."]
    )
    if not well:
        raise SystemExit(1)


def _line(check: Check) -> str:
    mark = {True: "✓", False: "✗", None: "–"}[check.ok]
    return f"{mark} {check.name}: {check.detail}" + (f" → {check.do}" if check.do else "")


def _guarded(check: Callable[[Findings, Run], Check], found: Findings, run: Run) -> Check:
    """A check that cannot be made is a finding too."""
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return check(found, run)
    except httpx2.HTTPError as error:
        return Check(name, False, f"no answer ({type(error).__name__})", "Is the address right, and the market up?")
    except (ValueError, KeyError, TypeError):
        return Check(name, False, "the answer cannot be read", "Is this the address of a market?")


def _key(found: Findings, run: Run) -> Check:
    key = os.environ.get("AGENTMARKET_API_KEY", "")
    if not key:
        return Check("key", False, "AGENTMARKET_API_KEY is not set", "Set it to the key that you were given.")
    match = _FORM.fullmatch(key)
    if match is None:
        return Check(
            "key", False, "not an API key", "A key reads am_test_<12 characters>_<38 characters>: copy all of it."
        )
    check = base64.b32encode(zlib.crc32(match[1].encode()).to_bytes(4, "big")).decode().lower().rstrip("=")[:6]
    if check != match[2]:
        return Check("key", False, f"{shown(key)} is mistyped: its check characters do not fit", "Copy the key anew.")
    found.key = key
    return Check("key", True, f"{shown(key)}, its check characters fit")


def _address(found: Findings, run: Run) -> Check:
    try:
        found.url = settings("none", run.url, run.timeout, 0).base_url
    except agentmarket.InvalidRequest as error:
        return Check("address", False, error.detail, "Set AGENTMARKET_URL, or give --url.")
    return Check("address", True, found.url)


def _reachable(found: Findings, run: Run) -> Check:
    if not found.url:
        return Check("reachable", None, "not tried")
    found.reply = found.http.get(f"{found.url}/livez")
    if found.reply.status_code != 200:
        return Check(
            "reachable", False, f"/livez answers {found.reply.status_code}", "Is this the address of a market?"
        )
    return Check("reachable", True, f"in {found.reply.elapsed.total_seconds() * 1000:.0f} ms")


def _ready(found: Findings, run: Run) -> Check:
    if found.reply is None:
        return Check("ready", None, "not tried")
    found.ready = found.http.get(f"{found.url}/readyz")
    told = found.ready.json()
    if told["status"] == "ready":
        return Check("ready", True, "database, queue and chain are there")
    return Check("ready", False, str(told.get("reason") or told["status"]), "The market's operators have to see to it.")


def _clock(found: Findings, run: Run) -> Check:
    if found.reply is None or "date" not in found.reply.headers:
        return Check("clock", None, "the market told no time")
    skew = (datetime.now(UTC) - parsedate_to_datetime(found.reply.headers["date"])).total_seconds()
    if abs(skew) > MOST_SKEW:
        return Check("clock", False, f"{skew:+.0f} s from the market's", "Set this machine's clock (NTP).")
    return Check("clock", True, f"within {MOST_SKEW:.0f} s of the market's")


def _who(found: Findings, run: Run) -> Check:
    if not found.key or found.reply is None:
        return Check("who", None, "not tried")
    found.me_reply = _ask(found, "/v1/me")
    told = found.me_reply.json()
    if found.me_reply.status_code != 200:
        return Check(
            "who", False, str(told.get("detail")), "Ask for another key, or set AGENTMARKET_URL to its market."
        )
    found.me = told
    extent = "may only look" if told.get("read_only") else "may spend" if told["scope"] != "provider" else "may sell"
    return Check("who", True, f"a {told['scope']} key, {extent}, chain {told.get('chain_id')}")


def _session(found: Findings, run: Run) -> Check:
    if not found.me or found.me["scope"] == "provider":
        return Check("session", None, "not a buyer's key" if found.me else "not tried")
    if found.me["scope"] == "payer":
        opened = _ask(found, "/v1/sessions?status=open&limit=100").json()["items"]
        left = ", ".join(f"{item['remaining']} in {item.get('name') or item['id']}" for item in opened[:3])
        told = f"{len(opened)} open: {left}" if opened else "none is open"
        return Check("session", True, told, None if opened else "agentmarket session create --budget 5.00")
    found.session = told = _ask(found, f"/v1/sessions/{found.me['session_id']}").json()
    rules = cell(told.get("policy")) or "no rules"
    if told["status"] != "open":
        return Check("session", False, f"{told['status']}", "The payer resumes it, or opens another.")
    if not told["remaining"].strip("0."):
        return Check("session", False, "nothing is left", f"agentmarket session top-up {told['id']} AMOUNT")
    return Check("session", True, f"{told['remaining']} of {told['budget']} USDC left; policy: {rules}")


def _pool(found: Findings, run: Run) -> Check:
    if not found.me or found.me["scope"] == "provider":
        return Check("pool", None, "not a buyer's key" if found.me else "not tried")
    place = found.session.get("pool_id")
    reply = _ask(found, "/v1/pools" if place is None else f"/v1/pools/{place}")
    if reply.status_code != 200:
        return Check("pool", None, "this key may not see it")
    pools = reply.json()["items"] if place is None else [reply.json()]
    live = [pool for pool in pools if pool["status"] == "open"]
    if not live:
        state = ", ".join(sorted({pool["status"] for pool in pools})) or "none"
        return Check(
            "pool", False, f"no pool is open ({state})", "Open one (POST /v1/pools), or wait until it is open."
        )
    return Check("pool", True, f"{len(live)} open: {', '.join(pool['available'] for pool in live[:3])} USDC free")


def _events(found: Findings, run: Run) -> Check:
    """What happens on the chain is told when it has been read: how long ago that was is how late events are."""
    age = None if found.ready is None else found.ready.json().get("chain_age_seconds")
    if age is None:
        return Check("events", None, "the market does not say when it last read the chain")
    if age > 60:
        return Check("events", False, f"the chain was read {age:.0f} s ago", "Events of the chain are late: wait.")
    return Check("events", True, f"the chain was read {age:.1f} s ago")


def _requests(found: Findings, run: Run) -> Check:
    limit = "" if found.me_reply is None else found.me_reply.headers.get("ratelimit", "")
    if not limit:
        return Check("requests", None, "the market states no limit")
    left = _LEFT.search(limit)
    used_up = left is not None and int(left[1]) == 0
    return Check("requests", not used_up, f"limit {limit}", "Wait before the next one." if used_up else None)


def _version(found: Findings, run: Run) -> Check:
    return Check("version", True, f"agentmarket {agentmarket.__version__}, Python {platform.python_version()}")


def _ask(found: Findings, path: str) -> httpx2.Response:
    return found.http.get(found.url + path, headers={"Authorization": f"Bearer {found.key}"})


CHECKS = (_key, _address, _reachable, _ready, _clock, _who, _session, _pool, _events, _requests, _version)
