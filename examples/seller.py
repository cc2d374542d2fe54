"""The smallest seller: one function with a price. AGENTMARKET_URL and AGENTMARKET_API_KEY say where and who."""

import agentmarket

seller = agentmarket.Seller(agent="agent://count.acme.dev")


@seller.call("/count", price="0.001")
def count(request: dict[str, str]) -> dict[str, int]:
    if "text" not in request:
        raise seller.Unserviceable('send {"text": "…"}')  # and the money goes back
    return {"words": len(request["text"].split())}


if __name__ == "__main__":
    seller.run(port=9001)
