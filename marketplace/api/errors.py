"""Refusals on the wire (RFC 9457). Lives here: turning every exception into a problem, with its facts.

The codes and their meanings are in `marketplace.api.problems`.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from rest_framework import exceptions
from rest_framework.request import Request

from escrow.errors import EscrowError, InvalidInput
from marketplace.api import ways_on
from marketplace.api.problems import KINDS
from marketplace.api.ways_on import About, Asked

AnyRequest = HttpRequest | Request
"""Django REST framework wraps the request of an endpoint; other views have Django's own."""

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 1
"""A database that restarts or a lock that is waited for is back within seconds."""

_WAITS: Final = {"pool_opening": RETRY_AFTER_SECONDS, "settlement_paused": 60}
"""Refusals of the money rooms that time lifts. A chain that stands still does so for many minutes."""

CONTENT_TYPE: Final = "application/problem+json"

FACTS: Final = (
    *(
        "rule",
        "limit",
        "spent",
        "remaining",
        "required",
        "would_allow",
        "policy_version",
        "approval_id",
        "available_at",
    ),
    *("checkpoint", "subject", "state", "settles_by"),
)
"""The facts of a refusal that become members of the problem."""


class Problem(Exception):
    """A refusal that the API itself makes."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, object]] = (),
        facts: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        retryable: bool = False,
        untouched: bool = False,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = [dict(error) for error in errors]
        self.facts = dict(facts or {})
        self.headers = dict(headers or {})
        self.retryable = retryable
        self.untouched = untouched
        """Whether it is certain, for a fault of ours too, that the request has had no effect."""


def invalid(name: str, rule: str, would_pass: str) -> Problem:
    """Return the problem of one wrong field, parameter or header."""
    message = f"{name} {rule}."
    error = {"field": name, "rule": rule, "message": message, "would_pass": would_pass}
    return Problem("invalid_request", message, errors=[error])


def problem_of(exc: Exception) -> Problem:
    """Return any exception as a problem; what nobody foresaw is ``internal``, and logged by the caller."""
    match exc:
        case Problem():
            return exc
        case InvalidInput():
            facts = exc.facts
            return invalid(str(facts["field"]), str(facts["rule"]), str(facts["would_pass"]))
        case EscrowError():
            facts = {name: exc.facts[name] for name in FACTS if name in exc.facts}
            code = exc.code if exc.code in KINDS else "conflict"
            waits = {"Retry-After": str(_WAITS[code])} if code in _WAITS else None
            return Problem(code, exc.detail, facts=facts, headers=waits, retryable=exc.retryable)
        case OperationalError() | InterfaceError():
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return Problem("unavailable", "The database did not answer in time.", headers=headers, retryable=True)
        case _:
            return _of_framework(exc)


def _of_framework(exc: Exception) -> Problem:
    match exc:
        case Http404() | exceptions.NotFound():
            return Problem("not_found", "There is nothing at this address, or nothing that this key may see.")
        case exceptions.MethodNotAllowed():
            return Problem("method_not_allowed", str(exc.detail))
        case exceptions.NotAcceptable(available_renderers=offered):
            kinds = " or ".join(str(renderer.media_type) for renderer in offered or ())
            return Problem("not_acceptable", f"Answers here are {kinds}; the Accept header leaves that out.")
        case exceptions.UnsupportedMediaType():
            return Problem("unsupported_media_type", "The body must be application/json in UTF-8.")
        case PermissionDenied() | exceptions.PermissionDenied():
            return Problem("forbidden", "This is not allowed.")
        case SuspiciousOperation() | BadRequest() | UnreadablePostError() | exceptions.ParseError():
            return Problem("invalid_request", "The request is malformed.")
        case _:
            return Problem("internal", "Something broke here; the fault is logged.", retryable=True)


def handle(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer an exception of a view. Django REST framework calls this for every one."""
    response = answer(exc, context["request"])
    if isinstance(exc, exceptions.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response


def answer(exc: Exception, request: AnyRequest) -> HttpResponse:
    """Return the problem document of an exception as a response."""
    about = getattr(request, "about", None) or About()
    asked = Asked(
        request.method or "GET", request.path, request_id(request), about, request.META.get("QUERY_STRING", "")
    )
    status, headers, body = render(exc, asked)
    headers["Cache-Control"] = "no-store"
    return HttpResponse(body, status=status, content_type=CONTENT_TYPE, headers=headers)


def render(exc: Exception, asked: Asked) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers beside the content type, and the problem document of an exception."""
    problem = problem_of(exc)
    kind = KINDS[problem.code]
    if problem.untouched or kind.is_refusal:  # refused for want of room: a traceback for each would be one load more
        logger.warning("%s %s refused, request %s: %s", asked.method, asked.path, asked.request_id, problem.detail)
    elif kind.status >= 500:
        logger.error("%s %s failed, request %s", asked.method, asked.path, asked.request_id, exc_info=exc)
    document: dict[str, object] = {
        "type": f"/docs/errors/{problem.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "code": problem.code,
    }
    if problem.errors:
        document["errors"] = problem.errors
    document |= problem.facts
    document["retryable"] = problem.retryable
    if asked.about.moves_money:
        document["outcome"] = "not_charged" if problem.untouched else kind.outcome
    document["next_actions"] = [way.model_dump() for way in ways_on.after(problem.code, problem.facts, asked)]
    document["request_id"] = asked.request_id
    headers = {**asked.about.quota, **problem.headers}
    if kind.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="agent market"'
    return kind.status, headers, json.dumps(document, separators=(",", ":"))


def request_id(request: AnyRequest) -> str:
    """Return the id of a request; the middleware gives it, and a request that passed none gets one now."""
    known = getattr(request, "request_id", None)
    if known is None:
        known = str(uuid4())
        request.request_id = known  # type: ignore[union-attr]
    return str(known)
