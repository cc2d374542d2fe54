"""What the market answers: frozen, typed, and open to fields that are added later (see `Answer.extra`).

One module for each noun. Amounts are decimal strings, as on the wire. Statuses are plain strings, because a later market
may have more of them.
"""

from agentmarket.answers.market import Agent, Balance, ChainAction, Event, Key, Me, Offering, Pool
from agentmarket.answers.oversight import Approval, Backtest, Decision, Frozen, PolicyVersion, RuleCount, Verdict
from agentmarket.answers.payments import Called, Hold, Payment, Refund, Sent
from agentmarket.answers.reserves import Reserves, ReservesProof
from agentmarket.answers.sessions import Session, Transfer
from agentmarket.answers.work import Dispute, Invoice, Task

__all__ = [
    "Agent",
    "Approval",
    "Backtest",
    "Balance",
    "Called",
    "ChainAction",
    "Decision",
    "Dispute",
    "Event",
    "Frozen",
    "Hold",
    "Invoice",
    "Key",
    "Me",
    "Offering",
    "Payment",
    "PolicyVersion",
    "Pool",
    "Refund",
    "Reserves",
    "ReservesProof",
    "RuleCount",
    "Sent",
    "Session",
    "Task",
    "Transfer",
    "Verdict",
]
