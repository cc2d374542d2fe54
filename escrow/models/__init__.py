"""The tables of the money rooms: fields, constraints, statuses and their allowed moves. Behaviour lives in the verbs."""

from escrow.models.chain import Attempt, Batch, BatchRecord, ChainAction, ChainCursor, ChainLog, SignerNonce
from escrow.models.decisions import Approval, Decision, Denial, Kind
from escrow.models.events import Event, EventMark
from escrow.models.grants import Grant
from escrow.models.ledger import Account, Reason, Transfer
from escrow.models.pools import Party, Pool, PoolProvider, Session, SessionPolicy
from escrow.models.refunds import Deduction, Refund
from escrow.models.reserves import ReserveLeaf, ReserveReport
from escrow.models.spending import DUE, Dispute, Hold, Invoice, Payment
from escrow.models.watch import Pulse, Remedy, Setback

__all__ = [
    "DUE",
    "Account",
    "Approval",
    "Attempt",
    "Batch",
    "BatchRecord",
    "ChainAction",
    "ChainCursor",
    "ChainLog",
    "Decision",
    "Deduction",
    "Denial",
    "Dispute",
    "Event",
    "EventMark",
    "Grant",
    "Hold",
    "Invoice",
    "Kind",
    "Party",
    "Payment",
    "Pool",
    "PoolProvider",
    "Pulse",
    "Reason",
    "Refund",
    "Remedy",
    "ReserveLeaf",
    "ReserveReport",
    "Session",
    "SessionPolicy",
    "Setback",
    "SignerNonce",
    "Transfer",
]
