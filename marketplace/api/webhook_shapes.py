"""The shapes of webhooks: what callers send and what they get. Filling them from rows is `marketplace.api.webhooks`'."""

from typing import Annotated, Literal

from django.conf import settings
from pydantic import AfterValidator, Field, StringConstraints

from marketplace import addresses, webhooks
from marketplace.api.fields import Id, Line, Moment, Shape, refused_as_wrong
from marketplace.api.queries import PageQuery
from marketplace.api.shapes import Action, Page

Status = Literal["active", "disabled"]
DeliveryStatus = Literal["pending", "delivered", "dead"]


def _read_url(value: str) -> str:
    addresses.read(value)
    return value


UrlIn = Annotated[
    str,
    StringConstraints(min_length=1, max_length=addresses.LONGEST_URL),
    AfterValidator(refused_as_wrong(_read_url)),
    Field(description="https, a full DNS name, a port that is 443 or above 1023.", examples=[addresses.EXAMPLE]),
]
TypeIn = Annotated[
    str,
    StringConstraints(max_length=40),
    AfterValidator(refused_as_wrong(webhooks.check_filter)),
]


class WebhookIn(Shape):
    url: UrlIn
    events: Annotated[
        list[TypeIn],
        Field(
            max_length=webhooks.MAX_FILTERS,
            description="Types to deliver, `payment.*` for all of a family. Empty, or left out: everything.",
            examples=[["payment.created", "invoice.*"]],
        ),
    ] = []
    description: Line | None = None


class SecretRotation(Shape):
    overlap_seconds: Annotated[
        int, Field(ge=0, le=7 * 24 * 3600, description="How long the secret before still signs, beside the new one.")
    ] = settings.WEBHOOK_OVERLAP_SECONDS


class ReplayIn(Shape):
    after: Annotated[
        int | None,
        Field(ge=0, le=2**53, description="Deliver every event after this position again, whatever became of it."),
    ] = None


class DeliveryQuery(PageQuery):
    status: DeliveryStatus | None = None


class Webhook(Shape):
    """An endpoint. Its secret is shown when it is made and when it is rotated, and never else."""

    id: Id
    url: str
    events: list[str]
    description: str
    status: Status
    reason: Annotated[str | None, Field(description="Why it is disabled.")]
    position: Annotated[int, Field(description="Every event of the feed up to here has its delivery.")]
    pending: Annotated[int, Field(description="Deliveries that wait.")]
    dead: Annotated[int, Field(description="Deliveries given up in the last 30 days.")]
    failing_since: Annotated[Moment | None, Field(description="The first failure after the last success.")]
    previous_secret_until: Moment | None
    created_at: Moment
    next_actions: list[Action]


class WebhookWithSecret(Webhook):
    """An endpoint with its secret, which is shown in this answer only."""

    secret: str


class WebhookDelivery(Shape):
    id: Id
    webhook_id: Annotated[str, Field(description="The header of that name: the same at every attempt.")]
    position: Annotated[int, Field(description="The event's position in the feed; 0 of a test.")]
    type: str
    subject_id: Id
    status: DeliveryStatus
    attempts: int
    next_attempt_at: Annotated[Moment | None, Field(description="Null when it is delivered or given up.")]
    last_status: Annotated[int | None, Field(description="What the endpoint answered last; null when it did not.")]
    last_error: str
    created_at: Moment
    delivered_at: Moment | None


class WebhookPage(Page[Webhook]): ...


class WebhookDeliveryPage(Page[WebhookDelivery]): ...
