"""The HTTP API under /v1. Each operation authenticates, reads its input, makes one domain call and shows the result.

Nothing here decides about money: amounts are parsed by `escrow.money`, refused by `escrow`, and only rendered here.
"""
