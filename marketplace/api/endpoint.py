"""How an operation is declared and run. Lives here: `serves`, and the steps between a request and one domain call.

A declaration says who may call, what comes in, what goes out and whether money moves. It is enforced here, documented
by `marketplace.api.schema` and walked by the tests: there is no second list to keep in step.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID, uuid4

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from pydantic import BaseModel, ValidationError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.views import APIView

from escrow import clock, decisions
from escrow.errors import EscrowError
from marketplace import keys, webhooks
from marketplace.api import auth, forms, idempotency, parsing, rates, ways_on
from marketplace.api.auth import Actor
from marketplace.api.bodies import Nothing
from marketplace.api.downloads import Download
from marketplace.api.errors import Problem
from marketplace.api.fields import Shape
from marketplace.api.queries import NoQuery
from marketplace.api.ways_on import About
from marketplace.models import Scope

Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What an operation declares of itself."""

    scopes: frozenset[Scope]
    body: type[Shape]
    query: type[Shape]
    answer: type[BaseModel]
    status: int
    money: bool
    keeps_key: bool
    """Whether the domain call keeps the Idempotency-Key itself, as payments do."""
    pays: bool
    """Whether it is counted as a payment, of which a key may make many more than other calls."""
    csv: bool
    """Whether it answers in CSV too, to those who ask for that."""
    reveals: bool
    """Whether the answer shows a secret, derived from the idempotency record. Where no money moves that header is
    optional: whoever sends it can ask again for an answer that was lost."""
    revealed: str
    """The member that shows it: ``api_key``, or the ``secret`` of a webhook."""
    reads: bool  # a POST that changes nothing, because what it asks needs a body: read-only keys may
    before: "Callable[[Call], None] | None"
    """What is checked outside of every database transaction, because it waits for the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that may go ahead: who, what, when."""

    caller: Actor | None
    body: Any
    query: Any
    now: datetime  # where something may change, the database's: whatever this server's clock says
    about: About
    idempotency_key: str = ""
    request_hash: bytes = b""
    record_id: UUID | None = None
    media_type: str = "application/json"
    """What the caller has asked for, of what the operation answers in."""

    @property
    def actor(self) -> Actor:
        """Who calls; operations that are open to all must not ask."""
        if self.caller is None:
            raise LookupError("an operation that is open to all asked who calls")
        return self.caller


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that needs more than a shape: whether it has been given before, or another status."""

    shape: BaseModel
    replayed: bool = False
    status: int | None = None


class Endpoint(APIView):
    """A resource. Its methods are declared with `serves`; everything common is done there."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    def perform_authentication(self, request: Request) -> None:
        """Leave it to `serves`, which knows whether the operation wants a key."""


def serves(
    scopes: frozenset[Scope],
    *,
    answer: type[BaseModel],
    body: type[Shape] = Nothing,
    query: type[Shape] = NoQuery,
    status: int = 200,
    money: bool = False,
    keeps_key: bool = False,
    pays: bool = False,
    csv: bool = False,
    reveals: bool = False,
    revealed: Literal["api_key", "secret"] = "api_key",
    reads: bool = False,
    before: Callable[[Call], None] | None = None,
) -> Callable[[Handler], Handler]:
    """Declare a method of an `Endpoint`: it gets a `Call` and the path's parts, and returns a shape or a `Reply`."""
    if money and not scopes:
        raise ValueError("money moves for somebody: an operation that is open to all cannot move it")
    rule = Rule(
        scopes=scopes,
        body=body,
        query=query,
        answer=answer,
        status=status,
        money=money,
        keeps_key=keeps_key,
        pays=pays,
        csv=csv,
        reveals=reveals,
        revealed=revealed,
        reads=reads,
        before=before,
    )

    def declare(handler: Handler) -> Handler:
        def run(view: Endpoint, request: Request, **path: Any) -> HttpResponseBase:
            return _run(rule, handler, view, request, path)

        run.rule = rule  # type: ignore[attr-defined]
        run.__doc__ = handler.__doc__
        run.__name__ = handler.__name__
        return run

    return declare


def _run(rule: Rule, handler: Handler, view: Endpoint, request: Request, path: Mapping[str, Any]) -> HttpResponseBase:
    now = timezone.now()
    about = About(moves_money=rule.money, sent=lambda: ways_on.sent(rule.body, request))
    request.about = about  # type: ignore[attr-defined]
    actor = _admit(rule, request, now, about)
    key = _idempotency_key(rule, request)
    query = read(rule.query, _parameters(request))
    parsing.check_length(request)
    raw = {} if request.method in SAFE_METHODS else request.data
    body = read(rule.body, raw)
    request_hash = idempotency.hash_of(str(request.method), request.path, raw) if key else b""
    call = Call(
        caller=actor,
        body=body,
        query=query,
        now=now if rule.keeps_key or request.method in SAFE_METHODS else clock.now(),
        about=about,
        idempotency_key=key,
        request_hash=request_hash,
        media_type=request.accepted_renderer.media_type,
    )
    if rule.before is not None:
        rule.before(call)

    def handle(record_id: UUID | None = None) -> Any:
        try:
            return handler(view, replace(call, record_id=record_id), **path)
        except EscrowError as refusal:
            if rule.pays and actor and refusal.code in rates.STORED_REFUSALS:
                rates.REFUSALS.hit(actor.key.key_id)
            raise

    def effect(record_id: UUID | None = None) -> idempotency.Answer:
        return _answer(rule, handle(record_id))

    if not key or rule.keeps_key:
        if not rule.reveals:
            result = handle()
            if isinstance(result, Download):
                return result.response({"Cache-Control": "no-store", **about.quota})
            return _respond(_answer(rule, result), about)
        seed = uuid4()  # kept nowhere: this answer is the only one with the key
        return _respond(_reveal(rule, effect(seed), seed), about)
    owner = cast("Actor", actor).owner_id
    with decisions.on_record():
        answer, record_id = idempotency.once(owner_id=owner, key=key, request_hash=request_hash, effect=effect)
    return _respond(_reveal(rule, answer, record_id) if rule.reveals else answer, about)


def _idempotency_key(rule: Rule, request: Request) -> str:
    if rule.money:
        return idempotency.key_of(request)
    return idempotency.optional_key_of(request) if rule.reveals else ""


def _admit(rule: Rule, request: Request, now: datetime, about: About) -> Actor | None:
    if not rule.scopes:
        return None
    actor = auth.actor_of(request, now)
    about.scope = actor.scope
    about.session_id = str(actor.key.session_id) if actor.key.session_id else None
    standing = rates.count(actor.key.key_id, pays=rule.pays)
    about.quota = standing.headers
    standing.require()
    if actor.scope not in rule.scopes:
        wanted = " or ".join(sorted(rule.scopes))
        raise Problem("forbidden", f"This needs a key of scope {wanted}; yours is of scope {actor.scope}.")
    if actor.key.read_only and request.method not in SAFE_METHODS and not rule.reads:
        raise Problem("forbidden", "This key is read-only.")
    return actor


def read(shape: type[Shape], raw: object) -> Any:
    """Return what came in as its shape. Raises Problem with every field that is wrong."""
    try:
        return shape.model_validate(raw)
    except ValidationError as error:
        errors = forms.errors_of(error, shape)
        detail = errors[0]["message"] if len(errors) == 1 else f"{len(errors)} fields are wrong."
        raise Problem("invalid_request", detail, errors=errors) from None


def _parameters(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, values in request.query_params.lists():
        if len(values) > 1 or "\x00" in values[-1]:
            raise Problem("invalid_request", f"The parameter {name[:64]!r} comes twice or holds NUL.")
        found[name] = values[0]
    return found


def _answer(rule: Rule, result: Any) -> idempotency.Answer:
    if isinstance(result, Reply):
        return idempotency.Answer(
            result.status or rule.status, result.shape.model_dump_json(), replayed=result.replayed
        )
    return idempotency.Answer(rule.status, result.model_dump_json())


def _reveal(rule: Rule, answer: idempotency.Answer, record_id: UUID) -> idempotency.Answer:
    """Add the secret to the answer that shows it. It is not in the stored one; the record's id gives it again."""
    text = webhooks.secret_of(record_id) if rule.revealed == "secret" else keys.text_of(*keys.derive(record_id))
    return replace(answer, body=f'{answer.body[:-1]},"{rule.revealed}":"{text}"}}')


def _respond(answer: idempotency.Answer, about: About) -> HttpResponse:
    headers = {"Cache-Control": "no-store", **about.quota}
    response = HttpResponse(answer.body, status=answer.status, content_type="application/json", headers=headers)
    if answer.replayed:
        response["Idempotent-Replayed"] = "true"
    return response


def rules_of(view: type[Endpoint]) -> Iterable[tuple[str, Rule]]:
    """Return the methods of an endpoint and what they declare."""
    for method in ("get", "post", "delete"):
        handler = getattr(view, method, None)
        if handler is not None:
            yield method.upper(), handler.rule
