"""The chain itself, asked without the market: the contract's words, proofs of payments, and the ways out of a pool.

Nothing here talks to the market or believes it. Everything but `errors` needs the extra: `pip install 'agentmarket[chain]'`.
"""
