"""`make bench`: how fast payments are over HTTP, as one table, with what they are held against measured in the same run.

Machines are noisy and differ, so every rate stands beside the floor (the SQL function alone), a naive implementation and the
x402 reference stack on this machine in this run; those ratios travel, the figures do not. Everything is on one machine: the
load generator takes its share of the same cores. At the end the books are held against the chain.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import django
from django.utils import timezone
from rich.console import Console
from rich.table import Table

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
django.setup()
logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request would be most of the output

from benchmarks import machine, picture  # noqa: E402  (Django must be set up first)
from benchmarks.bench import SETTINGS, Bench, Options, Row  # noqa: E402
from benchmarks.scenarios import SCENARIOS  # noqa: E402
from escrow import reconcile  # noqa: E402
from escrow.chain.client import ChainClient  # noqa: E402
from marketplace.management.stack.stack import Stack  # noqa: E402

RESULTS: Final = Path(__file__).with_name("results")
QUICK: Final = Options(
    runs=1,
    seconds=1.0,
    pools=10,
    rows=20_000,
    fixed_rate=50.0,
    repeats=2,
    rounds=5,
    settled=200,
    draw=False,
    rivals=False,
)
TABLE_WIDTH: Final = 132
DRAWN: Final = "latency.svg"
TITLE: Final = "Latency of a payment over HTTP, 64 callers as fast as they can"


def measure(
    names: Sequence[str], options: Options, say: Callable[[str], None]
) -> tuple[list[Row], bool, dict[str, Any]]:
    """Run scenarios; return their rows, whether the books equal the chain, and what the machine was like."""
    rows: list[Row] = []
    with Stack(settings=SETTINGS, report=say) as stack:
        bench = Bench(stack, options, say)
        about, whole = machine.description(), machine.Watch()
        for name in SCENARIOS:
            if name not in names:
                continue
            say(f"{name} ...")
            watch, begun = machine.Watch(), time.monotonic()
            row = SCENARIOS[name](bench)
            row.extras |= {"foreign_cpu": watch.foreign(), "took_s": round(time.monotonic() - begun, 1)}
            rows.append(row)
            say(f"{name}: {json.dumps(row.document())}")
            for fault in row.broken:
                say(f"{name}: NOT EXACT: {fault}")
        about |= {
            "fsync_us": round(machine.fsync_us(), 1),
            "foreign_cpu": whole.foreign(),
            "pools_opened_in_s": round(bench.market.opening_seconds, 1),
        }
        say("holding the books against the chain ...")
        report = reconcile.reconcile(client=ChainClient(stack.urls.rpc), now=timezone.now())
        for line in (*report.differences, *report.alarms):
            say(f"books: {line}")
    return rows, report.equal and not report.alarms, about


def main() -> int:
    """Measure and print; exit 1 when a micro is off or a scenario was not exact."""
    chosen, options, as_json = _arguments()
    progress = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    rows, equal, about = measure(chosen, options, progress.print)
    if as_json:
        found = {"scenarios": [row.document() for row in rows], "reconciled": equal, "machine": about}
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _print(rows, equal, about)
    if options.draw and any(row.histogram for row in rows):
        RESULTS.mkdir(exist_ok=True)
        drawn = picture.draw([(row.name, row.histogram) for row in rows], TITLE)
        (RESULTS / DRAWN).write_text(drawn, encoding="utf-8")
    return 0 if equal and not any(row.broken for row in rows) else 1


def _arguments() -> tuple[list[str], Options, bool]:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--only", action="append", choices=[*SCENARIOS], help="this scenario only; may be repeated")
    parser.add_argument(
        "--skip", action="append", choices=[*SCENARIOS], default=[], help="all but this one; may be repeated"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short smoke: seconds instead of minutes, no comparisons"
    )
    parser.add_argument("--no-rivals", action="store_true", help="measure neither the naive implementation nor x402")
    for name, kind, what in (
        ("runs", int, "each load is run so often, and the median one is told"),
        ("seconds", float, "how long one load lasts"),
        ("pools", int, "how many pools many_pools pays from"),
        ("rows", int, "how many payments rows_10m seeds"),
        ("fixed_rate", float, "arrivals a second of the open loop"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help=f"{what} (default: {getattr(Options, name)})"
        )
    given = parser.parse_args()
    base = vars(QUICK if given.quick else Options())
    asked = {name: value for name, value in vars(given).items() if name in base and value is not None}
    options = Options(**(base | asked | ({"rivals": False} if given.no_rivals else {})))
    return [name for name in given.only or SCENARIOS if name not in given.skip], options, given.json


def _print(rows: Sequence[Row], equal: bool, about: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, TABLE_WIDTH)  # into a file too, a row is one line
    columns = (
        "rate/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "refused",
        "errors",
        "x floor",
        "x naive",
        "x x402",
        "at the fixed rate",
    )
    table = Table()
    table.add_column("scenario", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        fixed = ""
        if row.extras.get("fixed_p50_ms") is not None:
            fixed = f"{row.extras['fixed_rate']:,.0f}/s: {row.extras['fixed_p50_ms']:.1f} / {row.extras['fixed_p99_ms']:.1f}"
        table.add_row(
            row.name if not row.broken else f"{row.name} NOT EXACT",
            _number(row.rate, 0),
            *(_number(value, 2) for value in (row.p50_ms, row.p95_ms, row.p99_ms)),
            *(str(row.refused), str(row.errors)),
            *(_number(value, 2) for value in (row.ratio_floor, row.ratio_naive, row.ratio_x402)),
            fixed,
        )
    console.print(table)
    for row in rows:
        rest = {key: value for key, value in row.extras.items() if not key.startswith("fixed_")}
        console.print(f"{row.name}: {json.dumps(rest)}")
    console.print(f"machine: {json.dumps(about)}")
    console.print(f"books equal chain: {'yes' if equal else 'NO'}")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
