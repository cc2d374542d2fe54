"""What callers send and get of refunds. Filling the shape from rows is `marketplace.api.show_refunds`'s."""

from typing import Annotated, Literal

from pydantic import Field

from marketplace.api.fields import Amount, AmountIn, Id, IdIn, Moment, Shape, Words
from marketplace.api.queries import PageQuery
from marketplace.api.shapes import USDC, Action, Page

RefundStatus = Literal["requested", "paid", "declined", "lapsed"]


class RefundTerms(Shape):
    reason: Words
    amount: Annotated[AmountIn | None, Field(description="Without it, all of the payment that has not gone back.")] = (
        None
    )


class RefundIn(Shape):
    payment_id: IdIn
    reason: Words
    amount: Annotated[AmountIn | None, Field(description="Without it, all of the payment that has not gone back.")] = (
        None
    )


class RefundQuery(PageQuery):
    session_id: IdIn | None = None
    payment_id: IdIn | None = None
    status: RefundStatus | None = None


class Refund(Shape):
    id: Id
    payment_id: Id
    session_id: Id
    provider_id: Id
    amount: Amount
    currency: USDC = "USDC"
    status: RefundStatus
    reason: Annotated[str, Field(description="Of whoever began it: the buyer's request, or the provider's own reason.")]
    answer: Annotated[str, Field(description="What became of a request, in words.")]
    answer_by: Annotated[Moment | None, Field(description="Then silence lapses it; null where nobody asked.")]
    created_at: Moment
    answered_at: Moment | None
    next_actions: list[Action]


class RefundPage(Page[Refund]): ...
