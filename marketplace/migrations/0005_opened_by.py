"""Which key opened the session that a key is of: a thief's go together."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("marketplace", "0004_webhooks"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="opened_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="opened",
                to="marketplace.apikey",
            ),
        ),
    ]
