"""`make gas`: what settling, and the whole life of a pool, cost on chain, beside paying each payment by itself.

Lives here: the command and its table. Every figure is gas of receipts, of one run on one chain.
"""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.gas import profile, scenes, snapshot
from benchmarks.gas.yard import FOREVER, Yard, chain, providers
from escrow.chain.compiler import DEPLOYED_SIZE_LIMIT
from escrow.chain.deploy import TRANSACTION_GAS_CAP

NOTES: Final = (
    "Everybody who is paid holds test USDC already, here and in the peers: an account's first token costs 17,100 gas more.",
    "settle: records x providers. settle_many: pools x records (x providers, one unless told). life: payments x providers.",
    "settle, settle_many: pools at work; each line was credited before and the bitmap word is begun.",
    f"life: {scenes.BATCH} micropayments a batch, netted into one record a provider, with a fee. No dispute window, providers",
    "  allowed when first owed; the end is one transaction: last batch, closing, every withdrawal, the payer's rest.",
    "life_held: a day to dispute in, providers listed at opening; the end is every withdrawal and the payer's rest.",
    "Gas of execution on an L2. What the L1 takes for the data is not in it, for nobody here.",
)


def measure(yard: Yard) -> dict[str, Any]:
    """Run every scene; return the report."""
    peers = {"erc3009": scenes.erc3009(yard), "push": scenes.push(yard)}
    three = providers(3)
    yard.next_day()
    _, opening = yard.open(yard.terms(three, FOREVER), three, 40_000_000)
    settles = {f"{count}x{among}": scenes.settle(yard, count, among) for count, among in scenes.SETTLES}
    many = f"{scenes.POOLS}x{scenes.RECORDS}"
    together = {many: scenes.settle_many(yard, 1), f"{many}x3": scenes.settle_many(yard, 3)}
    lives = {f"{count}x{among}": (count, scenes.instant_life(yard, count, among)) for count, among in scenes.LIVES}
    held = {f"{count}x{among}": (count, scenes.held_life(yard, count, among)) for count, among in scenes.LIVES}
    size = len(yard.client.request("eth_getCode", [yard.contract.address, "latest"])) // 2 - 1
    assert yard.largest < TRANSACTION_GAS_CAP, f"a transaction took {yard.largest:,} gas"
    assert size < DEPLOYED_SIZE_LIMIT, f"BudgetPool has {size:,} bytes"
    return {
        "settle": settles,
        "life": {name: life.total / count for name, (count, life) in lives.items()},
        "life_held": {name: life.total / count for name, (count, life) in held.items()},
        "settle_many": together,
        "open_pool": {"3": opening.gas_used},
        "peers": peers,
        "transactions": yard.largest,
        "bytecode": size,
        "life_steps": {name: asdict(life) for name, (_, life) in lives.items()},
        "life_held_steps": {name: asdict(life) for name, (_, life) in held.items()},
        "settle_many_one_rejected": {many: scenes.settle_many(yard, 1, poisoned=1)},
    }


def table(report: dict[str, Any]) -> Table:
    """Lay the report out beside what the peers cost."""
    by_signature, by_push = report["peers"]["erc3009"], report["peers"]["push"]
    rows = Table("measured", "gas", "per", "of ERC-3009", "of push")

    def add(name: str, gas: float, per: str, *, compared: bool = True) -> None:
        shares = (f"{gas / by_signature:.1%}", f"{gas / by_push:.1%}") if compared else ("", "")
        rows.add_row(name, f"{gas:,.0f}", per, *shares)

    add("ERC-3009 transfer", by_signature, "payment")
    add("transfer (push)", by_push, "payment")
    for size, gas in report["settle"].items():
        add(f"settle {size}", gas, "record")
    for size, gas in report["settle_many"].items():
        add(f"settle_many {size}", gas, "record")
    for size, gas in report["settle_many_one_rejected"].items():
        add(f"settle_many {size}, one pool rejected", gas, "record")
    for kind in ("life", "life_held"):
        for size, gas in report[kind].items():
            count = int(size.split("x")[0])
            add(f"{kind} {size}", gas, "payment")
            for step, total in report[f"{kind}_steps"][size].items():
                add(f"  {step}: {total:,}", total / count, "payment")
    for size, gas in report["open_pool"].items():
        add(f"openPool, {size} providers", gas, "pool", compared=False)
    add("largest transaction", report["transactions"], f"cap {TRANSACTION_GAS_CAP:,}", compared=False)
    add("BudgetPool, bytes", report["bytecode"], f"cap {DEPLOYED_SIZE_LIMIT:,}", compared=False)
    return rows


def check(report: dict[str, Any], console: Console) -> int:
    """Say what differs from the snapshot; 1 when something is worse."""
    wrong, better = snapshot.compare(report, snapshot.read())
    for line in wrong:
        console.print(f"gas is worse: {line}")
    for line in better:
        console.print(f"gas is better: {line}")
    if wrong or better:
        console.print("`make gas ARGS=--write` makes these the figures to hold to; docs/GAS.md tells them, too.")
    return 1 if wrong else 0


def main() -> int:
    """Measure, and do with the figures what is asked."""
    parser = argparse.ArgumentParser(prog="make gas", description=__doc__)
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    asked.add_argument("--check", action="store_true", help="fail when a figure is over 2 % worse than the snapshot")
    asked.add_argument("--write", action="store_true", help="make the measured figures the snapshot")
    asked.add_argument("--profile", action="store_true", help="print where the gas of three transactions goes")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    if options.profile:
        with chain("--steps-tracing") as url:
            console.print(profile.profiles(Yard(url)), markup=False)
        return 0
    with chain() as url:
        report = snapshot.rounded(measure(Yard(url)))
    if options.check:
        return check(report, console)
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
        return 0
    if options.write:
        snapshot.write(report)
    console.print(table(report))
    for note in NOTES:
        console.print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
