"""POST /v1/payments of the naive project: REST framework's own serializers and view."""

import hashlib
import json
from decimal import Decimal
from typing import Any, cast

from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from benchmarks.naive import payments
from benchmarks.naive.models import Payment, Session
from escrow import money


class PaymentIn(serializers.Serializer[Any]):
    """The body of the request."""

    to = serializers.CharField(max_length=255)
    amount = serializers.DecimalField(max_digits=18, decimal_places=6, min_value=Decimal("0.000001"))
    currency = serializers.ChoiceField(choices=["USDC"], default="USDC")
    metadata = serializers.DictField(default=dict)


class PaymentOut(serializers.ModelSerializer[Payment]):
    """The body of the answer: the members that /v1/payments gives."""

    to = serializers.CharField(source="agent.uri")
    agent = serializers.CharField(source="agent.uri")
    provider_id = serializers.UUIDField(source="agent.provider_id")
    amount = serializers.SerializerMethodField()
    currency = serializers.ReadOnlyField(default="USDC")
    kind = serializers.ReadOnlyField(default="call")
    remaining = serializers.SerializerMethodField()
    redeemed_at = serializers.ReadOnlyField(default=None)
    redeemed_before = serializers.ReadOnlyField(default=False)
    batch_id = serializers.ReadOnlyField(default=None)
    tx_hash = serializers.ReadOnlyField(default=None)
    next_actions = serializers.SerializerMethodField()

    class Meta:
        model = Payment
        fields = ["id", "session_id", "to", "agent", "provider_id", "amount", "currency", "status", "kind", "metadata"]
        fields += ["created_at", "remaining", "redeemed_at", "redeemed_before", "batch_id", "tx_hash", "next_actions"]

    def get_amount(self, payment: Payment) -> str:
        """Return the amount in USDC."""
        return money.render(payment.amount_micros)

    def get_remaining(self, payment: Payment) -> str:
        """Return what the budget had left right after, in USDC."""
        return money.render(payment.remaining_micros)

    def get_next_actions(self, payment: Payment) -> list[dict[str, str]]:
        """Return what makes sense now."""
        see = {"method": "GET", "path": f"/v1/payments/{payment.pk}", "why": "See what becomes of it."}
        dispute = {"method": "POST", "path": "/v1/disputes", "why": "Dispute it, with its payment_id and a reason."}
        return [see, dispute]


class PaymentView(APIView):
    """Payments."""

    def post(self, request: Request) -> Response:
        """Pay an agent."""
        idempotency_key = request.headers.get("Idempotency-Key", "")
        if not 1 <= len(idempotency_key) <= 255:
            raise ValidationError({"code": "idempotency_key_required"})
        body = PaymentIn(data=request.data)
        body.is_valid(raise_exception=True)
        given = body.validated_data
        payment = payments.pay(
            session=cast("Session", request.user),
            to=given["to"],
            amount_micros=int(given["amount"] * money.MICROS_PER_USDC),
            metadata=given["metadata"],
            idempotency_key=idempotency_key,
            request_hash=hashlib.sha256(json.dumps(request.data, sort_keys=True).encode()).digest(),
        )
        return Response(PaymentOut(payment).data, status=201)
