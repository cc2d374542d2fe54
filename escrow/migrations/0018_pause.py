"""While the chain stands still, new spending stops once enough is owed: `escrow_judge` asks the cursor of the pool's contract.

It is the function of migration 0006 with one more reason why a session may not spend. The last of them: what is said of the
pool and the session themselves, and the answer to a request that was paid before, come first.
"""

from importlib import import_module

from django.db import migrations, models

BEFORE = import_module("escrow.migrations.0006_decide").JUDGE
LAST = "WHEN moment >= session.expires_at THEN 'session_expired'"
PAUSED = """
                    WHEN EXISTS (
                        SELECT FROM escrow_chaincursor AS cursor
                        WHERE cursor.chain_id = pool.chain_id AND cursor.contract_address = pool.contract_address
                            AND cursor.paused_at IS NOT NULL
                    ) THEN 'settlement_paused'"""
AFTER = BEFORE.replace(LAST, LAST + PAUSED)


def _replacing(function: str) -> str:
    return function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


class Migration(migrations.Migration):
    dependencies = [("escrow", "0017_pulse_without_nodes")]

    operations = [
        migrations.AddField(model_name="chaincursor", name="head_time", field=models.DateTimeField(null=True)),
        migrations.AddField(model_name="chaincursor", name="paused_at", field=models.DateTimeField(null=True)),
        migrations.RunSQL(_replacing(AFTER), _replacing(BEFORE)),
    ]
