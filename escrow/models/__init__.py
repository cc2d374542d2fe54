"""The tables of the money rooms: fields, constraints, statuses and their allowed moves. Behaviour lives in the verbs."""

from escrow.models.chain import Attempt, Batch, BatchRecord, ChainAction, ChainCursor, ChainLog, SignerNonce
from escrow.models.events import Event, EventMark
from escrow.models.ledger import Account, Reason, Transfer
from escrow.models.pools import Party, Pool, PoolProvider, Session
from escrow.models.refunds import Deduction, Refund
from escrow.models.spending import DUE, Dispute, Hold, Invoice, Payment

__all__ = [
    "DUE",
    "Account",
    "Attempt",
    "Batch",
    "BatchRecord",
    "ChainAction",
    "ChainCursor",
    "ChainLog",
    "Deduction",
    "Dispute",
    "Event",
    "EventMark",
    "Hold",
    "Invoice",
    "Party",
    "Payment",
    "Pool",
    "PoolProvider",
    "Reason",
    "Refund",
    "Session",
    "SignerNonce",
    "Transfer",
]
