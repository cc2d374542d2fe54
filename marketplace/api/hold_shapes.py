"""What callers send and get of holds. Filling the shape from rows is `marketplace.api.show_holds`'s."""

from typing import Annotated, Literal

from django.conf import settings
from pydantic import Field

from marketplace.api.bodies import Currency
from marketplace.api.fields import AgentIn, Amount, AmountIn, CapabilityIn, Id, IdIn, JsonObject, Moment, Shape
from marketplace.api.queries import PageQuery
from marketplace.api.shapes import USDC, Page
from marketplace.api.ways_on import Action

HoldStatus = Literal["held", "captured", "released"]


class HoldIn(Shape):
    to: AgentIn
    amount: AmountIn
    currency: Currency = "USDC"
    metadata: JsonObject = {}
    session_id: Annotated[IdIn | None, Field(description="Out of which session. A session key holds its own's.")] = None
    capability: Annotated[
        CapabilityIn | None, Field(description="What it is for: one that the agent offers. A policy may ask for it.")
    ] = None
    expires_in_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=settings.HOLD_MAX_SECONDS,
            description="Then it is released by itself; earlier where the pool's own life asks for it.",
        ),
    ] = settings.HOLD_DEFAULT_SECONDS


class Capture(Shape):
    amount: Annotated[AmountIn | None, Field(description="Of what is held; the rest goes back. Without it, all.")] = (
        None
    )


class HoldQuery(PageQuery):
    session_id: IdIn | None = None
    status: HoldStatus | None = None


class Hold(Shape):
    id: Id
    session_id: Id
    to: str
    agent: str
    provider_id: Id
    amount: Amount
    captured: Annotated[Amount, Field(description="What of it became a payment.")]
    currency: USDC = "USDC"
    status: HoldStatus
    metadata: JsonObject
    capability: str | None
    expires_at: Annotated[
        Moment | None, Field(description="Null for one that belongs to a task or an invoice, and ends with that.")
    ]
    payment_id: Id | None
    remaining: Annotated[Amount | None, Field(description="What the session has left now; null for the provider.")]
    created_at: Moment
    next_actions: list[Action]


class HoldPage(Page[Hold]): ...
