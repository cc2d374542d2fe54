"""A seller as the x402 package's documentation has it: FastAPI, its payment middleware, two paid routes."""

import argparse
from typing import Any

import uvicorn
from fastapi import FastAPI
from x402 import AssetAmount, x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.http.middleware.fastapi import payment_middleware
from x402.http.types import PaymentOption, RouteConfig
from x402.mechanisms.evm.batch_settlement.server import BatchSettlementEvmScheme
from x402.mechanisms.evm.exact.server import ExactEvmScheme


def sold() -> dict[str, bool]:
    """Answer a paid request."""
    return {"sold": True}


def application(given: argparse.Namespace) -> Any:
    """Return the seller as an ASGI application."""
    server = x402ResourceServer(HTTPFacilitatorClient(FacilitatorConfig(url=given.facilitator)))
    server.register(given.network, ExactEvmScheme())
    server.register(given.network, BatchSettlementEvmScheme(given.payee))
    price = AssetAmount(amount="1000", asset=given.asset, extra={"name": "USDC", "version": "2"})
    routes = {
        f"POST /{scheme}": RouteConfig(
            accepts=PaymentOption(scheme=scheme, pay_to=given.payee, price=price, network=given.network)
        )
        for scheme in ("exact", "batch-settlement")
    }
    app = FastAPI()
    app.middleware("http")(payment_middleware(routes, server))
    app.add_api_route("/exact", sold, methods=["POST"])
    app.add_api_route("/batch-settlement", sold, methods=["POST"])
    return app


def main() -> None:
    """Serve on 127.0.0.1, with the fastest loop and parser that uvicorn has."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--port", "--facilitator", "--network", "--asset", "--payee"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    uvicorn.run(
        application(given),
        host="127.0.0.1",
        port=int(given.port),
        access_log=False,
        log_level="warning",
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    main()
