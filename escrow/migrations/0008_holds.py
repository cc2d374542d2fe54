"""Holds of their own: placed over the API, captured by the buyer, and over by themselves."""

import django.db.models.deletion
from django.db import migrations, models

FILL = """
UPDATE escrow_hold AS hold SET payer_id = pool.payer_id
FROM escrow_session AS session JOIN escrow_pool AS pool ON pool.id = session.pool_id
WHERE session.id = hold.session_id;

UPDATE escrow_hold AS hold SET payment_id = invoice.payment_id
FROM escrow_invoice AS invoice WHERE invoice.hold_id = hold.id AND invoice.payment_id IS NOT NULL;

-- The link to the payment is checked now, so that the columns can still change.
SET CONSTRAINTS ALL IMMEDIATE;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("escrow", "0007_refunds"),
    ]

    operations = [
        migrations.AddField(
            model_name="hold",
            name="expires_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="hold",
            name="metadata",
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(model_name="hold", name="payer_id", field=models.UUIDField(null=True)),
        migrations.AddField(
            model_name="hold",
            name="payment",
            field=models.OneToOneField(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="hold", to="escrow.payment"
            ),
        ),
        migrations.RunSQL(FILL),
        migrations.AlterField(model_name="hold", name="payer_id", field=models.UUIDField()),
        migrations.AlterField(
            model_name="hold",
            name="party",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="holds", to="escrow.party"
            ),
        ),
        migrations.AlterField(
            model_name="hold",
            name="session",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="holds", to="escrow.session"
            ),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(fields=["session", "created_at", "id"], name="hold_session"),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(fields=["party", "created_at", "id"], name="hold_party"),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(fields=["payer_id", "created_at", "id"], name="hold_payer"),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(
                condition=models.Q(("expires_at__isnull", False), ("status", "held")),
                fields=["expires_at"],
                name="hold_timer",
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.CheckConstraint(
                condition=models.Q(("payment__isnull", True), ("status", "captured"), _connector="OR"),
                name="hold_captured_into_a_payment",
            ),
        ),
    ]
