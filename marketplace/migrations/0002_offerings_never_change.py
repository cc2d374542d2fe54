"""Offerings are only ever added: what somebody bought under a price stays readable as it was."""

from typing import ClassVar

from django.db import migrations

FORWARD = """
CREATE FUNCTION marketplace_offering_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'offerings never change: publish another version' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER offering_is_final BEFORE UPDATE OR DELETE ON marketplace_offering
    FOR EACH ROW EXECUTE FUNCTION marketplace_offering_is_final();
"""

BACKWARD = """
DROP TRIGGER offering_is_final ON marketplace_offering;
DROP FUNCTION marketplace_offering_is_final();
"""


class Migration(migrations.Migration):
    """The trigger that keeps them."""

    dependencies: ClassVar = [("marketplace", "0001_initial")]
    operations: ClassVar = [migrations.RunSQL(FORWARD, BACKWARD)]
