"""The x402 package's facilitator over HTTP, as its documentation has it: threads that verify, and settle on chain.

The `exact` scheme is the package's own, whole. The contract of `batch-settlement` is not part of the package and exists
on public chains only, so a deposit into a channel is believed here instead of sent: it opens a channel before the clock
starts. The vouchers that are measured never come here: the package's server checks them by itself.
"""

import argparse
import os
from typing import Any

import uvicorn
from fastapi import FastAPI
from x402 import x402FacilitatorSync
from x402.mechanisms.evm import FacilitatorWeb3Signer
from x402.mechanisms.evm.exact import register_exact_evm_facilitator
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse


class Deposits:
    """A facilitator scheme that believes deposits into channels."""

    scheme = "batch-settlement"
    caip_family = "eip155:*"

    def __init__(self, address: str) -> None:
        """Take the address that may claim and refund for the receiver."""
        self._address = address

    def get_extra(self, _: str) -> dict[str, str]:
        """Name who authorises for the receiver."""
        return {"receiverAuthorizer": self._address}

    def get_signers(self, _: str) -> list[str]:
        """Name who sends."""
        return [self._address]

    def verify(self, payload: Any, _: Any, __: Any = None) -> Any:
        """Say that a deposit is good; refuse all else, so that nothing measured can come here unnoticed."""
        if payload.payload["type"] != "deposit":
            return VerifyResponse(is_valid=False, invalid_reason="only deposits")
        return VerifyResponse(is_valid=True, payer=_payer(payload), extra=_channel(payload, "0"))

    def settle(self, payload: Any, _: Any, __: Any = None) -> Any:
        """Say that a deposit is on chain."""
        amount = payload.payload["deposit"]["amount"]
        return SettleResponse(
            success=True,
            transaction="0x" + 64 * "0",
            network=payload.accepted.network,
            payer=_payer(payload),
            amount=amount,
            extra={"channelState": _channel(payload, amount)},
        )


def _payer(payload: Any) -> Any:
    return payload.payload["channelConfig"]["payer"]


def _channel(payload: Any, balance: str) -> dict[str, object]:
    channel_id = payload.payload["voucher"]["channelId"]
    return {
        "channelId": channel_id,
        "balance": balance,
        "totalClaimed": "0",
        "withdrawRequestedAt": 0,
        "refundNonce": "0",
    }


def application(rpc_url: str, network: str) -> Any:
    """Return the facilitator as an ASGI application; its key comes in the environment."""
    signer = FacilitatorWeb3Signer(private_key=os.environ["FACILITATOR_KEY"], rpc_url=rpc_url)
    facilitator = x402FacilitatorSync()
    register_exact_evm_facilitator(facilitator, signer, networks=network)
    facilitator.register([network], Deposits(signer.address))

    def answer(body: dict[str, Any], does: Any) -> Any:
        payload = PaymentPayload.model_validate(body["paymentPayload"])
        requirements = PaymentRequirements.model_validate(body["paymentRequirements"])
        return does(payload, requirements).model_dump(by_alias=True, exclude_none=True)

    def verify(body: dict[str, Any]) -> Any:
        return answer(body, facilitator.verify)

    def settle(body: dict[str, Any]) -> Any:
        return answer(body, facilitator.settle)

    def supported() -> Any:
        return facilitator.get_supported().model_dump(by_alias=True, exclude_none=True)

    app = FastAPI()
    app.add_api_route("/verify", verify, methods=["POST"])
    app.add_api_route("/settle", settle, methods=["POST"])
    app.add_api_route("/supported", supported)
    return app


def main() -> None:
    """Serve on 127.0.0.1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rpc", required=True)
    parser.add_argument("--network", required=True)
    given = parser.parse_args()
    app = application(given.rpc, given.network)
    uvicorn.run(app, host="127.0.0.1", port=given.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
