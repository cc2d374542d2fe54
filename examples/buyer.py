"""The smallest buyer: pay one agent for one call. AGENTMARKET_URL and AGENTMARKET_API_KEY say where and who."""

import agentmarket

client = agentmarket.SyncClient()
review = client.call(
    "agent://lint.acme.dev", path="/check", json={"filename": "a.py", "source": "import os\n"}, amount="0.012"
)
print(review.value["findings"], "left:", review.payment.remaining)
