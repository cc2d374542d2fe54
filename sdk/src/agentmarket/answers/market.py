"""The nouns around payments: agents and what they sell, pools, keys, events, and who asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentmarket.decode import Answer
from agentmarket.errors import NextAction


@dataclass(frozen=True, kw_only=True)
class Offering(Answer):
    id: str
    capability: str
    pricing: str
    price: str
    version: int = 1
    currency: str = "USDC"
    unit: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Agent(Answer):
    uri: str
    name: str
    endpoint: str | None = None
    description: str = ""
    provider_id: str | None = None
    provider_name: str | None = None
    capabilities: tuple[str, ...] = ()
    offerings: tuple[Offering, ...] = ()
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ChainAction(Answer):
    """A step of a pool on the chain."""

    kind: str
    status: str
    tx_hash: str | None = None
    gas_used: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pool(Answer):
    id: str
    status: str
    deposited: str
    available: str
    chain_id: int | None = None
    contract: str | None = None
    pool_key: str | None = None
    payer_address: str | None = None
    in_sessions: str = "0.00"
    held: str = "0.00"
    payable: str = "0.00"
    settling: str = "0.00"
    credited: str = "0.00"
    disputed: str = "0.00"
    withdrawn: str = "0.00"
    fees: str = "0.00"
    reclaimed: str = "0.00"
    currency: str = "USDC"
    expires_at: datetime | None = None
    created_at: datetime | None = None
    chain_actions: tuple[ChainAction, ...] = ()
    next_actions: tuple[NextAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Key(Answer):
    id: str
    #: the public part of the key itself: am_test_<key_id>_…
    key_id: str = ""
    name: str = ""
    scope: str | None = None
    read_only: bool = False
    session_id: str | None = None
    #: the most that a key of a session may spend of it
    ceiling: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    #: only in the answer that made the key
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Event(Answer):
    position: int
    type: str
    subject_id: str
    subject_type: str = ""
    at: datetime | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Me(Answer):
    scope: str
    key_id: str | None = None
    payer_id: str | None = None
    provider_id: str | None = None
    session_id: str | None = None
    read_only: bool = False
    chain_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Balance(Answer):
    """What a provider is owed and has been paid."""

    payable: str
    settling: str
    credited: str
    withdrawn: str
    disputed: str
    address: str | None = None
