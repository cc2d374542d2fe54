"""Refunds in parts, before and after a payment has landed: what went back of each payment, and which debts paid for it."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import escrow.models.types

FILL = """
UPDATE escrow_payment SET refunded_micros = amount_micros, deducted_micros = amount_micros WHERE status = 'refunded';
"""

TELL = """
INSERT INTO escrow_refund (
    payment_id, session_id, party_id, payer_id, amount_micros, status, reason, answer, created_at, answered_at
)
SELECT
    payment.id, payment.session_id, payment.party_id, payment.payer_id, payment.amount_micros, 'paid', payment.reason, '',
    transfer.created_at, transfer.created_at
FROM escrow_payment AS payment
JOIN escrow_transfer AS transfer ON transfer.ref = payment.id::text AND transfer.reason = 'refund'
WHERE payment.status = 'refunded';

INSERT INTO escrow_deduction (refund_id, payment_id, amount_micros)
SELECT id, payment_id, amount_micros FROM escrow_refund;
"""

GUARDS = """
CREATE FUNCTION escrow_keep_what_was_signed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.deducted_micros < OLD.deducted_micros OR NEW.refunded_micros < OLD.refunded_micros THEN
        RAISE EXCEPTION 'what was given back of a payment only grows' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.deducted_micros <> OLD.deducted_micros AND OLD.status <> 'payable' THEN
        RAISE EXCEPTION 'a % payment gives nothing back: its batch was signed for the rest', OLD.status
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER payments_keep_what_was_signed BEFORE UPDATE OF deducted_micros, refunded_micros ON escrow_payment
    FOR EACH ROW EXECUTE FUNCTION escrow_keep_what_was_signed();

CREATE TRIGGER deductions_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON escrow_deduction
    FOR EACH STATEMENT EXECUTE FUNCTION escrow_refuse('a correction is another transfer');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("escrow", "0006_decide"),
    ]

    operations = [
        migrations.CreateModel(
            name="Deduction",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("amount_micros", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Refund",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=escrow.models.types.UuidV7(), editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("payer_id", models.UUIDField()),
                ("amount_micros", models.BigIntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("requested", "Requested"),
                            ("paid", "Paid"),
                            ("declined", "Declined"),
                            ("lapsed", "Lapsed"),
                        ],
                        max_length=9,
                    ),
                ),
                ("reason", models.TextField()),
                ("answer", models.TextField(blank=True)),
                ("answer_by", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("answered_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="payment",
            name="payment_in_batch_when_settling",
        ),
        migrations.AddField(
            model_name="payment",
            name="deducted_micros",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="payment",
            name="refunded_micros",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.RunSQL(FILL),
        migrations.AlterField(
            model_name="payment",
            name="status",
            field=models.CharField(
                choices=[
                    ("payable", "Payable"),
                    ("settling", "Settling"),
                    ("settled", "Settled"),
                    ("refunded", "Refunded"),
                    ("offset", "Offset"),
                    ("disputed", "Disputed"),
                ],
                default="payable",
                max_length=8,
            ),
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("record__isnull", False), ("status__in", ["settling", "settled"])),
                    models.Q(("record__isnull", True), ("status__in", ["payable", "refunded", "offset", "disputed"])),
                    _connector="OR",
                ),
                name="payment_in_batch_when_settling",
            ),
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(
                condition=models.Q(("refunded_micros__gte", 0), ("refunded_micros__lte", models.F("amount_micros"))),
                name="payment_refunded_at_most_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("deducted_micros__gte", 0),
                    models.Q(
                        models.Q(
                            ("deducted_micros", models.F("amount_micros")), ("status__in", ["refunded", "offset"])
                        ),
                        models.Q(
                            ("deducted_micros__lt", models.F("amount_micros")),
                            ("status__in", ["payable", "settling", "settled", "disputed"]),
                        ),
                        _connector="OR",
                    ),
                ),
                name="payment_used_up_when_gone",
            ),
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status", "refunded"), _negated=True),
                    ("refunded_micros", models.F("amount_micros")),
                    _connector="OR",
                ),
                name="payment_refunded_as_a_whole",
            ),
        ),
        migrations.AddField(
            model_name="deduction",
            name="payment",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="deductions", to="escrow.payment"
            ),
        ),
        migrations.AddField(
            model_name="refund",
            name="party",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="refunds", to="escrow.party"
            ),
        ),
        migrations.AddField(
            model_name="refund",
            name="payment",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="refunds", to="escrow.payment"
            ),
        ),
        migrations.AddField(
            model_name="refund",
            name="session",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="refunds", to="escrow.session"
            ),
        ),
        migrations.AddField(
            model_name="deduction",
            name="refund",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="deductions",
                to="escrow.refund",
            ),
        ),
        migrations.AddIndex(
            model_name="refund",
            index=models.Index(fields=["session", "id"], name="refund_session"),
        ),
        migrations.AddIndex(
            model_name="refund",
            index=models.Index(fields=["party", "id"], name="refund_party"),
        ),
        migrations.AddIndex(
            model_name="refund",
            index=models.Index(fields=["payer_id", "id"], name="refund_payer"),
        ),
        migrations.AddIndex(
            model_name="refund",
            index=models.Index(condition=models.Q(("status", "requested")), fields=["answer_by"], name="refund_timer"),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(condition=models.Q(("amount_micros__gt", 0)), name="refund_positive"),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status", "requested"), _negated=True), ("answer_by__isnull", False), _connector="OR"
                ),
                name="refund_waits_for_an_answer",
            ),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status__in", ["declined", "lapsed"]), _negated=True),
                    models.Q(("answered_at__isnull", False), models.Q(("answer", ""), _negated=True)),
                    _connector="OR",
                ),
                name="refund_answered_in_words",
            ),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "requested")), fields=("payment",), name="refund_requested_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="deduction",
            constraint=models.UniqueConstraint(fields=("refund", "payment"), name="deduction_once"),
        ),
        migrations.AddConstraint(
            model_name="deduction",
            constraint=models.CheckConstraint(condition=models.Q(("amount_micros__gt", 0)), name="deduction_positive"),
        ),
        migrations.RunSQL(TELL + GUARDS),
    ]
