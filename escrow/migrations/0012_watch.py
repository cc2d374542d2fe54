"""What operators look at, and what they did; the database keeps the latter as it was written."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

ONLY_ADDED = """
CREATE TRIGGER remedies_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON escrow_remedy
    FOR EACH STATEMENT EXECUTE FUNCTION escrow_refuse('what a person did stays on record');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("escrow", "0011_relay"),
    ]

    operations = [
        migrations.CreateModel(
            name="Pulse",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("worker", models.CharField(max_length=200, unique=True)),
                ("at", models.DateTimeField()),
                ("nodes", models.PositiveSmallIntegerField(default=0)),
                ("chain_id", models.BigIntegerField(null=True)),
                ("code_present", models.BooleanField(null=True)),
                ("head_block", models.BigIntegerField(null=True)),
                ("head_at", models.DateTimeField(null=True)),
                ("gas_price_wei", models.PositiveBigIntegerField(null=True)),
                ("signers", models.JSONField(default=dict)),
                ("error", models.TextField(blank=True)),
            ],
            options={
                "ordering": ("-at",),
            },
        ),
        migrations.CreateModel(
            name="Setback",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sweep", models.CharField(max_length=60)),
                ("subject", models.CharField(max_length=60)),
                ("failures", models.PositiveIntegerField(default=1)),
                ("error", models.TextField()),
                ("first_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("next_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("parked_at", models.DateTimeField(null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("parked_at__isnull", False)), fields=["parked_at"], name="setback_parked"
                    )
                ],
                "constraints": [models.UniqueConstraint(fields=("sweep", "subject"), name="setback_once")],
            },
        ),
        migrations.CreateModel(
            name="Remedy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("retry", "Retry"),
                            ("rebroadcast", "Rebroadcast"),
                            ("bump", "Bump"),
                            ("park", "Park"),
                            ("release", "Release"),
                            ("clear_signer", "Clear Signer"),
                            ("clear_cursor", "Clear Cursor"),
                            ("try_again", "Try Again"),
                        ],
                        max_length=20,
                    ),
                ),
                ("setback", models.CharField(blank=True, max_length=121)),
                ("by", models.CharField(max_length=150)),
                ("reason", models.TextField()),
                ("outcome", models.TextField()),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "action",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="remedies",
                        to="escrow.chainaction",
                    ),
                ),
                (
                    "cursor",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="remedies",
                        to="escrow.chaincursor",
                    ),
                ),
                (
                    "signer",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="remedies",
                        to="escrow.signernonce",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "remedies",
                "indexes": [
                    models.Index(
                        condition=models.Q(("setback", ""), _negated=True), fields=["setback"], name="remedy_setback"
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("reason", ""), _negated=True), models.Q(("by", ""), _negated=True)
                        ),
                        name="remedy_has_a_reason",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("action__isnull", False),
                                ("cursor__isnull", True),
                                ("setback", ""),
                                ("signer__isnull", True),
                            ),
                            models.Q(
                                ("action__isnull", True),
                                ("cursor__isnull", True),
                                ("setback", ""),
                                ("signer__isnull", False),
                            ),
                            models.Q(
                                ("action__isnull", True),
                                ("cursor__isnull", False),
                                ("setback", ""),
                                ("signer__isnull", True),
                            ),
                            models.Q(
                                ("action__isnull", True),
                                ("cursor__isnull", True),
                                ("signer__isnull", True),
                                models.Q(("setback", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="remedy_has_one_subject",
                    ),
                ],
            },
        ),
        migrations.RunSQL(ONLY_ADDED, "DROP TRIGGER remedies_only_grow ON escrow_remedy;"),
    ]
