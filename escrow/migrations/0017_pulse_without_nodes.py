from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("escrow", "0016_reserves"),
    ]

    operations = [
        migrations.RemoveField(model_name="pulse", name="nodes"),
    ]
