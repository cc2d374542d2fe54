"""What callers ask of lists: one shape for each set of query parameters. Unknown parameters are refused by name."""

from typing import Annotated, Literal

from django.conf import settings
from pydantic import BeforeValidator, Field, WithJsonSchema

from marketplace.api.fields import CapabilityIn, IdIn, Shape, wrong


def _read_number(value: object) -> object:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 18):
            raise wrong("must be ASCII digits", '"50"')
        return int(value)
    return value


def _read_flag(value: object) -> object:
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise wrong("must be true or false", '"true"')
        return value == "true"
    return value


Number = Annotated[int, BeforeValidator(_read_number)]
Flag = Annotated[bool, BeforeValidator(_read_flag)]
Limit = Annotated[
    Number,
    Field(ge=1, le=settings.API_PAGE_MAX),
    WithJsonSchema(
        {"type": "integer", "minimum": 1, "maximum": settings.API_PAGE_MAX, "default": settings.API_PAGE_DEFAULT}
    ),
]
BatchLimit = Annotated[
    Number,
    Field(ge=1, le=settings.API_PAGE_MAX_BATCHES),
    WithJsonSchema(
        {
            "type": "integer",
            "minimum": 1,
            "maximum": settings.API_PAGE_MAX_BATCHES,
            "default": settings.API_PAGE_MAX_BATCHES,
        }
    ),
]
PaymentStatus = Literal["payable", "settling", "settled", "refunded", "offset", "disputed"]
InvoiceStatus = Literal["submitted", "rejected", "disputed", "approved", "withdrawn", "ruled"]
TaskStatus = Literal[
    "posted", "assigned", "submitted", "accepted", "rejected", "disputed", "closed", "cancelled", "expired"
]
BatchStatus = Literal["signed", "settled", "void"]
DisputeStatus = Literal["opening", "open", "answered", "ruling", "ruled", "failed"]


ApprovalStatus = Literal["waiting", "approved", "refused", "expired"]


class NoQuery(Shape):
    """No parameters."""


class PageQuery(Shape):
    limit: Annotated[Limit, Field(description="Rows of a page.")] = settings.API_PAGE_DEFAULT
    cursor: Annotated[str | None, Field(description="`next` of the page before.", max_length=200)] = None


class PaymentQuery(PageQuery):
    session_id: IdIn | None = None
    status: PaymentStatus | None = None
    idempotency_key: Annotated[
        str | None, Field(description="The payment that a key has made, if any.", min_length=1, max_length=255)
    ] = None


class SessionQuery(PageQuery):
    pool_id: IdIn | None = None
    status: Literal["open", "paused", "closed"] | None = None
    parent_id: Annotated[IdIn | None, Field(description="Those inside one session.")] = None


class PoolQuery(PageQuery):
    status: Literal["opening", "open", "closing", "closed", "failed"] | None = None


class BatchQuery(PageQuery):
    limit: Annotated[BatchLimit, Field(description="Rows of a page.")] = settings.API_PAGE_MAX_BATCHES
    pool_id: IdIn | None = None
    status: BatchStatus | None = None


class TaskQuery(PageQuery):
    status: TaskStatus | None = None
    session_id: IdIn | None = None
    role: Annotated[Literal["buyer", "provider"] | None, Field(description="As whom; a key has one role only.")] = None
    open: Annotated[
        Flag, Field(description="Providers: posted tasks of nobody, for capabilities your agents have.")
    ] = False


class InvoiceQuery(PageQuery):
    session_id: IdIn | None = None
    status: InvoiceStatus | None = None


class ApprovalQuery(PageQuery):
    session_id: IdIn | None = None
    status: ApprovalStatus | None = None


class DecisionQuery(PageQuery):
    session_id: IdIn | None = None
    outcome: Literal["allowed", "denied"] | None = None


class DisputeQuery(PageQuery):
    session_id: IdIn | None = None
    status: DisputeStatus | None = None


class AgentQuery(PageQuery):
    capability: CapabilityIn | None = None
    q: Annotated[
        str | None, Field(description="A text in the name, URI or description.", min_length=1, max_length=100)
    ] = None


class EventQuery(Shape):
    after: Annotated[Number, Field(ge=0, description="The position to go on from.")] = 0
    limit: Limit = settings.API_PAGE_DEFAULT
