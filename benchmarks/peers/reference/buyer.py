"""Buyers as the x402 package's documentation has them: its httpx client, which answers each 402 with a payment.

Several callers of one process share the channels that they are given; the result is one line of JSON. With --presigned
the vouchers are signed before the clock starts and sent without asking for the price: what the seller alone can do.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import uvloop
from eth_account import Account
from x402 import x402Client
from x402.http import x402HTTPClient
from x402.http.clients.httpx import PaymentError, x402HttpxClient
from x402.mechanisms.evm.batch_settlement.client import (
    BatchSettlementEvmScheme,
    BatchSettlementEvmSchemeOptions,
    InMemoryClientChannelStorage,
)
from x402.mechanisms.evm.exact import ExactEvmScheme

DEPOSIT = str(10**12)
WARM_UP = 5
"""Payments of each buyer before the clock starts; the first opens the channel."""


@dataclass
class Result:
    """What came of all calls."""

    paid: int = 0
    refused: int = 0
    seconds: float = 0.0
    taken_ms: list[float] = field(default_factory=list)


@dataclass
class Buyer:
    """One key, one channel."""

    client: Any
    channels: Any
    http: Any


def buyer(key: str, network: str) -> Buyer:
    """Return a buyer of one key, who pays any amount in any token."""
    account, channels = Account.from_key(key), InMemoryClientChannelStorage()
    options = BatchSettlementEvmSchemeOptions(storage=channels, deposit_strategy=lambda _: DEPOSIT)
    client = x402Client()
    client.register(network, ExactEvmScheme(account))
    client.register(network, BatchSettlementEvmScheme(account, options))
    client.set_spend_controls(False)  # they know only the real USDC
    return Buyer(client, channels, x402HttpxClient(client, timeout=30.0))


async def pay(http: Any, url: str, headers: dict[str, str] | None, result: Result) -> None:
    """Make one call and note what came of it."""
    begun = time.perf_counter()
    try:
        answer = await http.post(url, json={"text": "x"}, headers=headers)
        paid = answer.status_code == 200
    except PaymentError:
        paid = False
    if paid:
        result.paid += 1
        result.taken_ms.append((time.perf_counter() - begun) * 1_000)
    else:
        result.refused += 1


async def call(buyer: Buyer, url: str, until: float, result: Result) -> None:
    """Pay one time after another."""
    while time.perf_counter() < until:
        await pay(buyer.http, url, None, result)


async def send(http: Any, url: str, vouchers: list[dict[str, str]], until: float, result: Result) -> None:
    """Send vouchers one after another."""
    for voucher in vouchers:
        if time.perf_counter() >= until:
            return
        await pay(http, url, voucher, result)


async def presign(buyer: Buyer, url: str, count: int) -> list[dict[str, str]]:
    """Return the headers of the next payments of a channel, as the package's client makes them."""
    asked = await httpx.AsyncClient().post(url, json={"text": "x"})
    wire = x402HTTPClient(buyer.client)
    required = wire.get_payment_required_response(asked.headers.get, asked.json())
    headers = []
    for _ in range(count):
        payload = await buyer.client.create_payment_payload(required)
        headers.append(wire.encode_payment_signature_header(payload))
        channel_id = payload.payload["voucher"]["channelId"].lower()
        channel = buyer.channels.get(channel_id).copy()
        channel.charged_cumulative_amount = payload.payload["voucher"]["maxClaimableAmount"]
        buyer.channels.set(channel_id, channel)
    return headers


async def run(given: argparse.Namespace) -> Result:
    """Open the channels, then pay for so many seconds."""
    buyers = [buyer(key, given.network) for key in os.environ["BUYER_KEYS"].split()]
    opening, result = Result(), Result()
    for each in buyers:
        for _ in range(WARM_UP):
            await pay(each.http, given.url, None, opening)
    if opening.refused:
        sys.exit(f"{opening.refused} payments before the clock started were refused")
    vouchers = [await presign(each, given.url, given.presigned) for each in buyers] if given.presigned else []
    begun = time.perf_counter()
    until = begun + given.seconds
    async with httpx.AsyncClient(timeout=30.0) as http:
        if vouchers:
            calls = [send(http, given.url, own, until, result) for own in vouchers]
        else:
            calls = [call(buyers[at % len(buyers)], given.url, until, result) for at in range(given.callers)]
        await asyncio.gather(*calls)
    result.seconds = time.perf_counter() - begun
    return result


def main() -> None:
    """Pay and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--presigned", type=int, default=0, help="how many vouchers of each channel")
    result = uvloop.run(run(parser.parse_args()))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
