"""What the hot path reads at once: limits as columns, running sums on transfers, whose payment it is."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models.expressions import CombinedExpression
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions.comparison import Cast

FILL = """
UPDATE escrow_event SET payer_id = owner_id WHERE owner_kind = 'payer';
UPDATE escrow_event SET party_id = owner_id WHERE owner_kind = 'party';
UPDATE escrow_payment AS payment SET payer_id = pool.payer_id FROM escrow_pool AS pool WHERE pool.id = payment.pool_id;

ALTER TABLE escrow_transfer DISABLE TRIGGER transfers_only_grow;
UPDATE escrow_transfer AS transfer
SET sender_sent_micros = running.total, sender_nth = running.nth
FROM (
    SELECT id, sum(amount_micros) OVER earlier AS total, count(*) OVER earlier AS nth FROM escrow_transfer
    WINDOW earlier AS (PARTITION BY sender_id ORDER BY created_at, id)
) AS running
WHERE running.id = transfer.id;
ALTER TABLE escrow_transfer ENABLE TRIGGER transfers_only_grow;

ALTER TABLE escrow_account DISABLE TRIGGER accounts_follow_transfers;
UPDATE escrow_account AS account SET sent_count = sent.transfers
FROM (SELECT sender_id, count(*) AS transfers FROM escrow_transfer GROUP BY sender_id) AS sent
WHERE sent.sender_id = account.id;
ALTER TABLE escrow_account ENABLE TRIGGER accounts_follow_transfers;
"""


def amount_of(key: str) -> models.GeneratedField:
    """Return the column of one amount of a session's policy, in micro-USDC."""
    usdc = Cast(KeyTextTransform(key, "policy"), models.DecimalField(decimal_places=6, max_digits=20))
    return models.GeneratedField(
        db_persist=True,
        expression=Cast(CombinedExpression(usdc, "*", models.Value(1_000_000)), models.BigIntegerField()),
        output_field=models.BigIntegerField(null=True),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("escrow", "0002_ledger_guards"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="account",
            name="account_sums_not_negative",
        ),
        migrations.RemoveIndex(
            model_name="transfer",
            name="transfer_sender",
        ),
        migrations.RemoveIndex(
            model_name="transfer",
            name="transfer_receiver",
        ),
        migrations.AddField(
            model_name="account",
            name="sent_count",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="payment",
            name="payer_id",
            field=models.UUIDField(default="00000000-0000-0000-0000-000000000000"),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="session",
            name="max_per_day_micros",
            field=amount_of("max_per_day"),
        ),
        migrations.AddField(
            model_name="session",
            name="max_per_hour_micros",
            field=amount_of("max_per_hour"),
        ),
        migrations.AddField(
            model_name="session",
            name="max_per_tx_micros",
            field=amount_of("max_per_tx"),
        ),
        migrations.AddField(
            model_name="session",
            name="max_total_micros",
            field=amount_of("max_total"),
        ),
        migrations.AddField(
            model_name="session",
            name="max_tx_per_minute",
            field=models.GeneratedField(
                db_persist=True,
                expression=Cast(KeyTextTransform("max_tx_per_minute", "policy"), models.IntegerField()),
                output_field=models.IntegerField(null=True),
            ),
        ),
        migrations.AddField(
            model_name="transfer",
            name="sender_nth",
            field=models.BigIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="transfer",
            name="sender_sent_micros",
            field=models.BigIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.RemoveIndex(
            model_name="event",
            name="event_feed",
        ),
        migrations.AddField(
            model_name="event",
            name="party_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="event",
            name="payer_id",
            field=models.UUIDField(null=True),
        ),
        migrations.RunSQL(FILL),
        migrations.RemoveField(
            model_name="event",
            name="owner_id",
        ),
        migrations.RemoveField(
            model_name="event",
            name="owner_kind",
        ),
        migrations.RemoveIndex(model_name="event", name="event_unpublished"),
        migrations.RemoveField(model_name="event", name="position"),
        migrations.CreateModel(
            name="EventMark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("published_id", models.BigIntegerField(default=0)),
                ("pending_id", models.BigIntegerField(default=0)),
                ("pending_xid", models.BigIntegerField(default=0)),
            ],
            options={
                "constraints": [models.CheckConstraint(condition=models.Q(("pk", 1)), name="event_mark_once")],
            },
        ),
        migrations.AlterField(
            model_name="payment",
            name="record",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="payments",
                to="escrow.batchrecord",
            ),
        ),
        migrations.AlterField(
            model_name="transfer",
            name="receiver",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="transfers_in",
                to="escrow.account",
            ),
        ),
        migrations.AlterField(
            model_name="transfer",
            name="sender",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="transfers_out",
                to="escrow.account",
            ),
        ),
        migrations.AddIndex(
            model_name="payment",
            index=models.Index(fields=["payer_id", "id"], name="payment_payer"),
        ),
        migrations.AddIndex(
            model_name="payment",
            index=models.Index(condition=models.Q(("record__isnull", False)), fields=["record"], name="payment_record"),
        ),
        migrations.AddIndex(
            model_name="transfer",
            index=models.Index(fields=["sender", "created_at", "id"], name="transfer_sender"),
        ),
        migrations.AddIndex(
            model_name="transfer",
            index=models.Index(
                condition=models.Q(("reason", "payment"), _negated=True),
                fields=["receiver", "created_at", "id"],
                name="transfer_receiver",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(("received_micros__gte", 0), ("sent_count__gte", 0), ("sent_micros__gte", 0)),
                name="account_sums_not_negative",
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                fields=["payer_id", "id"], name="event_payer", condition=models.Q(("payer_id__isnull", False))
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                fields=["party_id", "id"], name="event_party", condition=models.Q(("party_id__isnull", False))
            ),
        ),
        migrations.AddConstraint(
            model_name="event",
            constraint=models.CheckConstraint(
                condition=models.Q(("payer_id__isnull", False), ("party_id__isnull", False), _connector="OR"),
                name="event_has_a_reader",
            ),
        ),
    ]
